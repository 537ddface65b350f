"""Process 1 of a test cluster's namespaces. It lives as long as its standard input is open, and the kernel ends all others with it.

So however the harness ends, even by SIGKILL, no process, mount or network link of the cluster outlives it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path


def private_folders(folder: Path) -> None:
    """Mounts that keep what container tools write at fixed places away from the host's own."""
    for place in ("/run", "/var/lib/cni", "/var/lib/kubelet"):
        Path(place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place], check=True)
    subprocess.run(["mount", "--bind", str(folder / "var-log"), "/var/log"], check=True)
    Path("/run/netns").mkdir()


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    private_folders(Path(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans become children of this process; the kernel reaps them
    print("ready", flush=True)
    while os.read(0, 1):
        pass


main()
