"""Which labels are asked: splits without a shared subject, samples by lot, balance, few shots."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.records import SPLITS
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.ehrshot import cohort, subtasks
from ehrmind_k8s.tasks.ehrshot.cohort import Cohort
from ehrmind_k8s.tasks.ehrshot.labels import Labels

LOS, READMISSION = subtasks.BENCHMARK["guo_los"], subtasks.BENCHMARK["guo_readmission"]
Drawn = list[tuple[int, int, int]]  # subject, day, value


def labels(drawn: Drawn) -> Labels:
    subject, day, value = (np.array([row[i] for row in drawn], dtype=np.int64) for i in range(3))
    return Labels(subject, np.datetime64("2020-01-01T23:59", "s") + day * np.timedelta64(1, "D"), value)


def built(drawn: Drawn, splits: dict[int, str] | None = None, samples: dict[str, Path] | None = None, seed: int = 1, **data: Any) -> Cohort:
    return cohort.build([LOS], {"guo_los": labels(drawn)}, splits, samples or {}, DataSpec(**data), seed)


def asked(found: Cohort, split: str) -> set[tuple[int, int, int]]:
    rows = found.asked.rows(found.asked.split == SPLITS.index(split))  # type: ignore[arg-type]
    days = (rows.time - np.datetime64("2020-01-01T23:59", "s")).astype("timedelta64[D]").astype(int)
    return set(zip(rows.subject.tolist(), days.tolist(), rows.value.tolist(), strict=True))


rows = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=60)


@given(rows, st.integers(0, 5))
def test_no_subject_is_in_two_splits_and_nothing_is_asked_that_was_not_given(drawn: Drawn, seed: int) -> None:
    found = (
        built(drawn, seed=seed, labels_per_subject=2)
        if len({r[:2] for r in drawn}) == len(drawn)
        else built(sorted({r[:2]: r for r in drawn}.values()))
    )
    subjects = [{row[0] for row in asked(found, split)} for split in SPLITS]
    assert not subjects[0] & subjects[1] and not subjects[0] & subjects[2] and not subjects[1] & subjects[2]
    assert set().union(*(asked(found, split) for split in SPLITS)) <= set(drawn)


@given(rows, st.randoms())
def test_the_order_of_a_file_changes_nothing(drawn: Drawn, random: Any) -> None:
    drawn = list({r[:2]: r for r in drawn}.values())
    again = random.sample(drawn, len(drawn))
    assert [asked(built(drawn), s) for s in SPLITS] == [asked(built(again), s) for s in SPLITS]


def test_what_is_asked_of_a_subtask_does_not_depend_on_the_others() -> None:
    drawn = [(s, day, (s + day) % 2) for s in range(20) for day in range(6)]
    alone = built(drawn, labels_per_subject=2)
    both = cohort.build(
        [READMISSION, LOS], {"guo_readmission": labels(drawn[::2]), "guo_los": labels(drawn)}, None, {}, DataSpec(labels_per_subject=2), 1
    )
    mine = Cohort(both.asked.rows(both.asked.subtask == 1), both.given, {})
    assert [asked(mine, split) for split in SPLITS] == [asked(alone, split) for split in SPLITS]


def test_shares_of_subjects_are_held_out() -> None:
    found = built([(s, 0, s % 2) for s in range(100)], test_fraction=0.2, validation_fraction=0.25)
    assert len(asked(found, "test")) == 20 and len(asked(found, "validation")) == 20
    other = built([(s, 0, s % 2) for s in range(100)], seed=2, test_fraction=0.2, validation_fraction=0.25)
    assert asked(found, "test") != asked(other, "test")


def test_the_source_s_own_split_is_kept_and_labels_without_one_are_counted() -> None:
    splits = {1: "train", 2: "tuning", 3: "held_out"}
    found = built([(s, 0, 1) for s in (1, 2, 3, 4)], splits)
    assert [asked(found, s) for s in SPLITS] == [{(1, 0, 1)}, {(2, 0, 1)}, {(3, 0, 1)}]
    assert found.audit["labels_without_split"] == 1
    assert {r for s in SPLITS for r in asked(built([(s, 0, 1) for s in (1, 2, 3, 4)], splits, split="by_subject"), s)} == {
        (s, 0, 1) for s in (1, 2, 3, 4)
    }


def test_a_split_without_validation_gives_some_of_train_to_it() -> None:
    found = built([(s, 0, s % 2) for s in range(40)], {s: "test" if s < 10 else "train" for s in range(40)}, validation_fraction=0.2)
    assert len(asked(found, "validation")) == 6 and asked(found, "test") == {(s, 0, s % 2) for s in range(10)}


def test_a_split_by_an_unknown_name_and_a_missing_one_are_refused() -> None:
    with pytest.raises(DataError, match="names the split 'holdout'"):
        built([(1, 0, 1)], {1: "holdout"})
    with pytest.raises(DataError, match="the source has no split file"):
        built([(1, 0, 1)], split="canonical")
    with pytest.raises(DataError, match="belongs to a subject of the split"):
        built([(1, 0, 1)], {2: "train"})


def test_a_subject_has_at_most_so_many_labels_in_validation_and_the_rest_is_counted() -> None:
    drawn = [(1, day, day % 2) for day in range(30)] + [(2, 0, 1), (2, 1, 0)]
    splits = {1: "tuning", 2: "train"}
    found = built(drawn, splits, labels_per_subject=5)
    assert len(asked(found, "validation")) == 5 and found.audit["left_out"]["validation"]["over_labels_per_subject"] == 25
    assert asked(found, "validation") <= asked(built(drawn, splits, labels_per_subject=9), "validation")
    assert len(asked(built(drawn, splits, labels_per_subject=None), "validation")) == 30


@pytest.mark.parametrize("shots", [None, 1])
def test_test_is_whole_and_keeps_its_prevalence_however_many_labels_a_subject_has(shots: int | None) -> None:
    """One subject has 200 labels, all positive; ten have 20 of their own, all negative: a cap would change 0.5 to 0.09."""
    drawn = [(0, day, 1) for day in range(200)] + [(s, day, 0) for s in range(1, 11) for day in range(20)]
    drawn += [(s, day, day % 2) for s in (11, 12) for day in range(30)]
    splits = dict.fromkeys(range(11), "test") | {11: "train", 12: "val"}
    found = built(drawn, splits, shots=shots)
    assert found.audit["classes"]["guo_los"]["test"] == {"negative": 200, "positive": 200}
    assert not any(found.audit["left_out"]["test"].values())


def test_train_is_balanced_by_leaving_out_and_test_keeps_its_prevalence() -> None:
    drawn = [(s, 0, int(s % 10 == 0)) for s in range(100)]
    found = built(drawn, {s: "train" if s < 50 else "test" for s in range(100)}, validation_fraction=0)
    assert sum(v for *_, v in asked(found, "train")) == 5 and len(asked(found, "train")) == 10
    assert len(asked(found, "test")) == 50
    assert found.audit["left_out"]["train"]["balanced_away"] == 40
    assert found.audit["classes"]["guo_los"]["test"] == {"negative": 45, "positive": 5}
    assert found.audit["warnings"] == ["guo_los has 5 positive test labels"]


def test_a_train_split_of_one_class_is_kept_and_warned_of() -> None:
    found = built([(s, 0, 0) for s in range(10)], dict.fromkeys(range(10), "train"), validation_fraction=0)
    assert "guo_los has only negative train labels, so training on it teaches to say no" in found.audit["warnings"]
    assert len(asked(found, "train")) == 10


def test_contradicting_and_repeated_labels_are_counted() -> None:
    found = built([(1, 0, 1), (1, 0, 1), (2, 0, 1), (2, 0, 0)], {1: "test", 2: "test"})
    assert asked(found, "test") == {(1, 0, 1)}
    assert found.audit["labels"]["guo_los"] == {"labels": 1, "positive": 1, "repeated": 1, "contradicting": 2}


def test_few_shots_are_k_of_each_class_in_train_and_validation_and_all_of_test() -> None:
    words = ("train", "train", "val", "test")
    drawn = [(s, day, (s + day) % 2) for s in range(40) for day in range(2)]
    splits = {s: words[s % 4] for s in range(40)}
    few, more = (built(drawn, splits, shots=k) for k in (2, 4))
    for split in ("train", "validation"):
        assert sorted(v for *_, v in asked(few, split)) == [0, 0, 1, 1]
        assert asked(few, split) < asked(more, split), "a larger sample holds the smaller"
    assert len(asked(few, "test")) == 20
    assert few.audit["left_out"]["train"]["not_in_shots"] == 36


def test_the_benchmark_s_own_sample_is_used_where_it_is(tmp_path: Path) -> None:
    sample = {
        f"{key}_{w}_k": v
        for w, s in (("train", 1), ("val", 2))
        for key, v in (("patient_ids", [s, s]), ("label_times", ["2020-01-01T23:59:00", "2020-01-02T23:59:00"]))
    }
    path = tmp_path / "guo_los" / "all_shots_data.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"guo_los": {"1": {"0": sample}}}), encoding="utf-8")
    drawn = [(s, day, day % 2) for s in (1, 2, 3) for day in range(4)]
    found = built(drawn, {1: "train", 2: "val", 3: "test"}, cohort.shot_files(tmp_path), shots=1)
    assert asked(found, "train") == {(1, 0, 0), (1, 1, 1)} and asked(found, "validation") == {(2, 0, 0), (2, 1, 1)} and len(asked(found, "test")) == 4
    with pytest.raises(DataError, match="of different releases"):
        built([(7, 0, 1), (8, 0, 0)], {7: "train", 8: "train"}, cohort.shot_files(tmp_path), shots=1)


def test_what_differs_from_the_benchmark_is_named_with_both_counts() -> None:
    splits = {s: ("train" if s < 2295 else "val" if s < 4527 else "test") for s in range(6738)}
    warnings = built([(s, 0, 1) for s in (0, 3000, 6000)], splits).audit["warnings"]
    assert "test has 2211 subjects, the benchmark 2212" in warnings
    assert "guo_los has 1 test labels (1 positive), the benchmark 2195 (552)" in warnings
    assert not any("subjects" in w for w in built([(0, 0, 1)], {0: "train"}).audit["warnings"])
