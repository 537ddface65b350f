"""Child processes of the supervisor: leashed, so that none survives it, and found again when even the leash was killed."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LEASH = "ehrmind_k8s.backends.local.leash"
MARK = "EHRMIND_LEASH"  # in the environment of everything we start: the state folder of the run
GRACE_S = 20  # a stage needs a moment to stop between two writes; vLLM's own shutdown takes about 5 s


@dataclass
class Leashed:
    """One running command with everything it starts. `log` receives its standard error, and its output unless that is read."""

    process: asyncio.subprocess.Process
    pipe: int

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], log: Path, mark: Path, *, read: bool) -> "Leashed":
        """Start Python with `argv`. With `read`, the caller must read `process.stdout` to its end."""
        theirs, ours = os.pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("ab") as file:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", LEASH, str(theirs), str(GRACE_S), sys.executable, *argv),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE if read else file,
                    stderr=file,
                    env={**os.environ, **env, MARK: str(mark)},
                    pass_fds=(theirs,),
                    start_new_session=True,  # Ctrl-C reaches us alone; we pass it on
                )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(process, ours)

    async def wait(self) -> int:
        """Exit code; 128 + n for signal n."""
        try:
            code = await self.process.wait()
        finally:
            self._let_go()
        return code if code >= 0 else 128 - code

    async def stop(self) -> None:
        """SIGTERM, a bounded grace, then the whole tree is killed. Returns when nothing of it is left."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), GRACE_S + 5)
        self._let_go()
        await self.process.wait()

    def _let_go(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1


async def lines(stream: asyncio.StreamReader, longest: int = 1 << 20) -> AsyncIterator[bytes]:
    """Lines of a stream, without their ends. One over `longest` bytes is no event of ours and is skipped, so it can fill no memory."""
    pending, skipping = b"", False
    while chunk := await stream.read(1 << 16):
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            if not skipping and len(line) <= longest:
                yield line
            skipping = False
        if len(pending) > longest:
            pending, skipping = b"", True
    if pending and not skipping:
        yield pending


def started_at(pid: int) -> float | None:
    """When the process with this id started (Unix seconds), or None if there is none. Tells a process from a later one with the same id."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def is_same(pid: int, started: float) -> bool:
    """Whether this very process still runs. Start times are compared to a second: the kernel's clock base moves a little."""
    found = started_at(pid)
    return found is not None and abs(found - started) < 1.0


def kill_leftovers(mark: Path, sessions: Mapping[int, float]) -> list[int]:
    """Kill what an earlier supervisor of this run left behind and return the ids; only after a leash was killed too can that be.

    `sessions` maps the leashes that were started to their start times. A process is ours if its environment carries our mark. vLLM's
    engines overwrite their environment with a title: one without any is ours if it belongs to a session that a leash of ours began.
    """
    killed = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            ours = environment.get(MARK) == str(mark)
            if not ours and not environment:
                leash = sessions.get(os.getsid(process.pid))
                ours = leash is not None and process.create_time() >= leash - 1.0
            if ours:
                process.kill()
                killed.append(process.pid)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's
    return killed
