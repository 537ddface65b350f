"""A stage as a pod runs it: the document it brings along, the number of ranks, and what it leaves behind however it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import artifacts, spec, stages, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.errors import SpecError
from tests.unit.stages.conftest import Run

Prepare = Callable[..., Run]


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """What the termination log of this pod holds."""
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv("EHRMIND_TERMINATION_LOG", str(path))
    return lambda: dict(json.loads(path.read_text()))


def test_a_stage_that_ends_well_reports_ok(prepare: Prepare, report: Callable[[], dict[str, Any]]) -> None:
    assert prepare().code == 0
    found = report()
    assert found.pop("seconds") > 0
    assert found == {"stage": "prepare", "attempt": 1, "reason": "ok", "exit_code": 0, "score": None, "headline": {}}


def test_a_users_mistake_is_reported_by_its_class_alone(prepare: Prepare, source: Path, report: Callable[[], dict[str, Any]]) -> None:
    (source / "train.csv").write_text("PLANTED;two\n1;2\n", encoding="utf-8")
    assert prepare().code == 10
    assert (report()["reason"], report()["exit_code"]) == ("DataError", 10)
    assert "PLANTED" not in json.dumps(report())


def test_a_bug_is_reported_by_its_class_alone(prepare: Prepare, report: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ehrmind_k8s.stages.prepare", None)  # importing it raises
    assert prepare().code == 1
    assert (report()["reason"], report()["exit_code"]) == ("ModuleNotFoundError", 1)


def test_a_single_process_of_torchrun_is_no_group(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "EHRMIND_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert prepare().code == 0
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"} & os.environ.keys()


def start(run: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ehrmind_k8s.stages", "prepare", "--run", str(run), "--attempt", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"EHRMIND_LOG_FORMAT": "json"} | environment)


def mount(tmp_path: Path, source: Path) -> dict[str, str]:
    """The environment of a pod whose ConfigMap holds a run over `source`."""
    document = RunDocument.new(spec.load({"task": "medcalc", "preset": "tiny", "data": {"uri": str(source)}}, ["rlvr.max_completion_tokens=512"]))
    (tmp_path / "mounted.json").write_bytes(document.to_json())
    return {"EHRMIND_SPEC_FILE": str(tmp_path / "mounted.json"), "EHRMIND_TERMINATION_LOG": str(tmp_path / "log")}


def test_a_signal_is_reported_as_terminated(tmp_path: Path, source: Path) -> None:
    with start(tmp_path / "run", **mount(tmp_path, source)) as process:
        assert process.stdout is not None and "stage.start" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    found = json.loads((tmp_path / "log").read_text())
    assert (found["reason"], found["exit_code"]) == ("Terminated", 143)


def test_the_first_stage_publishes_the_document_of_its_pod(tmp_path: Path, source: Path) -> None:
    with start(tmp_path / "run", **mount(tmp_path, source)) as process:
        process.communicate()
    assert process.returncode == 0
    assert RunDocument.at(str(tmp_path / "run")).to_json() == (tmp_path / "mounted.json").read_bytes()


def test_a_launcher_that_started_another_number_of_processes_is_refused_before_any_claim(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EHRMIND_SPEC_FILE", mount(tmp_path, source)["EHRMIND_SPEC_FILE"])
    monkeypatch.setenv("EHRMIND_WORLD_SIZE", "2")
    with pytest.raises(SpecError, match=r"expected 2 training processes \(EHRMIND_WORLD_SIZE\), the launcher started 1: the training operator"):
        stages.run_stage("sft", str(tmp_path / "run"), 1)
    assert artifacts.latest_attempt(storage.open(str(tmp_path / "run" / "sft"))) == 0


def test_the_progress_of_a_stage_can_be_read_while_it_runs(tmp_path: Path, source: Path) -> None:
    import socket
    import time

    import httpx

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen: dict[str, Any] = {}
    with start(tmp_path / "run", EHRMIND_PROGRESS_PORT=str(port), **mount(tmp_path, source)) as process:
        while process.poll() is None:
            try:
                seen = httpx.get(f"http://127.0.0.1:{port}/progress", timeout=2).json()
            except httpx.TransportError:
                time.sleep(0.02)
    assert (seen["stage"], seen["attempt"], seen["waiting"]) == ("prepare", 1, "")
