"""How fast an operator carries many runs through their whole lives, and what each asks of the API server.

    python -m benchmarks.operator_lives [--runs 200]

The real control plane and training operator, the operator as a process with its default limits; pods are simulated and end at once, so
nothing but control is measured. As root on Linux (tests/cluster/README.md). All runs must succeed, with each stage tried once.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from ehrmind_k8s import crd, kubeapi
from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.runtime.client import Client
from tests.cluster.harness import simulated
from tests.cluster.harness.own import OwnCluster
from tests.cluster.stages import Stages, profiles

NAMESPACE = "lives"


@contextmanager
def operator(kubeconfig: str) -> Iterator[str]:
    """A process of it; the address of its metrics."""
    with tempfile.TemporaryFile("w+") as log:
        options = ["--operator-namespace", NAMESPACE, "--namespaces", NAMESPACE, "--port", "0", "--kubeconfig", kubeconfig]
        env = {**os.environ, "EHRMIND_LOG_FORMAT": "json"}
        process = subprocess.Popen([sys.executable, "-m", "ehrmind_k8s.controller", *options], stdout=log, stderr=log, env=env)
        try:
            while '"leading"' not in (said := _read(log)):
                assert process.poll() is None, said
                time.sleep(0.1)
            yield f"http://127.0.0.1:{json.loads(said.splitlines()[0])['port']}"
        finally:
            process.terminate()
            process.wait()


def _read(log: object) -> str:
    log.seek(0)  # type: ignore[attr-defined]
    return str(log.read())  # type: ignore[attr-defined]


def submit(client: Client, runs: int) -> None:
    """All at once."""
    made = [crd.to_object({"name": f"r{i}", "task": "medcalc", "preset": "tiny"}, NAMESPACE) for i in range(runs)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run: client.create(kinds.RUN, run), made))


def writes(metrics: str) -> Counter[str]:
    """Writes by kind, as the operator counted them."""
    found: Counter[str] = Counter()
    for kind, number in re.findall(r'^ehrmind_writes_total\{verb="\w+",kind="(\w+)"\} (\d+)', metrics, re.MULTILINE):
        found[kind] += int(number)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    cluster = OwnCluster.start()
    try:
        cluster.install_training_operator()
        simulated.start(cluster, 4)
        cluster.apply(crd.definition(), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        cluster.wait("crd", f"{crd.PLURAL}.{crd.GROUP}", "Established")
        client = kubeapi.connect(str(cluster.kubeconfig), make=Client)
        client.create(kinds.CONFIG_MAP, profiles(NAMESPACE))
        stages = Stages(client, NAMESPACE)
        stages.start()
        with operator(str(cluster.kubeconfig)) as address:
            began = time.monotonic()
            submit(client, runs)
            states: Counter[str] = Counter()
            while sum(states[s] for s in crd.TERMINAL) < runs:
                time.sleep(1)
                text = httpx.get(f"{address}/metrics", timeout=10).text
                states = Counter({s: int(n) for s, n in re.findall(r'^ehrmind_runs\{state="(\w+)"\} (\d+)', text, re.MULTILINE)})
            took = time.monotonic() - began
        stages.stop()
        ended = client.objects(kinds.RUN, NAMESPACE)
        once = sum(all(s["attempt"] == 1 for s in r["status"]["stages"]) for r in ended)
    finally:
        cluster.close()
    written = writes(text)
    print(f"{runs} runs in {took:.0f} s: {60 * runs / took:.0f} a minute; states {dict(states)}, each stage tried once in {once}")
    print(f"writes a run {sum(written.values()) / runs:.1f}: " + ", ".join(f"{kind} {n / runs:.1f}" for kind, n in written.most_common()))
    for line in text.splitlines():
        if line.startswith(("process_resident", "ehrmind_reconcile_seconds_sum", "ehrmind_reconcile_seconds_count", "ehrmind_reconciles_total")):
            print(line)
    return int(states["succeeded"] != runs or once != runs)


if __name__ == "__main__":
    sys.exit(main())
