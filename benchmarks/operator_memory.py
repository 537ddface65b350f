"""What 5,000 finished runs cost an operator: time to be ready, memory, a look at each, and what a quiet minute asks of the API server.

    python -m benchmarks.operator_memory [--runs 5000]

A real etcd and API server hold the runs, each with four Jobs and a ConfigMap; the operator watches them as in production, and decides
nothing (a finished run that nobody changes). Bounds: 300 MB, 30 s, 20 ms at the 99th percentile, 0 writes and 0 lists.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.operator import Operator
from ehrmind_k8s.controller.records import Decision, Snapshot
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.kubeapi import connect
from ehrmind_k8s.spec import STAGES
from tests.cluster.api_server import NAMESPACES, ApiServer, api_server
from tests.cluster.little_operator import child, options

JOB = kinds.BY_KIND["Job"]
QUIET_S = 20
EMPTY: dict[str, dict[str, str]] = {"emptyDir": {}}


def fill(client: Client, namespace: str, number: int) -> None:
    """One finished run as a cluster holds it: a status of about 3 kB, four Jobs with whole pod templates, its ConfigMap."""
    name = f"run-{number}"
    run = client.create(kinds.RUN, crd.to_object({"name": name, "task": "medcalc", "preset": "tiny"}, namespace))
    env = [{"name": f"EHRMIND_VARIABLE_{i}", "value": "x" * 40} for i in range(20)]
    container = {"name": "stage", "image": "ehrmind:test", "command": ["python"], "args": ["-m", "ehrmind_k8s.stages"], "env": env}
    volumes = [{"name": v} | EMPTY for v in ("work", "tmp")]
    pod = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
    stages = []
    for stage in STAGES:
        made = client.create(JOB, child(run, "Job", "batch/v1", f"{name}-{stage}-1", spec={"backoffLimit": 0, "template": {"spec": pod}}))
        times = {"startTime": "2026-11-24T10:00:00Z", "endTime": "2026-11-24T10:01:00Z"}
        ref = {"kind": "Job", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
        stages.append({"name": stage, "state": "succeeded", "attempt": 1, "child": ref, "reason": "ok", "exitCode": 0, "seconds": 60.5, **times})
    client.create(kinds.CONFIG_MAP, child(run, "ConfigMap", "v1", f"{name}-spec", immutable=True, data={"spec.json": json.dumps(run) * 3}))
    status: dict[str, Any] = {"state": "succeeded", "observedGeneration": 1, "stages": stages, "message": "accuracy 0.61", "score": 0.61}
    now = "2026-11-24T10:00:00Z"
    status["conditions"] = [
        {"type": t, "status": "True", "reason": "Done", "message": "x" * 60, "lastTransitionTime": now, "observedGeneration": 1}
        for t in ("Accepted", "Progressing", "RolloutsReady", "Complete")
    ]
    client.patch_status(kinds.RUN, namespace, name, run["metadata"]["resourceVersion"], status)


def fill_all(server: ApiServer, runs: int) -> None:
    client = server.client()
    client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "runs"}})
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: fill(client, "runs", i), range(runs)))


def measure(kubeconfig: Path) -> dict[str, float]:
    """In a process of its own, so that the memory is the operator's."""
    client = connect(str(kubeconfig), make=Client)
    looks: list[float] = []

    def decide(snapshot: Snapshot, now: float) -> Decision:
        return Decision()

    operator = Operator(client, options("runs", writes_per_s=1000), decide)
    began = time.monotonic()
    operator.start()
    while operator.caches.unsynced():
        time.sleep(0.02)
    ready = time.monotonic() - began
    keys = operator.caches.runs()
    while operator.meters.reconciles.value("ok") < len(keys):
        time.sleep(0.1)
    for key in keys[:1000]:
        start = time.perf_counter()
        operator.cluster.snapshot(key)
        looks.append((time.perf_counter() - start) * 1000)
    lists, requests = operator.caches.lists(), dict(operator.meters.requests._values)
    time.sleep(QUIET_S)
    after = operator.meters.requests._values
    asked = sum(n - requests.get(k, 0) for k, n in after.items() if k[0] not in ("get", "update", "discover"))
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    operator.stop()
    return {
        "runs": len(keys),
        "ready_s": ready,
        "rss_mb": rss,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "look_p50_ms": statistics.median(looks),
        "look_p99_ms": statistics.quantiles(looks, n=100)[98],
        "lists": operator.caches.lists() - lists,
        "asked": asked,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        os.environ["EHRMIND_LOG_FORMAT"] = "json"
        sys.stdout = sys.stderr
        found = measure(given.measure)
        print(json.dumps(found), file=sys.__stdout__, flush=True)
        os._exit(0)
    import subprocess

    with tempfile.TemporaryDirectory(prefix="ehrmind-bench-") as folder, api_server(Path(folder)) as server:
        began = time.monotonic()
        fill_all(server, given.runs)
        print(f"{given.runs} runs with {5 * given.runs} children stored in {time.monotonic() - began:.0f} s", flush=True)
        command = [sys.executable, "-m", "benchmarks.operator_memory", "--measure", str(server.kubeconfig)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    m = json.loads(done.stdout)
    print(f"start to ready             {m['ready_s']:.1f} s    (bound 30)")
    print(f"resident memory            {m['rss_mb']:.0f} MB, at most {m['peak_mb']:.0f} MB    (bound 300)")
    print(f"snapshot of a run          {m['look_p50_ms']:.2f} ms, 99th percentile {m['look_p99_ms']:.2f} ms    (bounds 3, 20)")
    print(f"{QUIET_S} s of quiet              {m['asked']:.0f} writes and lists but the Lease's    (bound 0)")
    return int(m["ready_s"] > 30 or m["peak_mb"] > 300 or m["look_p99_ms"] > 20 or m["asked"] > 0)


if __name__ == "__main__":
    sys.exit(main())
