"""The operator with the real `reconcile`, the real training operator and real controllers; only the pods are simulated, so that a life is seconds.

Each fault ends in the state that the run would have reached without it, with no child made twice.
"""

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ehrmind_k8s import crd, kubeapi
from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.operator import Operator, Options
from ehrmind_k8s.controller.reconcile import reconcile
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.spec import STAGES
from tests.cluster import release
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.own import OwnCluster
from tests.cluster.stages import Stages, profiles

# A connection that is reset before its TLS handshake: CPython leaves that socket to the garbage collector, which complains.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """No such socket is left for a test that knows nothing of it."""
    yield
    gc.collect()


Object = dict[str, Any]


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def alone(cluster: Cluster) -> Iterator[None]:
    """The cluster knows runs, and no other operator looks at them: one that a chart installed rests meanwhile."""
    name = f"{crd.PLURAL}.{crd.GROUP}"
    if not (there := cluster.exists("crd", name)):
        cluster.apply(crd.definition())
    cluster.wait("crd", name, "Established")
    installed = [d["metadata"]["name"] for d in cluster.items("deployment", namespace=release.SYSTEM)]
    for other in installed:
        cluster.kubectl("scale", f"deployment/{other}", "--replicas=0", namespace=release.SYSTEM)
        cluster.wait("deployment", other, lambda d: not d["status"].get("replicas"), namespace=release.SYSTEM)
    yield
    for other in installed:
        cluster.kubectl("scale", f"deployment/{other}", "--replicas=1", namespace=release.SYSTEM)
    if not there:
        cluster.delete("crd", name)
        cluster.wait_gone("crd", name)


@pytest.fixture
def client(alone: None, simulated: OwnCluster, training_operator: None) -> Client:
    return kubeapi.connect(str(simulated.kubeconfig), make=Client)


@pytest.fixture
def stages(client: Client, namespace: str) -> Iterator[Stages]:
    client.create(kinds.CONFIG_MAP, profiles(namespace))
    found = Stages(client, namespace)
    found.start()
    yield found
    found.stop()


@contextmanager
def running(client: Client, namespace: str) -> Iterator[list[Operator]]:
    """An operator for this namespace, leading. One that loses its Lease would end its process: the next one follows, as a kubelet starts it."""
    started: list[Operator] = []
    ending = threading.Event()

    def start() -> None:
        started.append(Operator(client, Options(namespace, namespaces=(namespace,), port=0), reconcile, lost=follow))
        started[-1].start()

    def follow() -> None:
        started[-1].queue.close()
        if not ending.is_set():
            start()

    start()
    try:
        until(started[0].lease.held)
        yield started
    finally:
        ending.set()
        for operator in started:
            operator.stop()


@pytest.fixture
def operator(client: Client, namespace: str, stages: Stages) -> Iterator[Operator]:
    with running(client, namespace) as (found,):
        yield found


def submit(client: Client, namespace: str, name: str = "x", **more: Any) -> None:
    client.create(kinds.RUN, crd.to_object({"name": name, "task": "medcalc", "preset": "tiny", **more}, namespace))


def status(client: Client, namespace: str, name: str = "x") -> Object:
    return client.get(kinds.RUN, namespace, name).get("status") or {}


def reaches(client: Client, namespace: str, state: str, name: str = "x") -> Object:
    until(lambda: status(client, namespace, name).get("state") in (state, *crd.TERMINAL), 120)
    found = status(client, namespace, name)
    assert found["state"] == state, found
    return found


def attempts(found: Object) -> dict[str, int]:
    return {s["name"]: s["attempt"] for s in found["stages"]}


ONE_EACH = dict.fromkeys(STAGES, 1)


def test_a_run_lives_through_all_its_stages_and_then_costs_nothing(client: Client, namespace: str, stages: Stages, operator: Operator) -> None:
    submit(client, namespace)
    found = reaches(client, namespace, "succeeded")
    assert (attempts(found), found["score"]) == (ONE_EACH, 0.61)
    assert Counter(name.rpartition("-master-")[0] or name.rpartition("-")[0] for name in stages.ended) == {f"x-{s}-1": 1 for s in STAGES}
    until(lambda: not client.objects(kinds.BY_KIND["Deployment"], namespace))
    until(lambda: operator.queue.depth() == 0 and operator.queue.oldest_s() == 0 and not operator.cluster.behind_s((namespace, "x")))
    writes, looks = operator.meters.writes.lines(), operator.meters.reconciles.value("ok")
    total = {kind: sum(v for (verb, k), v in operator.meters.writes._values.items() if k == kind) for kind in ("EHRMindRun", "Event")}
    assert total["EHRMindRun"] <= 20
    assert total["Event"] <= 25
    assert operator.meters.reconciles.value("error") == 0
    operator.caches.wake_all()
    until(lambda: operator.meters.reconciles.value("ok") > looks)
    assert operator.meters.writes.lines() == writes


def test_a_child_that_somebody_deletes_is_followed_by_the_next_attempt(client: Client, namespace: str, stages: Stages, operator: Operator) -> None:
    stages.held = {"sft"}
    submit(client, namespace)
    until(lambda: status(client, namespace).get("stage") == "sft" and client.objects(kinds.OPTIONAL[0], namespace))
    client.delete(kinds.OPTIONAL[0], namespace, "x-sft-1")
    until(lambda: _names(client, kinds.OPTIONAL[0], namespace) == ["x-sft-2"])
    stages.held = set()
    assert attempts(reaches(client, namespace, "succeeded")) == ONE_EACH | {"sft": 2}


def test_an_operator_that_is_replaced_in_the_middle_leaves_no_trace(client: Client, namespace: str, stages: Stages) -> None:
    stages.held = {"rlvr"}
    with running(client, namespace):
        submit(client, namespace)
        until(lambda: status(client, namespace).get("stage") == "rlvr")
    stages.held = set()
    with running(client, namespace):
        assert attempts(reaches(client, namespace, "succeeded")) == ONE_EACH


def test_a_run_that_is_deleted_in_the_middle_takes_everything_with_it(client: Client, namespace: str, stages: Stages, operator: Operator) -> None:
    stages.held = {"rlvr"}
    submit(client, namespace)
    until(lambda: status(client, namespace).get("stage") == "rlvr" and _names(client, kinds.BY_KIND["Deployment"], namespace))
    client.delete(kinds.RUN, namespace, "x")
    ours = [r for r in (*kinds.BUILT_IN, kinds.OPTIONAL[0], kinds.POD)]
    until(lambda: not any(client.objects(r, namespace, labels=f"{crd.LABEL_INSTANCE}=x") for r in ours), 90)
    until(lambda: operator.caches.children((namespace, "x")) == [])


def test_a_stage_that_may_be_tried_again_is_and_one_that_may_not_ends_the_run(
    client: Client, namespace: str, stages: Stages, operator: Operator
) -> None:
    stages.outcomes = {("prepare", 1): (75, "StoreUnavailable"), ("sft", 1): (10, "DataError")}
    submit(client, namespace)
    found = reaches(client, namespace, "failed")
    assert {s["name"]: (s["attempt"], s["state"], s.get("reason")) for s in found["stages"][:3]} == {
        "prepare": (2, "succeeded", "ok"),
        "diagnose": (1, "succeeded", "ok"),
        "sft": (1, "failed", "DataError"),
    }
    assert not _names(client, kinds.BY_KIND["Deployment"], namespace)


def test_an_api_server_that_goes_away_in_the_middle_changes_nothing(simulated: OwnCluster, client: Client, namespace: str, stages: Stages) -> None:
    stages.held = {"sft"}
    with running(client, namespace) as started:
        submit(client, namespace)
        until(lambda: status(client, namespace).get("stage") == "sft")
        simulated.stop("kube-apiserver")
        stages.held = set()
        time.sleep(1)
        simulated.start_again("kube-apiserver")
        assert attempts(reaches(client, namespace, "succeeded")) == ONE_EACH
        # The same one, unless the server took longer than a leader may be without it.
        assert len(started) == 1 or not started[0].lease.leading


def test_many_runs_at_once_all_end(client: Client, namespace: str, stages: Stages, operator: Operator) -> None:
    for i in range(8):
        submit(client, namespace, f"r{i}")
    for i in range(8):
        assert attempts(reaches(client, namespace, "succeeded", f"r{i}")) == ONE_EACH
    assert operator.meters.reconciles.value("error") == 0


def _names(client: Client, resource: kubeapi.Resource, namespace: str) -> list[str]:
    return [o["metadata"]["name"] for o in client.objects(resource, namespace)]
