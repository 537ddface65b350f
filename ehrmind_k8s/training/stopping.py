"""SIGTERM while training: leave in order, within the grace of a pod.

A step that computes is finished and saved. One that waits for samples is abandoned at once: servers that end at the same moment (a run that
is suspended, a node that is drained) would answer too late or never, and nothing of the step has reached the weights yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ehrmind_k8s.training import ranks


class Abandoned(BaseException):
    """The step in flight is given up; what the last whole step left is in memory. No Exception: libraries turn those into errors of their own."""


class Stop:
    """The handler of SIGTERM. `asked` says that one came."""

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """The first one asks, and ends a wait. A second one leaves at once."""
        if self.asked:
            raise SystemExit(143)
        self.asked = True
        if self._waiting:
            raise Abandoned

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for samples; raises Abandoned when SIGTERM has come or comes.

        With several ranks it only comes to an end by itself: one that left alone would leave the others inside a collective.
        """
        if ranks.size() == 1 and self.asked:
            raise Abandoned
        self._waiting = ranks.size() == 1
        try:
            yield
        finally:
            self._waiting = False
