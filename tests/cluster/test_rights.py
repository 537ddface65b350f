"""The operator with nothing but the rights of its chart, on a real API server that writes down each request: none is refused, none is unused.

Only etcd and the API server are needed. It also enforces what some clusters do: a blocking owner reference asks for a right on the owner.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import crd, kubeapi
from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.operator import Operator, Options
from ehrmind_k8s.controller.records import Decision, Delete, Event, Snapshot
from ehrmind_k8s.controller.runtime.client import Client
from tests.cluster import api_server, release
from tests.cluster.harness.client import Cluster, Object
from tests.conftest import needs
from tests.tools import build
from tests.unit.packaging.rights import APPLIED, DELETED, ONCE, Right, granted

SYSTEM, RUNS, NAME = release.SYSTEM, "research", "ehrmind-operator"
USER = f"system:serviceaccount:{SYSTEM}:{NAME}"
POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata", "users": [USER]}, {"level": "None"}]}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}
SPECS: dict[str, Object] = {
    "Job": {"template": TEMPLATE},
    "Deployment": {"selector": {"matchLabels": {"a": "b"}}, "template": {**TEMPLATE, "spec": {"containers": [{"name": "a", "image": "a"}]}}},
    "Service": {"clusterIP": "None", "ports": [{"port": 8000, "protocol": "TCP"}]},
    "NetworkPolicy": {"podSelector": {"matchLabels": {"a": "b"}}},
    "PodDisruptionBudget": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}},
}


class Watched(api_server.ApiServer):
    """An API server that writes the operator's requests into `audit.log`."""

    def _spawn(self, program: str, *arguments: str) -> None:
        more = []
        if program == "kube-apiserver":
            (self.folder / "audit.json").write_text(json.dumps(POLICY))
            more = [f"--audit-policy-file={self.folder / 'audit.json'}", f"--audit-log-path={self.folder / 'audit.log'}"]
            more += ["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"]
        super()._spawn(program, *arguments, *more)

    def requests(self) -> Iterator[tuple[Right, int]]:
        """What the operator asked for, as RBAC sees it, and the answer's status."""
        for line in (self.folder / "audit.log").read_text().splitlines():
            entry = json.loads(line)
            if (ref := entry.get("objectRef")) and "code" in entry.get("responseStatus", {}):
                resource, code = "/".join(filter(None, [ref["resource"], ref.get("subresource")])), entry["responseStatus"]["code"]
                yield (ref.get("apiGroup", ""), resource, entry["verb"]), code
                if (entry["verb"], code) == ("patch", 201):  # an apply that made its object was asked for this right too
                    yield (ref.get("apiGroup", ""), resource, "create"), code


def definition(resource: kubeapi.Resource) -> Object:
    """A kind of another project. Rights know group and name alone, so its schema is left open."""
    version = {"name": resource.version, "served": True, "storage": True}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"kind": resource.kind, "plural": resource.plural}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Groups below k8s.io are reserved: the server asks who has approved them.
        "metadata": {"name": f"{resource.plural}.{resource.group}", "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"}},
        "spec": {"group": resource.group, "scope": "Namespaced", "names": names, "versions": [{**version, "schema": schema}]},
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """An API server with the chart and with the kinds of other projects."""
    for program in (*api_server.PROGRAMS, "kubectl", "helm"):
        needs(program, build.GET_GO, there=build.path(program).exists())
    started = Watched(tmp_path_factory.mktemp("rights"))
    try:
        started.start()
        cluster = Cluster(started.kubeconfig, started.folder, None)
        cluster.apply(*(definition(r) for r in (*kinds.OPTIONAL, kinds.WORKLOADS[0])))
        cluster.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in (SYSTEM, RUNS)))
        cluster.helm("install", "ehrmind", release.CHART, namespace=SYSTEM)
        cluster.wait("crd", f"{crd.PLURAL}.{crd.GROUP}", "Established")
        yield started
    finally:
        started.close()


@contextmanager
def operator(server: Watched) -> Iterator[Operator]:
    """The operator under its ServiceAccount, leading, with a `reconcile` that wants nothing."""
    cluster = Cluster(server.kubeconfig, server.folder, None)
    client = kubeapi.connect(str(cluster.kubeconfig_of(NAME, namespace=SYSTEM)), make=Client)
    started = Operator(client, Options(SYSTEM, port=0), lambda snapshot, now: Decision(), lost=lambda: None)
    started.start()
    try:
        until(lambda: started.lease.held() and started.caches.served() == kinds.SERVED)
        yield started
    finally:
        started.stop()


def until(holds: Any, timeout_s: float = 30) -> None:
    """Wait until it holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "not so after 30 s"
        time.sleep(0.05)


def looked_at(started: Operator, name: str) -> Snapshot:
    """What the operator sees of a run, once it sees it."""
    until(lambda: started.caches.run((RUNS, name)) is not None)
    found = started.cluster.snapshot((RUNS, name))
    assert found is not None
    return found


def child(resource: kubeapi.Resource, run: Any) -> Object:
    """An object of this kind as the builders make them: it names its run in labels and in a blocking owner reference."""
    meta = run["metadata"]
    owner = {"apiVersion": crd.API_VERSION, "kind": crd.KIND, "name": meta["name"], "uid": meta["uid"]}
    labels = {crd.LABEL_MANAGED_BY: crd.MANAGED_BY, crd.LABEL_INSTANCE: meta["name"], crd.LABEL_RUN_UID: meta["uid"]}
    body: Object = {"data": {"a": "b"}} if resource.kind == "ConfigMap" else {"spec": SPECS.get(resource.kind, {})}
    owners = [{**owner, "controller": True, "blockOwnerDeletion": True}]
    metadata = {"name": meta["name"], "namespace": RUNS, "labels": labels, "ownerReferences": owners}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **body}


def test_every_right_is_used_and_none_is_missing(server: Watched) -> None:
    cluster = Cluster(server.kubeconfig, server.folder, None)
    cluster.apply(*(crd.to_object({"name": name, "task": "medcalc", "preset": "tiny", "suspend": True}, RUNS) for name in ("first", "second")))
    written = (*kinds.BUILT_IN, *kinds.OPTIONAL)
    with operator(server) as started:
        for name in ("first", "second"):
            run = looked_at(started, name).run
            if name == "second":  # its names are taken, so that the operator looks whose they are
                # Not those of its policies: a policy that is refused holds everything else back.
                foreign = [child(r, run) for r in written if r.kind != "NetworkPolicy"]
                cluster.apply(*({**o, "metadata": {k: o["metadata"][k] for k in ("name", "namespace")}} for o in foreign))
            creates, applies = ([child(r, run) for r in written if r.kind in which] for which in (ONCE, APPLIED))
            status, events = {"state": crd.SUSPENDED}, (Event("Normal", "Suspended", "suspended"),)
            decision = Decision(status=status, creates=tuple(creates), applies=tuple(applies), events=events)
            assert started.cluster.execute((RUNS, name), looked_at(started, name), decision) == (name == "second")
        until(lambda: len(looked_at(started, "first").children) == len(written))
        snapshot = looked_at(started, "first")
        gone = [Delete(c.kind, c.name, c.uid) for c in snapshot.children if c.kind in DELETED]
        gone.append(Delete(crd.KIND, "first", snapshot.run["metadata"]["uid"]))
        assert not started.cluster.execute((RUNS, "first"), snapshot, Decision(deletes=tuple(gone)))
    found = list(server.requests())
    assert [(right, code) for right, code in found if code in (401, 403)] == []
    given = granted("ClusterRole", f"{NAME}-runs") | granted("Role", NAME)
    # Admission asks for the last one itself, which no request shows: test_a_blocking_owner_reference_needs_its_right.
    assert given - {right for right, _ in found} == {(crd.GROUP, f"{crd.PLURAL}/finalizers", "update")}


def test_a_blocking_owner_reference_needs_its_right(server: Watched, tmp_path: Path) -> None:
    cluster = Cluster(server.kubeconfig, server.folder, None)
    cluster.apply(crd.to_object({"name": "third", "task": "medcalc", "preset": "tiny"}, RUNS))
    rules = json.loads(cluster.kubectl("get", "clusterrole", f"{NAME}-runs", "--output=json"))["rules"]
    less = [rule for rule in rules if rule["resources"] != [f"{crd.PLURAL}/finalizers"]]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "less"}, "rules": less}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "less"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "less"},
        "subjects": [{"kind": "ServiceAccount", "name": "less", "namespace": SYSTEM}],
    }
    cluster.apply(role, binding, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "less", "namespace": SYSTEM}})
    run = cluster.get("ehrmindrun", "third", namespace=RUNS)
    wanted = child(kinds.CONFIG_MAP, run)
    poorer = kubeapi.connect(str(cluster.kubeconfig_of("less", namespace=SYSTEM)), make=Client)
    with pytest.raises(kubeapi.Refused, match="cannot set blockOwnerDeletion"):
        poorer.create(kinds.CONFIG_MAP, wanted)
    kubeapi.connect(str(cluster.kubeconfig_of(NAME, namespace=SYSTEM)), make=Client).create(kinds.CONFIG_MAP, wanted)
