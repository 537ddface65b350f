"""The compiled pipeline, as people upload it, run by kfp's own runner against the operator and the store of the test cluster.

A node is a process here instead of a pod: it runs the command of its container, with kfp's inputs and outputs. What Kubeflow's backend does
(its launcher, its pods, its retries) is not run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster import release
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.s3 import S3Access
from tests.cluster.test_whole_run import SHORT
from tests.conftest import ROOT
from tests.pipelines import environment

# What Kubeflow's UI shows of each node: parameters that go on, and artifacts by name.
SHOWN = {
    "prepare": {"data", "summary"},
    "diagnose": {"metrics", "summary"},
    "sft": {"model", "metrics"},
    "rlvr": {"model", "metrics"},
    "evaluate": {"metrics", "classification", "summary", "report"},
}


def nested(flat: dict[str, object]) -> dict[str, dict[str, object]]:
    """`section.key` as a document has it."""
    found: dict[str, dict[str, object]] = {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        found.setdefault(section, {})[name] = value
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_compiled_pipeline_runs_to_its_report(
    own_cluster: OwnCluster, namespace: str, cluster_s3: S3Access, training_operator: None, tmp_path: Path
) -> None:
    environment.needed()
    release.install(own_cluster, cluster_s3)
    release.admit(own_cluster, namespace, cluster_s3)
    overrides = nested({k: v for k, v in SHORT.items() if k not in ("rollout.replicas", "rlvr.steps")})
    parameters = {"a_task": "ehrshot", "g_namespace": namespace, "e_rlvr_steps": 3, "e_rollout_replicas": 1, "h_overrides": overrides}
    place = {"KUBECONFIG": str(own_cluster.kubeconfig), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **cluster_s3.environment}
    command = [environment.PYTHON, "-m", "tests.pipelines.local_run", "pipelines/ehrmind.yaml", str(tmp_path), json.dumps(parameters)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | place, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:] + own_cluster.story(namespace)

    runs = own_cluster.items("ehrmindrun", namespace=namespace)
    assert {r["spec"]["stages"][0]: r["status"]["state"] for r in runs} == dict.fromkeys(SHOWN, "succeeded")
    assert len({r["metadata"]["labels"]["ehrmind.dev/pipeline-run"] for r in runs}) == 1
    (made,) = [folder for folder in tmp_path.iterdir() if folder.is_dir()]
    outputs = {node: json.loads((made / node / "executor_output.json").read_text()) for node in SHOWN}
    assert {node: set(found["artifacts"]) for node, found in outputs.items()} == SHOWN
    shown = outputs["evaluate"]["artifacts"]
    metrics = shown["metrics"]["artifacts"][0]["metadata"]
    assert {"base_auroc", "sft_auroc", "rlvr_auroc"} <= set(metrics)
    assert shown["classification"]["artifacts"][0]["metadata"]["confidenceMetrics"]
    page = (made / "evaluate" / "report").read_text()
    assert page.startswith("<!doctype html>") and "<h2>ROC</h2>" in page
    assert "AUROC" in (made / "evaluate" / "summary").read_text().upper()


def test_what_is_uploaded_names_no_secret_but_by_reference() -> None:
    """Nobody finds a key in the file, whatever the environment of who compiled it."""
    platform = list(yaml.safe_load_all((ROOT / "pipelines" / "ehrmind.yaml").read_text()))[1]
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        assert {s["secretName"] for s in executor["secretAsEnv"]} == {release.SECRET} and all(s["optional"] for s in executor["secretAsEnv"])
