"""Numbers, pauses and waits of attempts."""

from dataclasses import replace

import pytest

from ehrmind_k8s.controller.policies import attempts, outcomes
from ehrmind_k8s.controller.reconcile import reconcile
from ehrmind_k8s.controller.records import Child, Pod, Snapshot
from ehrmind_k8s.controller.state import Stage, left_s
from tests.unit.controller.runs import a_run
from tests.unit.controller.world import EPOCH, an_object

SFT = Stage("sft", "pending", attempt=1, ended=EPOCH, reason="Killed", retries=1)


def a_snapshot(*pods: Pod, children: tuple[Child, ...] = ()) -> Snapshot:
    return Snapshot(an_object(), None, pods=pods, children=children)


@pytest.mark.parametrize(("retries", "pause_s"), [(1, 10), (2, 20), (3, 40), (5, 160), (6, 300), (50, 300)])
def test_pauses_double_up_to_five_minutes(retries: int, pause_s: float) -> None:
    assert attempts.pause_s(replace(SFT, retries=retries)) == pause_s


@pytest.mark.parametrize(("reason", "pause_s"), [("", 0), (outcomes.SUSPENDED, 0), (outcomes.PREEMPTED, 10), (outcomes.NODE_LOST, 10)])
def test_what_is_not_counted_does_not_double_the_pause(reason: str, pause_s: float) -> None:
    assert attempts.pause_s(replace(SFT, retries=7, reason=reason)) == pause_s


def test_a_number_that_any_child_or_pod_ever_had_is_never_given_again() -> None:
    child = Child("PyTorchJob", "demo-sft-4", "u", ours=True, stage="sft", attempt=4)
    stranger = Child("PyTorchJob", "demo-sft-9", "u", ours=False, stage="sft", attempt=9)
    pod = Pod("p", "u", "sft", 3, "Failed")
    assert attempts.next_number(SFT, a_snapshot()) == 2
    assert attempts.next_number(SFT, a_snapshot(pod)) == 4
    assert attempts.next_number(SFT, a_snapshot(pod, children=(child, stranger))) == 5


def test_a_number_that_no_run_reaches_was_written_by_somebody_else() -> None:
    forged = Pod("p", "u", "sft", 999_999, "Failed")
    assert attempts.next_number(SFT, a_snapshot(forged)) == 2


PODS = {
    "still saves": (Pod("p", "u", "sft", 1, "Running", deleting=True, gone_by=EPOCH + 120), True),
    "was never deleted": (Pod("p", "u", "sft", 1, "Running"), True),
    "has ended": (Pod("p", "u", "sft", 1, "Failed"), False),
    "is of another stage": (Pod("p", "u", "rlvr", 1, "Running"), False),
    "is on a lost node": (Pod("p", "u", "sft", 1, "Running", deleting=True, gone_by=EPOCH - 60), False),
}


@pytest.mark.parametrize("what", PODS)
def test_the_next_attempt_waits_for_a_pod_that(what: str) -> None:
    pod, waits = PODS[what]
    assert bool(attempts.draining(SFT, a_snapshot(pod), EPOCH)) == waits
    assert not attempts.draining(SFT, a_snapshot(pod), EPOCH + attempts.DRAIN_S)


def test_a_wait_survives_wrong_clocks() -> None:
    assert left_s(EPOCH, 10, EPOCH + 4) == 6
    assert left_s(EPOCH, 10, EPOCH + 11) == 0
    assert left_s(EPOCH, 10, EPOCH - 30) == 10, "a clock that is a little behind waits no longer than the wait"
    assert left_s(EPOCH + 3600, 10, EPOCH) == 0, "a beginning in an hour was written by a wrong clock"


def test_a_refused_child_is_made_again_in_the_next_second_and_the_reason_stays() -> None:
    run = a_run()
    run.look()
    run.world.remove(("Job", "demo-prepare-1"))
    run.operator.see()
    snapshot = run.operator.snapshot()
    assert snapshot
    refused = replace(snapshot, refusals=("QuotaExceeded Job/demo-prepare-1: exceeded quota: gpus",))
    at_once, later = reconcile(refused, run.world.time + 0.005), reconcile(refused, run.world.time + 1)
    assert ([o["kind"] for o in at_once.creates], at_once.requeue_after_s) == ([], attempts.REFUSED_S)
    assert [o["kind"] for o in later.creates] == ["Job"]
    assert at_once.status and later.status
    assert at_once.status["message"] == later.status["message"]
    assert "exceeded quota" in later.status["message"]
