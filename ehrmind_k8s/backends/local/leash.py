"""A process tree that ends with its owner, whatever happens to either.

    python -m ehrmind_k8s.backends.local.leash FD GRACE_S COMMAND...

The owner keeps the write end of a pipe and gives the read end as FD: when the owner dies, even by SIGKILL, the kernel closes the pipe and the
leash kills the whole tree at once. SIGTERM is passed on to the command, which gets GRACE_S seconds before the same happens. The leash adopts
orphans of its tree (a vLLM engine outlives its server otherwise) and ends as the command did: its exit code, or 128 + n for signal n.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    fd, grace_s, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(command, preexec_fn=_die_with_leash)

    def terminate(signum: int, frame: FrameType | None) -> None:
        child.send_signal(signal.SIGTERM)
        signal.alarm(grace_s)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, terminate)
    signal.signal(signal.SIGALRM, lambda signum, frame: kill_tree())
    threading.Thread(target=_watch, args=(fd,), daemon=True).start()
    code = child.wait()
    kill_tree()
    os._exit(code if code >= 0 else 128 - code)


def kill_tree() -> None:
    """Kill all descendants of this process, again until none is left: a dying parent may still have forked."""
    while tree := [p for p in psutil.Process().children(recursive=True) if _alive(p)]:
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.01)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _watch(fd: int) -> None:
    os.read(fd, 1)  # returns when the owner is gone: nobody ever writes
    kill_tree()
    os._exit(1)


def _die_with_leash() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
