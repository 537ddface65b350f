"""A run through its life, one thing at a time: what people do to it, what it meets, what it says."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from ehrmind_k8s import crd
from ehrmind_k8s.controller.reconcile import reconcile
from ehrmind_k8s.controller.records import Decision, Delete
from ehrmind_k8s.profile import Profile
from tests.unit.controller.runs import a_run
from tests.unit.controller.world import NAME, NAMESPACE

# A life without trouble


def test_the_first_look_takes_the_run_on_and_begins_it() -> None:
    decision = a_run().look()
    assert decision.status
    assert [(o["kind"], o["metadata"]["name"]) for o in decision.creates] == [
        ("ConfigMap", "demo-spec"),
        ("ConfigMap", f"demo-profile-{decision.status['resolved']['frozenProfile'][:10]}"),
        ("Job", "demo-prepare-1"),
    ]
    assert decision.status["uri"] == "s3://bucket/runs/demo"
    assert decision.status["stages"][0] == {
        "name": "prepare",
        "state": "starting",
        "attempt": 1,
        "retries": 0,
        "child": {"kind": "Job", "name": "demo-prepare-1"},
        "startTime": decision.status["startTime"],
    }
    assert [e.reason for e in decision.events] == ["Accepted", "StageStarted"]


def test_stages_follow_each_other_with_an_event_each() -> None:
    run = a_run().end()
    each = [word for _ in range(5) for word in ("StageStarted", "StageSucceeded")]
    assert run.events == ["Accepted", *each, "Completed"]
    assert (run.state, run.message) == ("succeeded", "Succeeded: accuracy 0.95 (rlvr)")
    assert run.world.status["score"] == 0.95
    assert (run.condition("Complete"), run.condition("Progressing")) == (("True", "Succeeded"), ("False", "Succeeded"))


def test_what_a_run_says_while_it_works() -> None:
    run, lines = a_run(), []
    for _ in range(60):
        run.go(seconds=11)
        lines.append(run.message)
    assert list(dict.fromkeys(lines)) == [
        "Preparing data: waiting for its pod to start",
        "Preparing data step 0/3",
        "Preparing data step 1/3",
        "Preparing data step 2/3",
        "Diagnosing: waiting for its pod to start",
        "Diagnosing step 0/3, 2/2 rollouts",
        "Diagnosing step 1/3, 2/2 rollouts",
        "Diagnosing step 2/3, 2/2 rollouts",
        "SFT: waiting for its pod to start",
        "SFT step 0/3, loss 3.2",
        "SFT step 1/3, loss 3.2",
        "SFT step 2/3, loss 3.2",
        "RLVR: waiting for its pod to start",
        "RLVR step 0/3, reward 0.61, 2/2 rollouts",
        "RLVR step 1/3, reward 0.61, 2/2 rollouts",
        "RLVR step 2/3, reward 0.61, 2/2 rollouts",
        "Evaluating: waiting for its pod to start",
        "Evaluating step 0/3, 2/2 rollouts",
        "Evaluating step 1/3, 2/2 rollouts",
        "Evaluating step 2/3, 2/2 rollouts",
        "Succeeded: accuracy 0.95 (rlvr)",
    ]


def test_rollout_servers_live_from_the_first_stage_that_samples_to_the_last() -> None:
    run, there = a_run(), {}
    while run.state != "succeeded":
        run.go()
        there[run.world.status["stage"]] = bool(run.names("Deployment"))
    assert there == {"prepare": False, "diagnose": True, "sft": True, "rlvr": True, "evaluate": False}  # gone with the end of evaluate
    run = a_run().until("evaluate")
    assert run.names("Deployment", "Service", "PodDisruptionBudget") == ["demo-rollout"] * 3


def test_in_a_queue_the_rollout_servers_are_inside_the_training_job() -> None:
    served = frozenset({"PyTorchJob", "TrainJob", "Workload"})
    run = a_run(profile=Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",), queue="team"), served=served).until("sft")
    assert run.world.status["rollout"]["replicas"] == 0, "those of diagnose are gone with it, and nothing is started ahead of need"
    run.until("rlvr")
    assert (run.names("Deployment"), run.world.status["rollout"]["replicas"]) == ([], 2)
    assert run.names("TrainJob", "TrainingRuntime") == [f"demo-{stage}-1" for stage in ("diagnose", "rlvr", "sft") for _ in range(2)]
    assert run.condition("Admitted") == ("True", "Admitted")


def test_rollout_replicas_may_change_at_any_time() -> None:
    run = a_run().until("rlvr")
    run.world.store["rlvr"].done = -50  # a long one
    run.world.user(rollout={"replicas": 3})
    run.go(3)
    assert (len(run.world.pods("rollout")), run.message.split(", ")[-1]) == (3, "3/3 rollouts")
    assert run.names("PyTorchJob") == ["demo-rlvr-1", "demo-sft-1"], "training goes on"


def test_progress_is_written_at_a_bounded_rate() -> None:
    run = a_run().until("sft").go(1, seconds=0.1)
    writes = run.world.writes
    for done in range(1, 60):  # one step in 6,000 a second
        run.world.store["sft"].done = done
        run.look()
        run.world.time += 1
    assert run.world.writes - writes <= 6


# People


def test_a_suspended_run_has_no_pods_and_goes_on_as_the_next_attempt() -> None:
    run = a_run().until("rlvr")
    run.world.user(suspend=True)
    run.go(3)
    assert (run.state, run.message) == ("suspended", "Suspended at RLVR step 0/3; spec.suspend: false continues")
    assert run.names("Deployment") == []
    assert [p for p in run.world.of("Pod") if p["status"]["phase"] == "Running"] == []
    run.world.user(suspend=False)
    run.end()
    assert run.state == "succeeded"
    assert (run.stage("rlvr")["attempt"], run.stage("rlvr")["retries"]) == (2, 0)
    assert [e for e in run.events if e in ("Suspended", "Resumed")] == ["Suspended", "Resumed"]


def test_a_resumed_stage_waits_for_its_old_pods_to_save() -> None:
    run = a_run().until("sft")
    run.world.user(suspend=True)
    run.look()  # the job is deleted, its pod still saves
    pod = run.world.pods("sft")[0]
    run.world.put({**pod, "metadata": {**pod["metadata"], "lost": True}, "status": {"phase": "Running"}})
    run.world.user(suspend=False)
    run.go(1)
    assert run.message == "SFT: waiting for 1 pod of attempt 1 to stop"
    assert run.stage("sft")["attempt"] == 1
    run.world.remove(("Pod", pod["metadata"]["name"]))
    run.go(1)
    assert run.stage("sft")["attempt"] == 2


def test_a_cancelled_run_ends_at_once() -> None:
    run = a_run().until("rlvr")
    run.world.user(cancel=True)
    decision = run.look()
    assert {(d.kind, d.name) for d in decision.deletes} >= {("PyTorchJob", "demo-rlvr-1"), ("Deployment", "demo-rollout")}
    assert (run.state, run.message) == ("cancelled", "Cancelled at RLVR step 0/3; what was stored stays")
    assert run.condition("Failed") == ("True", "Cancelled")
    assert run.events[-1] == "Cancelled"


def test_a_raised_attempt_continues_a_failed_run_with_all_retries() -> None:
    run = a_run({"policy": {"retries": 1}}, ends_with={"sft": ("StoreUnavailable", 75)}).end()
    assert (run.state, run.stage("sft")["attempt"], run.stage("sft")["retries"]) == ("failed", 2, 1)
    run.world.ends_with = {}
    run.world.user(attempt=2)
    run.look()
    assert run.stage("sft")["retries"] == 0
    run.end()
    assert (run.state, run.world.status["attempt"], run.stage("sft")["attempt"]) == ("succeeded", 2, 3)
    assert run.condition("Failed") == ("False", "Continued")
    assert run.stage("prepare")["attempt"] == 1, "what is done stays done"


def test_a_success_is_not_taken_back_by_a_raised_attempt() -> None:
    run = a_run().end()
    before = run.world.status
    run.world.user(attempt=2)
    run.go(3)
    assert run.world.status == {**before, "attempt": 2, "observedGeneration": 2}


def test_a_run_that_is_being_deleted_is_left_alone() -> None:
    run = a_run().until("sft")
    world = run.world
    assert world.run
    world.put({**world.run, "metadata": {**world.run["metadata"], "deletionTimestamp": "2026-11-24T10:00:00Z"}})
    assert run.look() == Decision()


# Time


def test_a_deadline_ends_a_run() -> None:
    run = a_run({"policy": {"deadlineS": 60}}).until("sft")
    assert (run.operator.look() or Decision()).requeue_after_s
    run.world.time += 60
    run.look()
    assert (run.state, run.events[-1]) == ("failed", "DeadlineExceeded")
    assert run.message == "Failed: policy.deadlineS (60 s) passed at SFT step 0/3; to continue, raise it and spec.attempt"
    assert run.names("PyTorchJob") == []


def test_a_run_ends_when_nobody_follows_it_any_more() -> None:
    run = a_run().until("sft")
    run.world.renewed = run.world.time
    for _ in range(5):  # followed for five minutes: nothing but renewals keeps it alive
        run.world.time += 60
        run.world.renewed = run.world.time
        wait_s = run.look().requeue_after_s
        assert run.state == "running" and wait_s is not None and wait_s <= crd.FOLLOWED_S
    run.world.time += crd.FOLLOWED_S - 1
    run.look()
    assert run.state == "running"
    run.world.time += 1
    run.look()
    assert (run.state, run.condition("Progressing"), run.names("PyTorchJob")) == ("cancelled", ("False", "NotFollowed"), [])
    assert run.message == "Cancelled: nobody has followed it for 120 s at SFT step 1/3; what was stored stays"
    # A raised attempt is a sign of life as well, which comes before that of the Lease.
    run.world.user(attempt=2)
    run.look()
    assert run.state in ("pending", "running")
    run.world.time += crd.FOLLOWED_S
    run.look()
    assert run.state == "cancelled"


@pytest.mark.parametrize("served", [frozenset(), frozenset({"PyTorchJob"})])
def test_a_run_that_was_never_followed_ends_too(served: frozenset[str]) -> None:
    run = a_run(served=served)
    run.world.renewed = run.world.time - 1
    run.look()
    run.world.time += crd.FOLLOWED_S
    run.look()
    assert (run.state, run.names("Job")) == ("cancelled", [])


def test_a_success_does_not_ask_who_follows_it() -> None:
    run = a_run().end()
    run.world.renewed = run.world.time - crd.FOLLOWED_S
    run.look()
    assert run.state == "succeeded"


def test_the_object_of_a_finished_run_is_deleted_after_its_time() -> None:
    run = a_run({"policy": {"ttlS": 100}}).end()
    assert run.world.run
    uid = run.world.run["metadata"]["uid"]
    wait_s = run.look().requeue_after_s
    assert wait_s and 0 < wait_s <= 100
    run.world.time += wait_s
    assert run.look().deletes == (Delete("EHRMindRun", NAME, uid),)
    assert run.world.run is None


def test_pauses_between_retries_double() -> None:
    run, starts = a_run({"policy": {"retries": 4}}, ends_with={"prepare": ("StoreUnavailable", 75)}), {}
    while run.state != "failed":
        run.go(seconds=1)
        starts.setdefault(run.stage("prepare")["attempt"], run.world.time)
    times = list(starts.values())
    assert [round(b - a, -1) for a, b in itertools.pairwise(times)] == [10, 20, 40, 80]


def test_a_retry_says_why_and_which() -> None:
    run = a_run().until("rlvr")
    pod = run.world.stage_pod()
    assert pod
    run.world.end(pod, 137, how="OOMKilled")
    run.go(2)
    assert run.message == "RLVR attempt 2 in 10 s: the trainer was OOM-killed; retry 1 of 3"
    assert run.condition("RolloutsReady") == ("True", "AllReady"), "a trainer's retry does not touch vLLM"
    assert run.events[-1] == "AttemptRetried"


def test_a_failure_names_class_exit_code_and_the_logs() -> None:
    run = a_run(ends_with={"sft": ("DataError", 10)}).end()
    assert run.message == "Failed: SFT attempt 1: it ended with DataError (exit code 10); see: ehrmind logs demo --of sft-a1"
    assert run.condition("Failed") == ("True", "DataError")
    assert (run.stage("sft")["reason"], run.stage("sft")["exitCode"]) == ("DataError", 10)


def test_a_pod_on_a_lost_node_is_given_up_after_its_grace_period() -> None:
    run = a_run().until("sft")
    pod = run.world.stage_pod()
    assert pod
    run.world.lose_node(pod)
    run.go(2)
    assert run.stage("sft")["state"] == "running", "it may come back"
    run.world.time += 61
    run.go(1)
    assert run.names("PyTorchJob") == []
    run.world.time += 10
    run.go(1)
    assert (run.stage("sft")["attempt"], run.stage("sft")["retries"]) == (2, 0)
    assert run.end().state == "succeeded"


def test_a_preempted_job_of_a_queue_begins_anew_without_a_retry() -> None:
    """The queue here gives the quota back at once; the job's own second start finds its number claimed."""
    profile, served = Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",), queue="team"), frozenset({"TrainJob", "Workload"})
    run = a_run(profile=profile, served=served).until("sft")
    run.world.preempt()
    run.go(12)
    assert run.stage("sft")["retries"] == 0 and run.stage("sft")["reason"] in ("Preempted", "Fenced")
    run.until("sft")
    assert run.names("TrainJob")[-1] == "demo-sft-2"


# What is missing or in the way


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "a value of another type": ({"seed": "x"}, "seed: found 'x'"),
    "a stage without its input": ({"stages": ["rlvr"]}, "stages: rlvr reads the output of prepare"),
    "a folder as store": ({"store": "/runs"}, "store '/runs' is no object store"),
    "an unknown key": ({"rlvr": {"stepps": 3}}, "rlvr.stepps: unknown key; did you mean 'steps'?"),
}


@pytest.mark.parametrize("what", INVALID)
def test_a_document_that_makes_no_run_fails_with_its_sentence(what: str) -> None:
    spec, sentence = INVALID[what]
    run = a_run(spec)
    run.look()
    assert (run.state, run.condition("Accepted"), run.condition("Failed")) == ("failed", ("False", "InvalidSpec"), ("True", "InvalidSpec"))
    assert run.message.startswith("Failed: ") and sentence in run.message
    assert run.world.of("Job", "ConfigMap") == []


MISSING: dict[str, tuple[dict[str, Any], str, str]] = {
    "no training operator": ({"served": frozenset()}, "BackendUnavailable", "install the Kubeflow training operator"),
    "no store": ({"profile": Profile()}, "NoStore", "set `store` of profile 'default' to s3://bucket/prefix"),
    "a profile of others": ({"profile": Profile(store="s3://b/r", allowed_namespaces=("x",))}, "ProfileForbidden", "is not for namespace team-a"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_can_be_mended_outside_is_waited_for(what: str) -> None:
    world, reason, sentence = MISSING[what]
    run = a_run(**world)
    decision = run.look()
    assert (run.state, run.condition("Accepted"), decision.requeue_after_s) == ("pending", ("False", reason), 60)
    assert run.message.startswith("Waiting: ") and sentence in run.message
    writes = run.world.writes
    run.go(3)
    assert run.world.writes == writes
    run.world.profile, run.world.served = Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",)), frozenset({"PyTorchJob"})
    assert run.end().state == "succeeded"


def test_a_run_that_waits_to_be_taken_on_can_be_cancelled() -> None:
    run = a_run(served=frozenset())
    run.look()
    run.world.user(cancel=True)
    run.look()
    assert (run.state, run.condition("Accepted")[0]) == ("cancelled", "False")


def test_store_and_recipe_are_frozen_when_the_run_is_taken_on() -> None:
    run = a_run().until("sft")
    run.world.profile = Profile(store="s3://elsewhere/{namespace}")
    run.until("rlvr")
    command = run.world.objects["PyTorchJob", "demo-rlvr-1"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["command"]
    assert "s3://bucket/runs/demo" in command
    assert run.world.status["uri"] == "s3://bucket/runs/demo"


def test_a_training_operator_is_not_missed_when_training_is_over() -> None:
    run = a_run().until("rlvr", "succeeded")
    run.world.served = frozenset()
    assert run.end().state == "succeeded"


def test_an_edit_that_makes_no_sense_counts_as_not_made() -> None:
    run = a_run().until("sft")
    run.world.user(rollout={"replicas": "many"})
    assert run.go(2).state == "running"
    run.world.user(cancel=True)
    run.look()
    assert run.state == "cancelled"


def test_a_strangers_object_is_neither_taken_nor_deleted() -> None:
    run = a_run()
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "demo-spec", "namespace": NAMESPACE}, "data": {"spec.json": "{}"}}
    run.world.add(stranger)
    run.look()
    assert (run.state, run.condition("Failed")) == ("failed", ("True", "NameConflict"))
    assert "ConfigMap demo-spec exists and belongs to somebody else" in run.message
    assert run.world.objects["ConfigMap", "demo-spec"]["data"] == {"spec.json": "{}"}


def test_what_is_left_of_an_earlier_run_of_the_name_is_waited_for() -> None:
    run = a_run()
    owner = {"kind": "EHRMindRun", "name": NAME, "uid": "earlier", "controller": True}
    meta = {
        "name": "demo-prepare-1",
        "namespace": NAMESPACE,
        "ownerReferences": [owner],
        "labels": {crd.LABEL_ROLE: "prepare", crd.LABEL_ATTEMPT: "1"},
    }
    run.world.add({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {}, "status": {}})
    decision = run.look()
    assert (run.state, decision.requeue_after_s, decision.deletes) == ("pending", 5, ())
    assert run.message == "Preparing data: waiting for Job demo-prepare-1 of an earlier run to go"
    run.world.remove(("Job", "demo-prepare-1"))
    assert run.end().state == "succeeded"


def test_a_training_operator_that_goes_away_is_named() -> None:
    run = a_run().until("sft")
    run.world.served = frozenset()
    run.look()
    assert run.message == "SFT: PyTorchJob is not served by the cluster any more; install its operator again"
    assert run.stage("sft")["state"] == "running", "it may come back with its jobs"
    run.world.served = frozenset({"PyTorchJob"})
    assert run.end().state == "succeeded"
    assert run.stage("sft")["attempt"] == 1


def test_a_status_that_was_lost_is_found_again_from_the_children() -> None:
    run = a_run().until("rlvr")
    assert run.world.run
    run.world.put({**run.world.run, "status": {}})
    run.go(1)
    assert [(s["state"], s["attempt"]) for s in run.world.status["stages"]] == [*[("succeeded", 1)] * 3, ("running", 1), ("pending", 0)]
    assert run.end().state == "succeeded"
    assert len(run.world.made) == 5


def test_a_child_that_an_old_copy_of_the_run_knows_nothing_of_is_left_alone() -> None:
    run = a_run().until("prepare")
    old, then = run.operator.snapshot(), run.world.time
    run.until("sft")
    new = run.operator.snapshot()
    assert old and new
    prepare = next(c for c in old.children if c.stage == "prepare")
    children = tuple(prepare if c.stage == "prepare" else c for c in new.children if c.stage != "diagnose")
    mixed = replace(old, children=children)  # the caches of runs, pods and Jobs are late, those of PyTorchJobs and Deployments are not
    assert reconcile(mixed, then).deletes == ()


def test_only_the_newest_attempts_keep_their_objects() -> None:
    run = a_run({"policy": {"retries": 6}}, ends_with={"prepare": ("StoreUnavailable", 75)}).end()
    assert run.stage("prepare")["attempt"] == 7
    assert run.names("Job") == ["demo-prepare-5", "demo-prepare-6", "demo-prepare-7"]


def test_a_child_that_the_caches_do_not_show_is_deleted_before_the_next_is_made() -> None:
    run = a_run().until("sft")
    child = run.stage("sft")["child"]
    run.world.remove(("PyTorchJob", "demo-sft-1"))
    lost = [run.look() for _ in range(12) if run.world.tick(1) is None]
    assert [d.deletes for d in lost if d.deletes] == [(Delete("PyTorchJob", "demo-sft-1", child["uid"]),)]
    assert (run.stage("sft")["reason"], run.stage("sft")["retries"]) == ("Lost", 1)


# What other caches say


def test_a_job_that_one_cache_does_not_show_is_not_lost_while_its_pod_works() -> None:
    """A watch may be dead for a minute and a half before anybody notices."""
    run = a_run({"policy": {"retries": 0}}).until("sft")
    seen, end = run.operator.snapshot(), run.world.time + 90
    assert seen
    blind = replace(seen, children=tuple(c for c in seen.children if c.kind != "PyTorchJob"))
    decision = reconcile(blind, run.world.time)
    assert decision.deletes == () and decision.status
    later = replace(blind, run={**blind.run, "status": decision.status})
    for at in (end - 60, end):
        status = reconcile(later, at).status or decision.status
        assert (status["state"], next(x["retries"] for x in status["stages"] if x["name"] == "sft")) == ("running", 0)
    lost = reconcile(later, end + 60).status
    assert lost and lost["state"] == "failed"
    gone = reconcile(replace(later, pods=()), end).status
    assert gone and gone["state"] == "failed", "nothing of it is there"


# In a queue


QUEUE = Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",), queue="team")
ONE_STAGE = {"stages": ["diagnose"], "inputs": {"prepare": "s3://bucket/runs/other/prepare"}}


def test_a_stage_alone_is_admitted_together_with_the_servers_that_it_samples_from() -> None:
    run = a_run(ONE_STAGE, profile=QUEUE, served=frozenset({"PyTorchJob", "TrainJob", "Workload"}))
    kinds = [o["kind"] for o in (*run.look().creates, *run.look().creates)]
    assert "TrainJob" in kinds and "Job" not in kinds and run.names("Deployment") == []


def test_a_queue_that_would_admit_them_apart_is_said_to_need_more() -> None:
    run = a_run(ONE_STAGE, profile=QUEUE, served=frozenset({"PyTorchJob", "Workload"}))
    run.look()
    assert run.names("Job", "PyTorchJob") == [] and "in queue team a job and the rollout servers" in run.message
    asked = QUEUE.model_copy(update={"trainer": QUEUE.trainer.model_copy(update={"kind": "pytorchjob"})})
    run = a_run(ONE_STAGE, profile=asked, served=frozenset({"PyTorchJob", "Workload"}))
    run.look()
    assert run.names("Job") == ["demo-diagnose-1"], "the cluster's owner insists"


# A document that cannot be read any more


def test_a_run_whose_document_is_lost_can_still_be_suspended_and_ends_at_its_deadline() -> None:
    run = a_run({"policy": {"deadlineS": 600}}).until("rlvr")
    document = next(o for o in run.world.of("ConfigMap") if o["metadata"]["name"] == "demo-spec")
    run.world.edit(document, data={"spec.json": "{}"})
    run.look()
    assert run.state == "running" and "does not hold what this run was taken on with" in run.message
    run.world.user(suspend=True)
    deleted = {(d.kind, d.name) for d in run.look().deletes}
    assert run.state == "suspended" and {("PyTorchJob", "demo-rlvr-1"), ("Deployment", "demo-rollout")} <= deleted
    run.world.time += 600
    run.go(1)
    assert (run.state, run.condition("Failed")) == ("failed", ("True", "DeadlineExceeded"))


# A teacher


def test_a_run_may_ask_only_a_teacher_that_the_profile_names() -> None:
    teacher = {"traces": "teacher", "teacher": {"url": "http://evil.team-a.svc:8080/v1", "model": "m"}}
    known = QUEUE.model_copy(update={"queue": None, "teacher_secret": "teacher", "teacher_urls": ("http://teacher.models.svc:8000/v1",)})
    run = a_run({"sft": teacher}, profile=known)
    run.look()
    assert run.names("Job") == [] and "does not let runs ask this teacher, only http://teacher.models.svc:8000/v1" in run.message
    admitted = {**teacher, "teacher": {"url": "http://teacher.models.svc:8000/v1/", "model": "m"}}
    run = a_run({"sft": admitted}, profile=known)
    run.look()
    assert run.names("Job") == ["demo-prepare-1"]


def test_a_key_for_a_teacher_needs_the_teachers_it_is_for() -> None:
    with pytest.raises(ValueError, match="teacher_secret needs teacher_urls"):
        Profile(store="s3://bucket/{namespace}", teacher_secret="teacher")
