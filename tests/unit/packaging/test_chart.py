"""The chart: what it renders for the values in its ci/ folder, what it refuses, and what it never asks for."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import ehrmind_k8s
from ehrmind_k8s import profile
from ehrmind_k8s.errors import SpecError
from tests.conftest import ROOT
from tests.unit.controller.resources import standards
from tests.unit.packaging import rendered
from tests.unit.packaging.rendered import CHART, VALUES, Object

BY_NAME = [pytest.param(values, id=values.stem.removesuffix("-values")) for values in VALUES]


def operator(found: list[Object]) -> Any:
    """The operator's pod spec."""
    return next(o for o in found if o["kind"] == "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("values", BY_NAME)
def test_helm_lint_has_no_complaint(values: Path) -> None:
    done = rendered.run("lint", "--strict", CHART, "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", BY_NAME)
def test_the_objects_are_those_of_the_golden_file(values: Path) -> None:
    """After an intended change: python -m tests.unit.packaging.rendered, and read the diff."""
    assert rendered.golden(values) == rendered.golden_path(values).read_text(encoding="utf-8")


@pytest.mark.parametrize("values", BY_NAME)
def test_every_profile_is_one_that_the_operator_accepts(values: Path) -> None:
    config = rendered.pick(rendered.objects("--values", values), "ConfigMap", "ehrmind-profiles")
    given = yaml.safe_load(values.read_text(encoding="utf-8")).get("profiles", {"default": {}})
    assert set(config["data"]) == set(given)
    for name, text in config["data"].items():
        read = profile.parse(name, text)
        wanted = profile.Profile.model_validate({**given[name], "images": read.images.model_dump()})
        assert read == wanted, "a value changed on its way through Helm"


@pytest.mark.parametrize("values", BY_NAME)
def test_every_pod_is_restricted_and_has_a_read_only_root(values: Path) -> None:
    found = list(standards.templates(rendered.objects("--values", values)))
    assert len(found) == 2, "the operator's and the one of `helm test`"
    assert [standards.violations(pod) for pod in found] == [[], []]
    for pod in found:
        assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in pod["spec"]["containers"])
        assert pod["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("values", BY_NAME)
def test_every_label_is_one_that_an_api_server_takes(values: Path) -> None:
    for o in rendered.objects("--values", values):
        assert standards.bad_labels(o["metadata"].get("labels", {})) == [], o["metadata"]["name"]


@pytest.mark.parametrize("values", BY_NAME)
def test_nobody_may_read_secrets_logs_or_enter_pods_and_nothing_is_granted_by_wildcard(values: Path) -> None:
    for role in (o for o in rendered.objects("--values", values) if "rules" in o):
        for rule in role["rules"]:
            assert "*" not in json.dumps(rule), role["metadata"]["name"]
            assert not {"secrets", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])
            assert "pods/log" not in rule["resources"] or role["metadata"]["name"].endswith("-test"), "only `helm test` may, as a user may"
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("replica=2", "replica"),
        ("replicas=3", "replicas"),
        ("images.trainer.tags=1", "tags"),
        ("images.trainer.repository=a/trainer:1", "repository"),
        ("images.ehrmind.digest=1234", "digest"),
        ("networkPolicy.apiServerCidr={10.0.0.1/32}", "apiServerCidr"),
        ("watchNamespaces=research", "watchNamespaces"),
        ("profiles.default.stor=s3://b/p", "stor"),
        ("profiles.default.trainer.gpu=1", "gpu"),
        ("profiles.default.trainer.kind=mpijob", "kind"),
        ("profiles.default.resources.train.limits.memory=1Gi", "train"),
        ("profiles.default.scratch=20Gb", "scratch"),
        ("profiles.default=null", "profiles"),
        ("profiles.A100_x2.store=s3://b/{namespace}", "A100_x2"),  # no run could name it
        ("env.EHRMIND_LOG_FORMAT=text", "EHRMIND_LOG_FORMAT"),  # it would stand there twice
        ("podLabels.app\\.kubernetes\\.io/instance=x", "app.kubernetes.io/instance"),  # the selector would match nothing
        ("serviceAccount.name=Foo_Bar", "name"),
    ],
)
def test_a_typo_in_the_values_is_refused_by_name(setting: str, complaint: str) -> None:
    said = rendered.refusal("--set", setting)
    assert "don't meet the specifications of the schema" in said
    assert complaint in said


@pytest.mark.parametrize(
    "document",
    [
        {"s3": {"secret": None}, "queue": "a", "resources": {"sft": {"limits": {"cpu": 4, "memory": "1.5Gi"}}}},
        {"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 1000000}], "pod_labels": {"team": "a"}},
        {"stor": "s3://b/p"},
        {"store": "/data"},
        {"trainer": {"gpus": 17}},
        {"s3": {"secret": 1}},
        {"s3": {"endpoint_url": "s3.example"}},
        {"tolerations": [{"keys": "a"}]},
        {"resources": {"train": {}}},
        {"resources": {"sft": {"limits": {"memory": "20GB"}}}},
        {"service_account": "Ehrmind"},
    ],
    ids=json.dumps,
)
def test_helm_accepts_a_profile_that_the_operator_accepts_and_no_other(document: Any) -> None:
    try:
        profile.parse("default", json.dumps(document))
        accepted = True
    except SpecError:
        accepted = False
    assert (rendered.refusal("--set-json", f"profiles.default={json.dumps(document)}") == "") == accepted


def test_values_yaml_names_every_key_of_the_schema() -> None:
    def missing(schema: Any, values: Any, path: str) -> list[str]:
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        keys = schema.get("properties", {}) if isinstance(values, dict) else {}
        return [f"{path}{k}" for k in keys if k not in values] + [m for k in keys if k in values for m in missing(keys[k], values[k], f"{path}{k}.")]

    whole = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert missing(whole, values, "") == ["global", "resources.claims"]


def test_a_digest_wins_over_a_tag_and_the_registry_stands_before_every_image() -> None:
    digest = "sha256:" + "b" * 64
    found = rendered.objects("--set", f"images.registry=mirror:5000/x/,images.ehrmind.tag=v7,images.ehrmind.digest={digest},images.rollout.tag=v8")
    images = profile.parse("default", rendered.pick(found, "ConfigMap", "ehrmind-profiles")["data"]["default"]).images
    assert (images.ehrmind, images.trainer, images.rollout) == (
        f"mirror:5000/x/ehrmind@{digest}",
        f"mirror:5000/x/ehrmind-trainer:{ehrmind_k8s.__version__}",
        "mirror:5000/x/ehrmind-rollout:v8",
    )
    assert {c["image"] for pod in standards.templates(found) for c in pod["spec"]["containers"]} == {images.ehrmind}


def test_an_operator_for_named_namespaces_has_no_right_beyond_them() -> None:
    found = rendered.objects("--values", CHART / "ci" / "namespaced-values.yaml")
    assert not [o["kind"] for o in found if o["kind"].startswith(("Cluster", "CustomResource"))]
    assert {o["metadata"]["namespace"] for o in found if o["metadata"]["name"] == "ehrmind-operator-runs"} == {"oncology", "cardiology"}
    wide = rendered.pick(rendered.objects(), "ClusterRole", "ehrmind-operator-runs")
    assert rendered.pick([o for o in found if o["metadata"]["namespace"] == "oncology"], "Role", "ehrmind-operator-runs")["rules"] == wide["rules"]


def test_users_may_do_with_runs_what_their_role_says_but_never_write_status() -> None:
    verbs: dict[str, set[tuple[str, str]]] = {}
    for o in rendered.objects():
        for key in o["metadata"].get("labels", {}):
            if key.startswith("rbac.authorization.k8s.io/aggregate-to-"):
                verbs[key.rpartition("-")[2]] = {(r, v) for rule in o["rules"] for r in rule["resources"] for v in rule["verbs"]}
    assert ("ehrmindruns", "create") in verbs["edit"] - verbs["view"]
    assert ("ehrmindruns/scale", "patch") in verbs["edit"]
    assert {v for _, v in verbs["view"]} == {"get", "list", "watch"}
    assert {v for r, v in set().union(*verbs.values()) if r.startswith("ehrmindruns/status")} == {"get"}


def test_the_crd_stays_at_uninstall_and_no_hook_deletes_anything_but_the_test_itself() -> None:
    found = rendered.objects()
    (definition,) = [o for o in found if o["kind"] == "CustomResourceDefinition"]
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    hooks = {
        o["metadata"]["name"]: o["metadata"]["annotations"]["helm.sh/hook"] for o in found if "helm.sh/hook" in o["metadata"].get("annotations", {})
    }
    assert hooks == {"ehrmind-operator-test": "test"}


def test_versions_of_chart_and_package_are_one() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (ehrmind_k8s.__version__, ehrmind_k8s.__version__)


def test_two_replicas_come_with_a_budget_and_one_does_not_block_a_drain() -> None:
    kinds = {n: [o["kind"] for o in rendered.objects("--set", f"replicas={n}")] for n in (1, 2)}
    assert ("PodDisruptionBudget" in kinds[1], "PodDisruptionBudget" in kinds[2]) == (False, True)


def test_the_operators_pod_is_the_one_that_policies_and_service_select_and_the_tests_pod_is_not() -> None:
    found = rendered.objects()
    labels = next(o for o in found if o["kind"] == "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [o["spec"]["podSelector"]["matchLabels"] for o in found if o["kind"] == "NetworkPolicy"]
    selectors += [o["spec"]["selector"] for o in found if o["kind"] == "Service"]
    test = next(o for o in found if o["kind"] == "Pod")["metadata"]["labels"]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test.items()
    # Or the operator would take its own pod for one of a run's.
    assert labels["app.kubernetes.io/managed-by"] == "Helm"


def test_the_operator_is_told_where_it_is_and_what_to_watch() -> None:
    env = {e["name"]: e for e in operator(rendered.objects("--values", CHART / "ci" / "namespaced-values.yaml"))["containers"][0]["env"]}
    assert env["EHRMIND_WATCH_NAMESPACES"]["value"] == "oncology,cardiology"
    assert env["EHRMIND_OPERATOR_NAMESPACE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"


def notes(tmp_path: Path, *options: str) -> str:
    """What `helm install` prints at its end. `helm template` leaves it out, so a copy of the chart renders it as a file."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart, dirs_exist_ok=True)
    (chart / "templates" / "NOTES.txt").rename(chart / "NOTES")
    (chart / "templates" / "shown.yaml").write_text('notes: {{ tpl (.Files.Get "NOTES") . | toJson }}\n')
    (shown,) = [o for o in yaml.safe_load_all(rendered.text(*options, "--show-only", "templates/shown.yaml", chart=chart)) if o]
    return str(shown["notes"])


def test_the_notes_say_what_is_missing_and_the_next_command(tmp_path: Path) -> None:
    said = notes(tmp_path)
    assert "MISSING: no training operator" in said
    assert "MISSING: profile `default` says no store" in said
    assert "create secret generic ehrmind-s3 --from-file=access-key-id=FILE --from-file=secret-access-key=FILE" in said
    assert "python -m ehrmind_k8s submit" in said


def test_the_notes_are_silent_about_what_is_there(tmp_path: Path) -> None:
    said = notes(tmp_path, "--values", str(CHART / "ci" / "gpu-values.yaml"), "--api-versions", "kubeflow.org/v1/PyTorchJob")
    assert "MISSING" not in said
    assert "NOTE" not in said
    assert "create configmap hospital-ca --from-file=ca.crt=FILE" in said


def test_alerts_ask_for_metrics_that_the_operator_has() -> None:
    found = rendered.objects("--values", CHART / "ci" / "monitoring-values.yaml")
    rules = next(o for o in found if o["kind"] == "PrometheusRule")["spec"]["groups"][0]["rules"]
    asked = {re.sub("_bucket$", "", m) for rule in rules for m in re.findall(r"ehrmind_\w+", rule["expr"])}
    source = "".join((ROOT / "ehrmind_k8s" / "controller" / f"{name}.py").read_text(encoding="utf-8") for name in ("meters", "operator"))
    assert len(asked) == len(rules)
    assert asked <= set(re.findall(r'"(ehrmind_\w+)"', source))
    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in rules)


def test_the_documented_command_lists_every_image() -> None:
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    (pipe,) = re.findall(r"helm template .* \| (sed -nE .*)$", page, re.MULTILINE)
    said = subprocess.run(["bash", "-c", pipe], input=rendered.text("--values", CHART / "ci" / "gpu-values.yaml"), capture_output=True, text=True)
    registry = "registry.hospital.example"
    assert sorted(said.stdout.split()) == [
        f"{registry}/ehrmind/ehrmind-rollout:{ehrmind_k8s.__version__}",
        f"{registry}/ehrmind/ehrmind-trainer:{ehrmind_k8s.__version__}",
        f"{registry}/ehrmind/ehrmind@sha256:{'a' * 64}",
        f"{registry}/own/rollout:7",
    ]


def test_the_documented_values_are_accepted(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"    # values\.yaml\n((?:    .*\n)+)", page)
    (tmp_path / "values.yaml").write_text(block)
    config = rendered.pick(rendered.objects("--values", tmp_path / "values.yaml"), "ConfigMap", "ehrmind-profiles")
    assert profile.parse("default", config["data"]["default"]).run_store("oncology") == "s3://research/oncology"
