"""What a child is doing, from conditions and pods as real clusters show them."""

from typing import Any

import pytest

from ehrmind_k8s.controller.records import Child, Pod
from ehrmind_k8s.controller.resources import trainer


def child(kind: str, spec: Any = None, **conditions: str | tuple[str, str]) -> Child:
    """A child of stage rlvr, attempt 2; a condition is its status, or status and reason."""
    pairs = {k: (v, "") if isinstance(v, str) else v for k, v in conditions.items()}
    listed = [{"type": k, "status": status, "reason": reason} for k, (status, reason) in pairs.items()]
    return Child(kind, "demo-rlvr-2", "u", True, "rlvr", 2, object={"kind": kind, "spec": spec or {}, "status": {"conditions": listed}})


def a_pod(phase: str = "Running", **more: Any) -> Pod:
    return Pod(**{"name": "p", "uid": "p", "role": "rlvr", "attempt": 2, "phase": phase, **more})


CASES: dict[str, tuple[Child, list[Pod], tuple[str, str]]] = {
    "a new job": (child("Job"), [], ("starting", "")),
    "a job whose pod waits for a node": (child("Job"), [a_pod("Pending", unschedulable="0/1 nodes")], ("starting", "Unschedulable")),
    "a job whose image is missing": (child("Job"), [a_pod("Pending", waiting="ImagePullBackOff")], ("starting", "ImagePullBackOff")),
    "a job that runs": (child("Job", {"suspend": False}), [a_pod()], ("running", "")),
    "a job that a queue holds": (child("Job", {"suspend": True}), [], ("queued", "Suspended")),
    "a job that a queue has just let go": (child("Job", {"suspend": False}, Suspended="True"), [], ("starting", "")),
    "a complete job": (child("Job", {"suspend": False}, Complete="True"), [a_pod("Succeeded")], ("succeeded", "")),
    "a job whose finalizers cannot be taken off": (child("Job", SuccessCriteriaMet="True"), [a_pod("Succeeded")], ("succeeded", "")),
    "a failed job": (child("Job", Failed=("True", "BackoffLimitExceeded")), [a_pod("Failed")], ("failed", "BackoffLimitExceeded")),
    "a job that will fail once its pod has ended": (child("Job", FailureTarget="True"), [a_pod(deleting=True)], ("running", "")),
    "a failed job without pods": (child("Job", Failed=("True", "DeadlineExceeded")), [], ("failed", "DeadlineExceeded")),
    "a new training job": (child("PyTorchJob", Created="True"), [], ("starting", "")),
    "a training job that runs": (child("PyTorchJob", Created="True", Running="True"), [a_pod()], ("running", "")),
    "a training job that said it ran, and lost its pods": (child("PyTorchJob", Running="True"), [], ("starting", "")),
    "a training job of which one pod finds no node": (
        child("PyTorchJob", Running="True"),
        [a_pod(), a_pod("Pending", unschedulable="0/1")],
        ("running", "Unschedulable"),
    ),
    "a training job that succeeded": (child("PyTorchJob", Running="False", Succeeded="True"), [], ("succeeded", "")),
    "a training job that failed": (
        child("PyTorchJob", Running="False", Failed=("True", "PyTorchJobFailed")),
        [],
        ("failed", "PyTorchJobFailed"),
    ),
    "a training job that a queue holds": (child("PyTorchJob", {"runPolicy": {"suspend": True}}), [], ("queued", "Suspended")),
    "a training job that was suspended by its condition": (child("PyTorchJob", Suspended="True"), [], ("queued", "Suspended")),
    "a training job that was resumed": (child("PyTorchJob", {"runPolicy": {"suspend": False}}, Suspended="False"), [a_pod()], ("running", "")),
    "a train job that nothing is said of": (child("TrainJob"), [], ("starting", "")),
    "a train job that runs, whose column says Suspended": (child("TrainJob", Suspended=("False", "Resumed")), [a_pod()], ("running", "")),
    "a train job that a queue preempts": (child("TrainJob", {"suspend": True}, Suspended="True"), [a_pod(deleting=True)], ("queued", "Suspended")),
    "a train job that failed and deleted its pods": (child("TrainJob", Failed=("True", "FailedJobs")), [], ("failed", "FailedJobs")),
    "a train job that is complete": (child("TrainJob", Suspended="False", Complete="True"), [], ("succeeded", "")),
    "a train job whose servers run and whose trainer does not": (
        child("TrainJob", {"suspend": False}),
        [a_pod(role="rollout"), a_pod("Pending")],
        ("starting", ""),
    ),
    "pods of another attempt": (child("PyTorchJob"), [a_pod(attempt=1)], ("starting", "")),
}


@pytest.mark.parametrize("case", CASES)
def test_phase_and_reason(case: str) -> None:
    observed, pods, expected = CASES[case]
    assert trainer.observe(observed, pods) == expected


def test_a_status_that_is_not_there_yet_is_no_error() -> None:
    assert trainer.observe(Child("TrainJob", "n", "u", True, "sft", 1), []) == ("starting", "")


@pytest.mark.parametrize("kind", ["Job", "PyTorchJob", "TrainJob"])
@pytest.mark.parametrize("odd", [{"spec": 3, "status": []}, {"spec": {"runPolicy": "x"}, "status": {"conditions": [None, 3, {"type": []}]}}])
def test_an_object_of_an_odd_shape_says_nothing(kind: str, odd: dict[str, object]) -> None:
    assert trainer.observe(Child(kind, "n", "u", True, "sft", 1, object=odd), []) == ("starting", "")
