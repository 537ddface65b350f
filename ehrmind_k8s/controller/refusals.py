"""What the API server refused for a reason that a person can mend, by object, until it takes it or nobody wants it any more.

A decision that does not try an object again says nothing about it: the refusal of a child that the status counts on stays.

A refusal reads `Code Kind/name: the server's sentence`. Codes: QuotaExceeded, NamespaceTerminating, WebhookDenied, WebhookUnavailable,
PolicyDenied, Forbidden, NameTaken, NotServed, Invalid.
"""

import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

from ehrmind_k8s.controller.caches import Key
from ehrmind_k8s.kubeapi import AlreadyExists, ApiError, Invalid, NotFound, Refused

SENTENCE = 300
STRANGER_S = 60.0  # nobody tells us when a stranger's object goes: it is asked for again after this time

MOST = 8  # refusals kept of a run

Object = dict[str, Any]
Name = tuple[str, str]  # kind and name


def refusal(error: ApiError, kind: str, name: str) -> str:
    """An error as a refusal; "" when it is not one, but something that time or a new look at the objects mends."""
    code = _code(error)
    return f"{code} {kind}/{name}: {error.message[:SENTENCE]}" if code else ""


def _code(error: ApiError) -> str:
    if "admission webhook" in error.message and "denied the request" in error.message:
        return "WebhookDenied"  # whatever status the webhook chose
    if "failed calling webhook" in error.message:
        return "WebhookUnavailable"
    if "ValidatingAdmissionPolicy" in error.message and "denied request" in error.message:
        return "PolicyDenied"
    if "NamespaceTerminating" in error.codes:
        return "NamespaceTerminating"
    if isinstance(error, Refused):
        return "QuotaExceeded" if "exceeded quota" in error.message else "Forbidden"
    kinds: dict[type[ApiError], str] = {AlreadyExists: "NameTaken", NotFound: "NotServed", Invalid: "Invalid"}
    return kinds.get(type(error), "Invalid" if error.status == 413 else "")


class Refusals:
    """By run: what is refused, and objects of strangers under names that the run wants."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: dict[Key, dict[Name, str]] = {}
        self._strangers: dict[Key, dict[tuple[str, str], tuple[float, Object]]] = {}

    def of(self, key: Key) -> tuple[str, ...]:
        """What the server refused of what this run needs, the oldest first."""
        return tuple(self._refused.get(key, {}).values())

    def remember(self, key: Key, tried: Mapping[Name, str], awaited: Collection[Name]) -> bool:
        """`tried` just now: what the server said, "" when it took it. Of what was refused before, `awaited` is still wanted; the rest is
        forgotten. Returns whether anything is refused."""
        with self._lock:
            before = self._refused.pop(key, {})
            found = {o: tried.get(o, text) for o, text in before.items() if o in tried or o in awaited} | dict(tried)
            if refused := {o: text for o, text in found.items() if text}:
                self._refused[key] = dict(list(refused.items())[:MOST])
        return bool(refused)

    def stranger(self, key: Key, obj: Object) -> None:
        """An object that has a name this run wants, and is not the run's."""
        with self._lock:
            mine = self._strangers.setdefault(key, {})
            mine[obj["kind"], obj["metadata"]["name"]] = (time.monotonic() + STRANGER_S, obj)

    def strangers(self, key: Key) -> list[Object]:
        """Objects of strangers, as far as they were seen lately."""
        now = time.monotonic()
        with self._lock:
            return [obj for end, obj in self._strangers.get(key, {}).values() if end > now]

    def forget(self, key: Key) -> None:
        """The run is gone."""
        with self._lock:
            self._refused.pop(key, None)
            self._strangers.pop(key, None)
