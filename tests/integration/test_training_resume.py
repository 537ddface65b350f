"""Training is killed, stopped, fenced and spread over ranks, as real processes, and ends where an undisturbed run ends."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from ehrmind_k8s import artifacts, spec, stages, storage
from ehrmind_k8s.artifacts import Claim, RunDocument
from ehrmind_k8s.training import ledger
from tests.integration import small_twin

pytest.importorskip("torch", reason="needs torch: pip install 'ehrmind_k8s[train]'")

STEPS, PROMPTS = 10, 4
SETTINGS = [
    "seed=5",
    "stages=[prepare,sft,rlvr]",
    "model.context=512",
    "data.max_prompt_tokens=256",
    "rollout.engine=transformers",
    *["sft.batch_size=32", "sft.micro_batch_size=16", "sft.epochs=60", "sft.learning_rate=5e-3", "sft.checkpoint_every=10"],
    *[f"rlvr.steps={STEPS}", f"rlvr.prompts_per_step={PROMPTS}", "rlvr.samples_per_prompt=4", "rlvr.micro_batch_size=8"],
    *["rlvr.max_completion_tokens=40", "rlvr.checkpoint_every=2", "rlvr.validate_every=4"],
]


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory whose sft stage is complete. 27 train rows: ten steps of four prompts cross the first epoch's end at the seventh."""
    root = tmp_path_factory.mktemp("warmed")
    document = spec.load({"task": "medcalc", "preset": "tiny"}, [*SETTINGS, f"data.uri={small_twin.write(root, train=30, test=4)}"])
    RunDocument.new(document).write(storage.open(str(root / "run")))
    stages.run_stage("prepare", str(root / "run"), 1)
    assert attempt(root / "run", "sft", 1)[0] == 0
    return root / "run"


@pytest.fixture(scope="module")
def undisturbed(warmed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fresh(warmed, tmp_path_factory.mktemp("undisturbed"))
    assert attempt(run, "rlvr", 1)[0] == 0
    return run


def fresh(warmed: Path, folder: Path) -> Path:
    return Path(shutil.copytree(warmed, folder / "run"))


def start(run: Path, stage: str, number: int, ranks: int = 1) -> subprocess.Popen[str]:
    # torchrun takes --run for an abbreviation of its own --run-path, unless `--` comes before.
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "--"]
    command = [sys.executable, *(torchrun if ranks > 1 else ["-m"]), "ehrmind_k8s.stages", stage, "--run", str(run), "--attempt", str(number)]
    environment = os.environ | {"EHRMIND_LOG_FORMAT": "json", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def attempt(
    run: Path, stage: str, number: int, ranks: int = 1, after: int = 10**9, act: Any = subprocess.Popen.kill
) -> tuple[int, list[dict[str, Any]]]:
    """Run one attempt; `act` on the process once it has written `after` events. Returns exit code and events."""
    process = start(run, stage, number, ranks)
    events = []
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.startswith("{"):
                events.append(json.loads(line))
                if len(events) == after:
                    act(process)
    return process.returncode, events


def curve(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "rlvr" / artifacts.METRICS).read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "attempt")} for line in lines]


def final_weights(run: Path) -> dict[str, str]:
    out = storage.open(str(run / "rlvr"))
    manifest = artifacts.load(out)
    assert manifest is not None
    policy = artifacts.load(out, manifest.meta["policies"]["rlvr"])
    assert policy is not None
    return {f.name: f.sha256 for f in policy.files}


def from_step(events: list[dict[str, Any]]) -> int:
    return next(e["from_step"] for e in events if e["event"] == "rlvr.start")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_trainer_killed_at_random_moments_ends_as_if_it_never_was(warmed: Path, undisturbed: Path, tmp_path: Path, seed: int) -> None:
    run, moments = fresh(warmed, tmp_path), random.Random(seed)
    kills = [moments.randint(6, 11), moments.randint(2, 8)]  # events: the first checkpoint is about the fifth
    for number, after in enumerate(kills, 1):
        assert attempt(run, "rlvr", number, after=after)[0] == -signal.SIGKILL
    code, events = attempt(run, "rlvr", 3)
    assert code == 0 and from_step(events) > 0
    assert final_weights(run) == final_weights(undisturbed)
    assert curve(run) == curve(undisturbed)
    sums = ledger.audit(storage.open(str(run / "rlvr")))
    assert sums["trained"] == STEPS * PROMPTS and sums["open"] == 0
    assert sums["issued"] == sums["trained"] + sums["voided"]


def test_every_issue_is_trained_once_and_the_second_epoch_has_its_own_order(undisturbed: Path) -> None:
    entries, _ = ledger.read(storage.open(str(undisturbed / "rlvr")))
    issues = [(e.epoch, e.prompt_id) for e in entries if e.state == "trained"]
    assert len(set(issues)) == len(issues) == STEPS * PROMPTS
    first = [p for epoch, p in issues if epoch == 0]
    second = [p for epoch, p in issues if epoch == 1]
    assert len(second) == STEPS * PROMPTS - 27 and second != first[: len(second)]


def test_sigterm_saves_at_the_step_and_leaves_with_143(warmed: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = fresh(warmed, tmp_path)
    code, events = attempt(run, "rlvr", 1, after=5, act=lambda process: process.send_signal(signal.SIGTERM))
    assert code == 143
    last = max(e["done"] for e in events if e["event"] == "progress")
    assert last < STEPS
    code, events = attempt(run, "rlvr", 2)
    assert (code, from_step(events)) == (0, last)
    assert final_weights(run) == final_weights(undisturbed)


def test_a_trainer_killed_after_its_last_checkpoint_only_publishes(undisturbed: Path, tmp_path: Path) -> None:
    run = fresh(undisturbed, tmp_path)
    out = storage.open(str(run / "rlvr"))
    expected, lines = final_weights(undisturbed), curve(undisturbed)
    out.delete(artifacts.MANIFEST)
    artifacts.remove(out, artifacts.policy_key(f"v{STEPS}-a1"))
    code, events = attempt(run, "rlvr", 2)
    assert (code, from_step(events)) == (0, STEPS)
    assert (final_weights(run), curve(run)) == (expected, lines)


def test_a_fenced_trainer_stops_with_75_and_the_newer_attempt_ends_the_same(warmed: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = fresh(warmed, tmp_path)
    takeover = Claim(storage.open(str(run / "rlvr")), 2)
    code, events = attempt(run, "rlvr", 1, after=6, act=lambda _: takeover.take())
    assert (code, events[-1]["reason"]) == (75, "Fenced")
    assert attempt(run, "rlvr", 3)[0] == 0
    assert final_weights(run) == final_weights(undisturbed)


def test_sft_killed_and_run_again_learns_the_same(warmed: Path, tmp_path: Path) -> None:
    run = fresh(warmed, tmp_path)
    shutil.rmtree(run / "sft")
    assert attempt(run, "sft", 1, after=30)[0] == -signal.SIGKILL
    code, events = attempt(run, "sft", 2)
    assert code == 0
    assert next(e["from_step"] for e in events if e["event"] == "sft.start") >= 10
    weights = "policy/sft/model.safetensors"
    assert (run / "sft" / weights).read_bytes() == (warmed / "sft" / weights).read_bytes()


def second(process: subprocess.Popen[str]) -> psutil.Process:
    return next(child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1")


@pytest.mark.parametrize(
    ("act", "reason", "exit_code"),
    [
        pytest.param(subprocess.Popen.terminate, "Terminated", 143, id="the pod is told to end"),
        pytest.param(lambda process: second(process).kill(), "PeerLost", 75, id="the other rank is killed"),
    ],
)
def test_what_the_first_rank_reports_is_what_torchrun_cannot_say(
    warmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Any, reason: str, exit_code: int
) -> None:
    monkeypatch.setenv("EHRMIND_TERMINATION_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("EHRMIND_WORLD_SIZE", "2")
    assert attempt(fresh(warmed, tmp_path), "rlvr", 1, ranks=2, after=5, act=act)[0] == 1
    report = json.loads((tmp_path / "log").read_text())
    assert (report["reason"], report["exit_code"]) == (reason, exit_code)


def test_two_ranks_train_like_one_and_a_kill_of_both_changes_nothing(warmed: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = fresh(warmed, tmp_path)
    code, _ = attempt(run, "rlvr", 1, ranks=2, after=7, act=lambda process: process.send_signal(signal.SIGTERM))
    assert code != 0
    code, events = attempt(run, "rlvr", 2, ranks=2)
    assert code == 0 and from_step(events) > 0
    one, two = curve(undisturbed), curve(run)
    assert [line["outcomes"] for line in two] == [line["outcomes"] for line in one]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-5)
    assert ledger.audit(storage.open(str(run / "rlvr")))["trained"] == STEPS * PROMPTS
