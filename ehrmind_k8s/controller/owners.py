"""How long nobody has followed a run that is to end with whoever follows it: a run with the annotation `ehrmind.dev/cancel-unless-followed`.

Its follower renews the Lease `<run>-owner`. Nobody's wall clock counts: what is measured, with this machine's monotonic clock, is how long the
Lease has not changed, as in an election of leaders. A new leader that has seen nothing yet gives the follower its whole time again.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterable

Key = tuple[str, str]  # namespace and name of a run


class Owners:
    """Signs of life of followers, by run. `renewed` tells when a run's Lease was renewed last, as text, "" where there is no Lease."""

    def __init__(self, renewed: Callable[[Key], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._renewed, self._clock = renewed, clock
        self._seen: dict[Key, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def heard(self, keys: Iterable[Hashable]) -> None:
        """Leases of these runs have changed."""
        for key in keys:
            if isinstance(key, tuple):
                self.silent_s((key[0], key[1]))

    def silent_s(self, key: Key) -> float:
        """Seconds since the last sign of life of a run's follower; since the first look where there was none."""
        now, renewed = self._clock(), self._renewed(key)
        with self._lock:
            known = self._seen.get(key)
            if known is None or known[0] != renewed:
                known = self._seen[key] = (renewed, now)
        return now - known[1]

    def forget(self, key: Key) -> None:
        """The run is gone."""
        with self._lock:
            self._seen.pop(key, None)
