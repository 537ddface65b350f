"""Where the time of an RLVR step goes, and how long a weight sync stops a server, whole weights and adapter in one run:

    python -m benchmarks.rlvr_step [--steps 12] [--engine vllm|transformers]

For each tuning: the quickstart's data and toy model, a short SFT, one vLLM server of our own, then RLVR with a sync at every step. Printed
are medians over the steps after the first two (warm-up). `overhead` is what a step takes beyond the longer of generating and training; a
synchronous loop pays the shorter of the two in it, so what is neither (publish, sync, bookkeeping) is printed beside it.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ehrmind_k8s import artifacts, spec, storage
from ehrmind_k8s.artifacts import RunDocument
from tests.integration.rollout_servers import free_port

WARM_UP = 2
START_S = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--engine", choices=["vllm", "transformers"], default="vllm")
    arguments = parser.parse_args()
    for tuning in ("full", "lora"):
        with tempfile.TemporaryDirectory(prefix="ehrmind-benchmark-") as folder:
            _report(tuning, arguments.engine, _steps(Path(folder) / "run", tuning, arguments.engine, arguments.steps)[WARM_UP:])


def _steps(run: Path, tuning: str, engine: str, steps: int) -> list[dict[str, float]]:
    """Seconds of every step of a short run."""
    settings = [
        f"model.tuning={tuning}",
        f"rollout.engine={engine}",
        "stages=[prepare,sft,rlvr]",
        "sft.epochs=1",
        f"rlvr.steps={steps}",
        f"rlvr.checkpoint_every={steps}",
        "rlvr.validate_every=0",
    ]
    RunDocument.new(spec.load({"task": "medcalc", "preset": "tiny"}, settings)).write(storage.open(str(run)))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "EHRMIND_LOG_FORMAT": "json", "EHRMIND_RUN_TOKEN": secrets.token_hex(16)}
    for stage in ("prepare", "sft"):
        _stage(run, stage, environment)
    if engine == "vllm":
        with _server(run, environment) as url:
            _stage(run, "rlvr", environment | {"EHRMIND_ROLLOUT_URLS": url})
    else:
        _stage(run, "rlvr", environment)
    return [json.loads(line)["seconds"] for line in (run / "rlvr" / artifacts.METRICS).read_text(encoding="utf-8").splitlines()]


def _stage(run: Path, stage: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "ehrmind_k8s.stages", stage, "--run", str(run), "--attempt", "1"]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


@contextmanager
def _server(run: Path, environment: dict[str, str]) -> Iterator[str]:
    """One vLLM server, ready; ended afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "ehrmind_k8s.rollout.server", "--run", str(run), "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the rollout server did not start; try `python -m ehrmind_k8s.rollout.server` by hand to see why")
            time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _report(tuning: str, engine: str, steps: list[dict[str, float]]) -> None:
    median = {name: statistics.median(s[name] for s in steps) for name in steps[0]}
    overhead = statistics.median(s["total"] - max(s["generate"], s["train"]) for s in steps)
    neither = statistics.median(s["total"] - s["generate"] - s["train"] for s in steps)
    total, sync = median["total"], median["publish"] + median["sync"]
    print(f"{tuning}, {engine}, {len(steps)} steps, medians: step {total:.3f} s = generate {median['generate']:.3f} + train {median['train']:.3f}")
    print(f"  overhead over max(generate, train): {overhead:.3f} s ({overhead / total:.0%} of the step)")
    print(f"  neither generating nor training: {neither:.3f} s ({neither / total:.1%})")
    print(f"  weight sync: publish {median['publish'] * 1e3:.0f} + sync {median['sync'] * 1e3:.0f} ms ({sync / total:.1%} of the step)")
    print(f"  server stands still: {median['pause'] * 1e3:.0f} ms ({median['pause'] / total:.1%} of the step)", flush=True)


if __name__ == "__main__":
    main()
