"""The loop that takes a run through its steps on this machine: one leashed subprocess per stage, rollout servers beside it.

A stage that ends with exit code 75 or by a signal is tried again as the next attempt, up to `policy.retries` times; any other failure ends the
run with that code. The attempt number is chosen here, under the lock of the run, and a new attempt starts only after the old process tree is gone.
"""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, plan, storage
from ehrmind_k8s.backends.base import Attempt, RunState, RunStatus
from ehrmind_k8s.backends.local.display import Display, figures
from ehrmind_k8s.backends.local.process import Leashed, lines
from ehrmind_k8s.backends.local.servers import Servers
from ehrmind_k8s.backends.local.state import State
from ehrmind_k8s.errors import Cancelled, DataError, EhrmindError, IntegrityError, ModelError, RunFailed, SpecError, TryAgain
from ehrmind_k8s.plan import Step
from ehrmind_k8s.spec import RunSpec

FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
STATUS_EVERY_S = 0.5
_CLASSES: dict[int, type[EhrmindError]] = {c.exit_code: c for c in (SpecError, DataError, ModelError, IntegrityError, RunFailed, Cancelled, TryAgain)}


class Stopped(Exception):
    """A signal ended the run; the same command continues it. `exit_code` is 128 + the signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Supervisor:
    """One run, from its first incomplete step to its end."""

    def __init__(self, spec: RunSpec, run_uri: str, steps: Sequence[Step], state: State, display: Display, env: Mapping[str, str]) -> None:
        self.spec, self.run_uri, self.steps, self.state, self.display, self.env = spec, run_uri, steps, state, display, dict(env)
        before = state.read()
        now = time.time()
        self.status = RunStatus(spec.name, run_uri, spec.task, "running", started=before.started if before else now, updated=now)
        if before:
            self.status = replace(self.status, attempts=tuple(_settled(a) for a in before.attempts), score=before.score)
        self._restarts = before.rollout_restarts if before else 0  # of servers that are gone
        self.servers: Servers | None = None
        self.signal: int | None = None
        self._written = 0.0

    def run(self) -> RunStatus:
        """Take the run to its end. Raises the error that stopped it, Cancelled, or Stopped."""
        try:
            asyncio.run(self._supervise())
        except asyncio.CancelledError:
            if self.state.cancelled:
                self._finish("cancelled", "cancelled on request")
                raise Cancelled(f"run {self.spec.name} was cancelled; the same submit continues it") from None
            signum = self.signal or signal.SIGTERM
            self._finish("interrupted", f"stopped by {signal.Signals(signum).name}")
            raise Stopped(signum) from None
        except EhrmindError as error:
            self._finish("failed", str(error))
            raise
        self._finish("succeeded", "")
        return self.status

    async def _supervise(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, self._on_signal, signum, task)
        try:
            async with asyncio.timeout(self.spec.policy.deadline_s):
                await self._steps()
        except TimeoutError:
            raise RunFailed(f"run {self.spec.name} passed policy.deadline_s = {self.spec.policy.deadline_s} s in stage {self.status.stage}") from None
        finally:
            shutil.rmtree(self.state.work, ignore_errors=True)
            if self.servers:
                await self.servers.stop()

    def _on_signal(self, signum: int, task: "asyncio.Task[Any]") -> None:
        if self.signal is None:  # a second one changes nothing: the grace is bounded already
            self.signal = signum
            self.display.say(f"{signal.Signals(signum).name}: stopping")
            task.cancel()

    async def _steps(self) -> None:
        todo = [step for step in self.steps if not artifacts.load(storage.open(step.writes))]
        first = plan.serving_from(todo)
        for index, step in enumerate(todo):
            if first is not None and index >= first and any(s.wants_rollout for s in todo[index:]):
                self._start_servers()
            await self._step(step)
            if self.servers and not any(s.wants_rollout for s in todo[index + 1 :]):
                await self.servers.stop()
                self._restarts += self.servers.restarts
                self.servers = None

    def _start_servers(self) -> None:
        if self.servers is None:
            count = self.spec.rollout.replicas
            self.servers = Servers(count, self.run_uri, self.env, self.state, self.display.say, self._write)
            self.status = replace(self.status, rollouts_wanted=count)
        self.servers.start()

    async def _step(self, step: Step) -> None:
        """Run a step until it is complete, within its tries."""
        pause, tries = FIRST_PAUSE_S, self.spec.policy.retries + 1
        for left in reversed(range(tries)):
            try:
                await self._attempt(step)
                return
            except TryAgain as error:
                if not left:
                    raise type(error)(f"stage {step.stage} did not succeed in {tries} tries; the last one: {error}") from None
                self.display.say(f"{step.stage}: {error}; trying again in {pause:.0f} s ({left} tries left)")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _attempt(self, step: Step) -> None:
        """One attempt. Raises the error that its exit code stands for; TryAgain for one that another attempt may mend."""
        number = artifacts.latest_attempt(storage.open(step.writes)) + 1
        log = self.state.log(f"{step.stage}-a{number}")
        self.display.say(f"{step.stage}: attempt {number}")
        self._update(stage=step.stage, done=0, total=0, unit="", figures={}, message="")
        began = time.monotonic()
        self._record(Attempt(step.stage, number, "running"))
        env = self.env | {
            "EHRMIND_ROLLOUT_URLS": self.servers.urls if self.servers else "",
            "EHRMIND_WORK_DIR": str(self.state.empty_work()),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(_threads(step)),
        }
        child = await Leashed.start(step.argv(self.run_uri, number), env, log, self.state.folder, read=True)
        self.state.add_session(child.process.pid)
        reading = asyncio.create_task(self._read(step.stage, child, log))
        try:
            last = await asyncio.shield(reading)
            code = await child.wait()
        except asyncio.CancelledError:
            await child.stop()
            await reading
            reason = "cancelled" if self.state.cancelled else "interrupted"
            self._record(Attempt(step.stage, number, reason, seconds=round(time.monotonic() - began, 1)))
            raise
        reason, message, seconds = _reason(code, last), str(last.get("message", "")), round(time.monotonic() - began, 1)
        self._record(Attempt(step.stage, number, reason, message, seconds))
        if code:
            raise _error(step.stage, code, message or reason, log)
        if last.get("score") is not None:
            self._update(score=last["score"])
        self.display.say(f"{step.stage}: complete after {seconds:.0f} s")

    async def _read(self, stage: str, child: Leashed, log: Path) -> dict[str, Any]:
        """Copy a stage's output to its log, show its progress, and return its last `result` or `error` event."""
        last: dict[str, Any] = {}
        assert child.process.stdout is not None
        with log.open("ab", buffering=0) as file:
            async for line in lines(child.process.stdout):
                file.write(line + b"\n")
                event = _event(line)
                match event.get("event"):
                    case "progress":
                        self.display.progress(stage, event)
                        self._update(
                            done=event.get("done", 0), total=event.get("total", 0), unit=event.get("unit", ""), figures=figures(event), message=""
                        )
                    case "result" | "error":
                        last = event
                    case "rollout.waiting":
                        self._waiting(stage, f"waiting for rollout servers: {event.get('ready')} of {event.get('needed')} ready")
                    case "checkpoint.restored" | "checkpoint.torn" | "checkpoint.refused":
                        self.display.say(f"{stage}: {str(event['event']).replace('.', ' ')}: {event.get('name')}")
        return last

    def _waiting(self, stage: str, message: str) -> None:
        if message != self.status.message:
            self.display.say(f"{stage}: {message}")
            self._update(message=message)

    def _record(self, attempt: Attempt) -> None:
        kept = [a for a in self.status.attempts if (a.stage, a.attempt) != (attempt.stage, attempt.attempt)]
        self._update(attempts=(*kept, attempt))
        self._write()

    def _update(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)
        if time.monotonic() - self._written > STATUS_EVERY_S:
            self._write()

    def _finish(self, state: RunState, message: str) -> None:
        self.status = replace(self.status, state=state, message=message)
        self._write()

    def _write(self) -> None:
        ready, restarts = (sum(self.servers.ready), self.servers.restarts) if self.servers else (0, 0)
        self.status = replace(self.status, rollouts_ready=ready, rollout_restarts=self._restarts + restarts, updated=time.time())
        self.state.write(self.status)
        self._written = time.monotonic()


def _threads(step: Step) -> int:
    """Threads of a stage: beside servers that sample for it half of the cores, since more threads than cores only spin. `rollout.cores` is theirs."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // 2) if step.wants_rollout else cores


def _settled(attempt: Attempt) -> Attempt:
    """An attempt of an earlier supervisor: one that still seems to run ended when that supervisor was killed."""
    return replace(attempt, reason="interrupted", message="its supervisor was killed") if attempt.reason == "running" else attempt


def _event(line: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return {}


def _reason(code: int, last: Mapping[str, Any]) -> str:
    """Why an attempt ended: what its last event says, or what can be told from outside."""
    if last.get("event") == ("error" if code else "result"):
        return str(last["reason"])
    if signum := _signal(code):
        return signum.name
    return f"exit {code}" if code else "ok"


def _signal(code: int) -> signal.Signals | None:
    """The signal that an exit code of 128 + n stands for; None for any other code, such as 255."""
    with suppress(ValueError):
        return signal.Signals(code - 128)
    return None


def _error(stage: str, code: int, why: str, log: Path) -> EhrmindError:
    """The error that an exit code stands for. A process ended by a signal may do better next time."""
    if signum := _signal(code):
        hint = "; was the machine short of memory?" if signum == signal.SIGKILL else ""
        return TryAgain(f"{stage}: the process was ended by {signum.name}{hint} (log: {log})")
    if code in _CLASSES:
        return _CLASSES[code](f"{stage}: {why} (log: {log})")
    return EhrmindError(f"{stage}: stopped by a bug of ours: {why} (log: {log})")
