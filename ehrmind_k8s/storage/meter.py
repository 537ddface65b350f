"""How far a long download is."""

import threading
import time

from ehrmind_k8s import logs

EVERY_S = 5.0


class Meter:
    """Tells (event `fetch`) how much of `total_bytes` has arrived, at most every EVERY_S seconds: a short download is never told of."""

    def __init__(self, what: str, total_bytes: int) -> None:
        self.what, self.total_bytes = what, total_bytes
        self._done_bytes, self._told = 0, time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        """`count` more bytes are there."""
        with self._lock:
            self._done_bytes += count
            now = time.monotonic()
            if now - self._told < EVERY_S:
                return
            self._told = now
        logs.event("fetch", what=self.what, done_bytes=self._done_bytes, total_bytes=self.total_bytes)
