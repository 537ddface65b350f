"""A small MedCalc source, and a run of the prepare stage over it exactly as every backend starts one."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import artifacts, spec, storage
from ehrmind_k8s.artifacts import Manifest, RunDocument
from ehrmind_k8s.stages import __main__ as stages_main
from ehrmind_k8s.tasks.medcalc import synthetic


@dataclass(frozen=True)
class Run:
    """How a stage ended: its exit code, its last event, and the folder of its output."""

    code: int
    last: dict[str, Any]
    folder: Path

    @property
    def manifest(self) -> Manifest | None:
        return artifacts.load(storage.open(str(self.folder)))

    @property
    def meta(self) -> dict[str, Any]:
        assert self.manifest is not None, self.last
        return dict(self.manifest.meta)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The unit twin: 12 calculators, train.csv and test.csv."""
    folder = tmp_path / "source"
    synthetic.write(folder, 1, "unit")
    (folder / "README.md").unlink()
    return folder


@pytest.fixture
def prepare(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run `python -m ehrmind_k8s.stages prepare` in this process, with preset tiny and `overrides` (key=value)."""
    monkeypatch.setenv("EHRMIND_LOG_FORMAT", "json")
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*overrides: str, data: str | Path | None = source, name: str = "run", **document: Any) -> Run:
        place = tmp_path / name
        user = {"task": "medcalc", "preset": "tiny", **document} | ({"data": {"uri": str(data)}} if data else {})
        budget = ["rlvr.max_completion_tokens=512"] if document.get("preset", "tiny") == "tiny" else []
        RunDocument.new(spec.load(user, [*budget, *overrides])).write(storage.open(str(place)))
        monkeypatch.setattr(sys, "argv", ["stages", "prepare", "--run", str(place), "--attempt", "1"])
        capsys.readouterr()
        code = stages_main.main()
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return Run(code, events[-1], place / "prepare")

    return run
