"""The real `reconcile` on a real API server: what is refused, what may not be seen, who decides, and what a person changes meanwhile.

Only etcd and the API server are needed: what controllers and kubelets say of a Job is said by the test.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from ehrmind_k8s import crd, kubeapi
from ehrmind_k8s.controller import kinds, operator
from ehrmind_k8s.controller.operator import Operator
from ehrmind_k8s.controller.reconcile import reconcile
from ehrmind_k8s.controller.records import Decision, Snapshot
from ehrmind_k8s.controller.runtime import queue
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.kubeapi import Resource
from tests.cluster.api_server import DEFINITIONS, NAMESPACES, ApiServer, api_server
from tests.cluster.little_operator import child, options
from tests.cluster.stages import profiles
from tests.conftest import ROOT

Object = dict[str, Any]
JOB, POLICY, CONFIG_MAP = kinds.BY_KIND["Job"], kinds.BY_KIND["NetworkPolicy"], kinds.CONFIG_MAP
QUOTAS = Resource("", "v1", "ResourceQuota", "resourcequotas")
ACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts")
RBAC = "rbac.authorization.k8s.io"
ROLES, BINDINGS = Resource(RBAC, "v1", "ClusterRole", "clusterroles"), Resource(RBAC, "v1", "RoleBinding", "rolebindings")
ADMISSION = "admissionregistration.k8s.io"
RULES = Resource(ADMISSION, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
RULE_BINDINGS = Resource(ADMISSION, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
HOOKS = Resource(ADMISSION, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("api-server")) as found:
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema}
        spec = {"group": "kubeflow.org", "scope": "Namespaced", "names": {"plural": "pytorchjobs", "kind": "PyTorchJob"}, "versions": [version]}
        meta = {"name": "pytorchjobs.kubeflow.org"}
        found.client().create(
            DEFINITIONS, {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": meta, "spec": spec}
        )
        yield found


@pytest.fixture
def client(server: ApiServer) -> Client:
    return server.client()


def new_namespace(client: Client) -> str:
    made = client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}})
    name: str = made["metadata"]["name"]
    return name


@pytest.fixture
def namespace(client: Client) -> str:
    name = new_namespace(client)
    client.create(kinds.CONFIG_MAP, profiles(name))
    return name


def until(true: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


@contextmanager
def running(client: Client, namespace: str, *watched: str, decide: Callable[[Snapshot, float], Decision] = reconcile) -> Iterator[Operator]:
    """An operator that leads."""
    found = Operator(client, options(namespace, namespaces=watched or (namespace,)), decide, lost=lambda: None)
    found.start()
    try:
        until(found.lease.held)
        yield found
    finally:
        found.stop()


def submit(client: Client, namespace: str, name: str = "x") -> None:
    client.create(kinds.RUN, crd.to_object({"name": name, "task": "medcalc", "preset": "tiny"}, namespace))


def status(client: Client, namespace: str, name: str = "x") -> Object:
    return client.get(kinds.RUN, namespace, name).get("status") or {}


def message(client: Client, namespace: str, name: str = "x") -> str:
    return str(status(client, namespace, name).get("message", ""))


def names(client: Client, resource: Resource, namespace: str) -> list[str]:
    return [o["metadata"]["name"] for o in client.objects(resource, namespace)]


def allow(client: Client, namespace: str, jobs: int) -> None:
    """A quota on Jobs; nobody fills in its status here but us."""
    hard = {"count/jobs.batch": str(jobs)}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": namespace}, "spec": {"hard": hard}}
    made = client.create(QUOTAS, quota) | {"status": {"hard": hard, "used": {"count/jobs.batch": "0"}}}
    client.request("update", "PUT", QUOTAS.path(namespace, "small", "status"), body=made)


def test_a_quota_is_told_without_pause_and_asked_with_patience(client: Client, namespace: str) -> None:
    allow(client, namespace, 0)
    with running(client, namespace) as found:
        submit(client, namespace)
        until(lambda: "exceeded quota" in message(client, namespace))
        said, end = set(), time.monotonic() + 20
        while time.monotonic() < end:
            said.add(message(client, namespace))
            time.sleep(0.05)
        assert {"exceeded quota" in each for each in said} == {True}
        assert found.meters.writes.value("patch_status", crd.KIND) <= 16  # 1 s apart, and then further and further
        began = time.monotonic()
        client.patch(kinds.RUN, namespace, "x", {"spec": {"suspend": True}})
        until(lambda: status(client, namespace)["state"] == crd.SUSPENDED)
        assert time.monotonic() - began < 3  # what a person says is heard meanwhile
        client.patch(kinds.RUN, namespace, "x", {"spec": {"suspend": False}})
        client.delete(QUOTAS, namespace, "small")
        until(lambda: names(client, JOB, namespace) == ["x-prepare-2"])
        until(lambda: "quota" not in message(client, namespace))


@contextmanager
def refused(client: Client, kind: str, group: str, plural: str) -> Iterator[None]:
    """A policy of the cluster that takes no object of this kind."""
    name = f"no-{plural}"
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [plural]}
    spec: Object = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false", "message": f"no {kind} here"}]}
    head = {"apiVersion": f"{ADMISSION}/v1", "metadata": {"name": name}}
    client.create(RULES, head | {"kind": RULES.kind, "spec": spec})
    client.create(RULE_BINDINGS, head | {"kind": RULE_BINDINGS.kind, "spec": {"policyName": name, "validationActions": ["Deny"]}})
    probe = child({"metadata": {"name": "probe", "namespace": "default", "uid": "u"}}, kind, f"{group}/v1", "probe", spec=PROBES[kind])
    until(lambda: _denied(client, kinds.BY_KIND[kind], probe))
    try:
        yield
    finally:
        client.delete(RULE_BINDINGS, None, name)
        client.delete(RULES, None, name)


PROBES: dict[str, Object] = {
    "NetworkPolicy": {"podSelector": {}},
    "Job": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}},
}


def _denied(client: Client, resource: Resource, probe: Object) -> bool:
    try:
        client.create(resource, probe, dry_run=True)
    except kubeapi.ApiError as error:
        return "denied request" in error.message
    return False


def test_no_stage_starts_while_its_network_policy_is_refused(client: Client, namespace: str) -> None:
    with running(client, namespace):
        with refused(client, "NetworkPolicy", "networking.k8s.io", "networkpolicies"):
            submit(client, namespace)
            until(lambda: "no NetworkPolicy here" in message(client, namespace))
            time.sleep(6)  # the operator tries to create a child that it does not see again after 5 s
            assert names(client, JOB, namespace) == []
        until(lambda: names(client, JOB, namespace) == ["x-prepare-1"], 60)
        assert names(client, POLICY, namespace)


def test_network_policies_are_there_before_the_stage(client: Client, namespace: str) -> None:
    with running(client, namespace):
        submit(client, namespace)
        until(lambda: names(client, JOB, namespace))
    versions = [int(o["metadata"]["resourceVersion"]) for o in client.objects(POLICY, namespace)]
    assert max(versions) < min(int(o["metadata"]["resourceVersion"]) for o in client.objects(JOB, namespace))


def test_a_policy_of_the_cluster_is_told_in_its_own_words(client: Client, namespace: str) -> None:
    with running(client, namespace):
        with refused(client, "Job", "batch", "jobs"):
            submit(client, namespace)
            until(lambda: "no Job here" in message(client, namespace))
        until(lambda: names(client, JOB, namespace) == ["x-prepare-1"], 60)


def test_a_webhook_that_does_not_answer_is_told(client: Client, namespace: str) -> None:
    hook = {
        "name": "jobs.policy.example",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    body = {"apiVersion": f"{ADMISSION}/v1", "kind": HOOKS.kind, "metadata": {"name": "dead"}, "webhooks": [hook]}
    with running(client, namespace):
        client.create(HOOKS, body)
        try:
            time.sleep(2)  # the API server learns of it by a watch of its own
            submit(client, namespace)
            until(lambda: "failed calling webhook" in message(client, namespace))
        finally:
            client.delete(HOOKS, None, "dead")
        until(lambda: names(client, JOB, namespace) == ["x-prepare-1"], 60)


def test_a_time_out_comes_while_a_write_is_refused(client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "BACKOFF_S", (300.0, 300.0))
    monkeypatch.setattr(operator, "REFUSED_S", 1.0)
    allow(client, namespace, 0)
    looks = []

    def decide(snapshot: Snapshot, now: float) -> Decision:
        looks.append(now)
        job = child(snapshot.run, "Job", "batch/v1", "x-prepare-1", spec=PROBES["Job"])
        return Decision(status={"state": "running"}, creates=(job,), requeue_after_s=0.5)

    with running(client, namespace, decide=decide):
        submit(client, namespace)
        until(lambda: len(looks) >= 5, 15)


ALL: Object = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}


def limited(client: Client, server: ApiServer, home: str, *namespaces: str, rules: Sequence[Object] = (ALL,)) -> Client:
    """A client of an account that may do this, in these namespaces alone."""
    head = {"apiVersion": f"{RBAC}/v1"}
    client.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator", "namespace": home}})
    client.create(ROLES, head | {"kind": "ClusterRole", "metadata": {"name": f"all-{home}"}, "rules": list(rules)})
    for each in namespaces:
        bind(client, home, each)
    path = ACCOUNTS.path(home, "operator", "token")
    token = client.request("create", "POST", path, body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})["status"][
        "token"
    ]
    from kubernetes.client import Configuration

    configuration = Configuration(host=client.host)
    configuration.ssl_ca_cert = str(server.folder / "certificates" / "apiserver.crt")
    configuration.api_key = {"authorization": f"Bearer {token}"}
    return Client(configuration)


def bind(client: Client, home: str, namespace: str) -> None:
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": home}
    ref = {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"all-{home}"}
    head = {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": {"name": "operator", "namespace": namespace}}
    client.create(BINDINGS, head | {"roleRef": ref, "subjects": [subject]})


def test_a_namespace_that_is_gone_stops_nothing_elsewhere(server: ApiServer, client: Client, namespace: str) -> None:
    other = new_namespace(client)
    ours = limited(client, server, namespace, namespace)  # what is left when the other was deleted, and its Role with it
    submit(client, namespace)
    submit(client, other)
    with running(ours, namespace, namespace, other) as found:
        until(lambda: names(client, JOB, namespace) == ["x-prepare-1"])
        assert found.caches.unreadable() == {other}
        assert "ehrmind_unreadable_namespaces 1" in found.meters.text()
        for reflector in found.caches._all():
            reflector._heard -= 1000 if reflector.namespace == other else 0
        assert found._dead() == []
        assert not names(client, JOB, other) and not status(client, other)
        bind(client, namespace, other)
        until(lambda: names(client, JOB, other) == ["x-prepare-1"])
        assert found.caches.unreadable() == frozenset()


def test_an_operator_that_may_see_nothing_at_all_does_not_lead(server: ApiServer, client: Client, namespace: str) -> None:
    other = new_namespace(client)
    ours = limited(client, server, namespace, namespace)
    found = Operator(ours, options(namespace, namespaces=(other,)), reconcile, lost=lambda: None)
    found.start()
    until(lambda: found.caches.unreadable() == {other})
    assert crd.KIND in found.caches.unsynced()
    found.stop()


def test_a_status_that_may_not_be_written_is_no_bug_and_starts_nothing(server: ApiServer, client: Client, namespace: str) -> None:
    rules = [ALL | {"verbs": ["get", "list", "watch"]}, ALL | {"verbs": ["*"], "resources": ["leases", "jobs", "events"]}]
    submit(client, namespace)
    with running(limited(client, server, namespace, namespace, rules=rules), namespace) as found:
        until(lambda: found.meters.reconciles.value("refused") >= 2)
        assert found.meters.reconciles.value("error") == 0
        assert "ehrmind_bugs_total 0" in found.meters.text()
    assert names(client, JOB, namespace) == []


def test_what_is_known_of_a_run_outlives_one_whose_name_its_own_begins_with(client: Client, namespace: str) -> None:
    with running(client, namespace) as found:
        for name in ("demo", "demo-2"):
            submit(client, namespace, name)
        until(lambda: set(found.cluster._applied) == {(namespace, "demo"), (namespace, "demo-2")})
        before = dict(found.cluster._applied[namespace, "demo-2"])
        client.delete(kinds.RUN, namespace, "demo")
        until(lambda: (namespace, "demo") not in found.cluster._applied)
        assert found.cluster._applied[namespace, "demo-2"].items() >= before.items()


def test_a_kueue_that_is_broken_holds_nothing_up(client: Client, namespace: str) -> None:
    """Its Workloads are served by a converter that is not there, so that every list of them fails."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": v, "served": True, "storage": v == "v1beta2", "schema": schema} for v in ("v1beta1", "v1beta2")]
    hook = {"clientConfig": {"url": "https://127.0.0.1:1/"}, "conversionReviewVersions": ["v1"]}
    group, plural = kinds.WORKLOADS[0].group, kinds.WORKLOADS[0].plural
    names_ = {"plural": plural, "kind": "Workload"}
    spec = {"group": group, "scope": "Namespaced", "names": names_, "versions": versions}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    meta = {"name": f"{plural}.{group}", "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"}}
    client.create(DEFINITIONS, head | {"metadata": meta, "spec": spec})
    v2 = kinds.WORKLOADS[1]
    made = until(lambda: _created(client, v2, {"apiVersion": v2.api_version, "kind": v2.kind, "metadata": {"name": "a", "namespace": namespace}}))
    assert made
    client.patch(DEFINITIONS, None, f"{plural}.{group}", {"spec": {"conversion": {"strategy": "Webhook", "webhook": hook}}})
    try:
        until(lambda: _broken(client, kinds.WORKLOADS[0], namespace))
        with running(client, namespace) as found:
            assert "Workload" not in found.caches.unsynced()
            assert "Workload" not in found.caches.served()
            submit(client, namespace)
            until(lambda: names(client, JOB, namespace) == ["x-prepare-1"])
    finally:
        client.delete(DEFINITIONS, None, f"{plural}.{group}")


def _created(client: Client, resource: Resource, body: Object) -> bool:
    try:
        return bool(client.create(resource, body))
    except kubeapi.ApiError:
        return False


def _broken(client: Client, resource: Resource, namespace: str) -> bool:
    try:
        client.objects(resource, namespace)
    except kubeapi.Unavailable:
        return True
    return False


NOW = "2026-11-24T10:00:00Z"
BEGUN: Object = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def begin(client: Client, namespace: str, job: str) -> None:
    """The Job has a pod that runs, as the controller and a kubelet would say."""
    found = client.get(JOB, namespace, job)
    template, owner = found["spec"]["template"], {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": found["metadata"]["uid"]}
    head = {"name": f"{job}-0", "namespace": namespace, "labels": template["metadata"]["labels"], "ownerReferences": [owner | {"controller": True}]}
    client.create(kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": head, "spec": template["spec"]})
    _say(client, kinds.POD, namespace, f"{job}-0", BEGUN)
    _say(client, JOB, namespace, job, {"active": 1, "ready": 1, "startTime": NOW})


def finish(client: Client, namespace: str, job: str) -> None:
    """The pod ends well, and with it the Job."""
    labels = client.get(kinds.POD, namespace, f"{job}-0")["metadata"]["labels"]
    stage, attempt = labels[crd.LABEL_ROLE], int(labels[crd.LABEL_ATTEMPT])
    report = {"stage": stage, "attempt": attempt, "reason": "ok", "exit_code": 0, "score": None, "seconds": 1.0, "headline": {}}
    ended = {"exitCode": 0, "reason": "Completed", "message": json.dumps(report), "startedAt": NOW, "finishedAt": NOW}
    container = {"name": stage, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": ended}}
    _say(client, kinds.POD, namespace, f"{job}-0", {"phase": "Succeeded", "containerStatuses": [container]})
    done = [{"type": t, "status": "True", "reason": "Done", "lastTransitionTime": NOW} for t in ("SuccessCriteriaMet", "Complete")]
    _say(client, JOB, namespace, job, {"active": 0, "ready": 0, "succeeded": 1, "completionTime": NOW, "conditions": done})


def _say(client: Client, resource: Resource, namespace: str, name: str, said: Object) -> None:
    body, kind = {"status": said}, "application/merge-patch+json"
    client.request("patch", "PATCH", resource.path(namespace, name, "status"), body=body, content_type=kind)


def stage(client: Client, namespace: str) -> Object:
    """The first stage, as the status shows it."""
    found: Object = (status(client, namespace).get("stages") or [{}])[0]
    return found


def in_prepare(client: Client, namespace: str) -> str:
    """A run whose first stage is under way; returns its child's uid."""
    submit(client, namespace)
    until(lambda: names(client, JOB, namespace) == ["x-prepare-1"])
    begin(client, namespace, "x-prepare-1")
    until(lambda: stage(client, namespace).get("state") == "running")
    uid: str = client.get(JOB, namespace, "x-prepare-1")["metadata"]["uid"]
    return uid


def goes_on(client: Client, namespace: str, uid: str) -> None:
    """The stage ends, and the next one begins once, with nothing made twice."""
    assert client.get(JOB, namespace, "x-prepare-1")["metadata"]["uid"] == uid
    until(lambda: "x-diagnose-1" in names(client, JOB, namespace))
    time.sleep(1)
    assert sorted(names(client, JOB, namespace)) == ["x-diagnose-1", "x-prepare-1"]
    assert not names(client, kinds.OPTIONAL[0], namespace)
    assert (stage(client, namespace)["state"], stage(client, namespace)["attempt"]) == ("succeeded", 1)


def process(server: ApiServer, namespace: str) -> subprocess.Popen[str]:
    """An operator as the chart starts it, once it has said that it leads or is ready to."""
    argv = [sys.executable, "-m", "ehrmind_k8s.controller", "--kubeconfig", str(server.kubeconfig), "--port", "0"]
    env = {**os.environ, "EHRMIND_LOG_FORMAT": "json"}
    where = ["--operator-namespace", namespace, "--namespaces", namespace]
    started = subprocess.Popen([*argv, *where], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=env)
    assert any('"synced"' in line for line in _said(started))
    return started


def _said(started: subprocess.Popen[str]) -> Iterator[str]:
    assert started.stdout
    return started.stdout


def test_a_leader_that_is_killed_within_a_stage_is_followed_and_the_stage_counts_once(server: ApiServer, client: Client, namespace: str) -> None:
    both = []
    try:
        both.append(process(server, namespace))
        assert any('"leading"' in line for line in _said(both[0]))
        both.append(process(server, namespace))
        uid = in_prepare(client, namespace)
        both[0].kill()
        finish(client, namespace, "x-prepare-1")  # while nobody leads
        began = time.monotonic()
        assert any('"leading"' in line for line in _said(both[1]))
        assert time.monotonic() - began < 20
        goes_on(client, namespace, uid)
    finally:
        for each in both:
            each.kill()
            each.wait()
            _said(each).close()  # type: ignore[attr-defined]


def test_two_operators_that_both_lead_make_nothing_twice(client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(client, namespace) as one:
        monkeypatch.setattr(operator, "LEASE", "another")  # as after a pause that one of them has not noticed
        with running(client, namespace) as other:
            uid = in_prepare(client, namespace)
            finish(client, namespace, "x-prepare-1")
            goes_on(client, namespace, uid)
            assert sum(each.meters.writes.value("create", "Job") for each in (one, other)) == 2  # prepare and diagnose
            assert [each.meters.reconciles.value("error") for each in (one, other)] == [0, 0]


def test_what_a_person_edits_within_a_stage_is_taken_up_or_refused_and_the_stage_goes_on(client: Client, namespace: str) -> None:
    with running(client, namespace) as found:
        uid = in_prepare(client, namespace)
        client.patch(kinds.RUN, namespace, "x", {"spec": {"rollout": {"replicas": 2}}})
        with pytest.raises(kubeapi.Invalid):
            client.patch(kinds.RUN, namespace, "x", {"spec": {"preset": "default"}})
        until(lambda: status(client, namespace)["observedGeneration"] == 2)
        assert stage(client, namespace)["child"]["uid"] == uid
        finish(client, namespace, "x-prepare-1")
        goes_on(client, namespace, uid)
        assert found.meters.reconciles.value("error") == 0
