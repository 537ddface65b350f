"""`ehrmind score`: the task's scorer on completions from anywhere."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ehrmind_k8s.cli import options

if TYPE_CHECKING:
    from ehrmind_k8s.records import Example, Verdict
    from ehrmind_k8s.tasks.base import Task

FILE = click.Path(path_type=Path)


@click.command(name="score")
@click.option("--task", "task_name", required=True, metavar="TASK", help="Clinical task; `ehrmind tasks` lists them.")
@click.option("--examples", required=True, type=FILE, help="Prepared rows (.parquet or .jsonl), as `ehrmind data prepare` writes them.")
@click.option("--completions", required=True, type=FILE, help='JSON lines {"id", "text"}; several lines with one id are samples.')
@click.option("--out", type=FILE, help='Write {"id", "correct", "reward", "parsed", "outcome"} per completion, in input order.')
@options.json_option
def command(task_name: str, examples: Path, completions: Path, out: Path | None, as_json: bool) -> None:
    """Judge completions with a task's scorer.

    \b
    Examples:
      ehrmind score --task medcalc --examples prepared/test.parquet --completions answers.jsonl
      ehrmind score --task medcalc --examples prepared/test.jsonl --completions answers.jsonl --out scores.jsonl --json

    The text is the whole completion, `<think>` included. Rewards are those of the default table (rlvr.reward). Metrics are over the
    examples that have a completion; examples without one are counted.
    """
    from ehrmind_k8s.errors import DataError
    from ehrmind_k8s.examples import read_split
    from ehrmind_k8s.tasks import registry

    task = registry.get(task_name)
    rows = {e.id: e for e in read_split(_file(examples))}
    if others := sorted({e.task for e in rows.values()} - {task.name}):
        raise DataError(f"{examples}: rows of task {others[0]!r}, not {task.name!r}; pass the task they were prepared for")
    answers = list(_completions(_file(completions), rows))
    verdicts = [task.score(rows[id], text) for id, text in answers]
    if out:
        _write(out, [_score(id, verdict) for (id, _), verdict in zip(answers, verdicts, strict=True)])
    summary = _summary(task, rows, answers, verdicts)
    if as_json:
        options.echo_json(summary)
        return
    click.echo(f"{summary['completions']} completions of {summary['examples']} examples; {summary['without_completion']} examples have none")
    width = max(map(len, summary["metrics"]), default=0) + 2
    for name, value in summary["metrics"].items():
        click.echo(f"  {name:<{width}}" + (f"{value:8.4f}" if value is not None else "       -"))


def _file(path: Path) -> Path:
    """The path, if it is a file. Raises DataError."""
    from ehrmind_k8s.errors import DataError

    if not path.is_file():
        raise DataError(f"{path}: {'a folder; a file is expected' if path.is_dir() else 'no such file'}")
    return path


def _completions(path: Path, known: Mapping[str, "Example"]) -> Iterator[tuple[str, str]]:
    """Id and text of each line. Raises DataError naming the line."""
    from ehrmind_k8s.errors import DataError

    for number, raw in enumerate(path.read_bytes().splitlines(), 1):
        where = f"{path}, line {number}"
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            raise DataError(f"{where}: not a JSON object; the line may be cut off") from None
        fields = line if isinstance(line, dict) else {}
        for field in ("id", "text"):
            if not isinstance(fields.get(field), str):
                raise DataError(f'{where}: no text field "{field}"; expected {{"id": ..., "text": ...}}')
        if fields["id"] not in known:
            raise DataError(f"{where}: id {fields['id'][:80]!r} is not among the {len(known)} examples; was it made from another split?")
        yield fields["id"], fields["text"]


def _score(id: str, verdict: "Verdict") -> dict[str, Any]:
    from ehrmind_k8s.spec import RewardSpec
    from ehrmind_k8s.tasks.reward import reward

    return {"id": id, "correct": verdict.correct, "reward": reward(verdict, RewardSpec()), "parsed": verdict.parsed, "outcome": verdict.outcome}


def _write(path: Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """Write aside, then let the file appear whole. Raises SpecError where it cannot be written."""
    from ehrmind_k8s.errors import SpecError

    aside = path.with_name(f".{path.name}.aside")
    try:
        aside.write_text("".join(json.dumps(s) + "\n" for s in scores), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise SpecError(f"--out {path}: cannot be written: {error.strerror}") from None


def _summary(task: "Task", rows: Mapping[str, "Example"], answers: Sequence[tuple[str, str]], verdicts: Sequence["Verdict"]) -> dict[str, Any]:
    import numpy as np

    from ehrmind_k8s.tasks.base import Sampled

    samples: dict[str, list[Sampled]] = {}
    for (id, text), verdict in zip(answers, verdicts, strict=True):
        samples.setdefault(id, []).append(Sampled(text, verdict))
    texts = list(samples.values())
    metrics = task.metrics(task.columns([rows[id] for id in samples], texts, texts), np.ones(len(texts)))
    return {
        "task": task.name,
        "primary_metric": task.primary_metric,
        "examples": len(samples),
        "completions": len(answers),
        "without_completion": len(rows) - len(samples),
        "metrics": {name: None if value != value else value for name, value in metrics.items()},
    }
