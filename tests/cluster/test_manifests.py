"""What the builders render, before the real API server, its webhooks and Pod Security; and job templates that run without the operator."""

import json
import re
from typing import Any

import pytest
import yaml

from ehrmind_k8s import artifacts, profile, spec, storage
from ehrmind_k8s.controller.resources import templates
from tests.cluster import release
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.s3 import S3Access
from tests.unit.controller.resources import cases, standards

Object = dict[str, Any]
TRAINER = ("TrainJob", "TrainingRuntime")
V1 = [case for case in cases.CASES if "trainjob" not in case]
V2 = [case for case in cases.CASES if "trainjob" in case]
# SFT on a few rows, on two nodes that meet through gloo.
SHORT = {"task": "medcalc", "preset": "tiny", "sft": {"percent": 5, "epochs": 1}, "stages": ["prepare", "sft"]}


def moved(objects: list[Object], namespace: str) -> list[Object]:
    """The objects in another namespace, and owned by nobody: their owner is not there."""
    kept = [{k: v for k, v in o["metadata"].items() if k != "ownerReferences"} for o in objects]
    return [{**o, "metadata": {**meta, "namespace": namespace}} for o, meta in zip(objects, kept, strict=True)]


def try_on(cluster: Cluster, objects: list[Object], namespace: str) -> str:
    """Server-side dry run: schema, defaults, admission and webhooks, and nothing is kept. Raises CommandFailed; returns what was said."""
    given = yaml.safe_dump_all(objects)
    return cluster.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", given=given, namespace=namespace)


def pods(objects: list[Object], namespace: str) -> list[Object]:
    """A pod of every template. Without what belongs to a cluster of its own: priority and runtime classes."""
    made = []
    for i, template in enumerate(standards.templates(objects)):
        body = {k: v for k, v in template["spec"].items() if k not in ("priorityClassName", "runtimeClassName")}
        body["serviceAccountName"] = "default"
        meta = {**template["metadata"], "name": f"pod-{i}", "namespace": namespace}
        made.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body})
    return made


@pytest.mark.parametrize("case", V1)
def test_objects_are_taken_by_the_api_server_and_the_training_operators_webhook(
    cluster: Cluster, namespace: str, training_operator: None, case: str
) -> None:
    objects = moved(cases.CASES[case](), namespace)
    said = try_on(cluster, objects, namespace)
    assert said.count("serverside-applied") == len(objects)


def test_every_pod_is_let_into_a_restricted_namespace(cluster: Cluster, namespace: str) -> None:
    made = {case: pods(cases.CASES[case](), namespace) for case in cases.CASES}
    assert [case for case, found in made.items() if not found] == ["document", "network", "network-closed"]
    for case, found in made.items():
        if found:
            assert try_on(cluster, found, namespace).count("serverside-applied") == len(found), case


def test_train_jobs_and_the_jobsets_made_of_them_are_taken(trainjob: OwnCluster, namespace: str) -> None:
    """A JobSet that its webhook refuses shows in no status. Suspended, since nothing is to run; names are as long as `trainjob.check` allows."""
    longest = cases.run("rollout.replicas=2", name="r" * 37, labels={"kueue.x-k8s.io/queue-name": "q"})
    objects = {case: cases.CASES[case]() for case in V2}
    objects["longest"] = cases.stage_objects(longest, "rlvr", cases.a_profile(), "trainjob", attempt=99)
    for job, runtime in (moved(pair, namespace) for pair in objects.values()):
        trainjob.apply(runtime, namespace=namespace)
        job["metadata"]["labels"].pop("kueue.x-k8s.io/queue-name", None)
        trainjob.apply({**job, "spec": {**job["spec"], "suspend": True}}, namespace=namespace)
        made = trainjob.wait("jobset", job["metadata"]["name"], lambda o: True, namespace=namespace)
        assert [j["name"] for j in made["spec"]["replicatedJobs"]] == [j["name"] for j in runtime["spec"]["template"]["spec"]["replicatedJobs"]]


@pytest.mark.parametrize("name", cases.TEMPLATES)
def test_each_command_in_a_job_template_applies_its_part(
    cluster: Cluster, namespace: str, training_operator: None, name: str, request: pytest.FixtureRequest
) -> None:
    file = cases.JOBS / f"{name}.yaml"
    text = file.read_text(encoding="utf-8")
    objects = list(yaml.safe_load_all(text))
    if any(o["kind"] in TRAINER for o in objects):
        served = request.getfixturevalue("trainjob")
        served.apply(*(o for o in objects if o["kind"] == "TrainingRuntime"), namespace=namespace)
    taken: list[str] = []
    for command in re.findall(r"^# kubectl (apply .*)$", text, re.MULTILINE):
        arguments = command.replace("FILE", str(file)).split()
        taken += cluster.kubectl(*arguments, "--dry-run=server", "-o", "name", namespace=namespace).split()
    assert [t.rpartition("/")[2] for t in taken] == [o["metadata"]["name"] for o in objects]
    for resources, selector in re.findall(r"kubectl delete (\S+) -l (\S+)", text):
        cluster.kubectl("delete", resources, "-l", selector, "--dry-run=server", namespace=namespace)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pytorchjob", "trainjob"])
def test_two_stages_run_from_job_templates_without_an_operator(
    cluster: Cluster,
    namespace: str,
    cluster_s3: S3Access,
    training_operator: None,
    kind: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind == "trainjob":
        request.getfixturevalue("trainjob")
    for name, value in cluster_s3.environment.items():
        monkeypatch.setenv(name, value)
    given = release.values(cluster_s3, trainer={"kind": kind, "nodes": 2}, shared_memory="128Mi", scratch="2Gi")["profiles"]["default"]
    images = {name: f"{image}:test" for name, image in (("ehrmind", "ehrmind"), ("trainer", "ehrmind-trainer"), ("rollout", "ehrmind-rollout"))}
    pods_as = profile.Profile.model_validate({**given, "images": images})
    _, *parts = templates.render(spec.load({**SHORT, "name": "plain"}), pods_as, namespace)
    release.admit(cluster, namespace, cluster_s3)
    for part in parts:
        cluster.apply(*part.objects, namespace=namespace)
        primary = part.objects[-1]
        if primary["kind"] in templates.END:
            done, found = templates.END[primary["kind"]], primary["metadata"]["name"]
            cluster.wait(primary["kind"].lower(), found, done, namespace=namespace, timeout_s=300)
    out = storage.open(f"s3://{cluster_s3.bucket}/{namespace}/plain/sft")
    manifest = artifacts.load(out)
    assert manifest and manifest.meta["result"]["reason"] == "ok"
    leaders = [p for p in cluster.items("pod", namespace=namespace, selector="ehrmind.dev/role=sft") if _report(p)]
    assert [_report(p)["exit_code"] for p in leaders] == [0], "the first rank, and it alone, leaves a report"


def _report(pod: Object) -> Any:
    states = [c["state"].get("terminated") or {} for c in pod["status"].get("containerStatuses") or ()]
    return json.loads(next((s["message"] for s in states if s.get("message")), "null"))
