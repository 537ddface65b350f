"""A folder with a store in which commands are typed, as a person would; shared by the tests of whole runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

PATIENCE_S = 120
SUBMIT = ("submit", "--task", "medcalc", "--backend", "local", "--preset", "tiny", "--name", "demo")


class Terminal:
    """One person with a store and a state folder of their own. `always` is added to every submit."""

    def __init__(self, folder: Path, *always: str, patience_s: float = PATIENCE_S) -> None:
        self.folder, self.always, self.patience_s = folder, always, patience_s
        self.environment = {**os.environ, "EHRMIND_STATE_DIR": str(folder / "state"), "EHRMIND_STORE": str(folder / "runs")}
        self.started: list[subprocess.Popen[str]] = []

    def type(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        command = [sys.executable, "-m", "ehrmind_k8s", *argv]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=self.patience_s)

    def submit(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.type(*SUBMIT, *self.always, *argv)

    def start(self, *argv: str, event: str = "stage.start", of: str = "prepare") -> subprocess.Popen[str]:
        """A submit that goes on, returned once a stage has logged `event`."""
        command = [sys.executable, "-m", "ehrmind_k8s", *SUBMIT, *self.always, *argv]
        with (self.folder / "terminal.log").open("a") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, text=True)
        self.started.append(process)
        self.until(lambda: process.poll() is not None or any(e["event"] == event for e in self.events(of)))
        return process

    def events(self, source: str) -> list[dict[str, Any]]:
        """The events that all attempts of a stage (`rlvr`) or one of them (`rlvr-a2`) have logged."""
        lines = [line for p in (self.folder / "state").glob(f"*/logs/{source}*.log") for line in p.read_text().splitlines()]
        return [json.loads(line) for line in lines if line.startswith('{"time"') and line.endswith("}")]

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.type("status", "demo", "--json").stdout)
        return status

    def reasons(self, stage: str = "prepare") -> list[str]:
        """How the attempts of a stage ended."""
        return [a["reason"] for a in self.status()["attempts"] if a["stage"] == stage]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that another process does."""
        patience = time.monotonic() + self.patience_s
        while not condition():
            assert time.monotonic() < patience, "it did not happen"
            time.sleep(0.05)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Everything that a submit has started."""
    return psutil.Process(process.pid).children(recursive=True)


def member(process: subprocess.Popen[str], module: str) -> psutil.Process:
    """The process among them that runs `python -m module` (not the leash around it)."""
    return next(p for p in family(process) if p.cmdline()[1:3] == ["-m", module])


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all have ended, within a bound."""
    return psutil.wait_procs(processes, timeout=PATIENCE_S)[1] == []
