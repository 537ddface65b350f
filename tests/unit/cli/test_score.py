"""`ehrmind score` on completions from anywhere."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ehrmind_k8s import examples
from ehrmind_k8s.cli.score import command
from ehrmind_k8s.errors import DataError, SpecError
from ehrmind_k8s.records import Example


def example(id: str, gold: str) -> Example:
    target = {"calculator": 4, "scoring": "integer", "answer": gold, "lower": gold, "upper": gold, "abstain": False}
    return Example(id, "medcalc", "test", id, "risk", ({"role": "user", "content": "?"},), target)


def say(value: object) -> str:
    return f"<think>x</think>\n<answer>{json.dumps({'answer': value})}</answer>"


@pytest.fixture(params=["jsonl", "parquet"])
def prepared(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"test.{request.param}"
    examples.write_split(path, [example("a", "4"), example("b", "7"), example("c", "1")])
    return path


def run(prepared: Path, lines: list[Any], *options: str) -> Result:
    completions = prepared.parent / "answers.jsonl"
    completions.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    arguments = ["--task", "medcalc", "--examples", str(prepared), "--completions", str(completions), *options]
    return CliRunner().invoke(command, arguments, catch_exceptions=True)


ANSWERS = [{"id": "b", "text": say(7)}, {"id": "a", "text": say(5)}, {"id": "b", "text": say("seven")}, {"id": "b", "text": "7"}]


def test_scores_come_in_input_order_with_reward_and_outcome(prepared: Path) -> None:
    out = prepared.parent / "scores.jsonl"
    assert run(prepared, ANSWERS, "--out", str(out)).exit_code == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"id": "b", "correct": True, "reward": 1.1, "parsed": "7", "outcome": "scored"},
        {"id": "a", "correct": False, "reward": 0.0, "parsed": "5", "outcome": "scored"},
        {"id": "b", "correct": False, "reward": 0.0, "parsed": None, "outcome": "unparseable"},
        {"id": "b", "correct": False, "reward": -2.0, "parsed": None, "outcome": "malformed"},
    ]


def test_several_lines_of_one_id_are_samples_of_one_example(prepared: Path) -> None:
    found = json.loads(run(prepared, ANSWERS, "--json").output)
    assert (found["examples"], found["completions"], found["without_completion"]) == (2, 4, 1)
    assert found["metrics"]["accuracy"] == pytest.approx((1 / 3 + 0) / 2)
    assert found["primary_metric"] == "accuracy"


def test_a_person_gets_a_table(prepared: Path) -> None:
    lines = run(prepared, ANSWERS[:1]).output.splitlines()
    assert lines[0] == "1 completions of 1 examples; 2 examples have none"
    assert lines[1].split() == ["accuracy", "1.0000"]


def test_no_completions_have_no_metrics(prepared: Path) -> None:
    assert json.loads(run(prepared, [], "--json").output)["metrics"]["accuracy"] is None


BROKEN = {
    "an unknown id": ({"id": "z", "text": "x"}, "line 2: id 'z' is not among the 3 examples"),
    "a torn line": ('{"id": "a", "te', "line 2: not a JSON object"),
    "a list": ([1], 'line 2: no text field "id"'),
    "no text": ({"id": "a"}, 'line 2: no text field "text"'),
    "text that is a number": ({"id": "a", "text": 4}, 'line 2: no text field "text"'),
    "deep nesting": ("[" * 100_000, "line 2: not a JSON object"),
}


@pytest.mark.parametrize(("line", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_named_and_nothing_is_written(prepared: Path, line: Any, message: str) -> None:
    out = prepared.parent / "scores.jsonl"
    error = run(prepared, [ANSWERS[0], line], "--out", str(out)).exception
    assert isinstance(error, DataError) and message in str(error)
    assert not out.exists()


@pytest.mark.parametrize("wrong", ["missing.jsonl", "."])
def test_a_file_that_is_none_is_an_error(tmp_path: Path, wrong: str) -> None:
    arguments = ["--task", "medcalc", "--examples", str(tmp_path / wrong), "--completions", str(tmp_path / wrong)]
    assert isinstance(CliRunner().invoke(command, arguments).exception, DataError)


def test_a_place_that_cannot_be_written_is_an_error_without_leftovers(prepared: Path) -> None:
    error = run(prepared, ANSWERS, "--out", str(prepared / "scores.jsonl")).exception
    assert isinstance(error, SpecError) and "cannot be written" in str(error)
    assert sorted(p.name for p in prepared.parent.iterdir()) == sorted(["answers.jsonl", prepared.name])


def test_rows_of_another_task_are_not_judged(prepared: Path) -> None:
    rows = [dataclasses.replace(e, task="trec") for e in examples.read_split(prepared)]
    examples.write_split(prepared, rows)
    result = run(prepared, ANSWERS)
    assert isinstance(result.exception, DataError)
    assert "rows of task 'trec', not 'medcalc'" in str(result.exception)
