"""Ends by the clock: `policy.deadline_s` for a run that goes on, silence of who follows it, `policy.ttl_s` for the object of one that is over.

The clock is the operator's. A time written by a clock that was ahead only makes either later.
"""

from ehrmind_k8s.controller.policies import endings
from ehrmind_k8s.controller.state import State
from ehrmind_k8s.controller.state import left_s as _left_s
from ehrmind_k8s.crd import FOLLOWED_S, Run


def left_s(current: State, run: Run, now: float) -> float | None:
    """Seconds until the deadline, 0 when it has passed; None without one. Waiting and suspended time counts."""
    deadline = run.spec.policy.deadline_s
    return None if deadline is None or not current.started else max(0.0, current.started + deadline - now)


def ended(current: State, run: Run, now: float) -> State | None:
    """The run as its deadline ends it, None before that."""
    deadline = run.spec.policy.deadline_s
    return endings.late(current, deadline, now) if deadline and left_s(current, run, now) == 0 else None


def alone_s(current: State, silent_s: float | None, now: float) -> float | None:
    """Seconds for which a run goes on without a sign of life of who follows it, 0 when they are over; None where it depends on nobody.

    Raising `spec.attempt` is a sign of life too, which may be seen before the Lease is.
    """
    if silent_s is None:
        return None
    return max(0.0, FOLLOWED_S - silent_s, _left_s(current.started, FOLLOWED_S, now))


def kept_s(current: State, run: Run, now: float) -> float | None:
    """Seconds that the object of a finished run is still kept, 0 when it may go; None: for ever. What the run stored stays."""
    ttl = run.spec.policy.ttl_s
    return None if ttl is None or not current.completed else max(0.0, current.completed + ttl - now)
