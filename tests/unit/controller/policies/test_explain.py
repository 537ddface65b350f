"""Why a run does not get on, and what to do: a sentence for each thing that is known to happen, from what a cluster said."""

import json
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s.controller.policies import explain
from ehrmind_k8s.profile import Profile
from tests.unit.controller.runs import Run, a_run
from tests.unit.controller.world import rfc3339

PODS = Path(__file__).parents[1] / "pods"


def status_of(name: str) -> dict[str, Any]:
    """The status of a pod as a cluster sent it."""
    found: dict[str, Any] = json.loads((PODS / f"{name}.json").read_text(encoding="utf-8"))["status"]
    return found


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """The status of a pod whose container waits."""
    return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}, "restartCount": 5}]}


def stuck(run: Run, reason: str) -> bool:
    """Whether conditions and events say so too."""
    return (
        run.condition("Progressing") == ("False", reason) and run.world.events[-1].reason == "Stuck" and run.world.events[-1].message == run.message
    )


PODS_HELD: dict[str, tuple[dict[str, Any], str, str]] = {
    "an image that is not there": (
        status_of("image_pull"),
        "ImagePull",
        "image registry.example/ehrmind:0 cannot be pulled (ImagePullBackOff); check images and pull secrets of profile 'default'",
    ),
    "an image without a name in the message": (waiting("InvalidImageName"), "ImagePull", "its image cannot be pulled (InvalidImageName)"),
    "a missing secret": (
        status_of("missing_secret"),
        "MissingConfig",
        'secret "ehrmind-s3" not found in namespace team-a; create it, the pod then starts by itself',
    ),
    "a secret without the key": (
        waiting("CreateContainerConfigError", "couldn't find key access-key-id in Secret team-a/ehrmind-s3"),
        "MissingConfig",
        "Secret ehrmind-s3 has no key access-key-id in namespace team-a",
    ),
    "a message nobody knows": (
        waiting("CreateContainerConfigError", "patient John Doe"),
        "MissingConfig",
        "a Secret or ConfigMap of the pod is missing in namespace team-a",
    ),
    "a container that cannot be made": (waiting("RunContainerError", "x"), "PodError", "cannot start (RunContainerError); see: kubectl describe pod"),
    "a container that crashes": (waiting("CrashLoopBackOff", "x"), "CrashLoop", "crashes at its start, 5 times so far; see: kubectl logs"),
}


@pytest.mark.parametrize("what", PODS_HELD)
def test_a_pod_that_cannot_start_is_explained(what: str) -> None:
    status, reason, sentence = PODS_HELD[what]
    run = a_run().held("prepare", status)
    assert run.message.startswith("Preparing data: ") and sentence in run.message
    assert stuck(run, reason)


def test_what_the_scheduler_says_is_believed_after_a_moment() -> None:
    run = a_run().held("sft", status_of("unschedulable"))
    assert run.message == "SFT: waiting for its pod to start"
    assert run.look().requeue_after_s == explain.UNSCHEDULABLE_S
    run.world.time += explain.UNSCHEDULABLE_S
    run.look()
    name = run.pod()["metadata"]["name"]
    told = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu"
    assert run.message == f"SFT: no node can take pod {name}: {told}; add nodes, or ask for less in profile 'default'"
    assert stuck(run, "Unschedulable")


def test_a_job_without_pods_and_a_slow_start_are_explained_in_time() -> None:
    run = a_run().until("prepare", "starting")
    run.world.remove(("Pod", run.pod()["metadata"]["name"]))
    run.world.time += explain.NO_PODS_S
    run.look()
    assert run.message == "Preparing data: no pod was made in 30 s; see: kubectl describe job demo-prepare-1 -n team-a"
    run = a_run().held("prepare", {"phase": "Pending"})
    run.world.time += explain.SLOW_START_S
    run.look()
    assert "no container has started in 180 s; see: kubectl describe pod demo-prepare-1-" in run.message


def test_a_stage_that_waits_for_rollout_servers_says_what_holds_them() -> None:
    run = a_run().until("rlvr")
    run.operator.waiting = "rollouts"
    for pod in run.world.pods("rollout"):
        run.world.edit(pod, status=waiting("CrashLoopBackOff"))
    run.look()
    assert run.message.startswith("RLVR: rollouts: pod demo-rollout-") and "kubectl logs demo-rollout-" in run.message
    assert run.condition("RolloutsReady") == ("False", "NotAllReady")
    assert "RolloutDegraded" in run.events


def test_what_holds_a_rollout_server_is_known_before_a_stage_waits_for_it() -> None:
    run = a_run().until("sft")
    run.world.store["sft"].done = 0
    pod = run.world.pods("rollout")[0]
    run.world.edit(pod, status=waiting("ImagePullBackOff", 'Back-off pulling image "x:1"'))
    run.look()
    (ready,) = [c for c in run.world.status["conditions"] if c["type"] == "RolloutsReady"]
    text = "1 of 2 rollout servers are ready: image x:1 cannot be pulled (ImagePullBackOff)"
    assert ready["message"].startswith(text)
    assert run.message == "SFT step 0/3, loss 3.2"


def test_rollout_pods_that_a_quota_refuses_are_explained() -> None:
    run = a_run().until("rlvr")
    run.operator.waiting = "rollouts"
    (deployment,) = run.world.of("Deployment")
    failure = {"type": "ReplicaFailure", "status": "True", "message": "pods are forbidden: exceeded quota: team"}
    run.world.edit(deployment, status={"conditions": [failure]})
    run.look()
    assert run.message == "RLVR: rollouts: pods are refused: pods are forbidden: exceeded quota: team"


def test_waiting_for_rollout_servers_is_a_problem_after_a_while() -> None:
    run = a_run().until("rlvr")
    run.operator.waiting = "rollouts"
    run.operator.changed = run.world.time - explain.NO_ROLLOUTS_S
    run.look()
    refused = "waiting for rollout servers, of which 2 of 2 are ready but do not take the policy; see: ehrmind logs demo --of rlvr-a1"
    assert run.message == f"RLVR: {refused}"
    for pod in run.world.pods("rollout"):
        run.world.edit(pod, status={"conditions": [{"type": "Ready", "status": "False"}]})
    run.look()
    assert run.message == "RLVR: waiting for rollout servers, 0 of 2 ready; see: kubectl get pods -n team-a"


def test_a_hang_is_told_but_not_ended() -> None:
    run = a_run().until("sft")
    run.world.store["sft"].done = 0
    run.operator.changed = run.world.time
    assert run.look().requeue_after_s == explain.NO_PROGRESS_S
    run.world.time += explain.NO_PROGRESS_S
    run.look()
    assert run.message == "SFT: no progress for 30 minutes at SFT step 0/3; see: ehrmind logs demo --of sft-a1"
    assert stuck(run, "NoProgress")
    assert run.stage("sft")["state"] == "running"
    run.operator.changed = run.world.time
    run.look()
    assert (run.message, run.condition("Progressing")) == ("SFT step 0/3, loss 3.2", ("True", "Working"))


def test_a_new_operator_takes_a_long_stage_for_no_hang() -> None:
    run = a_run().until("sft")
    run.go(1)
    run.world.time += explain.NO_PROGRESS_S
    run.look()
    run.operator.deaf = True  # it has asked nobody yet
    run.look()
    assert run.condition("Progressing") == ("True", "Working")
    run.world.time += explain.NO_PROGRESS_S
    run.look()
    assert run.message == "SFT: nothing heard of its progress for 30 minutes; see: ehrmind logs demo --of sft-a1"


REFUSED = {
    "QuotaExceeded Job/demo-prepare-1: exceeded quota: team": (
        "QuotaExceeded",
        "free some quota of namespace team-a, or ask for less in the profile",
    ),
    "Forbidden Job/demo-prepare-1: jobs.batch is forbidden": ("Forbidden", "give the operator the chart's role in this namespace"),
    "WebhookDenied Job/demo-prepare-1: no": ("WebhookDenied", "it is tried again until it is taken"),
}


@pytest.mark.parametrize("refusal", REFUSED)
def test_what_the_api_server_refuses_is_told_and_tried_again(refusal: str) -> None:
    reason, hint = REFUSED[refusal]
    run = a_run()
    run.look()
    run.world.remove(("Job", "demo-prepare-1"))
    run.world.made.clear()
    run.operator.refusals = (refusal,)
    run.world.time += 1
    decision = run.look()
    assert run.message == f"Preparing data: the API server refused Job/demo-prepare-1: {refusal.partition(': ')[2]}; {hint}"
    assert [o["kind"] for o in decision.creates] == ["Job"]
    assert stuck(run, reason)


QUEUED = {
    "Pending": ("insufficient unused quota for cpu", "Queued", "queue team: insufficient unused quota for cpu"),
    "Inadmissible": ("LocalQueue team doesn't exist", "QueueInadmissible", "queue team: LocalQueue team doesn't exist"),
}


@pytest.mark.parametrize("reason", QUEUED)
def test_why_a_queue_holds_a_run_is_read_from_its_workload(reason: str) -> None:
    told, code, sentence = QUEUED[reason]
    run = a_run(profile=Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",), queue="team"), served=frozenset({"TrainJob", "Workload"}))
    run.look()
    job = run.world.objects["Job", "demo-prepare-1"]
    condition = {"type": "QuotaReserved", "status": "False", "reason": reason, "message": told}
    workload = {"metadata": {"ownerReferences": [{"uid": job["metadata"]["uid"]}]}, "status": {"conditions": [condition]}}
    run.operator.workloads = (workload,)
    run.look()
    assert (run.state, run.message) == ("queued", f"Preparing data: {sentence}")
    assert (run.condition("Progressing"), run.condition("Admitted")) == (("False", code), ("False", "Queued"))
    assert "Queued" in run.events
    assert ("Stuck" in run.events) == (reason == "Inadmissible"), "to wait for one's turn is no trouble"


def test_a_queue_without_kueue_is_explained() -> None:
    run = a_run(profile=Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",), queue="team"), served=frozenset({"TrainJob"}))
    run.look()
    run.look()
    assert "queue team is asked for, but the cluster has no Kueue" in run.message


def test_one_held_node_of_several_is_explained_while_the_other_runs() -> None:
    run = a_run().until("sft")
    other = run.pod()
    labels = other["metadata"]["labels"] | {"training.kubeflow.org/replica-index": "1"}
    meta = {**other["metadata"], "name": "demo-sft-1-worker-1", "labels": labels}
    run.world.add({**other, "metadata": meta, "status": waiting("ImagePullBackOff", 'Back-off pulling image "x:1"')})
    run.look()
    assert run.message.startswith("SFT: image x:1 cannot be pulled")


def test_lines_hold_no_time_that_would_have_to_be_written_again() -> None:
    run = a_run().held("prepare", status_of("missing_secret"))
    run.look()
    writes = run.world.writes
    for _ in range(5):
        run.world.time += 60
        run.look()
    assert run.world.writes == writes
    assert rfc3339(run.world.time) not in run.message
