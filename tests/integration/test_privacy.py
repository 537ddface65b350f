"""Strings planted in records are looked for wherever a run writes, after it has reached its end and after its data were refused.

`docs/security.md` lists the places that may hold text of a record; the sets below are that list, so a place missing there fails here.
"""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import needs_module
from tests.integration import small_twin
from tests.integration.planted import MARK, PLANTED, plant, write
from tests.integration.terminal import Terminal, member

SHORT = (
    *("model.context=512", "data.max_prompt_tokens=256", "sft.epochs=1", "sft.batch_size=8", "sft.micro_batch_size=8", "sft.checkpoint_every=2"),
    *("rlvr.steps=2", "rlvr.prompts_per_step=4", "rlvr.samples_per_prompt=2", "rlvr.micro_batch_size=4", "rlvr.max_completion_tokens=64"),
    *("rlvr.checkpoint_every=1", "rlvr.validate_limit=2", "evaluate.limit=3", "evaluate.samples=1", "evaluate.bootstrap=100"),
)
# Rows are kept here, in compressed columns where the words themselves need not stand ...
ROWS = re.compile(
    r"runs/demo/(prepare/(train|validation|test)\.parquet|diagnose/(asked\.parquet|results/base/completions-base\.jsonl)"
    r"|evaluate/(results/\w+|diagnosis/sft)/completions-\w+\.jsonl)"
)
# ... and the toy model's vocabulary, made from the train rows, holds what several of them repeat. It travels with the model and its checkpoints.
VOCABULARY = re.compile(r"runs/demo/((prepare/)?model|(sft|rlvr)/checkpoint/[\w-]+)/tokenizer\.json")


def change(path: Path, **columns: str) -> None:
    """Set columns (named with underscores) of the first row."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= {name.replace("_", " "): value for name, value in columns.items()}
    write(path, rows)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Planted rows, away from the folders that are searched."""
    folder = small_twin.write(tmp_path / "source", train=40, test=6)
    plant(folder)
    assert all(word in (folder / "train.csv").read_text() for word in PLANTED.values())
    return folder


@pytest.fixture
def terminal(tmp_path: Path, source: Path) -> Iterator[Terminal]:
    needs_module("torch", "make setup, or pip install 'ehrmind_k8s[train]'")
    (tmp_path / "desk" / "tmp").mkdir(parents=True)
    settings = [argument for setting in SHORT for argument in ("--set", setting)]
    there = Terminal(tmp_path / "desk", "--data", str(source), *settings, patience_s=400)
    there.environment["TMPDIR"] = str(tmp_path / "desk" / "tmp")
    yield there
    there.close()


def holding(folder: Path) -> set[str]:
    """Paths below `folder` whose name or bytes hold a planted word, in any case."""
    paths = [Path(top, name) for top, folders, names in os.walk(folder) for name in (*folders, *names)]
    held = [p for p in paths if MARK in p.name.lower().encode() or (p.is_file() and MARK in p.read_bytes().lower())]
    return {p.relative_to(folder).as_posix() for p in held}


def said(terminal: Terminal) -> str:
    """Everything that the commands about a run print."""
    shown = [terminal.type(*command) for command in (["status", "demo"], ["status", "demo", "--json"], ["runs"], ["report", "demo"])]
    logs = [terminal.type("logs", "demo", "--of", p.stem) for p in (terminal.folder / "state").glob("*/logs/*.log")]
    assert logs
    return "".join(done.stdout + done.stderr for done in (*shown, *logs))


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.slow])])
def test_a_run_that_reaches_its_end_keeps_records_where_the_page_says_and_nowhere_else(terminal: Terminal, engine: str) -> None:
    if engine == "vllm":
        needs_module("vllm", "make setup")
    done = terminal.submit("--set", f"rollout.engine={engine}")
    assert done.returncode == 0, done.stderr
    assert MARK not in (done.stdout + done.stderr + said(terminal)).lower().encode()
    found = {path for path in holding(terminal.folder) if not ROWS.fullmatch(path)}
    assert {"runs/demo/model/tokenizer.json", "runs/demo/rlvr/checkpoint/step-2-a1/tokenizer.json"} <= found
    assert not [path for path in found if not VOCABULARY.fullmatch(path)]
    assert not list((terminal.folder / "tmp").glob("ehrmind-*"))


def test_what_a_killed_stage_worked_on_does_not_outlive_the_run(terminal: Terminal) -> None:
    process = terminal.start("--set", "stages=[prepare,sft]", "--set", "policy.retries=0", event="progress", of="sft")
    work = list((terminal.folder / "state").glob("*/work"))
    assert [list(folder.rglob("train.parquet")) for folder in work]
    member(process, "ehrmind_k8s.stages").kill()
    assert process.wait(terminal.patience_s) == 75
    assert not any(folder.exists() for folder in work)
    assert not list((terminal.folder / "tmp").glob("ehrmind-*"))


@pytest.mark.parametrize(
    ("columns", "about"),
    [
        ({"Calculator_ID": "99"}, "Calculator ID 99 is unknown"),
        ({"Calculator_ID": "2", "Ground_Truth_Answer": "5", "Lower_Limit": "9", "Upper_Limit": "1"}, "Lower Limit is above Upper Limit"),
        ({"Ground_Truth_Answer": PLANTED["Patient Note"]}, "Ground Truth Answer"),
        ({"Row_Number": PLANTED["Patient Note"]}, "Row Number"),
    ],
)
def test_a_refused_row_is_named_without_its_text(terminal: Terminal, source: Path, columns: dict[str, str], about: str) -> None:
    change(source / "train.csv", **columns)
    done = terminal.submit("--set", "rollout.engine=transformers")
    assert done.returncode == 10
    assert about in done.stderr
    assert MARK not in (done.stdout + done.stderr + said(terminal)).lower().encode()
    assert not holding(terminal.folder)
