"""One set of Linux namespaces (processes, mounts, network) that holds a whole cluster, and a folder for what it writes.

    host 10.123.N.1  <- veth ehrN ->  10.123.N.2 everything of cluster N

Ending its process 1 (`init.py`) ends all of it; what remains is a folder and empty cgroups, removed by `close`, or by the next `claim`
when this process was killed. Several spaces can be on one machine: N is the first whose lock is free.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

BASE = Path("/var/lib/ehrmind-test-cluster")
SPACES = 16
END_S = 30


class Space:
    """The namespaces. `enter` prefixes a command that runs inside; `spawn` keeps one running there, with its log in `folder/log`."""

    def __init__(self, number: int, lock: IO[str]) -> None:
        self.number, self._lock = number, lock
        self.folder = BASE / str(number)
        self.host_address, self.address = f"10.123.{number}.1", f"10.123.{number}.2"
        self.cgroup = f"ehrmind-test-{number}"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._inside = psutil.Process()

    @classmethod
    def claim(cls) -> "Space":
        """A space of its own for this process. What killed processes left in others is removed."""
        BASE.mkdir(parents=True, exist_ok=True)
        claimed = None
        for number in range(SPACES):
            if claimed and not (BASE / str(number)).exists():
                continue
            lock = (BASE / f"{number}.lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # somebody's, and alive
                lock.close()
                continue
            space = cls(number, lock)
            space._sweep()
            if claimed:
                lock.close()
            claimed = claimed or space
        if claimed is None:
            raise RuntimeError(f"all {SPACES} test clusters of this machine are in use ({BASE})")
        return claimed

    def open(self) -> None:
        """Make the namespaces and their link to the host."""
        for name in ("log", "var-log", "tmp"):
            (self.folder / name).mkdir(parents=True)
        unshare = ["unshare", "--fork", "--pid", "--mount-proc", "--mount", "--net"]
        init = [sys.executable, "-I", "-S", str(Path(__file__).with_name("init.py")), str(self.folder)]
        with (self.folder / "log" / "init").open("w") as log:
            self._init = subprocess.Popen([*unshare, *init], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        assert self._init.stdout
        if self._init.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the cluster's namespaces cannot be made:\n{self.log('init')}")
        self._inside = psutil.Process(self._init.pid).children()[0]
        self._connect()
        for path in self.cgroups():
            make_cgroup(path)

    def _connect(self) -> None:
        link = f"ehr{self.number}"
        peer = f"type veth peer name eth0 netns {self._inside.pid}"
        host = (f"link add {link} {peer}", f"addr add {self.host_address}/24 dev {link}", f"link set {link} up")
        inside = ("link set lo up", f"addr add {self.address}/24 dev eth0", "link set eth0 up", f"route add default via {self.host_address}")
        for command in host:
            subprocess.run(["ip", *command.split()], check=True)
        for command in inside:
            self.run("ip", *command.split())
        for setting in ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"):
            self.run("sh", "-c", f"echo 1 > /proc/sys/net/{setting}")

    def enter(self, *command: str | os.PathLike[str]) -> list[str]:
        return ["nsenter", "--target", str(self._inside.pid), "--pid", "--mount", "--net", "--", *map(os.fspath, command)]

    def run(self, *command: str | os.PathLike[str]) -> str:
        """The output of a command that runs inside. Raises RuntimeError with what it said when it fails."""
        done = subprocess.run(self.enter(*command), capture_output=True, text=True, env=self._env(), stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
        return done.stdout

    def spawn(self, name: str, *command: str | os.PathLike[str], again: bool = False) -> None:
        """Start a daemon; with `again` it is started anew whenever it ends of itself, as a machine's init does."""
        if again:
            command = ("sh", "-c", 'while :; do "$@"; sleep 1; done', name, *command)
        with (self.folder / "log" / name).open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                self.enter(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env(), start_new_session=True
            )

    def alive(self, name: str) -> bool:
        return self.daemons[name].poll() is None

    def pid(self, name: str) -> int:
        """The process itself, as the host numbers it: `nsenter` makes it and stays as its parent. Raises RuntimeError when it has ended."""
        while self.alive(name):
            for child in psutil.Process(self.daemons[name].pid).children():
                return int(child.pid)
            time.sleep(0.01)
        raise RuntimeError(f"{name} has ended:\n{self.log(name)}")

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a daemon, and what starts it anew before it, and wait for its end."""
        with contextlib.suppress(RuntimeError, psutil.NoSuchProcess):
            first = psutil.Process(self.pid(name))
            for process in (first, *first.children()) if first.name() == "sh" else (first,):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        self.daemons[name].wait()

    def log(self, name: str, characters: int = 3000) -> str:
        path = self.folder / "log" / name
        return path.read_text(errors="replace")[-characters:] if path.exists() else ""

    def close(self) -> None:
        """End everything and remove what it left."""
        if hasattr(self, "_init"):
            for stream in (self._init.stdin, self._init.stdout):
                assert stream
                stream.close()
            self._init.wait()
        for daemon in self.daemons.values():
            daemon.wait()
        self._sweep()
        self._lock.close()

    def _env(self) -> dict[str, str]:
        path = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
        return {"PATH": path, "HOME": str(self.folder), "TMPDIR": str(self.folder / "tmp"), "LANG": "C.UTF-8"}

    def cgroups(self) -> Iterator[Path]:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, place, kind, *_ = line.split()
            if kind in ("cgroup", "cgroup2"):
                yield Path(place) / self.cgroup

    def _sweep(self) -> None:
        subprocess.run(["ip", "link", "del", f"ehr{self.number}"], capture_output=True)  # gone with its other end, but not at once
        for path in self.cgroups():
            _remove_cgroup(path)
        shutil.rmtree(self.folder, ignore_errors=True)


def make_cgroup(path: Path) -> None:
    """A cgroup below which a kubelet makes its own: with its parent's CPUs on v1, with its parent's controllers on v2."""
    path.mkdir(parents=True, exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (path / name).exists() and not (path / "cgroup.controllers").exists():
            (path / name).write_text((path.parent / name).read_text())
    controllers = path.parent / "cgroup.controllers"
    if controllers.exists():
        for name in controllers.read_text().split():
            with contextlib.suppress(OSError):  # those that cannot be delegated are not needed
                (path.parent / "cgroup.subtree_control").write_text(f"+{name}")
    if (path / "cgroup.controllers").exists():
        for name in (path / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                (path / "cgroup.subtree_control").write_text(f"+{name}")


def _remove_cgroup(path: Path) -> None:
    """Remove a tree of cgroups, deepest first, once the processes in it have ended."""
    deadline = time.monotonic() + END_S
    for folder in sorted([path, *path.rglob("*/")], key=lambda f: -len(f.parts)):
        while folder.exists():
            try:
                folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
