"""The run's token: what every route of its rollout servers but /health asks for.

It lives in the run's store, beside the weights that it protects: whoever reads one may read the other, and no pod and no operator needs a
right on a cluster's Secrets. The local backend makes one per submit instead (EHRMIND_RUN_TOKEN).
"""

import secrets
import time

from ehrmind_k8s import artifacts
from ehrmind_k8s.errors import IntegrityError
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import ObjectStore

SETTLE_S = 1.0


def of(store: ObjectStore, settings: Settings) -> str:
    """The token of the run that `store` is rooted at; the first who asks makes it. EHRMIND_RUN_TOKEN wins. Never log it."""
    if settings.run_token and settings.run_token.get_secret_value():
        return settings.run_token.get_secret_value()
    try:
        return _read(store)
    except KeyError:
        if store.put_if_absent(artifacts.TOKEN, secrets.token_urlsafe(32).encode()):
            time.sleep(SETTLE_S)  # a server that enforces nothing lets another writer overtake: whoever was last is in the store by then
        return _read(store)


def _read(store: ObjectStore) -> str:
    token = store.get_bytes(artifacts.TOKEN).decode(errors="replace").strip()
    if not token.isascii() or not token.isprintable() or len(token) < 16:
        raise IntegrityError(f"{store.uri}/{artifacts.TOKEN}: not a token; delete it, and the next server or stage makes another")
    return token
