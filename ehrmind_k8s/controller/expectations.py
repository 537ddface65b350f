"""What was written and not seen yet. A cache that lags behind our own writes would make us do them again.

After a write the run waits until the caches show it, or 5 s. Resource versions of one kind grow, so a cache that has heard of a later one has
heard of ours too, whether the object still exists or not.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from ehrmind_k8s.controller.caches import Caches, Key
from ehrmind_k8s.controller.records import Delete
from ehrmind_k8s.controller.runtime.store import number

LONGEST_S = 5.0


class Expectations:
    """By run: what the caches must show before it is looked at again."""

    def __init__(self, caches: Caches, clock: Callable[[], float] = time.monotonic) -> None:
        self._caches, self._clock = caches, clock
        self._lock = threading.Lock()
        self._waiting: dict[Key, list[tuple[float, Callable[[], bool]]]] = defaultdict(list)

    def written(self, key: Key, obj: Mapping[str, Any]) -> None:
        """`obj` is what the server answered to a write."""
        version, namespace, kind = number(obj["metadata"].get("resourceVersion", "")), key[0], obj["kind"]
        self._expect(key, lambda: _version(self._caches, kind, namespace) >= version)

    def deleted(self, key: Key, delete: Delete) -> None:
        """The server took this delete."""

        def seen() -> bool:
            store = self._caches.store(delete.kind, key[0])
            entry = store.entry(key[0], delete.name) if store else None
            return entry is None or entry.uid != delete.uid or entry.deleting

        self._expect(key, seen)

    def behind_s(self, key: Key) -> float:
        """How long at most to wait for the caches; 0 when they show everything, or never will."""
        now = self._clock()
        with self._lock:
            left = [(end, seen) for end, seen in self._waiting.get(key, ()) if end > now and not seen()]
            if left:
                self._waiting[key] = left
                return max(end for end, _ in left) - now
            self._waiting.pop(key, None)
            return 0.0

    def forget(self, key: Key) -> None:
        """Expect nothing more."""
        with self._lock:
            self._waiting.pop(key, None)

    def _expect(self, key: Key, seen: Callable[[], bool]) -> None:
        with self._lock:
            self._waiting[key].append((self._clock() + LONGEST_S, seen))


def _version(caches: Caches, kind: str, namespace: str) -> float:
    store = caches.store(kind, namespace)
    return store.version if store else float("inf")
