"""How fast we may write: a token bucket, and a pause when the server asks for one."""

import threading
import time
from collections.abc import Callable


class Bucket:
    """`per_s` calls a second on average, `burst` at once. Safe from any thread."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep) -> None:
        self.per_s, self.burst = per_s, burst
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._full = clock()  # when the bucket is or was full again; each call moves it on by 1/per_s

    def wait(self) -> float:
        """Take one call, waiting for it; returns the seconds waited. Calls are served in the order they came."""
        with self._lock:
            now = self._clock()
            pause = self._take(now)
        if pause > 0:
            self._sleep(pause)
        return pause

    def allow(self) -> bool:
        """Take one call if that needs no waiting."""
        with self._lock:
            now = self._clock()
            if max(self._full, now) + 1 / self.per_s - now > self.burst / self.per_s:
                return False
            self._take(now)
            return True

    def pause(self, seconds: float) -> None:
        """The server wants no call for `seconds`."""
        with self._lock:
            self._full = max(self._full, self._clock() + seconds + (self.burst - 1) / self.per_s)

    def _take(self, now: float) -> float:
        self._full = max(self._full, now) + 1 / self.per_s
        return max(0.0, self._full - now - self.burst / self.per_s)
