"""The chart on a real cluster: installed, tested, upgraded, rolled back and taken away, with a run that outlives all of it."""

import json
import re
import time
from collections.abc import Iterator

import pytest
import yaml

from ehrmind_k8s import crd, kubeapi
from ehrmind_k8s.controller.runtime.client import Client
from tests.cluster import release
from tests.cluster.harness import simulated as simulated_nodes
from tests.cluster.harness.client import RESTRICTED, Cluster, CommandFailed, Object
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.s3 import S3Access
from tests.cluster.stages import Stages
from tests.conftest import ROOT
from tests.unit.packaging import rendered

SYSTEM, NAME = release.SYSTEM, "ehrmind-operator"
WRITTEN = {"ConfigMap", "Job", "PyTorchJob", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "Event", crd.KIND}
OPERATOR = f"system:serviceaccount:{SYSTEM}:{NAME}"


@pytest.fixture
def installed(own_cluster: OwnCluster, cluster_s3: S3Access) -> Cluster:
    """The chart is installed in a namespace that takes restricted pods only, and its operator is ready. Never on somebody else's cluster."""
    if not own_cluster.exists("deployment", NAME, namespace=SYSTEM):
        own_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": RESTRICTED}})
        release.install(own_cluster, cluster_s3)
    return own_cluster


def may(cluster: Cluster, who: str, verb: str, group: str, resource: str, *, namespace: str = "", name: str = "") -> bool:
    """What the API server's RBAC says."""
    resource, _, part = resource.partition("/")
    wanted = {"verb": verb, "group": group, "resource": resource, "subresource": part, "namespace": namespace, "name": name}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": who, "resourceAttributes": wanted}}
    admin: kubeapi.Client = kubeapi.connect(str(cluster.kubeconfig))
    answer = admin.request("create", "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
    return bool(answer["status"]["allowed"])


def metrics(cluster: Cluster) -> str:
    """What the leading operator counts."""
    holder = cluster.get("lease", NAME, namespace=SYSTEM)["spec"]["holderIdentity"].partition("_")[0]
    return cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{holder}:8080/proxy/metrics")


def account(cluster: Cluster, namespace: str, role: str) -> str:
    """A user of the namespace with one of the cluster's own roles."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": f"{role}-of-{namespace}"}],
    }
    cluster.apply(binding, namespace=namespace)
    return f"{role}-of-{namespace}"


def identity(cluster: Cluster, namespace: str) -> Object:
    """What must not change of a run and of what it owns: uids, and the generation of what has one. Nothing is there that was not, either."""
    found = {"run": cluster.get("ehrmindrun", "kept", namespace=namespace)}
    for kind in ("pod", "job", "pytorchjob", "deployment", "service", "networkpolicy", "configmap"):
        found |= {f"{kind}/{o['metadata']['name']}": o for o in cluster.items(kind, namespace=namespace, selector=f"{crd.LABEL_INSTANCE}=kept")}
    return {name: (o["metadata"]["uid"], o["metadata"].get("generation") if "pod/" not in name else None) for name, o in found.items()}


def looked(cluster: Cluster) -> bool:
    """Whether the operator that leads has looked at every run."""
    try:
        return bool(re.search(r'^ehrmind_reconciles_total\{result="ok"\} [1-9]', metrics(cluster), re.MULTILINE))
    except CommandFailed:
        return False  # its pod has just gone


def settled(cluster: Cluster) -> None:
    """Wait until a newly installed operator has done what it wants."""
    end = time.monotonic() + 60
    while not looked(cluster):
        assert time.monotonic() < end, "no operator leads"
        time.sleep(0.5)
    time.sleep(3)  # what it would change follows its first look


@pytest.fixture
def kept(installed: Cluster, simulated: OwnCluster, training_operator: None, namespace: str, cluster_s3: S3Access) -> Iterator[Object]:
    """A run in RLVR on nodes that are not there, with two rollout servers; the profile that brought it there."""
    profile: Object = {"node_selector": simulated_nodes.NODE_SELECTOR, "tolerations": [simulated_nodes.TOLERATION]}
    release.install(installed, cluster_s3, **profile)
    stages = Stages(kubeapi.connect(str(installed.kubeconfig), make=Client), namespace)
    stages.held = {"rlvr"}
    stages.start()
    body = crd.to_object({"name": "kept", "task": "medcalc", "preset": "tiny", "rollout": {"replicas": 2}}, namespace)
    installed.apply(body)
    installed.wait("ehrmindrun", "kept", in_rlvr, namespace=namespace, timeout_s=180)
    yield profile
    stages.stop()
    if not installed.exists("deployment", NAME, namespace=SYSTEM) or "simulated" in profiles(installed):
        release.install(installed, cluster_s3)


def in_rlvr(run: Object) -> bool:
    """RLVR works, and both of its servers do."""
    status = run.get("status") or {}
    return any(s["name"] == "rlvr" and s["state"] == "running" for s in status.get("stages", ())) and (status.get("rollout") or {}).get("ready") == 2


def profiles(cluster: Cluster) -> str:
    """The default profile, as the operator reads it."""
    return str(cluster.get("configmap", "ehrmind-profiles", namespace=SYSTEM)["data"]["default"])


def test_the_operator_leads_in_a_namespace_that_takes_restricted_pods_only(installed: Cluster) -> None:
    deployment = installed.wait("deployment", NAME, "Available", namespace=SYSTEM)
    assert deployment["status"]["readyReplicas"] == 1
    holder = installed.wait("lease", NAME, lambda o: o["spec"].get("holderIdentity"), namespace=SYSTEM)["spec"]["holderIdentity"]
    pod = installed.get("pod", holder.partition("_")[0], namespace=SYSTEM)
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def test_helm_test_passes_and_leaves_nothing(installed: Cluster, training_operator: None) -> None:
    installed.helm("test", "ehrmind", "--timeout=60s", namespace=SYSTEM)
    assert not installed.exists("pod", f"{NAME}-test", namespace=SYSTEM)
    assert not installed.exists("role", f"{NAME}-test", namespace=SYSTEM)


def test_upgrade_rollback_and_uninstall_leave_a_run_alone(installed: Cluster, kept: Object, namespace: str, cluster_s3: S3Access) -> None:
    before = identity(installed, namespace)
    assert sum(name.startswith("pod/kept-rollout") for name in before) == 2
    release.install(installed, cluster_s3, "other", **kept, scratch="21Gi")
    settled(installed)
    assert "21Gi" in profiles(installed)
    assert identity(installed, namespace) == before
    installed.helm("rollback", "ehrmind", "--wait", namespace=SYSTEM)
    settled(installed)
    assert "21Gi" not in profiles(installed)
    assert identity(installed, namespace) == before
    installed.helm("uninstall", "ehrmind", "--wait", namespace=SYSTEM)
    assert not installed.exists("deployment", NAME, namespace=SYSTEM)
    assert identity(installed, namespace) == before
    release.install(installed, cluster_s3, "other", **kept)
    settled(installed)
    assert identity(installed, namespace) == before
    assert in_rlvr(installed.get("ehrmindrun", "kept", namespace=namespace))


def test_an_operator_for_one_namespace_is_ready_with_rights_there_alone(installed: Cluster, namespace: str, cluster_s3: S3Access) -> None:
    limits = {"watchNamespaces": [namespace], "crds": {"install": False}, "rbac": {"userRoles": False}}
    given = json.dumps(release.values(cluster_s3) | limits)
    installed.helm("install", "ehrmind", release.CHART, "--values=-", "--wait", "--timeout=60s", namespace=namespace, given=given)
    who = f"system:serviceaccount:{namespace}:{NAME}"
    assert may(installed, who, "list", "", "pods", namespace=namespace)
    assert not may(installed, who, "list", "", "pods", namespace=SYSTEM)
    assert not may(installed, who, "list", crd.GROUP, crd.PLURAL)
    installed.helm("uninstall", "ehrmind", "--wait", namespace=namespace)


@pytest.mark.parametrize(("role", "verbs"), [("view", "get list watch"), ("edit", "get list watch create update patch delete")])
def test_people_may_do_with_runs_what_their_role_says(installed: Cluster, namespace: str, role: str, verbs: str) -> None:
    who = account(installed, namespace, role)
    installed.wait("clusterrole", role, lambda o: any(crd.PLURAL in rule.get("resources", ()) for rule in o["rules"]))
    known = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    assert [v for v in known if may(installed, who, v, crd.GROUP, crd.PLURAL, namespace=namespace)] == verbs.split()
    assert may(installed, who, "patch", crd.GROUP, f"{crd.PLURAL}/scale", namespace=namespace) == (role == "edit")
    assert not may(installed, who, "patch", crd.GROUP, f"{crd.PLURAL}/status", namespace=namespace)


def test_the_operator_may_not_read_secrets_or_logs_nor_enter_pods_nor_change_runs(installed: Cluster, namespace: str) -> None:
    for verb, group, resource in [
        *((v, "", "secrets") for v in ("get", "list", "watch", "create")),
        ("get", "", "pods/log"),
        ("create", "", "pods/exec"),
        ("delete", "", "pods"),
        ("update", "", "configmaps"),
        ("create", "", "serviceaccounts/token"),
        ("list", "", "nodes"),
        ("create", crd.GROUP, crd.PLURAL),
        ("patch", crd.GROUP, crd.PLURAL),
        ("create", "rbac.authorization.k8s.io", "rolebindings"),
        ("get", "coordination.k8s.io", "leases"),
    ]:
        assert not may(installed, OPERATOR, verb, group, resource, namespace=namespace), (verb, resource)
    assert may(installed, OPERATOR, "update", "coordination.k8s.io", "leases", namespace=SYSTEM, name=NAME)
    assert not may(installed, OPERATOR, "update", "coordination.k8s.io", "leases", namespace=SYSTEM, name="another")


def refusals(cluster: Cluster) -> list[str]:
    """What the operator counts of requests that it had no right to."""
    return [line for line in metrics(cluster).splitlines() if 'code="403"' in line]


def test_a_whole_life_of_a_run_meets_no_refusal(
    installed: Cluster, simulated: OwnCluster, namespace: str, cluster_s3: S3Access, training_operator: None
) -> None:
    """Pods are simulated, everything else is real: each stage's first pod ends with the report of a success as soon as it runs."""
    for leaving in [n for n in installed.items("namespace") if n["status"]["phase"] == "Terminating"]:  # nothing may be made in those
        installed.wait_gone("namespace", leaving["metadata"]["name"])
    before = refusals(installed)
    release.install(installed, cluster_s3, node_selector=simulated_nodes.NODE_SELECTOR, tolerations=[simulated_nodes.TOLERATION])
    document = {"name": "life", "task": "medcalc", "preset": "tiny", "rollout": {"replicas": 2}}
    installed.apply(crd.to_object(document, namespace))
    ended: set[str] = set()
    states: list[str] = []
    for run in installed.watch("ehrmindrun", "life", namespace=namespace, timeout_s=120):
        states.append(run.get("status", {}).get("state", ""))
        if states[-1] in crd.TERMINAL:
            break
        for pod in installed.items("pods", namespace=namespace, selector=f"{crd.LABEL_ROLE}!=rollout"):
            name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
            if name not in ended and pod["status"]["phase"] == "Running":
                report = {"stage": labels[crd.LABEL_ROLE], "attempt": int(labels[crd.LABEL_ATTEMPT]), "reason": "ok", "exit_code": 0, "seconds": 1.0}
                simulated_nodes.end(installed, name, namespace=namespace, message=json.dumps(report))
                ended.add(name)
    assert states[-1] == crd.SUCCEEDED, installed.story(namespace)
    assert {kind for kind in WRITTEN if f'kind="{kind}"' in metrics(installed)} == WRITTEN
    assert refusals(installed) == before
    release.install(installed, cluster_s3)


def test_the_api_server_knows_every_field_of_every_object(installed: Cluster) -> None:
    others = {"ServiceMonitor", "PrometheusRule"}  # of the Prometheus operator, which this cluster has not
    found: list[Object] = []
    for values in rendered.VALUES:
        objects = rendered.objects("--values", values, name=f"{values.stem}-ehrmind")
        found += [o for o in objects if o["kind"] not in {*others, "Pod"}]  # a pod asks for its account; this one has run in `helm test`
    for name in {o["metadata"]["namespace"] for o in found if "namespace" in o["metadata"]}:
        installed.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    how = ("--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "--filename=-")
    said = installed.kubectl("apply", *how, given=yaml.safe_dump_all(found))
    assert len(said.splitlines()) == len(found) > 60


def test_kustomize_installs_the_same_on_a_cluster(installed: Cluster) -> None:
    how = ("--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts")
    said = installed.kubectl("apply", *how, "--kustomize", ROOT / "manifests" / "operator")
    assert f"deployment.apps/{NAME} serverside-applied (server dry run)" in said


def test_a_typo_in_the_values_stops_before_anything_is_installed(installed: Cluster, namespace: str) -> None:
    with pytest.raises(CommandFailed, match="replica"):
        installed.helm("install", "typo", release.CHART, "--set=replica=2", namespace=namespace)
    assert not installed.items("configmap", namespace=namespace, selector="app.kubernetes.io/instance=typo")
