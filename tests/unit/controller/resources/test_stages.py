"""The pods of stages, and the objects that start them: what a training operator, a queue or a retry would stumble over."""

from typing import Any

import pytest

from ehrmind_k8s import crd
from ehrmind_k8s.controller.resources import document, pod, trainer, trainjob
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.profile import Profile, Resources
from tests.unit.controller.resources import cases, standards
from tests.unit.controller.resources.cases import GPUS, Object, a_profile, run, stage_objects

QUEUE = {"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "high"}


def containers(*objects: Object) -> list[Any]:
    return [c for o in objects for t in standards.templates(o) for c in t["spec"]["containers"]]


def env(container: Object) -> dict[str, str]:
    return {e["name"]: e.get("value", "") for e in container["env"]}


def test_torch_stages_go_through_the_launcher_without_rendezvous_flags_and_others_do_not() -> None:
    lines = {stage: " ".join(containers(stage_objects(run(), stage, a_profile())[0])[0]["command"]) for stage in run().spec.stages}
    tail = "ehrmind_k8s.stages {} --run s3://bucket/runs/demo --attempt 1"
    assert lines == {
        "prepare": "python -m " + tail.format("prepare"),
        "diagnose": "python -m " + tail.format("diagnose"),
        "sft": "python -m torch.distributed.run -m -- " + tail.format("sft"),
        "rlvr": "python -m torch.distributed.run -m -- " + tail.format("rlvr"),
        "evaluate": "python -m " + tail.format("evaluate"),
    }


@pytest.mark.parametrize(("nodes", "gpus", "world"), [(1, 0, "1"), (2, 0, "2"), (1, 8, "8"), (4, 8, "32")])
def test_the_launcher_starts_as_many_processes_as_the_stage_expects(nodes: int, gpus: int, world: str) -> None:
    with_profile = a_profile(trainer={"nodes": nodes, "gpus": gpus})
    (job,) = stage_objects(run(), "sft", with_profile)
    train = stage_objects(run(), "sft", with_profile, "trainjob")[0]["spec"]["trainer"]
    (replica,) = job["spec"]["pytorchReplicaSpecs"].values()
    assert env(containers(job)[0])["EHRMIND_WORLD_SIZE"] == world
    assert replica["replicas"] * int(job["spec"]["nprocPerNode"]) == train["numNodes"] * train["numProcPerNode"] == int(world)


def test_only_stages_that_train_expect_a_number_of_processes_and_only_those_that_sample_know_servers() -> None:
    names = {stage: set(env(containers(stage_objects(run(), stage, a_profile())[0])[0])) for stage in run().spec.stages}
    assert [s for s, n in names.items() if "EHRMIND_WORLD_SIZE" in n] == ["sft", "rlvr"]
    assert [s for s, n in names.items() if "EHRMIND_ROLLOUT_URLS" in n] == ["diagnose", "rlvr", "evaluate"]
    inside = containers(stage_objects(run("rollout.engine=transformers"), "rlvr", a_profile())[0])[0]
    assert "EHRMIND_ROLLOUT_URLS" not in env(inside)


def test_one_node_is_a_master_alone_and_several_are_workers_alone_all_or_none() -> None:
    one, several = (stage_objects(run(), "sft", a_profile(trainer={"nodes": n}))[0]["spec"] for n in (1, 3))
    assert (list(one["pytorchReplicaSpecs"]), "elasticPolicy" in one) == (["Master"], False)
    assert one["pytorchReplicaSpecs"]["Master"]["replicas"] == 1
    assert list(several["pytorchReplicaSpecs"]) == ["Worker"]
    assert (several["elasticPolicy"]["minReplicas"], several["elasticPolicy"]["maxReplicas"]) == (3, 3)


@pytest.mark.parametrize("chosen", ["pytorchjob", "trainjob"])
@pytest.mark.parametrize("stage", ["prepare", "diagnose", "sft", "rlvr", "evaluate"])
def test_nothing_starts_a_second_pod_under_an_attempt_or_waits_for_a_trainer_to_be_ready(stage: str, chosen: str) -> None:
    text = str(stage_objects(run(), stage, a_profile(), chosen))
    assert "'backoffLimit': 0" in text
    assert "'restartPolicy': 'Never'" in text
    assert not {"'OnFailure'", "'ExitCode'", "'Always'"} & set(text.replace(",", " ").replace("}", " ").split())
    assert "Probe" not in text
    assert "podFailurePolicy" not in text


def test_a_job_waits_for_a_pod_to_be_gone_before_it_fails() -> None:
    (job,) = stage_objects(run(), "prepare", a_profile())
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert stage_objects(run(), "sft", a_profile())[0]["spec"]["runPolicy"]["cleanPodPolicy"] == "Running"


def test_in_a_queue_the_object_is_labelled_its_pods_are_not_and_suspend_is_left_to_the_queue() -> None:
    for stage, chosen in (("prepare", ""), ("sft", "pytorchjob"), ("rlvr", "trainjob")):
        objects = stage_objects(run(labels=QUEUE), stage, a_profile(queue="other"), chosen)
        assert objects[0]["metadata"]["labels"].items() >= QUEUE.items()
        assert "kueue" not in str(list(standards.templates(objects)))
        assert "'suspend'" not in str(objects)
    (plain,) = stage_objects(run(labels={"kueue.x-k8s.io/priority-class": "high"}), "prepare", a_profile())
    assert "kueue" not in str(plain), "a priority without a queue says nothing"


def test_in_a_queue_a_train_job_brings_its_servers_and_ends_with_the_training() -> None:
    job, runtime = stage_objects(run("rollout.replicas=2", labels=QUEUE), "rlvr", a_profile(), "trainjob", attempt=4)
    spec = runtime["spec"]["template"]["spec"]
    assert [(j["name"], j.get("replicas", 1)) for j in spec["replicatedJobs"]] == [("rollout", 2), ("node", 1)]
    assert spec["successPolicy"] == {"operator": "All", "targetReplicatedJobs": ["node"]}
    node = next(c for c in containers(runtime) if c["name"] == "node")
    assert env(node)["EHRMIND_ROLLOUT_URLS"] == ("http://demo-rlvr-4-rollout-0-0.demo-rlvr-4:8000,http://demo-rlvr-4-rollout-1-0.demo-rlvr-4:8000")
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"] == job["metadata"]["name"]


def test_without_a_queue_a_train_job_asks_the_service() -> None:
    _, runtime = stage_objects(run("rollout.replicas=2"), "rlvr", a_profile(), "trainjob")
    assert [j["name"] for j in runtime["spec"]["template"]["spec"]["replicatedJobs"]] == ["node"]
    assert env(containers(runtime)[0])["EHRMIND_ROLLOUT_URLS"] == "dns://demo-rollout:8000"


def test_the_pod_label_says_who_reports_and_of_which_attempt() -> None:
    _, runtime = stage_objects(run(labels=QUEUE), "rlvr", a_profile(), "trainjob", attempt=7)
    labels = [t["metadata"]["labels"] for t in standards.templates(runtime)]
    assert [(x[crd.LABEL_ROLE], x[crd.LABEL_ATTEMPT]) for x in labels] == [("rollout", "7"), ("rlvr", "7")]
    assert {x[crd.LABEL_RUN_UID] for x in labels} == {cases.UID}


def test_a_train_job_that_jobset_would_refuse_for_its_name_is_refused_when_the_run_is_taken_on() -> None:
    long = run("rollout.replicas=2", name="r" * 38, labels=QUEUE)
    wanted = [cases.step(long, stage, a_profile()) for stage in long.spec.stages]
    with pytest.raises(SpecError, match=r"too long for a TrainJob.*choose one of 37 characters"):
        trainjob.check(long, wanted[3:4], a_profile())
    assert stage_objects(long, "rlvr", a_profile(), "trainjob", attempt=9)
    with pytest.raises(SpecError, match="too long"):
        stage_objects(long, "rlvr", a_profile(), "trainjob", attempt=99)


def test_a_profile_decides_resources_placement_and_priority() -> None:
    (job,) = stage_objects(run(), "rlvr", a_profile(GPUS))
    (template,) = standards.templates(job)
    (main,) = template["spec"]["containers"]
    assert main["resources"]["requests"] == {"cpu": "32", "memory": "256Gi", "nvidia.com/gpu": "8"}
    assert (template["spec"]["runtimeClassName"], template["spec"]["priorityClassName"]) == ("nvidia", "research")
    assert template["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    prepare = next(standards.templates(stage_objects(run(), "prepare", a_profile(GPUS))[0]))["spec"]
    assert "runtimeClassName" not in prepare
    assert "nvidia.com/gpu" not in str(prepare["containers"][0]["resources"])
    assert containers(stage_objects(run(), "prepare", Profile())[0])[0]["resources"] == {}


def test_sampling_inside_evaluate_takes_one_gpu_of_the_trainers() -> None:
    (main,) = containers(stage_objects(run("rollout.engine=transformers"), "evaluate", a_profile(GPUS))[0])
    assert main["image"] == "r.example/trainer:1"
    assert main["resources"]["limits"] == {"nvidia.com/gpu": "1"}


@pytest.mark.parametrize(
    ("requests", "limits", "processes", "threads"),
    [
        ({}, {}, 1, 1),
        ({"cpu": "100m"}, {}, 1, 1),
        ({"cpu": "100m"}, {"cpu": "4"}, 1, 4),
        ({"cpu": "8"}, {}, 2, 4),
        ({}, {"cpu": "2500m"}, 1, 2),
        ({}, {"cpu": "64"}, 8, 8),
        ({}, {"cpu": "1"}, 8, 1),
        ({}, {"cpu": "2k"}, 1, 1),
    ],
)
def test_threads_are_the_share_of_the_cpus(requests: dict[str, str], limits: dict[str, str], processes: int, threads: int) -> None:
    assert pod.threads(Resources(requests=requests, limits=limits), processes) == threads


def test_a_profile_may_change_what_the_operator_does_not_depend_on() -> None:
    (main,) = containers(stage_objects(run(), "rlvr", a_profile(GPUS))[0])
    assert (env(main)["OMP_NUM_THREADS"], env(main)["NCCL_IB_DISABLE"]) == ("12", "1")


def test_keys_come_from_the_secret_of_the_profile_or_from_the_account() -> None:
    (main,) = containers(stage_objects(run(), "prepare", a_profile(s3={"secret": "mine", "access_key_id_key": "id"}))[0])
    refs = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in main["env"] if "valueFrom" in e}
    assert refs == {
        "EHRMIND_S3_ACCESS_KEY_ID": {"name": "mine", "key": "id"},
        "EHRMIND_S3_SECRET_ACCESS_KEY": {"name": "mine", "key": "secret-access-key"},
    }
    (main,) = containers(stage_objects(run(), "prepare", a_profile(s3={"secret": None}))[0])
    assert not [e for e in main["env"] if "valueFrom" in e]


def test_the_store_is_the_runs_else_the_profiles_and_never_a_folder() -> None:
    assert document.run_uri(run(), a_profile(GPUS)) == "s3://bucket/runs/demo"
    assert document.run_uri(run(store=None), a_profile(GPUS)) == "s3://research/runs/demo"
    with pytest.raises(SpecError, match="run demo has no store"):
        document.run_uri(run(store=None), a_profile())
    with pytest.raises(SpecError, match="pods see no folder"):
        document.run_uri(run(store="/data/runs"), a_profile())


@pytest.mark.parametrize(
    ("kind", "served", "queue", "expected"),
    [
        ("auto", {"PyTorchJob"}, "", "pytorchjob"),
        ("auto", {"TrainJob"}, "", "trainjob"),
        ("auto", {"PyTorchJob", "TrainJob"}, "", "pytorchjob"),
        ("auto", {"PyTorchJob", "TrainJob"}, "q", "trainjob"),
        ("auto", {"PyTorchJob"}, "q", "pytorchjob"),
        ("pytorchjob", {"PyTorchJob", "TrainJob"}, "q", "pytorchjob"),
        ("trainjob", {"PyTorchJob", "TrainJob"}, "", "trainjob"),
    ],
)
def test_which_training_job_is_chosen(kind: str, served: set[str], queue: str, expected: str) -> None:
    assert trainer.choose(a_profile(trainer={"kind": kind}), frozenset(served), queue) == expected


def test_a_cluster_that_cannot_train_hears_what_to_install() -> None:
    with pytest.raises(SpecError, match=r"install the Kubeflow training operator \(v1\).* or Kubeflow Trainer \(v2\)"):
        trainer.choose(a_profile(), frozenset({"Workload"}), "")
    with pytest.raises(SpecError, match=r"install Kubeflow Trainer.*PyTorchJob is served here"):
        trainer.choose(a_profile(trainer={"kind": "trainjob"}), frozenset({"PyTorchJob"}), "")


def test_evaluation_in_a_queue_is_admitted_together_with_its_servers_where_that_can_be() -> None:
    def kinds(of: Any, chosen: str) -> list[str]:
        return [trainer.kind(of, cases.step(of, stage, a_profile()), a_profile(), chosen) for stage in of.spec.stages]

    assert kinds(run(labels=QUEUE), "trainjob") == ["Job", "TrainJob", "TrainJob", "TrainJob", "TrainJob"]
    assert kinds(run(labels=QUEUE), "pytorchjob") == ["Job", "Job", "PyTorchJob", "PyTorchJob", "Job"]
    assert kinds(run(), "trainjob") == ["Job", "Job", "TrainJob", "TrainJob", "Job"]
    assert kinds(run("rollout.engine=transformers", labels=QUEUE), "trainjob") == ["Job", "Job", "TrainJob", "TrainJob", "Job"]


@pytest.mark.parametrize(("engine", "gpus"), [("vllm", {}), ("transformers", {"nvidia.com/gpu": "1"})])
def test_a_diagnosis_takes_one_gpu_where_it_samples_by_itself_and_none_beside_servers(engine: str, gpus: dict[str, str]) -> None:
    (main,) = containers(stage_objects(run(f"rollout.engine={engine}"), "diagnose", a_profile(trainer={"nodes": 4, "gpus": 8}))[0])
    assert main["image"] == a_profile().images.trainer
    assert main["resources"].get("limits", {}) == gpus


def test_only_the_stage_that_asks_a_teacher_knows_its_key() -> None:
    with_key = a_profile(teacher_secret="teacher", teacher_urls=("http://teacher.models.svc:8000/v1",))
    knowing = [s for s in run().spec.stages if "EHRMIND_TEACHER_KEY" in str(stage_objects(run(), s, with_key))]
    assert knowing == ["diagnose"]
    (main,) = containers(stage_objects(run(), "diagnose", with_key)[0])
    assert next(e for e in main["env"] if e["name"] == "EHRMIND_TEACHER_KEY")["valueFrom"] == {"secretKeyRef": {"name": "teacher", "key": "key"}}


def test_the_hash_of_the_plan_changes_with_the_plan() -> None:
    def plan_hash(*overrides: str, **profile: Any) -> str:
        return str(stage_objects(run(*overrides), "rlvr", a_profile(**profile))[0]["metadata"]["annotations"][crd.ANNOTATION_PLAN])

    assert plan_hash() == plan_hash("rollout.replicas=2") != plan_hash(scratch="3Gi")
