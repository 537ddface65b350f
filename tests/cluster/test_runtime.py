"""The operator's runtime against a real API server: watches that survive everything, one leader, and no write too many."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pytest

from ehrmind_k8s import crd
from ehrmind_k8s.controller import caches, kinds
from ehrmind_k8s.controller.operator import Operator
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.controller.runtime.lease import LEASES
from ehrmind_k8s.controller.runtime.reflector import Reflector
from ehrmind_k8s.controller.runtime.store import Store, name_of
from ehrmind_k8s.kubeapi import Conflict, Gone, NotFound, Resource
from tests.cluster.api_server import DEFINITIONS, NAMESPACES, ApiServer, api_server
from tests.cluster.little_operator import decide, options
from tests.conftest import ROOT

# A connection that is reset before its TLS handshake: CPython leaves that socket to the garbage collector, which complains.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """No such socket is left for a test that knows nothing of it."""
    yield
    gc.collect()


CONFIG_MAPS, SERVICES, QUOTAS = kinds.CONFIG_MAP, kinds.BY_KIND["Service"], Resource("", "v1", "ResourceQuota", "resourcequotas")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("api-server")) as found:
        yield found


@pytest.fixture
def client(server: ApiServer) -> Client:
    return server.client()


@pytest.fixture
def namespace(client: Client, request: pytest.FixtureRequest) -> str:
    made = client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}})
    name: str = made["metadata"]["name"]
    return name


def until(true: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def a_run(namespace: str, name: str) -> dict[str, Any]:
    return crd.to_object({"name": name, "task": "medcalc", "preset": "tiny"}, namespace)


class Watched:
    """A reflector of the ConfigMaps of a namespace, and what it said."""

    def __init__(self, client: Client, namespace: str, **more: Any) -> None:
        self.store = Store(kinds.keep(CONFIG_MAPS), lambda o: [name_of(o)[1]])
        self.said: list[frozenset[Hashable]] = []
        self.reflector = Reflector(client, CONFIG_MAPS, self.store, self.said.append, namespace=namespace, **more)
        self.reflector.start()
        assert self.reflector.synced.wait(20)

    def names(self) -> set[str]:
        return {n for _, n in self.store.names()}


@pytest.fixture
def watched(client: Client, namespace: str) -> Iterator[Watched]:
    found = Watched(client, namespace)
    yield found
    found.reflector.stop()


def test_what_happens_is_seen_and_said(client: Client, namespace: str, watched: Watched) -> None:
    made = client.create(CONFIG_MAPS, config_map(namespace, "a", x="1"))
    until(lambda: watched.store.get(namespace, "a"))
    client.patch(CONFIG_MAPS, namespace, "a", {"data": {"x": "2"}})
    until(lambda: watched.store.get(namespace, "a")["data"]["x"] == "2")
    client.delete(CONFIG_MAPS, namespace, "a", made["metadata"]["uid"])
    until(lambda: not watched.names())
    assert watched.said[-3:] == [frozenset({"a"})] * 3
    assert (watched.reflector.lists, watched.reflector.watches) == (1, 1)


def test_a_long_list_comes_in_pages(client: Client, namespace: str) -> None:
    for i in range(501):
        client.create(CONFIG_MAPS, config_map(namespace, f"m{i}"))
    assert [len(items) for items, _ in client.pages(CONFIG_MAPS, namespace)] == [500, 1]
    watched = Watched(client, namespace)
    assert len(watched.names()) == 501
    watched.reflector.stop()


def test_a_watch_from_a_version_that_was_compacted_away_is_gone(server: ApiServer, client: Client, namespace: str) -> None:
    version = client.create(CONFIG_MAPS, config_map(namespace, "a"))["metadata"]["resourceVersion"]
    client.create(CONFIG_MAPS, config_map(namespace, "b"))
    server.stop()
    server.compact()
    server.start()
    with pytest.raises(Gone):
        list(client.watch(CONFIG_MAPS, namespace, version, timeout_s=2))


def test_after_an_outage_and_a_compaction_what_was_missed_is_found_out(server: ApiServer, client: Client, namespace: str, watched: Watched) -> None:
    for name in ("kept", "lost"):
        client.create(CONFIG_MAPS, config_map(namespace, name))
    until(lambda: watched.names() == {"kept", "lost"})
    watched.said.clear()
    server.stop()
    server.remove_behind_its_back(f"configmaps/{namespace}/lost")
    server.compact()
    until(lambda: watched.reflector.failure)
    time.sleep(2)
    server.start()
    until(lambda: watched.names() == {"kept"})
    assert watched.said == [frozenset({"lost"})]
    assert watched.reflector.lists == 2
    client.create(CONFIG_MAPS, config_map(namespace, "after"))
    until(lambda: "after" in watched.names())


def test_a_server_that_is_down_is_asked_ever_more_slowly(server: ApiServer, client: Client, namespace: str, watched: Watched) -> None:
    calls: list[float] = []
    client.told = lambda verb, code: calls.append(time.monotonic())
    server.stop()
    until(lambda: watched.reflector.failure)
    calls.clear()
    time.sleep(4)
    server.start()
    assert 2 <= len(calls) <= 12
    until(lambda: watched.reflector.failure is None)


def test_a_line_that_went_dead_is_noticed_and_the_watch_goes_on_where_it_was(server: ApiServer, client: Client, namespace: str) -> None:
    watched = Watched(client, namespace, silence_s=1.0)
    process = server._running["kube-apiserver"]
    process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: watched.reflector.failure)
    finally:
        process.send_signal(signal.SIGCONT)
    client.create(CONFIG_MAPS, config_map(namespace, "a"))
    until(lambda: watched.names() == {"a"})
    assert watched.reflector.lists == 1
    watched.reflector.stop()


def test_a_stopped_reflector_ends_at_once(client: Client, namespace: str) -> None:
    watched = Watched(client, namespace)
    until(lambda: watched.reflector.watches)
    began = time.monotonic()
    watched.reflector.stop()
    assert time.monotonic() - began < 1.0
    assert not watched.reflector._thread.is_alive()


def test_a_status_is_replaced_as_a_whole_and_only_at_the_version_it_was_made_from(client: Client, namespace: str) -> None:
    run = client.create(kinds.RUN, a_run(namespace, "x"))
    first = client.patch_status(kinds.RUN, namespace, "x", run["metadata"]["resourceVersion"], {"state": "running", "stage": "sft"})
    with pytest.raises(Conflict):
        client.patch_status(kinds.RUN, namespace, "x", run["metadata"]["resourceVersion"], {"state": "failed"})
    second = client.patch_status(kinds.RUN, namespace, "x", first["metadata"]["resourceVersion"], {"state": "suspended"})
    assert second["status"] == {"state": "suspended"}
    assert second["metadata"]["generation"] == run["metadata"]["generation"]


def test_a_delete_hits_only_the_object_that_was_meant(client: Client, namespace: str) -> None:
    client.create(CONFIG_MAPS, config_map(namespace, "a"))
    with pytest.raises(Conflict):
        client.delete(CONFIG_MAPS, namespace, "a", "00000000-0000-0000-0000-000000000000")
    assert client.get(CONFIG_MAPS, namespace, "a")


def test_an_apply_that_changes_nothing_is_no_new_version(client: Client, namespace: str) -> None:
    first = client.apply(CONFIG_MAPS, config_map(namespace, "a", x="1"), "me")
    client.patch(CONFIG_MAPS, namespace, "a", {"data": {"theirs": "2"}})
    second = client.apply(CONFIG_MAPS, config_map(namespace, "a", x="1"), "me")
    assert second["data"] == {"x": "1", "theirs": "2"}
    assert client.apply(CONFIG_MAPS, config_map(namespace, "a", x="1"), "me")["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert first["metadata"]["resourceVersion"] != second["metadata"]["resourceVersion"]


class Lost:
    """Where the operator would end its process."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self) -> None:
        self.event.set()


@pytest.fixture
def operator(client: Client, namespace: str) -> Iterator[Operator]:
    found = Operator(client, options(namespace, namespaces=(namespace,)), decide, lost=Lost())
    found.start()
    yield found
    found.stop()


def message(client: Client, namespace: str, name: str) -> str:
    return str((client.get(kinds.RUN, namespace, name).get("status") or {}).get("message", ""))


BOTH = "ConfigMap/{0}-spec; Service/{0}-rollout"


def test_runs_are_carried_and_then_cost_nothing(client: Client, namespace: str, operator: Operator) -> None:
    for i in range(20):
        client.create(kinds.RUN, a_run(namespace, f"r{i}"))
    until(lambda: all(message(client, namespace, f"r{i}") == BOTH.format(f"r{i}") for i in range(20)), 60)
    writes = operator.meters.writes
    assert (writes.value("create", "ConfigMap"), writes.value("apply", "Service"), writes.value("create", "Event")) == (20, 20, 20)
    written, lists, looks = writes.lines(), operator.caches.lists(), operator.meters.reconciles.value("ok")
    operator.caches.wake_all()
    until(lambda: operator.meters.reconciles.value("ok") >= looks + 20)
    assert writes.lines() == written
    assert operator.caches.lists() == lists
    assert 'ehrmind_runs{state="running"} 20' in operator.meters.text()
    assert 'ehrmind_runs{state="failed"} 0' in operator.meters.text()  # an alert sees a number grow, but not one that appears
    assert "ehrmind_bugs_total 0" in operator.meters.text()


def test_what_somebody_changed_by_hand_is_put_right_and_what_they_added_stays(client: Client, namespace: str, operator: Operator) -> None:
    client.create(kinds.RUN, a_run(namespace, "x"))
    until(lambda: message(client, namespace, "x") == BOTH.format("x"))
    uid = client.get(kinds.RUN, namespace, "x")["metadata"]["uid"]
    client.patch(SERVICES, namespace, "x-rollout", {"spec": {"selector": {crd.LABEL_RUN_UID: "x"}}, "metadata": {"labels": {"theirs": "1"}}})
    until(lambda: client.get(SERVICES, namespace, "x-rollout")["spec"]["selector"] == {crd.LABEL_RUN_UID: uid})
    assert client.get(SERVICES, namespace, "x-rollout")["metadata"]["labels"]["theirs"] == "1"
    client.delete(SERVICES, namespace, "x-rollout")
    until(lambda: _there(client, SERVICES, namespace, "x-rollout"))


def test_a_strangers_object_is_not_touched_and_is_told(client: Client, namespace: str, operator: Operator) -> None:
    client.create(CONFIG_MAPS, config_map(namespace, "x-spec", whose="theirs"))
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x-rollout", "namespace": namespace}, "spec": {"ports": [{"port": 1}]}}
    client.create(SERVICES, service)
    client.create(kinds.RUN, a_run(namespace, "x"))
    until(lambda: "NameTaken Service/x-rollout" in message(client, namespace, "x"))
    said = message(client, namespace, "x")
    assert "ConfigMap/x-spec (not ours)" in said
    assert "NameTaken ConfigMap/x-spec: ConfigMap x-spec is there and does not belong to this run" in said
    assert client.get(CONFIG_MAPS, namespace, "x-spec")["data"] == {"whose": "theirs"}
    assert client.get(SERVICES, namespace, "x-rollout")["spec"]["ports"][0]["port"] == 1
    assert "ownerReferences" not in client.get(SERVICES, namespace, "x-rollout")["metadata"]


def test_a_quota_is_told_and_the_run_goes_on_when_there_is_room(client: Client, namespace: str, operator: Operator) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": namespace}, "spec": {"hard": {"services": "0"}}}
    made = client.create(QUOTAS, quota)
    made["status"] = {"hard": {"services": "0"}, "used": {"services": "0"}}
    client.request("update", "PUT", QUOTAS.path(namespace, "small", "status"), body=made)
    client.create(kinds.RUN, a_run(namespace, "x"))
    until(lambda: "QuotaExceeded Service/x-rollout" in message(client, namespace, "x"))
    assert "requested: services=1" in message(client, namespace, "x")
    client.delete(QUOTAS, namespace, "small")
    until(lambda: message(client, namespace, "x") == BOTH.format("x"), 60)


def test_a_namespace_that_goes_away_is_told(client: Client, namespace: str, operator: Operator) -> None:
    until(operator.lease.held)
    client.create(kinds.RUN, a_run(namespace, "x"))
    until(lambda: message(client, namespace, "x") == BOTH.format("x"))
    client.delete(NAMESPACES, None, namespace)  # nobody empties it here, so it stays Terminating
    client.delete(SERVICES, namespace, "x-rollout")
    until(lambda: "NamespaceTerminating Service/x-rollout" in message(client, namespace, "x"))


def test_a_run_that_is_deleted_is_forgotten(client: Client, namespace: str, operator: Operator) -> None:
    client.create(kinds.RUN, a_run(namespace, "x"))
    until(lambda: message(client, namespace, "x"))
    client.delete(kinds.RUN, namespace, "x")
    until(lambda: operator.caches.runs() == [])
    until(lambda: operator.queue.depth() == 0 and operator.queue.oldest_s() == 0)
    assert operator.meters.errors.value("NotFound") == 0


def test_an_operator_that_was_without_a_server_for_a_while_goes_on(server: ApiServer, client: Client, namespace: str, operator: Operator) -> None:
    until(operator.lease.held)
    server.stop()
    time.sleep(4)
    server.start()
    server.client().create(kinds.RUN, a_run(namespace, "x"))
    until(lambda: message(client, namespace, "x") == BOTH.format("x"), 40)
    assert not operator.lease._lost.event.is_set()  # type: ignore[attr-defined]


def test_a_leader_that_cannot_renew_stops_before_anyone_else_may_begin(server: ApiServer, client: Client, namespace: str, operator: Operator) -> None:
    until(operator.lease.held)
    server.stop()
    try:
        began = time.monotonic()
        assert operator.lease._lost.event.wait(20)  # type: ignore[attr-defined]
        assert 8 < time.monotonic() - began < 14
        assert not operator.lease.held()
    finally:
        server.start()


def test_kinds_of_other_projects_come_and_go(client: Client, namespace: str, operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "DISCOVER_S", 1.0)
    until(lambda: not operator.caches.unsynced())
    assert operator.caches.served() == frozenset()
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "pytorchjobs", "singular": "pytorchjob", "kind": "PyTorchJob"}
    spec = {"group": "kubeflow.org", "scope": "Namespaced", "names": names, "versions": [version]}
    meta = {"name": "pytorchjobs.kubeflow.org"}
    client.create(DEFINITIONS, {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": meta, "spec": spec})
    until(lambda: operator.caches.served() == {"PyTorchJob"}, 40)
    client.delete(DEFINITIONS, None, "pytorchjobs.kubeflow.org")
    until(lambda: operator.caches.served() == frozenset(), 40)
    assert operator.caches.unsynced() == []


@pytest.fixture
def two(server: ApiServer, namespace: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Two operator processes on one Lease, the first of which leads."""
    started: list[subprocess.Popen[str]] = []
    for _ in range(2):
        argv = [sys.executable, "-m", "tests.cluster.little_operator", str(server.kubeconfig), namespace]
        env = {**os.environ, "EHRMIND_LOG_FORMAT": "json"}
        started.append(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=env))
        line = next(line for line in _out(started[-1]) if '"leading"' in line or '"synced"' in line)
        assert '"synced"' in line
        if len(started) == 1:
            assert any('"leading"' in line for line in _out(started[0]))
    yield started
    for process in started:
        process.kill()
        process.wait()
        _out(process).close()  # type: ignore[attr-defined]


def _out(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout
    return process.stdout


def _takes_over(two: list[subprocess.Popen[str]]) -> float:
    """Seconds until the second says that it leads."""
    began = time.monotonic()
    assert any(json.loads(line)["event"] == "leading" for line in _out(two[1]))
    return time.monotonic() - began


def test_when_the_leader_is_killed_the_other_goes_on_within_20_s(client: Client, namespace: str, two: list[subprocess.Popen[str]]) -> None:
    client.create(kinds.RUN, a_run(namespace, "before"))
    until(lambda: message(client, namespace, "before") == BOTH.format("before"))
    two[0].kill()
    client.create(kinds.RUN, a_run(namespace, "after"))
    assert _takes_over(two) < 20
    until(lambda: message(client, namespace, "after") == BOTH.format("after"))
    assert client.get(LEASES, namespace, "ehrmind-operator")["spec"]["leaseTransitions"] == 2


def test_a_leader_that_is_asked_to_stop_hands_over_at_once(client: Client, namespace: str, two: list[subprocess.Popen[str]]) -> None:
    began = time.monotonic()
    two[0].terminate()
    assert two[0].wait(5) == 0
    assert time.monotonic() - began < 3
    assert _takes_over(two) < 4
    client.create(kinds.RUN, a_run(namespace, "after"))
    until(lambda: message(client, namespace, "after") == BOTH.format("after"))


def test_a_leader_that_slept_through_its_time_writes_nothing_more(client: Client, namespace: str, two: list[subprocess.Popen[str]]) -> None:
    two[0].send_signal(signal.SIGSTOP)
    assert _takes_over(two) < 20
    two[0].send_signal(signal.SIGCONT)
    assert two[0].wait(10) == 1
    assert client.get(LEASES, namespace, "ehrmind-operator")["spec"]["leaseTransitions"] == 2


def _there(client: Client, resource: Resource, namespace: str, name: str) -> bool:
    try:
        return bool(client.get(resource, namespace, name))
    except NotFound:
        return False
