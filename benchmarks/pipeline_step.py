"""What a node of a pipeline costs while it follows its run, and what `submit --backend kfp` costs a person's machine.

    python -m benchmarks.pipeline_step [--seconds 60]

A real etcd and API server; the run's status is written once a second, which is more often than an operator does. Bounds: 128 MiB, 50m CPU
while it follows (its start not counted), 1 s of CPU time for submit.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from ehrmind_k8s.backends.kfp import stage
from ehrmind_k8s.backends.kubernetes.access import RUN
from ehrmind_k8s.kubeapi import NotFound
from tests.cluster.api_server import ApiServer, api_server
from tests.unit.backends.kfp.kfp_server import Kfp, serving

PARAMETERS = {"task": "medcalc", "preset": "tiny", "store_uri": "s3://bucket/runs", "run_id": "benchmark"}
NAME = stage.of("prepare", PARAMETERS)["name"]


def follow(server: ApiServer, folder: Path, seconds: int) -> tuple[float, float]:
    """Peak memory (MiB) and CPU (millicores) of a step that follows its run."""
    outputs = {"parameters": {"prepare_uri": {"outputFile": str(folder / "uri")}}, "outputFile": str(folder / "out.json")}
    asked = json.dumps({"inputs": {"parameterValues": {**PARAMETERS, "namespace": "default"}}, "outputs": outputs})
    command = [sys.executable, "-m", "ehrmind_k8s", "pipeline", "step", "prepare", "--executor-input", asked]
    api = server.client()
    with subprocess.Popen(command, env={**os.environ, "KUBECONFIG": str(server.kubeconfig)}, stderr=subprocess.DEVNULL) as process:
        seen = psutil.Process(process.pid)
        while True:
            try:
                api.get(RUN, "default", NAME)
                break
            except NotFound:
                time.sleep(0.1)
        time.sleep(2)
        before, began, peak = seen.cpu_times(), time.monotonic(), 0
        for i in range(seconds):
            there = api.get(RUN, "default", NAME)
            status = {"attempt": 1, "state": "running", "stage": "prepare", "uri": "s3://bucket/runs/x", "message": f"Preparing data {i}/{seconds}"}
            api.patch_status(RUN, "default", NAME, there["metadata"]["resourceVersion"], status)
            peak = max(peak, seen.memory_info().rss)
            time.sleep(1)
        after, took = seen.cpu_times(), time.monotonic() - began
        process.kill()
    return peak / 2**20, 1000 * (after.user + after.system - before.user - before.system) / took


def submit_cpu_s(folder: Path) -> float:
    """CPU time of `submit --backend kfp`, user and system, of the whole process; a stand-in answers for KFP."""
    command = [sys.executable, "-m", "ehrmind_k8s", "submit", "--backend", "kfp", "--task", "medcalc", "--preset", "tiny"]
    with serving(Kfp()) as kfp:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, cwd=folder, env={**os.environ, "EHRMIND_KFP_HOST": kfp.address, "NO_PROXY": "*"}, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=60)
    seconds = arguments.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="ehrmind-bench-") as folder, api_server(Path(folder) / "api") as server:
        memory, cpu = follow(server, Path(folder), seconds)
        submitted = submit_cpu_s(Path(folder))
    print(f"step of a pipeline         {memory:.0f} MiB, {cpu:.0f}m CPU   (bounds 128, 50)")
    print(f"submit --backend kfp       {submitted:.2f} s CPU           (bound 1)")
    return int(memory > 128 or cpu > 50 or submitted > 1)


if __name__ == "__main__":
    sys.exit(main())
