"""Which keys to look at, and when: each at most once in the line, each in the hands of one worker, failing ones later and later.

A key is a name, not an event: whoever gets it reads the newest state of everything, so ten events that come together cost one look.
"""

import heapq
import random
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

BACKOFF_S = (0.005, 300.0)
PACE_S = 1.0  # news brings a failing key forward, but no oftener than this: it may fail because of what its own news tell


class Queue(Generic[Key]):
    """Keys with the time at which each is due. All methods are safe from any thread."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),
        waited: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`waited` hears of every key that is handed out how long it was due (seconds)."""
        self._clock, self._jitter, self._waited = clock, jitter, waited
        self._lock = threading.Condition()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []  # may hold entries that are no longer true; `_due` decides
        self._counter = 0
        self._working: dict[Key, float] = {}
        self._again: dict[Key, float] = {}  # what came for a key while a worker had it
        self._failures: dict[Key, int] = {}
        self._open = True

    def add(self, key: Key) -> None:
        """Something about `key` changed: look at it now."""
        with self._lock:
            self._enter(key, self._clock() + (PACE_S if self._failures.get(key) else 0.0))

    def add_after(self, key: Key, delay_s: float) -> None:
        """Look at `key` in `delay_s`, or earlier when something else asks for that."""
        with self._lock:
            self._enter(key, self._clock() + delay_s)

    def get(self, timeout_s: float | None = None) -> Key | None:
        """The next key that is due; it is the caller's until `done`. None when the time is over, or the queue is closed."""
        with self._lock:
            end = None if timeout_s is None else self._clock() + timeout_s
            while self._open:
                now = self._clock()
                due = self._next(now)
                if due is None:
                    key = heapq.heappop(self._heap)[2]
                    self._waited(now - self._due.pop(key))
                    self._working[key] = now
                    return key
                until = due if end is None else min(due, end)
                if end is not None and now >= end:
                    return None
                self._lock.wait(None if until == float("inf") else max(0.0, until - now))
            return None

    def done(self, key: Key) -> None:
        """The caller has looked at `key` and it went well."""
        with self._lock:
            self._failures.pop(key, None)
            self._release(key)

    def retry(self, key: Key, at_least_s: float = 0.0) -> float:
        """The caller has looked at `key` and it failed: again after a pause, twice as long as the last. Returns that pause."""
        with self._lock:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            first, longest = BACKOFF_S
            pause = max(at_least_s, min(longest, first * 2.0 ** min(failures, 32)) * self._jitter())
            self._release(key)
            self._enter(key, self._clock() + pause)
            return pause

    def hold(self, key: Key, delay_s: float) -> None:
        """The caller could not look at `key` yet: again in `delay_s`, or at the next news. Says nothing about success or failure."""
        with self._lock:
            self._release(key)
            self._enter(key, self._clock() + delay_s)

    def failing(self, key: Key) -> bool:
        """Whether the last look at `key` failed."""
        return key in self._failures

    def depth(self) -> int:
        """Keys that are due and that nobody works on yet."""
        with self._lock:
            now = self._clock()
            return sum(due <= now for due in self._due.values())

    def oldest_s(self) -> float:
        """How long the slowest worker has had its key; 0 when none has one."""
        with self._lock:
            return max((self._clock() - since for since in self._working.values()), default=0.0)

    @property
    def closed(self) -> bool:
        """Whether it hands out no key any more."""
        return not self._open

    def close(self) -> None:
        """No key is handed out any more; whoever waits in `get` returns."""
        with self._lock:
            self._open = False
            self._lock.notify_all()

    def _enter(self, key: Key, due: float) -> None:
        waiting = self._again if key in self._working else self._due
        if due >= waiting.get(key, float("inf")):
            return
        waiting[key] = due
        if waiting is self._due:
            self._counter += 1
            heapq.heappush(self._heap, (due, self._counter, key))
            self._lock.notify()

    def _next(self, now: float) -> float | None:
        """None when the top of the heap is due now; else when it will be (infinity: nothing waits)."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if not self._heap:
            return float("inf")
        return None if self._heap[0][0] <= now else self._heap[0][0]

    def _release(self, key: Key) -> None:
        del self._working[key]
        due = self._again.pop(key, None)
        if due is not None:
            self._enter(key, due)
