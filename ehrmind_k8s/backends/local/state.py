"""What this machine knows about a run: `Settings.state_dir/<hash of the run URI>-<name>/`.

    lock             held by the supervisor while it lives; says which process that is
    status.json      what `ehrmind status` shows
    cancel           somebody asked for it
    ports            ports of the rollout servers, kept so that their URLs stay the same
    sessions         process ids and start times of the leashes, to find leftovers
    logs/            <stage>-a<K>.log, rollout-<i>.log
    work/            what the stage that runs works on: rows and weights
    rollout/         weights that rollout servers have fetched

Only the store decides what is complete. This folder may be deleted whenever nothing runs.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ehrmind_k8s.backends.base import Attempt, RunStatus
from ehrmind_k8s.backends.local import process
from ehrmind_k8s.errors import Busy


class State:
    """The folder of one run."""

    def __init__(self, state_dir: Path, run_uri: str) -> None:
        digest = hashlib.sha256(run_uri.encode()).hexdigest()[:12]
        self.run_uri = run_uri
        self.folder = state_dir.absolute() / f"{digest}-{run_uri.rsplit('/', 1)[-1]}"
        self.logs, self.work = self.folder / "logs", self.folder / "work"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run. Raises Busy with the holder's process id."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / "lock"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"{self.run_uri}: process {self.holder() or 'unknown'} works on this run; `ehrmind cancel` stops it") from None
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                raise Busy(f"{self.run_uri}: the run is being deleted; try again")
            file.truncate(0)
            json.dump({"pid": os.getpid(), "started": process.started_at(os.getpid())}, file)
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def holder(self) -> int | None:
        """Process id of the living supervisor, or None. Reads only: asking never makes a submit fail."""
        try:
            held = json.loads((self.folder / "lock").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return held["pid"] if process.is_same(held["pid"], held["started"]) else None

    def read(self) -> RunStatus | None:
        """The last status written, or None for a run that this machine never supervised."""
        try:
            document = json.loads((self.folder / "status.json").read_text())
            return RunStatus(**document | {"attempts": tuple(Attempt(**a) for a in document["attempts"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def write(self, status: RunStatus) -> None:
        """Replace the status at once."""
        aside = self.folder / ".status"
        aside.write_text(json.dumps(asdict(status), indent=1))
        aside.replace(self.folder / "status.json")

    def log(self, name: str) -> Path:
        """Log file of a stage's attempt (`sft-a1`) or of a rollout server (`rollout-0`)."""
        return self.logs / f"{name}.log"

    def newest_log(self, source: str | None) -> Path | None:
        """The log last written, of `source` (`sft`, `sft-a1`, `rollout-0`) or of any stage."""
        found = [p for p in self.logs.glob("*.log") if _belongs(p.stem, source)]
        return max(found, key=lambda p: p.stat().st_mtime_ns, default=None)

    def sources(self) -> list[str]:
        """Names of all logs."""
        return sorted(p.stem for p in self.logs.glob("*.log"))

    def empty_work(self) -> Path:
        """The folder for a stage's working files, with nothing in it: a killed stage could not delete its own."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(mode=0o700)
        return self.work

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for the run to be cancelled."""
        return (self.folder / "cancel").exists()

    @cancelled.setter
    def cancelled(self, wanted: bool) -> None:
        path = self.folder / "cancel"
        path.touch() if wanted else path.unlink(missing_ok=True)

    def ports(self) -> list[int]:
        """Ports used last time."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return [int(p) for p in (self.folder / "ports").read_text().split()]
        return []

    def keep_ports(self, ports: list[int]) -> None:
        """Remember the ports in use."""
        (self.folder / "ports").write_text(" ".join(map(str, ports)))

    def add_session(self, pid: int) -> None:
        """Remember a leash, so that a later supervisor finds what it may leave."""
        with (self.folder / "sessions").open("a") as file:
            file.write(f"{pid} {process.started_at(pid)}\n")

    def kill_leftovers(self) -> list[int]:
        """Kill what an earlier supervisor left; returns process ids. Call with the lock held."""
        path = self.folder / "sessions"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        if not rows:
            return []
        killed = process.kill_leftovers(self.folder, {int(pid): float(started) for pid, started in rows if started != "None"})
        path.unlink()
        return killed

    def forget(self) -> None:
        """Delete what is known of an earlier run: status, logs, a cancellation. Call with the lock held."""
        for name in ("status.json", "cancel"):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.logs, ignore_errors=True)

    def remove(self) -> None:
        """Delete the folder. Call with the lock held."""
        shutil.rmtree(self.folder)


def _belongs(log: str, source: str | None) -> bool:
    stage = log.rsplit("-a", 1)[0]
    return not log.startswith("rollout-") if source is None else source in (log, stage)
