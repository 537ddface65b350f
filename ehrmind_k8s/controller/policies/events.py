"""What is worth a line in `kubectl describe`: the difference between two states. Each happens once, since it is told with the write of the second.

A normal run has about a dozen: Accepted, StageStarted and StageSucceeded for each stage, Completed.
"""

from collections.abc import Iterator

from ehrmind_k8s import crd
from ehrmind_k8s.controller.policies import outcomes, words
from ehrmind_k8s.controller.policies.endings import DEADLINE
from ehrmind_k8s.controller.records import Event
from ehrmind_k8s.controller.state import Stage, State

QUIET = ("Queued", "Suspended")  # reasons of Progressing that have an event of their own, or none


def between(before: State, after: State) -> tuple[Event, ...]:
    """The events of going from one state to the next."""
    return (*_run(before, after), *(e for s in after.stages for e in _stage(before.stage(s.name), s, after)), *_end(before, after))


def _run(before: State, after: State) -> Iterator[Event]:
    if after.holds("Accepted") and not before.holds("Accepted"):
        yield Event("Normal", "Accepted", f"Accepted: {after.conditions['Accepted'].message}")
    if after.holds("Suspended") and not before.holds("Suspended"):
        yield Event("Normal", "Suspended", after.message)
    if before.holds("Suspended") and not after.holds("Suspended"):
        yield Event("Normal", "Resumed", "Resumed: the stage under way goes on from its last checkpoint")
    lost = after.rollout.get("ready", 0) < before.rollout.get("ready", 0)  # not so where somebody asked for more
    if lost and before.holds("RolloutsReady") and not after.holds("RolloutsReady") and after.rollout.get("replicas"):
        yield Event("Warning", "RolloutDegraded", after.conditions["RolloutsReady"].message)
    old, new = before.conditions.get("Progressing"), after.conditions.get("Progressing")
    stuck = new and new.status == "False" and new.reason not in QUIET and not after.ended
    if new and stuck and (not old or old.status == "True" or old.reason != new.reason):
        yield Event("Warning", "Stuck", after.message)


def _stage(old: Stage, new: Stage, after: State) -> Iterator[Event]:
    name = f"{new.name}-a{new.attempt}"
    if new.attempt > old.attempt:
        yield Event("Normal", "StageStarted", f"{name}: {new.kind} {new.child}")
    if new.state == "queued" and old.state != "queued":
        yield Event("Normal", "Queued", after.message)
    if new.done and not old.done:
        took = f" in {new.seconds:.0f} s" if new.seconds is not None else ""
        yield Event("Normal", "StageSucceeded", f"{name} {new.state}{took}")
    if old.active and new.state == "pending" and new.reason != outcomes.SUSPENDED:
        again = f"{name}: {words.cause(new)}"
        if outcomes.counted(new):
            yield Event("Warning", "AttemptRetried", f"{again}; retry {new.retries}")
        else:  # Preempted, NodeLost, Fenced
            yield Event("Warning", new.reason, f"{again}; it goes on as the next attempt, which does not count as a retry")


def _end(before: State, after: State) -> Iterator[Event]:
    if not after.ended or before.state == after.state:
        return
    if after.state == crd.SUCCEEDED:
        yield Event("Normal", "Completed", after.message)
    elif after.state == crd.CANCELLED:
        yield Event("Normal", "Cancelled", after.message)
    else:
        yield Event("Warning", DEADLINE if after.reason == DEADLINE else "Failed", after.message)
