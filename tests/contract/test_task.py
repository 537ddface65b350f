"""What every installed task keeps, whoever wrote it. A new task is found here by itself."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.errors import DataError, SpecError
from ehrmind_k8s.records import SPLITS, Example, Verdict
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tasks.base import Sampled, Task, TaskData

every_task = pytest.mark.parametrize("name", registry.names())


@cache
def get(name: str) -> Task:
    return registry.get(name)


@cache
def twin(name: str) -> TaskData:
    with TemporaryDirectory() as folder:
        get(name).synthesize(Path(folder), 7, "unit")
        found = get(name).read(Path(folder), DataSpec(), 7)
        return replace(found, examples=list(found.examples))


def rows_of(name: str) -> list[Example]:
    return list(twin(name).examples)


def measured(task: Task, rows: list[Example], texts: list[list[Sampled]]) -> dict[str, float]:
    return task.metrics(task.columns(rows, texts, texts), np.ones(len(rows)))


def judged(task: Task, example: Example, text: str) -> Sampled:
    return Sampled(text, task.score(example, text))


@every_task
def test_a_task_says_what_it_is(name: str) -> None:
    task = get(name)
    assert task.name == name and task.title and task.layouts
    assert task.label_sets and task.label_sets[0] == "original"


@every_task
def test_the_twin_has_all_splits_and_the_same_seed_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    assert {e.split for e in rows_of(name)} == set(SPLITS)
    for folder in ("a", "b"):
        get(name).synthesize(tmp_path / folder, 7, "unit")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


@every_task
def test_the_gold_of_every_row_is_right_and_reward_cannot_be_had_without_it(name: str) -> None:
    task = get(name)
    for e in rows_of(name):
        verdict = task.score(e, task.gold(e))
        assert verdict == Verdict(True, verdict.parsed, "scored") and verdict.parsed
        assert not task.score(e, "").correct


@every_task
def test_every_text_to_learn_is_well_formed(name: str) -> None:
    task = get(name)
    texts = [(e, e.sft_text) for e in rows_of(name) if e.sft_text]
    assert texts and all(task.score(e, text).outcome == "scored" for e, text in texts)


@every_task
def test_no_group_is_in_two_splits_and_no_id_occurs_twice(name: str) -> None:
    rows = rows_of(name)
    splits: dict[str, set[str]] = {}
    for e in rows:
        splits.setdefault(e.group, set()).add(e.split)
    assert all(len(s) == 1 for s in splits.values())
    assert len({e.id for e in rows}) == len(rows)


@every_task
def test_reading_twice_gives_the_same_examples_and_inputs(name: str, tmp_path: Path) -> None:
    task = get(name)
    task.synthesize(tmp_path, 7, "unit")
    first, second = (task.read(tmp_path, DataSpec(), 7) for _ in range(2))
    assert (
        list(first.examples) == list(second.examples)
        and replace(first, examples=()) == replace(second, examples=())
        and all(len(digest) == 64 for digest in first.inputs.values())
    )


@every_task
def test_an_example_survives_json_and_names_no_patient_in_its_id(name: str) -> None:
    for e in rows_of(name):
        assert json.loads(json.dumps(e.row())) == e.row() | {"messages": list(e.row()["messages"])}
        assert e.task == name and e.id.replace("-", "").isalnum() and len(e.id) < 64


@every_task
def test_the_prompt_does_not_hold_its_gold_completion(name: str) -> None:
    task = get(name)
    for e in rows_of(name):
        assert task.gold(e) not in "".join(m["content"] for m in e.messages)


@every_task
@given(text=st.text() | st.text(alphabet='<>/thinkaswer{}":,.0123456789 '))
def test_any_text_gets_a_verdict(name: str, text: str) -> None:
    task = get(name)
    for e in rows_of(name)[:3]:
        verdict = task.score(e, text)
        assert verdict.outcome in ("malformed", "unparseable", "scored")
        assert verdict.correct <= (verdict.outcome == "scored")


@every_task
def test_metrics_tell_right_from_wrong_and_know_their_primary(name: str) -> None:
    task, rows = get(name), rows_of(name)
    right = measured(task, rows, [[judged(task, e, task.gold(e))] for e in rows])
    wrong = measured(task, rows, [[judged(task, e, "no")] for e in rows])
    assert right[task.primary_metric] == 1 > wrong[task.primary_metric]
    assert set(right) == set(wrong)


@every_task
def test_a_group_that_was_not_drawn_counts_for_nothing_and_weights_are_relative(name: str) -> None:
    task, rows = get(name), rows_of(name)
    texts = [[judged(task, e, task.gold(e) if i % 3 else "no"), judged(task, e, "no")] for i, e in enumerate(rows)]
    columns = task.columns(rows, texts, texts)
    assert all(len(c) == len(rows) for c in columns.values())
    drawn = {g for i, g in enumerate(sorted({e.group for e in rows})) if i % 2}
    weights = np.array([float(e.group in drawn) for e in rows])
    without = task.metrics({n: c[weights > 0] for n, c in columns.items()}, np.ones(int(weights.sum())))
    assert task.metrics(columns, weights) == pytest.approx(without, nan_ok=True)
    assert task.metrics(columns, 3 * weights) == pytest.approx(without, nan_ok=True)


@every_task
def test_the_record_is_the_patients_part_of_the_prompt_and_not_what_all_prompts_share(name: str) -> None:
    task, rows = get(name), rows_of(name)
    by_group: dict[str, set[str]] = {}
    for row in rows:
        record = task.record(row)
        assert record and record in row.messages[0]["content"] and len(record) < len(row.messages[0]["content"])
        by_group.setdefault(row.group, set()).add(record)
    starts = {record[:40] for records in by_group.values() for record in records}
    assert len(starts) > 1, "what all records begin with is not of the patient"


@every_task
def test_breakdown_has_the_same_tables_for_every_row(name: str) -> None:
    task = get(name)
    assert len({tuple(task.breakdown(e)) for e in rows_of(name)}) == 1


@every_task
def test_every_category_says_when_its_answers_are_reliable(name: str) -> None:
    task = get(name)
    for category in {e.category for e in rows_of(name)}:
        rule = task.reliability(category)
        assert 1 <= rule.at_least <= 12
        assert rule.classes is None or rule.classes >= 2


@every_task
def test_a_verdict_depends_on_target_and_text_alone(name: str) -> None:
    task = get(name)
    e = rows_of(name)[0]
    bare = replace(e, messages=(), sft_text=None, meta={}, id="other", group="other")
    assert task.score(bare, task.gold(e)) == task.score(e, task.gold(e))


@every_task
def test_missing_sources_and_unknown_labels_are_the_users_errors(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        get(name).read(tmp_path / "missing", DataSpec(), 1)
    with pytest.raises(SpecError):
        get(name).read(tmp_path, DataSpec(labels="no such set"), 1)
