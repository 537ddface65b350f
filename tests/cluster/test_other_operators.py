"""TrainJobs and queues work on the test cluster. Their programs are built on request: `python -m tests.tools.build trainjob kueue`."""

from typing import Any

import pytest

from tests.cluster import pods
from tests.cluster.harness.client import Object
from tests.cluster.harness.own import OwnCluster
from tests.cluster.test_cluster import ALL_REDUCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
QUEUE = "kueue.x-k8s.io/queue-name"


def train_job(name: str, nodes: int) -> list[Object]:
    made = pods.template(*ALL_REDUCE, image="ehrmind-trainer:test", container="node")
    ancestor = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
    job = {"name": "node", "template": {"metadata": ancestor, "spec": {"backoffLimit": 0, "podReplacementPolicy": "Failed", "template": made}}}
    template = {"spec": {"replicatedJobs": [job]}}
    api = "trainer.kubeflow.org/v1alpha1"
    runtime = {"apiVersion": api, "kind": "TrainingRuntime", "metadata": {"name": name}, "spec": {"mlPolicy": {"torch": {}}, "template": template}}
    reference = {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": name}
    spec = {"runtimeRef": reference, "trainer": {"numNodes": nodes}}
    return [runtime, {"apiVersion": api, "kind": "TrainJob", "metadata": {"name": name}, "spec": spec}]


def queue(name: str, namespace: str, cpu: str) -> list[Object]:
    api = "kueue.x-k8s.io/v1beta2"
    quota = {"name": "cpu", "nominalQuota": cpu}
    flavors = [{"coveredResources": ["cpu"], "flavors": [{"name": name, "resources": [quota]}]}]
    return [
        {"apiVersion": api, "kind": "ResourceFlavor", "metadata": {"name": name}},
        {"apiVersion": api, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": {"namespaceSelector": {}, "resourceGroups": flavors}},
        {"apiVersion": api, "kind": "LocalQueue", "metadata": {"name": "queue", "namespace": namespace}, "spec": {"clusterQueue": name}},
    ]


def queued(name: str, seconds: float) -> Object:
    job: dict[str, Any] = pods.job(name, "python", "-c", f"import time; time.sleep({seconds})")
    job["metadata"]["labels"] = {QUEUE: "queue"}
    job["spec"]["suspend"] = True
    job["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m"}}
    return job


def test_two_nodes_of_a_train_job_meet(trainjob: OwnCluster, namespace: str) -> None:
    runtime, job = train_job("pair", 2)
    trainjob.apply(runtime, namespace=namespace)
    trainjob.wait("trainingruntime.trainer.kubeflow.org", "pair", lambda _: True, namespace=namespace)
    trainjob.apply(job, namespace=namespace)
    trainjob.wait("trainjob", "pair", "Complete", namespace=namespace, timeout_s=300)
    rank_1 = trainjob.items("pods", namespace=namespace, selector="batch.kubernetes.io/job-completion-index=1")[0]["metadata"]["name"]
    assert "rank 1 of 2: 3" in trainjob.kubectl("logs", rank_1, namespace=namespace)


def test_a_job_waits_in_its_queue_until_there_is_quota(kueue: OwnCluster, namespace: str) -> None:
    kueue.apply(*queue(namespace, namespace, "100m"))
    kueue.apply(queued("first", 600), namespace=namespace)
    kueue.wait("job", "first", lambda j: not j["spec"]["suspend"], namespace=namespace)
    kueue.apply(queued("second", 0), namespace=namespace)
    waits = "insufficient unused quota"
    name = next(w["metadata"]["name"] for w in kueue.watch("workloads", namespace=namespace) if waits in str(w.get("status")))
    assert name.startswith("job-second-") and kueue.get("job", "second", namespace=namespace)["spec"]["suspend"]
    kueue.delete("job", "first", namespace=namespace)
    kueue.wait("job", "second", "Complete", namespace=namespace)
