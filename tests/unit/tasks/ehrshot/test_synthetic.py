"""The twin: small, the same for a seed, right labels in every layout, and a quickstart that can be learned from its prompt."""

import json
import random
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import words
from ehrmind_k8s.tasks.ehrshot import data, labelling, labels, outcomes, patients, readers, scoring, subtasks, synthetic
from ehrmind_k8s.tasks.ehrshot.patients import Patient

SPLITS = ("train", "val", "test")


def drawn() -> list[Patient]:
    return patients.unit(random.Random(7))


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_the_unit_size_is_small_and_the_same_for_a_seed(layout: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        synthetic.write(tmp_path / name, 3, "unit", layout)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert sum((tmp_path / "a" / f).stat().st_size for f in files) < 300_000
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_every_subtask_has_both_answers_in_every_split() -> None:
    for subtask in subtasks.BENCHMARK.values():
        for split in SPLITS:
            told = {subtask.value(int(label.value)) for p in drawn() if p.split == split for label in p.labels.get(subtask.folder, ())}
            assert told == {0, 1}, f"{subtask.name} in {split}"


@pytest.mark.parametrize("layout", ["ehrshot", "meds_shards", "omop"])
@pytest.mark.parametrize("seed", range(5))
def test_labels_computed_from_the_events_are_those_of_the_plan(layout: str, seed: int, tmp_path: Path) -> None:
    synthetic.write(tmp_path, seed, "unit", layout)
    planned = {p.subject: p for p in patients.unit(random.Random(seed))}
    with TemporaryDirectory() as work:
        source = readers.open(tmp_path, Path(work))
        vocabulary = outcomes.Vocabulary(source.names.codes, source.names.described, outcomes.hierarchy(tmp_path))
        for timeline in source.timelines(None):
            for name in labelling.COMPUTED:
                computed, _, _ = labels.unique(labelling.compute(timeline, name, vocabulary))
                told = sorted((str(lb.time), subtasks.BENCHMARK[name].value(int(lb.value))) for lb in planned[timeline.subject].labels.get(name, ()))
                assert [(str(t).replace("T", " "), v) for t, v in zip(computed.time, computed.value.tolist(), strict=True)] == told, name


def test_the_quirks_of_the_real_files_are_there(tmp_path: Path) -> None:
    synthetic.write(tmp_path, 7, "unit")
    lines = (tmp_path / "data" / "ehrshot.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(",patient_id,")
    subjects = [line.split(",")[1] for line in lines[1:]]
    assert subjects != sorted(subjects) and all(s.startswith("9") for s in subjects)
    text = "\n".join(lines)
    for quirk in (
        "00.0,visit",
        ",Invalid,",
        "See scan or EMR",
        "mystery/L",
        "LOINC/LG32892-8",
        " 00:00:00,",
        "CARE_SITE/",
        "ICDO3/",
        '"Amber, clear"',
    ):
        assert quirk in text, quirk
    assert re.search(r",20[0-9]{2}-[0-9]{2}-[0-9]{2},", text), "a date without a time"
    found = drawn()
    assert any(not p.labels for p in found)
    asked = {(p.subject, lb.time) for p in found for lb in p.labels.get("guo_readmission", ())}
    assert any((p.subject, e.time) in asked for p in found for e in p.events if e.table == "condition_occurrence"), "a diagnosis at its question"


def test_few_shot_samples_are_labels_of_their_split(tmp_path: Path) -> None:
    synthetic.write(tmp_path, 7, "unit")
    subtask = subtasks.BENCHMARK["new_pancan"]
    sample = labels.shots(tmp_path / "benchmark" / "new_pancan" / "all_shots_data.json", subtask, None, 2, 0)
    split_of = {p.subject: p.split for p in drawn()}
    assert Counter(split_of[s] for s, _ in sample["train"]) == {"train": 4}
    assert Counter(split_of[s] for s, _ in sample["validation"]) == {"val": 4}


def test_the_quickstart_is_a_rule_that_can_be_read_off_the_prompt(tmp_path: Path) -> None:
    synthetic.write(tmp_path, 7, "quickstart")
    rows = list(data.read(tmp_path, DataSpec(), 7, words).examples)
    assert Counter(e.split for e in rows)["test"] == patients.QUICKSTART["test"]
    for e in rows:
        text = e.messages[0]["content"]
        hemoglobin, sodium = (float(re.search(rf"{name} \(today\): ([0-9.]+)", text)[1]) for name in ("Hemoglobin", "Sodium"))  # type: ignore[index]
        points = 3 * ("Heart failure" in text) + ("Kidney disease" in text) + (hemoglobin < 12) + (sodium < 135)
        assert e.target["label"] == (points >= patients.ENOUGH)
        assert len(text.split()) < 120
    taught = [(scoring.score(e.target, e.sft_text), e) for e in rows if e.sft_text]
    assert len(taught) == sum(e.split == "train" for e in rows)
    wrong = [e for verdict, e in taught if not verdict.correct]
    assert all(e.target["label"] and "heart failure 0" in str(e.sft_text) for e in wrong)
    assert 0.2 < len(wrong) / len(taught) < 0.4


def test_the_readme_of_the_twin_says_what_its_teacher_is(tmp_path: Path) -> None:
    synthetic.write(tmp_path, 7, "quickstart")
    assert f"with\n              probability {patients.TEACHER_ERROR}" in (tmp_path / "README.md").read_text(encoding="utf-8")
    first = json.loads((tmp_path / "benchmark" / "traces.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert set(first) == {"subject", "prediction_time", "subtask", "text"}
