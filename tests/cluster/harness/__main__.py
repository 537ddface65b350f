"""A cluster to play with: the one of the tests, kept until it is taken down.

python -m tests.cluster.harness up [--nodes 2] [--with trainjob] [--with kueue]
python -m tests.cluster.harness down
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.harness import requirements
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.space import BASE

STATE, LOG = BASE / "developer.json", BASE / "developer.log"
START_S, STOP_S = 900, 60


def up(nodes: int, parts: list[str]) -> None:
    """Start a process that holds the cluster, unless there is one, and say how to use it."""
    for missing in (m for group in ("cluster", *parts) for m in requirements.missing(group)):
        raise SystemExit(f"error: {missing.part} is missing; to get it: {missing.how}")
    BASE.mkdir(parents=True, exist_ok=True)
    if not running():
        STATE.unlink(missing_ok=True)
        with LOG.open("w") as log:
            command = [sys.executable, "-m", "tests.cluster.harness", "hold", "--nodes", str(nodes), *(f"--with={part}" for part in parts)]
            holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_S
        while not STATE.exists():
            if holder.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"error: the cluster did not start:\n{LOG.read_text()[-3000:]}")
            time.sleep(0.2)
    print("\n".join(f"export {name}={value}" for name, value in json.loads(STATE.read_text())["environment"].items()))


def hold(nodes: int, parts: list[str]) -> None:
    """Be the process that the cluster lives as long as."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    cluster = OwnCluster.start()
    try:
        for _ in range(nodes - 1):
            cluster.add_node()
        cluster.install_training_operator()
        if "trainjob" in parts:
            cluster.install_jobset_trainer()
        if "kueue" in parts:
            cluster.install_kueue()
        assert cluster.s3
        path = ":".join([str(cluster.programs()), "$PATH"])
        # The last two: tests on this cluster, `make test ARGS=tests/cluster`.
        tests = {"KUBECONFIG_TEST": str(cluster.kubeconfig), "S3_TEST": f"'{cluster.s3.url}'"}
        environment = {"KUBECONFIG": str(cluster.kubeconfig), "PATH": path, **cluster.s3.environment, **tests}
        aside = STATE.with_suffix(".aside")
        aside.write_text(json.dumps({"pid": os.getpid(), "environment": environment}))
        aside.replace(STATE)
        signal.pause()
    finally:
        STATE.unlink(missing_ok=True)
        cluster.close()


def down() -> None:
    """End the process that holds the cluster, and wait until all of it is gone."""
    if not running():
        print("no cluster is up")
        return
    pid = int(json.loads(STATE.read_text())["pid"])
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            raise SystemExit(f"error: process {pid} does not end; see {LOG}")
        time.sleep(0.1)


def running() -> bool:
    """Whether the process of the state file is there, and is ours."""
    if not STATE.exists():
        return False
    command = Path(f"/proc/{json.loads(STATE.read_text())['pid']}/cmdline")
    return command.exists() and b"tests.cluster.harness" in command.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description="A Kubernetes cluster on this machine, as the tests have it.")
    parser.add_argument("action", choices=["up", "down", "hold"])
    parser.add_argument("--nodes", type=int, choices=[1, 2], default=1)
    parser.add_argument("--with", dest="parts", action="append", choices=["trainjob", "kueue"], default=[])
    arguments = parser.parse_args()
    if arguments.action == "down":
        down()
    else:
        {"up": up, "hold": hold}[arguments.action](arguments.nodes, arguments.parts)


if __name__ == "__main__":
    main()
