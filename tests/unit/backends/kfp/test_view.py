"""A run of the KFP API as the status that people see."""

from typing import Any

import pytest

from ehrmind_k8s.backends.kfp import view
from tests.unit.backends.kfp.kfp_server import EPOCH, Kfp


def run(state: str = "RUNNING", **more: Any) -> dict[str, Any]:
    return {
        "run_id": "id",
        "display_name": "demo",
        "state": state,
        "created_at": "2026-11-24T10:00:00Z",
        "finished_at": EPOCH,
        "state_history": [],
        "runtime_config": {"parameters": {"a_task": "medcalc"}},
        **more,
    }


def status(obj: dict[str, Any]) -> Any:
    return view.status(obj, "http://kfp/#/runs/details/id", "research")


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("PENDING", "pending"),
        ("RUNNING", "running"),
        ("CANCELING", "running"),
        ("PAUSED", "suspended"),
        ("SUCCEEDED", "succeeded"),
        ("SKIPPED", "succeeded"),
        ("FAILED", "failed"),
        ("CANCELED", "cancelled"),
        ("RUNTIME_STATE_UNSPECIFIED", "pending"),
    ],
)
def test_every_state_of_the_api_is_one_of_ours(state: str, shown: str) -> None:
    assert status(run(state)).state == shown


def test_a_run_that_has_just_been_made_says_what_it_is() -> None:
    found = status({"run_id": "id", "display_name": "demo"})
    assert (found.name, found.uid, found.state, found.attempts, found.started) == ("demo", "id", "pending", (), 0.0)


def test_stages_are_the_nodes_of_their_names_in_the_order_of_a_run() -> None:
    kfp, obj = Kfp(), run()
    for stage, state in (("sft", "RUNNING"), ("diagnose", "SUCCEEDED"), ("prepare", "SUCCEEDED")):
        kfp.node(obj, stage, state)
    found = status(obj)
    assert [(a.stage, a.attempt, a.reason) for a in found.attempts] == [
        ("prepare", 1, "succeeded"),
        ("diagnose", 1, "succeeded"),
        ("sft", 1, "running"),
    ]
    assert found.stage == "sft"


def test_a_node_that_is_tried_again_is_another_attempt() -> None:
    kfp, obj = Kfp(), run()
    for state in ("PENDING", "RUNNING", "FAILED", "RUNNING"):
        kfp.node(obj, "sft", state)
    assert [(a.attempt, a.reason) for a in status(obj).attempts] == [(2, "running")]


def test_a_failed_run_says_which_stage_and_why() -> None:
    kfp, obj = Kfp(), run("FAILED")
    kfp.node(obj, "rlvr", "RUNNING")
    kfp.node(obj, "rlvr", "FAILED", "Error (exit code\n30)")
    assert status(obj).message == "Failed: stage rlvr: Error (exit code 30)"
    assert status(obj | {"error": {"message": "child failed"}}).message == "Failed: stage rlvr: child failed"
    assert status(run("FAILED")).message == "Failed"


def test_seconds_are_those_between_start_and_end() -> None:
    task = {"display_name": "sft", "state": "SUCCEEDED", "start_time": "2026-11-24T10:00:00Z", "end_time": "2026-11-24T10:01:40Z"}
    assert status(run(run_details={"task_details": [task]})).attempts[0].seconds == 100.0
    task |= {"state": "RUNNING", "end_time": EPOCH}
    assert status(run(run_details={"task_details": [task]})).attempts[0].seconds == 0.0


@pytest.mark.parametrize(
    ("history", "state"),
    [
        (["PENDING", "RUNNING", "FAILED"], "failed"),
        (["PENDING", "RUNNING", "CANCELING", "FAILED"], "cancelled"),
        (["PENDING", "RUNNING", "CANCELING", "FAILED", "RUNNING", "FAILED"], "failed"),  # tried again after it was terminated
    ],
)
def test_a_run_that_was_terminated_is_told_from_one_that_failed_by_its_history(history: list[str], state: str) -> None:
    run = {"run_id": "1", "state": "FAILED", "state_history": [{"state": s} for s in history]}
    assert view.status(run, "page", "research").state == state
