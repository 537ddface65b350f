"""How an attempt ended: every way that a stage, a pod or a node can end, and what follows."""

from dataclasses import replace

import pytest

from ehrmind_k8s import errors
from ehrmind_k8s.controller.policies import outcomes
from ehrmind_k8s.controller.policies.outcomes import Attempt, Outcome
from ehrmind_k8s.controller.records import Phase, Pod, Report
from ehrmind_k8s.controller.state import Stage

SFT = Stage("sft", "running", attempt=2)


def a_pod(code: int | None = None, reason: str = "", *, leader: bool = True, how: str = "Error", disrupted: bool = False, attempt: int = 2) -> Pod:
    """A pod of the second attempt of sft; with a `reason`, its report says so."""
    report = Report("sft", attempt, reason, code or 0, 0.5) if reason else None
    phase = "Running" if code is None else "Failed" if code else "Succeeded"
    return Pod("p", "u", "sft", 2, phase, leader=leader, exit_code=code, exit_reason=how if code else "", disrupted=disrupted, report=report)


def judged(phase: Phase, *pods: Pod) -> Outcome | None:
    return outcomes.judge(Attempt(SFT, pods), phase)


CASES: dict[str, tuple[Phase, list[Pod], tuple[str, str, bool]]] = {
    "a success": ("succeeded", [a_pod(0, "ok")], ("succeeded", "ok", True)),
    "nothing to do": ("succeeded", [a_pod(0, "skipped")], ("skipped", "skipped", True)),
    "a bug of ours": ("failed", [a_pod(1, "EhrmindError")], ("failed", "EhrmindError", True)),
    "a torn artifact": ("failed", [a_pod(20, "IntegrityError")], ("failed", "IntegrityError", True)),
    "a store that is away": ("failed", [a_pod(75, "StoreUnavailable")], ("again", "StoreUnavailable", True)),
    "a number that is claimed": ("failed", [a_pod(75, "Fenced")], ("again", "Fenced", False)),
    "a signal": ("failed", [a_pod(143, "Terminated")], ("again", "Terminated", True)),
    "a preemption": ("failed", [a_pod(143, "Terminated", disrupted=True)], ("again", "Preempted", False)),
    "a preemption without a report": ("failed", [a_pod(137, disrupted=True)], ("again", "Preempted", False)),
    "a permanent error of a preempted pod": ("failed", [a_pod(10, "DataError", disrupted=True)], ("failed", "DataError", True)),
    "what nobody foresaw, beside a preemption": ("failed", [a_pod(1, "RuntimeError", disrupted=True)], ("again", "Preempted", False)),
    "what nobody foresaw, beside a peer out of memory": (
        "failed",
        [a_pod(1, "RuntimeError"), a_pod(137, leader=False, how="OOMKilled")],
        ("again", "OOMKilled", True),
    ),
    "out of memory": ("failed", [a_pod(137, how="OOMKilled")], ("again", "OOMKilled", True)),
    "out of memory on another node": ("failed", [a_pod(75, "TryAgain"), a_pod(137, leader=False, how="OOMKilled")], ("again", "OOMKilled", True)),
    "over its disk limit": ("failed", [a_pod(137, how="Evicted")], ("again", "Evicted", True)),
    "killed": ("failed", [a_pod(137)], ("again", "Killed", True)),
    "died before it could report": ("failed", [a_pod(1)], ("again", "ReportMissing", True)),
    "a peer that failed after the leader was done": ("failed", [a_pod(0, "ok"), a_pod(1, leader=False)], ("succeeded", "ok", True)),
    "a preemption after the leader was done": ("failed", [a_pod(0, "ok"), a_pod(137, leader=False, disrupted=True)], ("succeeded", "ok", True)),
}


@pytest.mark.parametrize("what", CASES)
def test_every_end_is_judged(what: str) -> None:
    phase, pods, expected = CASES[what]
    outcome = judged(phase, *pods)
    assert outcome
    assert (outcome.verdict, outcome.reason, outcomes.counted(replace(SFT, reason=outcome.reason))) == expected


UNTOLD: dict[str, tuple[Phase, list[Pod]]] = {
    "no pod": ("failed", []),
    "a leader that still runs, as far as the caches show": ("failed", [a_pod()]),
    "a success without a report": ("succeeded", [a_pod(0)]),
    "a report of another attempt": ("succeeded", [a_pod(0, "ok", attempt=1)]),
    "a report of a pod that is not the leader": ("succeeded", [a_pod(0, "ok", leader=False)]),
}


@pytest.mark.parametrize("what", UNTOLD)
def test_what_the_pods_do_not_tell_is_not_guessed(what: str) -> None:
    phase, pods = UNTOLD[what]
    assert judged(phase, *pods) is None


def test_a_preemption_is_remembered_when_the_pod_is_gone() -> None:
    stage = Stage("sft", "running", attempt=2, reason=outcomes.PREEMPTED)
    outcome = outcomes.judge(Attempt(stage, ()), "failed")
    assert outcome and outcome.reason == "Preempted"


def test_fences_without_end_are_those_of_another_run_and_are_counted() -> None:
    fenced = Stage("sft", "pending", reason=outcomes.FENCED)
    assert not outcomes.counted(replace(fenced, attempt=outcomes.FREE_FENCES))
    assert outcomes.counted(replace(fenced, attempt=outcomes.FREE_FENCES + 1))
    assert not outcomes.counted(replace(fenced, attempt=99, reason=outcomes.PREEMPTED))


def test_every_error_class_is_permanent_or_can_be_tried_again() -> None:
    def classes(root: type[errors.EhrmindError]) -> set[type[errors.EhrmindError]]:
        found = {root}.union(*map(classes, root.__subclasses__()))
        return {c for c in found if c.__module__ == errors.__name__}

    again = {c for c in classes(errors.EhrmindError) if c.exit_code not in outcomes.PERMANENT}
    assert again == classes(errors.TryAgain)
