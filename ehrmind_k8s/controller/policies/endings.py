"""How a run ends: succeeded, failed or cancelled. An end is written once and never changes, unless `spec.attempt` is raised."""

from dataclasses import replace

from ehrmind_k8s import crd
from ehrmind_k8s.controller.policies import words
from ehrmind_k8s.controller.policies.admission import Case
from ehrmind_k8s.controller.records import Child
from ehrmind_k8s.controller.state import Stage, State

DEADLINE = "DeadlineExceeded"
CANCELLED = "Cancelled"
ALONE = "NotFollowed"


def succeed(current: State, now: float) -> State:
    """All stages are done."""
    score = next((s.score for s in current.stages if s.name == "evaluate"), None)
    told = words.headline(current.headline, score)
    message = f"Succeeded: {told}" if told else "Succeeded"
    return replace(current, state=crd.SUCCEEDED, completed=now, reason="Succeeded", score=score, message=message)


def fail(current: State, stage: Stage, case: Case, now: float) -> State:
    """A stage failed for good."""
    assert case.run
    return _end(current, crd.FAILED, stage.reason or "Failed", f"Failed: {words.failure(stage, case.run)}", now)


def cancel(current: State, now: float) -> State:
    """Somebody asked for it."""
    return _end(current, crd.CANCELLED, CANCELLED, f"Cancelled{_where(current)}; what was stored stays", now)


def alone(current: State, now: float) -> State:
    """Nobody follows a run that is to end with whoever does."""
    text = f"nobody has followed it for {crd.FOLLOWED_S:.0f} s{_where(current)}; what was stored stays"
    return _end(current, crd.CANCELLED, ALONE, f"Cancelled: {text}", now)


def late(current: State, deadline_s: int, now: float) -> State:
    """The deadline has passed."""
    text = f"policy.deadlineS ({deadline_s} s) passed{_where(current)}; to continue, raise it and spec.attempt"
    return _end(current, crd.FAILED, DEADLINE, f"Failed: {text}", now)


def clash(current: State, stranger: Child, now: float) -> State:
    """Somebody else's object has a name that this run needs."""
    text = f"{stranger.kind} {stranger.name} exists and belongs to somebody else; remove it and raise spec.attempt, or give the run another name"
    return _end(current, crd.FAILED, "NameConflict", f"Failed: {text}", now)


def refuse(current: State, reason: str, message: str, now: float) -> State:
    """The document makes no run."""
    return _end(current, crd.FAILED, reason, f"Failed: {message}", now)


def _end(current: State, state: str, reason: str, message: str, now: float) -> State:
    stage = current.current
    if stage and stage.active:
        current = current.having(replace(stage, state="failed", reason=reason, ended=now))
    return replace(current, state=state, completed=now, reason=reason, message=message)


def _where(current: State) -> str:
    """` at RLVR step 12/30`, or nothing before the first stage."""
    stage = current.current
    return f" at {words.position(stage, current.progress)}" if stage and stage.attempt else ""
