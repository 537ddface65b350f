"""A sweep over the real files: every row is read, every gold answer is right, and the counts are those that others report."""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s.records import Example
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import TaskData
from ehrmind_k8s.tasks.medcalc import MedCalc, prompt, scoring
from ehrmind_k8s.tasks.medcalc.calculators import BY_ID
from tests.conftest import shared_data

TASK = MedCalc()

FILES: dict[str, tuple[int, dict[str, Any]]] = {
    "medcalc/v1.0/test_data.csv": (1047, {}),
    "medcalc/v1.0/test_data.first_upload.csv": (1047, {}),
    "medcalc/v1.0/train_subset.csv": (1006, {}),
    "medcalc/verified/one_shot_data.csv": (55, {"test": "one_shot_data.csv"}),
    "medcalc/relabelled/medcalc_v1_corrected.csv": (887, {"test": "medcalc_v1_corrected.csv", "labels": "corrected-887"}),
    "medcalc/relabelled/test_new_labels.parquet": (887, {"labels": "corrected-887"}),
    "ehrmind_parquet/medcalc_test.parquet": (1047, {}),
    "ehrmind_parquet/medcalc_val.parquet": (1145, {}),
}


@cache
def read(path: Path, **spec: Any) -> TaskData:
    return TASK.read(path, DataSpec(**spec), 42)


def v1(**spec: Any) -> TaskData:
    return read(shared_data("medcalc"), train="train_subset.csv", test="test_data.csv", **spec)


def split(found: TaskData, name: str) -> list[Example]:
    return [e for e in found.examples if e.split == name]


@pytest.mark.parametrize(("name", "expected"), FILES.items(), ids=FILES)
def test_every_row_is_read_and_its_gold_is_right(name: str, expected: tuple[int, dict[str, Any]]) -> None:
    rows, spec = expected
    found = read(shared_data(*name.split("/")), **spec)
    assert (len(found.examples), found.drops) == (rows, [])
    assert all(TASK.score(e, TASK.gold(e)).correct for e in found.examples)
    assert len({e.id for e in found.examples}) == rows


@pytest.mark.parametrize("name", FILES)
def test_every_explanation_becomes_a_right_completion(name: str) -> None:
    found = read(shared_data(*name.split("/")), **FILES[name][1])
    texts = [(e, e.sft_text) for e in found.examples if e.sft_text]
    assert len(texts) == (0 if "relabelled" in name else len(found.examples))
    assert all(TASK.score(e, text).correct for e, text in texts)


@pytest.mark.parametrize("name", FILES)
def test_copying_the_prompts_example_is_wrong_on_every_row(name: str) -> None:
    found = read(shared_data(*name.split("/")), **FILES[name][1])
    assert not any(TASK.score(e, prompt.example(e.target["scoring"])).correct for e in found.examples)


def test_the_test_file_has_all_calculators_and_the_published_categories() -> None:
    found = read(shared_data("medcalc", "v1.0", "test_data.csv"))
    assert {e.target["calculator"] for e in found.examples} == set(BY_ID)
    assert Counter(e.category for e in found.examples) == {
        "lab": 327, "risk": 240, "physical": 240, "severity": 80, "diagnosis": 60, "date": 60, "dosage": 40,
    }  # fmt: skip
    assert len({e.group for e in found.examples}) == 979


def test_the_real_folder_gives_three_disjoint_splits() -> None:
    found = v1()
    assert [len(split(found, s)) for s in ("train", "validation", "test")] == [849, 93, 1047]
    assert Counter(d.reason for d in found.drops) == {"note_in_test": 64}
    groups = {s: {e.group for e in split(found, s)} for s in ("train", "validation", "test")}
    assert not (groups["train"] & groups["test"] or groups["train"] & groups["validation"] or groups["validation"] & groups["test"])


def test_the_published_split_shares_58_notes_between_train_and_test() -> None:
    found = v1(note_overlap="keep")
    shared = {e.group for e in split(found, "train")} & {e.group for e in split(found, "test")}
    assert (len(shared), found.drops) == (58, [])


def test_limits_of_dosages_are_widened_in_train_alone() -> None:
    found = v1(note_overlap="keep")
    assert Counter(e.split in ("train", "validation") for e in found.examples if e.meta["limits_widened"]) == {True: 63}


def test_recomputation_finds_the_known_label_errors_and_changes_nothing() -> None:
    test = split(v1(), "test")
    checks = Counter(e.meta["recomputed"] for e in test)
    wrong = Counter(e.target["calculator"] for e in test if e.meta["recomputed"] == "disagrees")
    assert checks == {"agrees": 809, "disagrees": 108, "not_computable": 130}
    # The cycle counted the wrong way or not at all (13, 68), ascites ignored (15), creatinine ignored (17), sums of other points (21),
    # white cells per m^3 (51), MELD rounded to tens (23), units (7, 44, 64 to 67), a constant of the other sex (3), hemoglobin bands (27).
    assert wrong == {13: 15, 68: 19, 15: 15, 17: 13, 21: 16, 51: 10, 23: 4, 7: 2, 44: 2, 64: 1, 65: 3, 66: 2, 67: 1, 3: 2, 27: 3}
    assert sum(e.meta["impossible_score"] for e in test if e.target["calculator"] == 21) == 6
    assert {e.meta["labels"] for e in test} == {"original"}


def test_recomputed_labels_come_closer_to_the_physicians() -> None:
    """Of the published answers that own formulas contradict, most were also replaced by the relabelling, and by the same value."""
    new = {e.id: e for e in split(v1(labels="recomputed"), "test") if e.meta["labels"] == "recomputed"}
    physicians = {e.id: e.target for e in split(v1(labels="corrected-887"), "test") if e.id in new}
    agreed = sum(
        scoring.is_correct(scoring.read(new[id].target["answer"], goal) or "", goal) for id, goal in physicians.items() if goal["answer"] != "N/A"
    )
    assert (len(new), len(physicians), agreed) == (108, 100, 82)


def test_the_relabelling_joins_by_row_and_note() -> None:
    test = split(v1(labels="corrected-887"), "test")
    assert len(test) == 887
    assert sum(e.target["answer"] == "N/A" for e in test) == 69
    assert {e.target["scoring"] for e in test if e.target["calculator"] == 69} == {"weeks_days"}


def test_two_uploads_of_one_split_stop_with_both_names() -> None:
    with pytest.raises(Exception, match=r"test_data\.csv and test_data\.first_upload\.csv"):
        TASK.read(shared_data("medcalc", "v1.0"), DataSpec(), 42)
