"""What a second submit of a run in a cluster does."""

from typing import Any

import pytest

from ehrmind_k8s import spec
from ehrmind_k8s.backends.kubernetes import submission
from ehrmind_k8s.errors import SpecError
from tests.unit.backends import objects

WRITTEN = {"task": "medcalc", "preset": "tiny", "name": "demo"}


def change(obj: dict[str, Any], **more: Any) -> submission.Change:
    written = WRITTEN | more
    return submission.change(obj, spec.load(WRITTEN), spec.load(written), written)


def test_the_same_document_changes_nothing() -> None:
    assert change(objects.run({"state": "running", "attempt": 1})) == submission.Change()


def test_another_recipe_is_refused_with_the_difference() -> None:
    with pytest.raises(SpecError, match=r"another recipe:\n  rlvr.steps: \d+ -> 7\n.*ehrmind runs delete demo"):
        change(objects.run(), rlvr={"steps": 7})


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ({"store": "s3://other/runs"}, "store: None -> 's3://other/runs'"),
        ({"profile": "a100"}, "profile: 'default' -> 'a100'"),
        ({"policy": {"retries": 0}}, "policy.retries: 3 -> 0"),
        ({"sft": {"micro_batch_size": 1}}, "sft.micro_batch_size: "),
    ],
)
def test_what_is_fixed_in_a_cluster_is_refused_in_the_words_of_the_document(written: dict[str, Any], line: str) -> None:
    with pytest.raises(SpecError) as refused:
        change(objects.run(), **written)
    assert line in str(refused.value) and "fixed once a run exists" in str(refused.value)


def test_a_value_that_was_written_out_as_its_default_is_no_difference() -> None:
    assert change(objects.run(), policy={"retries": 3}) == submission.Change()


def test_what_may_change_is_changed() -> None:
    found = change(objects.run(), rollout={"replicas": 3}, policy={"ttl_s": 600})
    assert found.spec == {"rollout": {"replicas": 3}, "policy": {"ttlS": 600}}
    assert set(found.lines) == {"rollout.replicas: 1 -> 3", "policy.ttl_s: None -> 600"}


def test_scaling_by_others_stays_where_the_document_says_nothing() -> None:
    assert change(objects.run(rollout={"replicas": 4})) == submission.Change()
    assert change(objects.run(rollout={"replicas": 4}), rollout={"replicas": 1}).spec == {"rollout": {"replicas": 1}}


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_run_that_ended_badly_is_continued_as_the_next_attempt(state: str) -> None:
    found = change(objects.run({"state": state, "stage": "sft", "attempt": 2}, attempt=2, cancel=state == "cancelled"))
    assert found.spec == {"attempt": 3, "cancel": False, "suspend": False}
    assert found.lines == (f"continuing run demo ({state} in stage sft) as attempt 3",)


def test_a_run_that_is_being_continued_is_not_continued_twice() -> None:
    assert change(objects.run({"state": "failed", "attempt": 1}, attempt=2)) == submission.Change()


def test_a_run_that_succeeded_stays_as_it_is() -> None:
    assert change(objects.run({"state": "succeeded", "attempt": 1})) == submission.Change()


def test_a_document_may_ask_for_a_higher_attempt_itself() -> None:
    assert change(objects.run({"state": "running", "attempt": 1}), attempt=2).spec == {"attempt": 2}


@pytest.mark.parametrize("uri", ["Qwen/Qwen3-0.6B", "toy", "s3://models/qwen"])
def test_a_model_that_pods_can_fetch_is_no_path(uri: str) -> None:
    submission.refuse_paths({"model": {"uri": uri}})
