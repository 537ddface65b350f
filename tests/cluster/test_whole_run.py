"""The operator, installed by the chart, carries a run from data to a report with real pods: the commands of the README.

Its data holds planted words. They are looked for wherever the run leaves a trace outside the store: what pods wrote, objects, events,
metrics, names in the store.
"""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from ehrmind_k8s import storage
from tests.cluster import release
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.s3 import S3Access
from tests.integration import small_twin
from tests.integration.planted import MARK, plant

# Of every stage as much as shows that it works: CI has two cores for two vLLM servers, a trainer and a control plane.
SHORT = {
    "rollout.replicas": 2,
    "model.context": 512,
    "data.max_prompt_tokens": 256,
    "sft.epochs": 1,
    "sft.batch_size": 8,
    "sft.micro_batch_size": 8,
    "rlvr.steps": 3,
    "rlvr.checkpoint_every": 2,
    "rlvr.max_completion_tokens": 64,
    "rlvr.validate_limit": 4,
    "evaluate.limit": 20,
    "evaluate.samples": 1,
}
METRICS = f"/api/v1/namespaces/{release.SYSTEM}/services/ehrmind-operator-metrics:metrics/proxy/metrics"
KINDS = "pods,jobs,pytorchjobs,configmaps,services,deployments,networkpolicies,poddisruptionbudgets,ehrmindruns,events"


class Written:
    """What the containers of a namespace write, kept beyond their pods: a rollout pod's log goes with it."""

    def __init__(self, cluster: OwnCluster, namespace: str) -> None:
        self.folders, self.namespace, self.logs = [node.pod_logs for node in cluster.nodes.values()], namespace, dict[str, bytes]()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Written":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._end.wait(1):
            for path in [p for folder in self.folders for p in folder.glob(f"{self.namespace}_*/*/*.log")]:
                try:
                    self.logs[str(path)] = max(self.logs.get(str(path), b""), path.read_bytes(), key=len)
                except OSError:  # its pod has just gone
                    continue


def ehrmind(cluster: Cluster, s3: S3Access, namespace: str, *arguments: str, timeout_s: float = 1500) -> subprocess.CompletedProcess[str]:
    """The command line as a user of the cluster types it."""
    place = {"KUBECONFIG": str(cluster.kubeconfig), "EHRMIND_BACKEND": "kubernetes", **s3.environment}
    command = [sys.executable, "-m", "ehrmind_k8s", *arguments]
    if arguments[0] != "data":
        command += ["--namespace", namespace]
    return subprocess.run(command, env=os.environ | place, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.fixture
def data(own_cluster: OwnCluster, cluster_s3: S3Access, namespace: str, tmp_path: Path) -> str:
    """A small twin with planted words, brought to the store as a user would."""
    folder, uri = small_twin.write(tmp_path, train=160, test=40), f"s3://{cluster_s3.bucket}/{namespace}/data"
    plant(folder)
    done = ehrmind(own_cluster, cluster_s3, namespace, "data", "put", str(folder), uri)
    assert done.returncode == 0, done.stderr
    return uri


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_goes_from_submit_to_its_report(
    own_cluster: OwnCluster, namespace: str, cluster_s3: S3Access, training_operator: None, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release.install(own_cluster, cluster_s3)
    release.admit(own_cluster, namespace, cluster_s3)
    settings = [f"--set={key}={value}" for key, value in SHORT.items()]
    order = ("submit", "--task", "medcalc", "--preset", "tiny", "--data", data, *settings, "--name", "first", "--follow")
    for name, value in cluster_s3.environment.items():
        monkeypatch.setenv(name, value)
    with Written(own_cluster, namespace) as written:
        done = ehrmind(own_cluster, cluster_s3, namespace, *order)
    assert done.returncode == 0, done.stdout + done.stderr + own_cluster.story(namespace)

    run = own_cluster.get("ehrmindrun", "first", namespace=namespace)
    assert run["status"]["state"] == "succeeded"
    assert run["status"]["message"].startswith("Succeeded: accuracy ")
    jobs = own_cluster.items("pytorchjob", namespace=namespace)
    assert Counter(job["metadata"]["labels"]["ehrmind.dev/role"] for job in jobs) == {"sft": 1, "rlvr": 1}
    assert not own_cluster.items("deployment", namespace=namespace), "rollouts go when nobody samples any more"
    report = ehrmind(own_cluster, cluster_s3, namespace, "report", "first", "--json").stdout
    assert set(json.loads(report)["policies"]) == {"base", "sft", "rlvr"}

    traces = {
        **written.logs,
        "submit": (done.stdout + done.stderr).encode(),
        "report": report.encode(),
        "objects": own_cluster.kubectl("get", KINDS, "--output=yaml", namespace=namespace).encode(),
        "operator": own_cluster.kubectl("logs", "deployment/ehrmind-operator", namespace=release.SYSTEM).encode(),
        "metrics": own_cluster.kubectl("get", "--raw", METRICS).encode(),
        "names in the store": "\n".join(item.key for item in storage.open(run["status"]["uri"]).list()).encode(),
    }
    roles = {role for role in release.ROLES if any(f"-{role}-" in path for path in written.logs)}
    assert roles == set(release.ROLES), "the log of every kind of pod was looked at"
    assert not [place for place, text in traces.items() if MARK in text.lower()]
