"""Which objects go, and when."""

import pytest

from ehrmind_k8s.controller.policies import admission
from ehrmind_k8s.controller.reconcile import reconcile
from ehrmind_k8s.controller.records import Child, Delete, Pod, Snapshot
from ehrmind_k8s.controller.state import State
from ehrmind_k8s.profile import Profile
from tests.unit.controller.runs import a_run
from tests.unit.controller.world import EPOCH, an_object

TRAINJOBS = frozenset({"TrainJob"})


def test_a_runtime_goes_with_its_job_and_after_it() -> None:
    run = a_run(served=TRAINJOBS).until("sft")
    run.world.user(suspend=True)
    assert [d.kind for d in run.look().deletes if d.name == "demo-sft-1"] == ["TrainJob", "TrainingRuntime"]
    assert run.names("TrainingRuntime") == []


def test_a_runtime_whose_job_was_refused_goes_when_the_run_is_suspended() -> None:
    run = a_run(served=TRAINJOBS).until("sft", "starting")
    run.world.remove(("TrainJob", "demo-sft-1"))
    (runtime,) = run.world.of("TrainingRuntime")
    assert run.look().deletes == (), "its job is about to be made again"
    run.world.user(suspend=True)
    assert Delete("TrainingRuntime", "demo-sft-1", runtime["metadata"]["uid"]) in run.look().deletes
    assert run.names("TrainingRuntime") == []


def test_the_runtime_of_a_finished_job_stays_with_it() -> None:
    run = a_run(served=TRAINJOBS).end()
    assert run.names("TrainingRuntime") == run.names("TrainJob") == ["demo-rlvr-1", "demo-sft-1"]


def test_a_kind_that_is_not_served_for_a_moment_is_not_exchanged_for_another() -> None:
    run = a_run().until("sft")
    run.world.served = TRAINJOBS
    run.go(3)
    assert (run.world.status["resolved"]["trainer"], run.stage("sft")["state"]) == ("pytorchjob", "running")
    run.world.served = frozenset({"PyTorchJob", "TrainJob"})
    assert run.end().state == "succeeded"
    assert run.names("TrainJob") == []


def test_a_kind_that_is_gone_when_an_attempt_is_due_is_exchanged() -> None:
    run = a_run().until("prepare", "succeeded")
    run.world.user(suspend=True)
    run.go(2)
    run.world.served = TRAINJOBS
    run.world.user(suspend=False)
    assert run.end().state == "succeeded"
    assert "demo-rlvr-1" in run.names("TrainJob")


@pytest.mark.parametrize(("queue", "reason"), [(None, ""), ("team", "NameTooLong")])
def test_a_long_name_is_measured_only_where_a_training_job_bears_it(queue: str | None, reason: str) -> None:
    profile = Profile(store="s3://bucket/{namespace}", queue=queue)  # outside of a queue, prepare and evaluate are Jobs
    case = admission.admit(Snapshot(an_object(name="a" * 40), profile, served=TRAINJOBS), State())
    assert (case.refusal.reason if case.refusal else "") == reason


def test_names_that_get_too_long_end_a_run_even_beside_an_object_of_somebody_else() -> None:
    run = an_object({"stages": ["sft"], "inputs": {"prepare": "s3://bucket/demo/prepare"}}, name="a" * 40)
    profile = Profile(store="s3://bucket/{namespace}")
    stranger, pod = Child("Service", "theirs", "u", ours=False), Pod("p", "u", "sft", 99_999, "Failed")
    decision = reconcile(Snapshot(run, profile, served=TRAINJOBS, children=(stranger,), pods=(pod,)), EPOCH)
    assert decision.status
    assert (decision.status["state"], decision.creates) == ("failed", ())
    assert "its name is too long for a TrainJob" in decision.status["message"]
