"""The status of an object as people see it."""

from typing import get_args

from ehrmind_k8s.backends.base import Attempt, RunState
from ehrmind_k8s.backends.kubernetes import view
from ehrmind_k8s.crd import names
from tests.unit.backends import objects
from tests.unit.backends.objects import stage


def test_a_run_under_way_is_shown_with_its_figures() -> None:
    progress = {"done": 12, "total": 30, "unit": "step", "figures": {"reward": 0.61}, "updated": "2026-11-24T10:05:00Z"}
    found = {
        "state": "running",
        "stage": "rlvr",
        "startTime": "2026-11-24T10:04:00Z",
        "attempt": 1,
        "message": "RLVR step 12/30",
        "uri": "s3://b/runs/demo",
        "progress": progress,
    }
    status = view.status(objects.run(found | {"rollout": {"replicas": 2, "ready": 1}}))
    assert (status.state, status.stage, status.done, status.total, status.figures) == ("running", "rlvr", 12, 30, {"reward": 0.61})
    assert (status.rollouts_ready, status.rollouts_wanted, status.uri) == (1, 2, "s3://b/runs/demo")
    assert status.updated - status.started == 300


def test_a_run_that_no_operator_has_seen_is_pending() -> None:
    status = view.status(objects.run())
    assert (status.state, status.message, status.namespace) == ("pending", view.UNSEEN, "research")


def test_an_end_of_an_earlier_attempt_is_no_end() -> None:
    ended = {"state": "failed", "attempt": 1, "message": "Failed: SFT"}
    assert view.status(objects.run(ended)).state == "failed"
    assert view.status(objects.run(ended, attempt=2)).state == "pending"


def test_a_suspension_that_was_lifted_does_not_count() -> None:
    held = {"state": "suspended", "message": "Suspended at SFT step 10/76"}
    assert view.status(objects.run(held, suspend=True)).state == "suspended"
    assert view.status(objects.run(held)).state == "pending"


def test_stages_are_shown_in_their_order_with_how_they_ended() -> None:
    stages = [
        stage("rlvr", "pending", 2, reason="OOMKilled", retries=1),
        stage("prepare", "succeeded", startTime="2026-11-24T10:00:00Z", endTime="2026-11-24T10:00:42Z", reason="ok"),
        stage("sft", "failed", 3, reason="DataError", exitCode=10, seconds=7.4),
    ]
    assert view.status(objects.run({"state": "running", "stages": stages})).attempts == (
        Attempt("prepare", 1, "succeeded", "", 42.0),
        Attempt("sft", 3, "DataError", "", 7.4, 10),
        Attempt("rlvr", 2, "pending", "after OOMKilled, 1 retry"),
    )


def test_every_state_of_the_object_is_one_that_people_see() -> None:
    assert set(names.STATES) <= set(get_args(RunState))
