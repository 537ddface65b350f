"""Fixtures for tests on a real cluster (README.md here). Everything in this folder is marked `cluster` and shares one worker and one cluster."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import release
from tests.cluster.harness import requirements
from tests.cluster.harness import simulated as simulated_nodes
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.s3 import S3Access
from tests.conftest import needs
from tests.tools import build

HERE = Path(__file__).parent
OWN = "unset KUBECONFIG_TEST"


@pytest.hookimpl(tryfirst=True)  # before tests/conftest.py gives those that are marked one worker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("cluster")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test says what happened in its namespace, which is gone afterwards."""
    report = yield
    values = getattr(item, "funcargs", {})
    if report.when == "call" and report.failed and {"cluster", "namespace"} <= set(values):
        report.sections.append(("the namespace", values["cluster"].story(values["namespace"])))
    return report


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for the whole session: the one of KUBECONFIG_TEST, else our own."""
    if other := os.environ.get("KUBECONFIG_TEST"):
        needs("kubectl", build.GET_GO, there=build.path("kubectl").exists())
        yield Cluster(Path(other), tmp_path_factory.mktemp("cluster"), S3Access.parse(os.environ.get("S3_TEST", "")))
        return
    needs_own("cluster")
    own = OwnCluster.start()
    try:
        yield own
    finally:
        own.close()


@pytest.fixture(scope="module", autouse=True)
def _no_operator_is_left() -> Iterator[None]:
    yield
    release.remove()


@pytest.fixture
def own_cluster(cluster: Cluster) -> Iterator[OwnCluster]:
    """For tests that load images, lose nodes or stop parts: what they stopped is started again after them."""
    needs("a cluster that the tests brought up themselves", OWN, there=isinstance(cluster, OwnCluster))
    assert isinstance(cluster, OwnCluster)
    yield cluster
    cluster.restore()


@pytest.fixture
def cluster_s3(cluster: Cluster) -> S3Access:
    """The store, at one address for pods and tests."""
    needs("an S3 server that this cluster's pods reach", "S3_TEST=http://ACCESS:SECRET@HOST:PORT/BUCKET", there=cluster.s3 is not None)
    assert cluster.s3
    return cluster.s3


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own that takes restricted pods only."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def second_node(own_cluster: OwnCluster) -> str:
    """Its name."""
    return next((name for name in own_cluster.nodes if name != "n1"), "") or own_cluster.add_node()


@pytest.fixture
def simulated(own_cluster: OwnCluster) -> OwnCluster:
    """The cluster with two nodes whose pods kwok runs and ends (`harness/simulated.py`)."""
    needs_own("simulated")
    simulated_nodes.start(own_cluster, 2)
    return own_cluster


@pytest.fixture
def trainjob(own_cluster: OwnCluster) -> OwnCluster:
    """The cluster serves TrainJobs."""
    needs_own("trainjob")
    own_cluster.install_jobset_trainer()
    return own_cluster


@pytest.fixture
def kueue(own_cluster: OwnCluster) -> OwnCluster:
    """The cluster has queues for Jobs, PyTorchJobs and TrainJobs."""
    needs_own("kueue")
    own_cluster.install_kueue()
    return own_cluster


@pytest.fixture(scope="session")
def training_operator(cluster: Cluster) -> None:
    """The cluster runs PyTorchJobs."""
    if isinstance(cluster, OwnCluster):
        cluster.install_training_operator()
    there = cluster.exists("crd", "pytorchjobs.kubeflow.org")
    needs("the training operator", "kubectl apply --server-side -k github.com/kubeflow/training-operator/manifests/overlays/standalone", there=there)


def needs_own(group: str) -> None:
    """Skip, in one line that says what is missing and how to get it, when this machine cannot bring up this part of a cluster."""
    kind = "" if set(build.GROUPS[group]) <= set(build.default()) else "on request"
    for missing in requirements.missing(group):
        needs(missing.part, missing.how, kind=kind)
