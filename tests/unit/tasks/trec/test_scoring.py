"""The scorer of the three-way decision, case by case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.records import Verdict
from ehrmind_k8s.tasks.trec import prompt, scoring
from ehrmind_k8s.tasks.trec.qrels import GRADES


def score(answer: str, grade: int = 2) -> Verdict:
    return scoring.score({"grade": grade, "trial": "NCT90000000"}, f"<think>x</think><answer>{answer}</answer>")


def test_the_official_meaning_of_the_grades_is_pinned() -> None:
    """0 not relevant, 1 excluded, 2 eligible (TREC 2021 and 2022); the paper's code swaps the names of the first two."""
    assert GRADES == ("Not relevant", "Excluded", "Eligible")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ('{"prediction": "Eligible", "idx": 2}', Verdict(True, "2", "scored")),
        ('{"idx": "2", "prediction": " eligible "}', Verdict(True, "2", "scored")),
        ('{"prediction": "Excluded", "idx": 1}', Verdict(False, "1", "scored")),
        ('{"prediction": "Eligible", "idx": 1}', Verdict(False, "disagrees", "scored")),
        ('{"prediction": "Maybe", "idx": 2}', Verdict(False, None, "unparseable")),
        ('{"prediction": "Eligible", "idx": 3}', Verdict(False, None, "unparseable")),
        ('{"prediction": "Eligible", "idx": 1.5}', Verdict(False, None, "unparseable")),
        ('{"prediction": 2, "idx": 2}', Verdict(False, None, "unparseable")),
        ('{"prediction": "Eligible", "idx": true}', Verdict(False, None, "unparseable")),
        ('{"prediction": "Eligible"}', Verdict(False, None, "malformed")),
        ("2", Verdict(False, None, "malformed")),
    ],
)
def test_name_and_number_must_be_there_agree_and_be_right(answer: str, verdict: Verdict) -> None:
    assert score(answer) == verdict


def test_the_prompts_own_example_is_well_formed_and_never_right() -> None:
    assert [scoring.score({"grade": g}, prompt.EXAMPLE).outcome for g in range(3)] == ["unparseable"] * 3


@given(st.integers(0, 2), st.integers(0, 2))
def test_a_completion_is_right_exactly_for_its_grade(said: int, grade: int) -> None:
    assert scoring.score({"grade": grade}, prompt.completion("x", said)).correct == (said == grade)
