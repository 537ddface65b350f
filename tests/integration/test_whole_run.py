"""The whole recipe as a person runs it, with real vLLM, while its processes are killed one after the other."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ehrmind_k8s import storage
from tests.conftest import needs_module
from tests.integration.terminal import PATIENCE_S, Terminal, family, gone, member

SERVER = "vllm.entrypoints.openai.api_server"
SHORT = (
    *(
        "--set",
        "sft.epochs=1",
        "--set",
        "rlvr.steps=8",
        "--set",
        "rlvr.prompts_per_step=8",
        "--set",
        "rlvr.checkpoint_every=2",
        "--set",
        "rlvr.validate_every=0",
    ),
    *("--set", "rlvr.max_completion_tokens=64", "--set", "evaluate.limit=20", "--set", "evaluate.samples=2", "--set", "evaluate.bootstrap=200"),
)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    for module in ("torch", "vllm"):
        needs_module(module, "make setup")
    there = Terminal(tmp_path, *SHORT, patience_s=900)
    yield there
    there.close()


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_run_reaches_its_report_though_server_trainer_and_supervisor_are_killed(terminal: Terminal) -> None:
    process = terminal.start(event="checkpoint", of="rlvr")
    member(process, SERVER).kill()
    terminal.until(lambda: terminal.status()["rollout_restarts"] == 1)
    member(process, "ehrmind_k8s.stages").kill()
    terminal.until(lambda: any(e["event"] == "checkpoint.restored" for e in terminal.events("rlvr-a2")))
    children = family(process)
    process.kill()
    process.wait(PATIENCE_S)
    assert gone(children)

    done = terminal.submit()
    assert done.returncode == 0, done.stderr
    assert "RLVR" in done.stdout and "report: " in done.stdout
    assert terminal.reasons("rlvr") == ["SIGKILL", "interrupted", "ok"]
    status = terminal.status()
    assert (status["state"], status["rollout_restarts"]) == ("succeeded", 1)
    run = storage.open(str(terminal.folder / "runs" / "demo"))
    sums = json.loads(run.get_bytes("rlvr/ledger.json"))
    assert sums["trained"] == 8 * 8
    assert sums["issued"] == sum(sums[k] for k in ("trained", "dropped", "failed", "voided", "open"))
    steps = [json.loads(line)["step"] for line in run.get_bytes("rlvr/metrics.jsonl").splitlines()]
    assert steps == list(range(1, 9))
    shutil.rmtree(terminal.folder / "runs")
