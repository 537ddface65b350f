"""Every route of a rollout server asks for the run's token, except /health.

vLLM's own --api-key guards /v1 alone: generation by /invocations and the control routes stay open beside it.
"""

import hmac
import os
from typing import Any

OPEN = frozenset({"/health"})


class Auth:
    """ASGI middleware (vLLM: --middleware). The token comes from the environment, since an argument line is public."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.wanted = b"Bearer " + os.environ["EHRMIND_RUN_TOKEN"].encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or answer 401 (a websocket: 1008)."""
        if scope["type"] == "lifespan" or scope["path"] in OPEN or self._knows(scope["headers"]):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0"), (b"www-authenticate", b"Bearer")]})
            await send({"type": "http.response.body", "body": b""})

    def _knows(self, headers: list[tuple[bytes, bytes]]) -> bool:
        return hmac.compare_digest(dict(headers).get(b"authorization", b""), self.wanted)
