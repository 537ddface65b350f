"""Whose answer a row carries, and what happens to limits."""

from typing import Any

import pytest

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks.medcalc import labels, scoring
from ehrmind_k8s.tasks.medcalc.calculators import BY_ID
from ehrmind_k8s.tasks.medcalc.layouts import Row


def row(calculator: int = 6, answer: str = "20.0", lower: str = "19.0", upper: str = "21.0", **more: Any) -> Row:
    c = BY_ID[calculator]
    more = {"entities": "{'weight': [80.0, 'kg'], 'height': [200.0, 'cm']}"} | more
    return Row("test.csv, row 7", 7, c, more.pop("scoring", c.scoring), "A note.", "?", answer, lower, upper, **more)


def label(row: Row, label_set: str = "original", split: Any = "test", corrections: Any = None) -> labels.Label:
    found = labels.label(row, split, label_set, corrections or {})
    assert found is not None
    return found


def test_the_published_limits_are_kept_as_they_are() -> None:
    found = label(row(lower="19.5", upper="20.1"))
    assert (found.target["lower"], found.target["upper"], found.source) == ("19.5", "20.1", "original")


def test_swapped_limits_name_row_and_columns() -> None:
    with pytest.raises(DataError, match="row 7: Lower Limit is above Upper Limit"):
        label(row(lower="21.0", upper="19.0"))


def test_negative_limits_in_order_are_not_swapped() -> None:
    assert label(row(38, "-3.2", "-3.36", "-3.04")).target["answer"] == "-3.2"


@pytest.mark.parametrize(("calculator", "answer"), [(6, "twenty"), (4, "N/A"), (13, "2014-09-23"), (69, "192 days"), (6, "")])
def test_an_answer_of_another_type_is_refused(calculator: int, answer: str) -> None:
    with pytest.raises(DataError, match="row 7: Ground Truth Answer is not of type"):
        label(row(calculator, answer))


def test_limits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="Upper Limit is not a number"):
        label(row(upper="about 21"))


@pytest.mark.parametrize("calculator", labels.EXACT_IN_TRAIN)
def test_exact_limits_of_a_dosage_are_widened_in_train_only(calculator: int) -> None:
    exact = row(calculator, "40", "40", "40")
    assert not label(exact, split="test").widened
    train = label(exact, split="train")
    assert train.widened
    assert (float(train.target["lower"]), float(train.target["upper"])) == pytest.approx((38, 42))


def test_zero_stays_exact() -> None:
    found = label(row(8, "0", "0", "0"), split="train")
    assert not found.widened and found.target["upper"] == "0"


def test_recomputation_checks_every_row_and_changes_none_by_default() -> None:
    assert label(row()).check == "agrees"
    wrong = label(row(answer="30.0", lower="28.5", upper="31.5"))
    assert (wrong.check, wrong.source, wrong.target["answer"]) == ("disagrees", "original", "30.0")
    assert label(row(entities="not a literal(")).check == "not_computable"


def test_recomputed_replaces_only_what_disagrees() -> None:
    wrong = label(row(answer="30.0", lower="28.5", upper="31.5"), "recomputed")
    assert (wrong.source, wrong.target["answer"], float(wrong.target["upper"])) == ("recomputed", "20", pytest.approx(21))
    assert label(row(answer="20.4"), "recomputed").target["answer"] == "20.4"
    assert label(row(4, "3", "3", "3"), "recomputed").source == "original"


def test_limits_around_a_negative_answer_are_in_order() -> None:
    """Sodium 140 - chloride 110 - bicarbonate 24 - 12 = -6."""
    gap = "{'Sodium': [140, 'mEq/L'], 'Chloride': [110, 'mEq/L'], 'Bicarbonate': [24, 'mEq/L']}"
    target = label(row(63, "6", "5.7", "6.3", entities=gap), "recomputed").target
    assert (float(target["lower"]), float(target["upper"])) == pytest.approx((-6.3, -5.7))


def test_a_relabelled_answer_replaces_the_published_one() -> None:
    correction = row(answer="22.0", lower="20.9", upper="23.1", relabelled=True)
    found = label(row(), "corrected-887", corrections={7: correction})
    assert (found.source, found.target["answer"], found.target["lower"]) == ("corrected-887", "22.0", "20.9")


def test_a_relabelled_abstention_makes_na_the_right_answer() -> None:
    found = label(row(), "corrected-887", corrections={7: row(answer="N/A", lower="N/A", upper="N/A", relabelled=True)})
    assert scoring.is_gold(found.target) and not scoring.is_correct("20", found.target)


def test_a_gestational_age_relabelled_in_days_becomes_weeks_and_days() -> None:
    published = row(69, "('24 weeks', '4 days')")
    found = label(published, "corrected-887", corrections={7: row(69, "173", scoring="integer", relabelled=True)})
    assert (found.target["scoring"], found.target["answer"]) == ("weeks_days", "24 weeks, 5 days")


def test_a_test_row_that_was_not_relabelled_has_no_label() -> None:
    assert labels.label(row(), "test", "corrected-887", {}) is None


def test_a_train_row_keeps_its_published_answer_under_corrected_labels() -> None:
    assert label(row(), "corrected-887", split="train").source == "original"


def test_a_relabelling_of_another_note_is_refused() -> None:
    other = Row("new.csv, row 7", 7, BY_ID[6], "decimal", "Another note.", "?", "22.0", "20.9", "23.1", relabelled=True)
    with pytest.raises(DataError, match="not about the same note"):
        label(row(), "corrected-887", corrections={7: other})


def test_relabelled_answers_never_pass_as_the_published_ones() -> None:
    with pytest.raises(DataError, match=r"set data\.labels to 'corrected-887'"):
        label(row(relabelled=True))


def test_a_coma_score_of_sixteen_is_flagged_not_changed() -> None:
    found = label(row(21, "16", "16", "16", entities=""))
    assert found.impossible and found.target["answer"] == "16"
    assert not label(row(21, "15", "15", "15", entities="")).impossible


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("calculator", [49, 56])
def test_limits_with_thousands_commas_are_numbers_to_the_scorer_too(calculator: int, split: str) -> None:
    found = label(row(calculator, "1,200.5", "1,200.5", "1,200.5", entities=""), split=split)
    assert scoring.is_gold(found.target)
