"""The operator, installed by the chart, carries a run from data to a report with real pods: the commands of the README."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster import release
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.s3 import S3Access

# The twin, and of every stage as much as shows that it works: CI has two cores for two vLLM servers, a trainer and a control plane.
SHORT = {
    "rollout.replicas": 2,
    "sft.epochs": 1,
    "rlvr.steps": 3,
    "rlvr.checkpoint_every": 2,
    "rlvr.max_completion_tokens": 64,
    "rlvr.validate_every": 0,
    "evaluate.limit": 20,
    "evaluate.samples": 0,
}


def ehrmind(cluster: OwnCluster, s3: S3Access, namespace: str, *arguments: str, timeout_s: float = 900) -> subprocess.CompletedProcess[str]:
    """The command line as a user of the cluster types it."""
    place = {"KUBECONFIG": str(cluster.kubeconfig), "EHRMIND_BACKEND": "kubernetes", **s3.environment}
    command = [sys.executable, "-m", "ehrmind_k8s", *arguments, "--namespace", namespace]
    return subprocess.run(command, env=os.environ | place, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_goes_from_submit_to_its_report(
    own_cluster: OwnCluster, namespace: str, cluster_s3: S3Access, training_operator: None, tmp_path: Path
) -> None:
    release.install(own_cluster, cluster_s3)
    release.admit(own_cluster, namespace, cluster_s3)
    settings = [f"--set={key}={value}" for key, value in SHORT.items()]
    done = ehrmind(own_cluster, cluster_s3, namespace, "submit", "--task", "medcalc", "--preset", "tiny", *settings, "--name", "first", "--follow")
    assert done.returncode == 0, done.stdout + done.stderr + own_cluster.story(namespace)

    run = own_cluster.get("ehrmindrun", "first", namespace=namespace)
    assert run["status"]["state"] == "succeeded"
    jobs = own_cluster.items("pytorchjob", namespace=namespace)
    assert Counter(job["metadata"]["labels"]["ehrmind.dev/role"] for job in jobs) == {"sft": 1, "rlvr": 1}
    assert not own_cluster.items("deployment", namespace=namespace), "rollouts go when nobody samples any more"
    report = json.loads(ehrmind(own_cluster, cluster_s3, namespace, "report", "first", "--json").stdout)
    assert set(report["policies"]) == {"base", "sft", "rlvr"}
