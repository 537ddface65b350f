"""Raw objects, as a cluster sent them, become records; what a pod says about itself is believed only as far as we know words for it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.controller import observe
from ehrmind_k8s.controller.records import Pod, Progress, Report

PODS = Path(__file__).with_name("pods")


def raw(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PODS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_a_running_master_of_a_pytorchjob_leads() -> None:
    pod = observe.pod(raw("running"))
    assert pod == Pod(
        name="demo-sft-1-master-0",
        uid="6f4c9f57-3f0e-4b43-9d1e-1f3b9f6f7d11",
        role="sft",
        attempt=1,
        phase="Running",
        ready=True,
        leader=True,
        created=observe.seconds("2026-11-24T10:00:00Z"),
        started=observe.seconds("2026-11-24T10:00:03Z"),
        ip="10.244.1.17",
        node="n1",
    )


def test_a_pod_that_is_deleted_says_by_when_it_is_to_be_gone() -> None:
    body = raw("running")
    body["metadata"] |= {"deletionTimestamp": "2026-11-24T10:02:00Z", "deletionGracePeriodSeconds": 120}
    pod = observe.pod(body)
    assert (pod.deleting, pod.gone_by - pod.created) == (True, 120.0)


def test_the_second_worker_and_a_rollout_pod_do_not_lead() -> None:
    body = raw("running")
    body["metadata"]["labels"]["training.kubeflow.org/replica-index"] = "1"
    assert not observe.pod(body).leader
    body["metadata"]["labels"] |= {"ehrmind.dev/role": "rollout", "training.kubeflow.org/replica-index": "0"}
    assert not observe.pod(body).leader


def test_the_first_node_of_a_trainjob_leads() -> None:
    body = raw("running")
    del body["metadata"]["labels"]["training.kubeflow.org/replica-index"]
    body["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = "0"
    assert observe.pod(body).leader
    body["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = "1"
    assert not observe.pod(body).leader


def test_a_finished_pod_carries_the_report_of_its_leader() -> None:
    pod = observe.pod(raw("succeeded"))
    assert (pod.phase, pod.exit_code, pod.exit_reason) == ("Succeeded", 0, "Completed")
    assert pod.report == Report("evaluate", 2, "ok", 0, 0.61, 93.5, {"accuracy": 0.61})


def test_a_container_killed_for_memory_says_so_and_has_no_report() -> None:
    pod = observe.pod(raw("oom"))
    assert (pod.phase, pod.exit_code, pod.exit_reason, pod.report) == ("Failed", 137, "OOMKilled", None)


def test_an_evicted_pod_is_disrupted_and_its_own_reason_counts_more_than_its_containers() -> None:
    pod = observe.pod(raw("evicted"))
    assert (pod.phase, pod.exit_reason, pod.disrupted, pod.exit_code) == ("Failed", "Evicted", True, 137)


def test_a_missing_secret_and_a_missing_image_are_told() -> None:
    pod = observe.pod(raw("missing_secret"))
    assert (pod.phase, pod.waiting, pod.waiting_message) == ("Pending", "CreateContainerConfigError", 'secret "ehrmind-s3" not found')
    pod = observe.pod(raw("image_pull"))
    assert pod.waiting == "ImagePullBackOff"
    assert pod.waiting_message.startswith('Back-off pulling image "registry.example/ehrmind:0"')


def test_a_pod_no_node_can_take_says_why() -> None:
    pod = observe.pod(raw("unschedulable"))
    assert pod.unschedulable == "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    assert (pod.node, pod.started, pod.waiting) == ("", 0.0, "")


def test_a_container_that_is_being_created_is_no_reason_to_worry() -> None:
    body = raw("missing_secret")
    body["status"]["containerStatuses"][0]["state"]["waiting"] = {"reason": "ContainerCreating"}
    assert observe.pod(body).waiting == ""


def test_a_pod_that_just_came_into_being_has_no_status_yet() -> None:
    pod = observe.pod({"metadata": {"name": "a", "labels": {}}})
    assert (pod.phase, pod.leader, pod.attempt) == ("Pending", False, 0)


def test_a_sidecar_that_a_cluster_injects_does_not_hide_how_the_stage_ended() -> None:
    body = raw("succeeded")
    sidecar = {"name": "istio-proxy", "state": {"terminated": {"exitCode": 143, "message": "bye"}}, "restartCount": 0}
    body["status"]["containerStatuses"].insert(0, sidecar)
    pod = observe.pod(body)
    assert pod.exit_code == 0
    assert pod.report is not None


GOOD = {"stage": "sft", "attempt": 3, "reason": "DataError", "exit_code": 10, "score": None, "seconds": 1.5, "headline": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "other"},
        {"reason": "Patient Smith, 1948"},
        {"reason": ""},
        {"attempt": "3"},
        {"attempt": -1},
        {"exit_code": True},
        {"exit_code": 1e9},
    ],
)
def test_a_termination_message_that_is_no_report_is_not_one(change: dict[str, Any]) -> None:
    assert observe.report(json.dumps(GOOD)) == Report("sft", 3, "DataError", 10, None, 1.5, {})
    assert observe.report(json.dumps(GOOD | change)) is None


def test_only_numbers_under_short_names_come_out_of_a_report() -> None:
    odd = {"loss": 0.5, "note": "text", "A name with words": 1.0, "inf": float("inf"), "flag": True} | {f"x{i}": i for i in range(50)}
    found = observe.report(json.dumps(GOOD | {"score": "high", "headline": odd}))
    assert found is not None
    assert (found.score, found.headline["loss"], len(found.headline)) == (None, 0.5, 16)
    assert not {"note", "A name with words", "inf", "flag"} & found.headline.keys()


def test_a_report_that_is_too_long_is_not_read() -> None:
    assert observe.report(json.dumps(GOOD | {"headline": {f"n{i}": 1.0 for i in range(500)}})) is None


LEADER = Pod(name="p", uid="u1", role="rlvr", attempt=2, phase="Running", leader=True)
SAID = {"stage": "rlvr", "attempt": 2, "done": 12, "total": 30, "unit": "step", "figures": {"reward": 0.61}, "waiting": "rollouts"}


def read(said: dict[str, Any], now: float, before: Progress | None = None) -> Progress | None:
    return observe.progress(json.dumps(said).encode(), LEADER, now, before)


def test_progress_is_what_the_leader_says() -> None:
    assert read(SAID, 100.0) == Progress("u1", "rlvr", 2, 12, 30, "step", {"reward": 0.61}, "rollouts", 100.0, 100.0)


def test_when_progress_last_grew_is_remembered_for_the_same_pod() -> None:
    first = read(SAID, 100.0)
    second = read(SAID, 105.0, first)
    third = read(SAID | {"done": 13}, 110.0, second)
    assert second and third
    assert (second.changed, second.read, third.changed) == (100.0, 105.0, 110.0)


@pytest.mark.parametrize("change", [{"stage": "sft"}, {"attempt": 1}, {"done": "12"}, {"total": -1}, {"unit": "a b"}, {"done": None}])
def test_an_answer_about_something_else_is_no_progress(change: dict[str, Any]) -> None:
    assert read(SAID | change, 100.0) is None


def test_a_pod_waits_for_nothing_that_we_have_no_word_for() -> None:
    found = read(SAID | {"waiting": "the doctor"}, 100.0)
    assert found is not None and found.waiting == ""


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_whatever_a_pod_says_nothing_breaks(said: Any) -> None:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    assert observe.progress(body, LEADER, 1.0, None) is None
    assert observe.report(body.decode(errors="replace")) is None


def test_a_child_is_ours_only_when_this_very_run_controls_it() -> None:
    owner = {"apiVersion": "ehrmind.dev/v1alpha1", "kind": "EHRMindRun", "name": "demo", "uid": "run-1", "controller": True}
    labels = {"ehrmind.dev/role": "sft", "ehrmind.dev/attempt": "3"}
    job = {"kind": "Job", "metadata": {"name": "demo-sft-3", "uid": "j", "labels": labels, "ownerReferences": [owner]}}
    child = observe.child(job, "run-1")
    assert (child.ours, child.stage, child.attempt, child.deleting) == (True, "sft", 3, False)
    assert not observe.child(job, "run-2").ours
    assert not observe.owned({"metadata": {"ownerReferences": [owner | {"controller": False}]}}, "run-1")
    assert not observe.owned({"metadata": {"ownerReferences": [owner | {"kind": "Job"}]}}, "run-1")


def test_a_rollout_deployment_belongs_to_no_stage() -> None:
    child = observe.child({"kind": "Deployment", "metadata": {"name": "demo-rollout", "labels": {"ehrmind.dev/role": "rollout"}}}, "u")
    assert (child.stage, child.attempt) == ("", 0)
