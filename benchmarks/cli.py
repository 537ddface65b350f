"""How long a person waits for the command line: `--help` (CPU time) and `submit` until its first stage has started (wall time).

    python benchmarks/cli.py

Medians of 7 runs. Bounds: 0.3 s and 2 s.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 7


def help_cpu_s() -> float:
    """CPU time of `ehrmind --help`, user and system, of the whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "ehrmind_k8s", "--help"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_stage_s(folder: Path) -> float:
    """Wall time from typing `submit` to the event `stage.start` of prepare."""
    environment = {**os.environ, "EHRMIND_STATE_DIR": str(folder / "state")}
    command = [sys.executable, "-m", "ehrmind_k8s", "submit", "--task", "medcalc", "--backend", "local", "--preset", "tiny"]
    typed = time.time()
    subprocess.run([*command, "--store", str(folder / "runs"), "--set", "stages=[prepare]"], check=True, env=environment, capture_output=True)
    (log,) = (folder / "state").glob("*/logs/prepare-a1.log")
    return next(e["time"] for e in map(json.loads, log.read_text().splitlines()) if e["event"] == "stage.start") - typed


def main() -> int:
    helped = statistics.median(help_cpu_s() for _ in range(ROUNDS))
    started = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="ehrmind-bench-") as folder:
            started.append(first_stage_s(Path(folder)))
    first = statistics.median(started)
    print(f"ehrmind --help             {helped:.3f} s CPU   (bound 0.3)")
    print(f"submit to first stage      {first:.2f} s        (bound 2.0)")
    return int(helped > 0.3 or first > 2.0)


if __name__ == "__main__":
    sys.exit(main())
