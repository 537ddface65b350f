"""The CRD before its judge, a real API server: schema, cost of the rules, sentences, and what kubectl shows of it.

The tables of tests/objects.py are judged here too; tests/unit/test_crd.py judges them without a cluster.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ehrmind_k8s import crd, kubeapi, spec
from tests.cluster.harness.client import Cluster, CommandFailed
from tests.conftest import ROOT
from tests.objects import CHANGES, REFUSED, Object, an_object

RUNS = kubeapi.Resource(crd.GROUP, crd.VERSION, crd.KIND, crd.PLURAL)
EXAMPLES = sorted((ROOT / "manifests" / "runs").glob("*.yaml"))
MOMENT = "2026-01-02T03:04:05Z"


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[kubeapi.Client]:
    """The API server, which has taken the CRD: its schema is structural and its rules are cheap enough.

    One that a chart has installed stays. Ours goes: Helm would not take over an object that it has not made.
    """
    name = f"{crd.PLURAL}.{crd.GROUP}"
    if there := cluster.exists("crd", name):
        assert cluster.get("crd", name)["spec"]["versions"][0]["schema"] == crd.definition()["spec"]["versions"][0]["schema"]
    else:
        cluster.apply(crd.definition())
    cluster.wait("crd", name, "Established")
    yield kubeapi.connect(str(cluster.kubeconfig))
    if not there:
        cluster.delete("crd", name)
        cluster.wait_gone("crd", name)


@pytest.fixture(scope="module")
def place(cluster: Cluster, api: kubeapi.Client) -> Iterator[str]:
    """One namespace for all of these tests: no run in it is ever worked on."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def runs(api: kubeapi.Client, place: str) -> Iterator["Runs"]:
    yield Runs(api, place)
    for item in api.objects(RUNS, place):
        api.delete(RUNS, place, item["metadata"]["name"])


class Runs:
    """The runs of one namespace."""

    def __init__(self, api: kubeapi.Client, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        return self.api.create(RUNS, obj | {"metadata": {**obj["metadata"], "namespace": self.namespace}}, dry_run=dry_run)

    def put(self, obj: Object, part: str = "", *, dry_run: bool = False) -> Object:
        path = RUNS.path(self.namespace, obj["metadata"]["name"], part)
        return self.api.request("update", "PUT", path, query={"dryRun": "All"} if dry_run else {}, body=obj)

    def refusal(self, obj: Object) -> kubeapi.Invalid:
        """What the server says to a new object."""
        with pytest.raises(kubeapi.Invalid) as error:
            self.create(obj, dry_run=True)
        return error.value


# What may be made


@pytest.mark.parametrize("case", REFUSED)
def test_a_document_that_cannot_run_is_refused_with_a_sentence(runs: Runs, case: str) -> None:
    obj, field, sentence = REFUSED[case]
    causes = runs.refusal(obj).causes
    assert [text for where, text in causes if sentence in text and (not field or where == field)] != [], causes


@pytest.mark.parametrize("preset", spec.PRESETS)
def test_every_resolved_preset_is_taken(runs: Runs, preset: str) -> None:
    written = spec.load({"task": "medcalc", "preset": preset, "name": "demo"}).model_dump(mode="json")
    made = runs.create(crd.to_object(written, runs.namespace), dry_run=True)
    assert crd.run(made).spec.recipe_hash() == spec.from_json(written).recipe_hash()


def test_the_server_adds_the_defaults_that_load_adds_and_no_other(runs: Runs) -> None:
    made = runs.create(an_object(), dry_run=True)
    added = {"profile": "default", "suspend": False, "cancel": False, "attempt": 1, "rollout": {"replicas": 1}}
    assert made["spec"] == an_object()["spec"] | added
    assert crd.run(made).spec == crd.run(an_object()).spec


UNKNOWN: dict[str, Any] = {
    "hostNetwork": True,
    "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
    "securityContext": {"privileged": True},
    "serviceAccountName": "cluster-admin",
    "secretRef": {"name": "token", "namespace": "kube-system"},
    "image": "evil:latest",
    "max_prompt_tokens": 3,
}


@pytest.mark.parametrize("key", UNKNOWN)
def test_a_key_that_reaches_for_the_pods_is_refused_or_dropped(runs: Runs, api: kubeapi.Client, key: str) -> None:
    obj = an_object({key: UNKNOWN[key]})
    assert f'unknown field "spec.{key}"' in runs.refusal(obj).message
    made = api.request("create", "POST", RUNS.path(runs.namespace), query={"fieldValidation": "Ignore", "dryRun": "All"}, body=obj)
    assert key not in made["spec"]


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        (an_object(name="../../etc"), "metadata.name"),
        (an_object(name="demo%2f.."), "metadata.name"),
        (an_object({"store": "s3://bucket/" + "x" * 100_000}), "spec.store"),
        (an_object({"task": "x" * 1_000_000}), "spec.task"),
        (an_object({"sft": {"categories": ["x"] * 10_000}}), "spec.sft.categories"),
        (an_object({"sft": {"categories": ["x" * 10_000]}}), "spec.sft.categories[0]"),
        (an_object({"stages": ["prepare", "rm -rf /"]}), "spec.stages[1]"),
        (an_object({"profile": "../../secrets"}), "spec.profile"),
        (an_object({"rlvr": "[" * 100}), "spec.rlvr"),
        (an_object({"rlvr": {"steps": -1}}), "spec.rlvr.steps"),
        (an_object({"rollout": {"replicas": 10**9}}), "spec.rollout.replicas"),
        (an_object({"rlvr": {"promptsPerStep": 2**62, "samplesPerPrompt": 2**62, "microBatchSize": 2**62}}), "spec.rlvr"),
        (an_object({"task": None}), "spec.task"),
        (an_object({"seed": 2**31}), "spec.seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malicious_value_is_refused_where_it_stands(runs: Runs, obj: Object, field: str) -> None:
    assert any(where.startswith(field) for where, _ in runs.refusal(obj).causes)


# What may change


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_of_a_run_is_refused_with_a_sentence_or_fine(runs: Runs, case: str) -> None:
    before, after, field, sentence = CHANGES[case]
    made = runs.create(an_object(before))
    changed = made | {"spec": an_object(after)["spec"]}
    if not sentence:
        assert runs.put(changed)["metadata"]["generation"] in (1, 2)
        return
    with pytest.raises(kubeapi.Invalid) as error:
        runs.put(changed)
    assert [where for where, text in error.value.causes if sentence in text] == [field], error.value.causes


def test_another_recipe_under_the_same_name_is_refused_on_the_terminal(runs: Runs, cluster: Cluster) -> None:
    cluster.apply(an_object({"rlvr": {"steps": 7}}), namespace=runs.namespace)
    with pytest.raises(CommandFailed, match=r"spec\.rlvr: Forbidden: rlvr is fixed once the run exists: make a run with another name"):
        cluster.apply(an_object({"rlvr": {"steps": 8}}), namespace=runs.namespace)


# Status, scale, and what kubectl shows


def a_status(**more: Any) -> Object:
    """A status as the operator writes it in the middle of a run."""
    child = {"kind": "PyTorchJob", "name": "demo-rlvr-1", "uid": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"}
    condition = {"type": "Progressing", "status": "True", "reason": "Training", "message": "12/30", "lastTransitionTime": MOMENT}
    return {
        "observedGeneration": 1,
        "state": "running",
        "stage": "rlvr",
        "step": "12/30",
        "score": 0.61,
        "message": "RLVR step 12/30, reward 0.61, 2/2 rollouts",
        "uri": "s3://bucket/runs/demo",
        "startTime": MOMENT,
        "attempt": 1,
        "progress": {"done": 12, "total": 30, "unit": "step", "figures": {"reward": 0.61, "loss": 1}, "updated": MOMENT},
        "stages": [{"name": "rlvr", "state": "running", "attempt": 1, "retries": 0, "child": child, "startTime": MOMENT, "seconds": 3.5}],
        "rollout": {"replicas": 2, "ready": 1, "selector": "ehrmind.dev/role=rollout,ehrmind.dev/run-uid=x"},
        "resolved": {"operatorVersion": "0.1.0", "profile": "default", "profileHash": "0" * 16, "specHash": "0" * 64, "trainer": "pytorchjob"},
        "conditions": [condition],
    } | more


def test_a_status_is_kept_whole_and_apart_from_the_spec(runs: Runs) -> None:
    made = runs.create(an_object() | {"status": a_status()})
    assert "status" not in made
    written = runs.put(made | {"status": a_status(), "spec": {"task": "other"}}, "status")
    assert (written["status"], written["spec"], written["metadata"]["generation"]) == (a_status(), made["spec"], 1)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"state": "exploded"}, "status.state"),
        ({"message": "x" * (crd.MESSAGE_LIMIT + 1)}, "status.message"),
        ({"progress": {"figures": {f"f{n}": n for n in range(100)}}}, "status.progress.figures"),
        ({"conditions": [{"type": "Complete"}]}, "status.conditions[0]"),
        ({"conditions": a_status()["conditions"] * 2}, "status.conditions[1]"),
        ({"startTime": "yesterday"}, "status.startTime"),
    ],
)
def test_a_status_out_of_bounds_is_refused(runs: Runs, wrong: Object, field: str) -> None:
    made = runs.create(an_object())
    with pytest.raises(kubeapi.Invalid) as error:
        runs.put(made | {"status": a_status(**wrong)}, "status")
    assert any(where.startswith(field) for where, _ in error.value.causes)


def test_a_run_is_scaled_by_its_rollouts(runs: Runs, cluster: Cluster) -> None:
    made = runs.create(an_object({"rollout": {"replicas": 2, "minReady": 2}}))
    runs.put(made | {"status": a_status()}, "status")
    scale = runs.api.get(RUNS, runs.namespace, "demo", part="scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 2, "selector": "ehrmind.dev/role=rollout,ehrmind.dev/run-uid=x"})
    cluster.kubectl("scale", "ehr/demo", "--replicas=3", namespace=runs.namespace)
    assert runs.api.get(RUNS, runs.namespace, "demo")["spec"]["rollout"] == {"replicas": 3, "minReady": 2}
    for wrong, sentence in (("1", "cannot be ready among fewer replicas"), ("0", "should be greater than or equal to 1")):
        with pytest.raises(CommandFailed, match=sentence):
            cluster.kubectl("scale", "ehr/demo", f"--replicas={wrong}", namespace=runs.namespace)


def test_kubectl_get_shows_where_a_run_is(runs: Runs, cluster: Cluster) -> None:
    runs.put(runs.create(an_object()) | {"status": a_status()}, "status")
    head, line = cluster.kubectl("get", "ehr", namespace=runs.namespace).splitlines()
    assert head.split() == ["NAME", "TASK", "STATE", "STAGE", "STEP", "SCORE", "AGE"]
    assert line.split()[:6] == ["demo", "medcalc", "running", "rlvr", "12/30", "0.61"]
    wide = cluster.kubectl("get", "ehrmind", "--output=wide", namespace=runs.namespace)
    assert "RLVR step 12/30, reward 0.61, 2/2 rollouts" in wide


def test_kubectl_explain_teaches(api: kubeapi.Client, cluster: Cluster) -> None:
    section = " ".join(cluster.kubectl("explain", "ehr.spec.rlvr").split())
    assert "RL with verifiable rewards: GRPO on the sampler's own log-probs." in section
    assert "samplesPerPrompt <integer> G, completions per prompt: the group whose mean is the baseline." in section
    leaf = " ".join(cluster.kubectl("explain", "ehr.spec.rlvr.steps").split())
    assert "Default: 200 (30 with preset tiny, 100 with preset small, 1700 with preset paper)." in leaf


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_applied_and_applied_again(runs: Runs, cluster: Cluster, path: Any) -> None:
    for _ in range(2):
        cluster.kubectl("apply", "--server-side", f"--filename={path}", namespace=runs.namespace)
    made = runs.api.get(RUNS, runs.namespace, path.stem)
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert made["metadata"]["generation"] == 1
    assert crd.run(made).spec == crd.run(written).spec
