"""How long nobody has followed a run that is to end with whoever follows it: a run with the annotation `ehrmind.dev/cancel-unless-followed`.

Its follower renews the Lease `<run>-owner`. Nobody's wall clock counts: what is measured, with this machine's monotonic clock, is how long the
Lease has not changed, as in an election of leaders. A new leader that has seen nothing yet gives the follower its whole time again, and so
does one that has not been able to see Leases: that it is deaf is not the follower's fault.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

Key = tuple[str, str]  # namespace and name of a run


@dataclass(frozen=True, slots=True)
class Sign:
    """The last sign of life: of which run (uid), what the Lease said, and when it was seen."""

    uid: str
    renewed: str
    at: float


class Owners:
    """Signs of life of followers, by run.

    `renewed` tells when a run's Lease was renewed last, as text, "" where there is no Lease; `deaf` whether Leases cannot be seen just now.
    """

    def __init__(self, renewed: Callable[[Key], str], deaf: Callable[[Key], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._renewed, self._deaf, self._clock = renewed, deaf, clock
        self._seen: dict[Key, Sign] = {}
        self._lock = threading.Lock()

    def heard(self, keys: Iterable[Hashable]) -> None:
        """Leases of these runs have changed."""
        for key in keys:
            if isinstance(key, tuple) and (known := self._seen.get((key[0], key[1]))):
                self.silent_s((key[0], key[1]), known.uid)

    def silent_s(self, key: Key, uid: str) -> float:
        """Seconds since the last sign of life of the follower of the run with this uid; since the first look where there was none."""
        now, renewed, deaf = self._clock(), self._renewed(key), self._deaf(key)
        with self._lock:
            known = self._seen.get(key)
            if known is None or deaf or (known.uid, known.renewed) != (uid, renewed):
                known = self._seen[key] = Sign(uid, renewed, now)
        return now - known.at

    def forget(self, key: Key) -> None:
        """The run is gone."""
        with self._lock:
            self._seen.pop(key, None)
