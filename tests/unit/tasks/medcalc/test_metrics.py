"""Accuracy and what lies behind it, against hand-counted cases."""

import math
from typing import Any

import numpy as np
import pytest

from ehrmind_k8s.records import Example
from ehrmind_k8s.tasks.base import Sampled
from ehrmind_k8s.tasks.medcalc import metrics, scoring


def example(calculator: int = 6, gold: str = "4") -> Example:
    target = {"calculator": calculator, "scoring": "integer", "answer": gold, "lower": gold, "upper": gold, "abstain": False}
    return Example("x", "medcalc", "test", "g", "physical", (), target)


def sampled(text: str, of: Example) -> Sampled:
    return Sampled(text, scoring.score(of.target, text))


RIGHT = '<think>x</think><answer>{"answer": "4"}</answer>'
WRONG = '<think>x</think><answer>{"answer": "5"}</answer>'
UNIT = '<think>x</think><answer>{"answer": "4 points"}</answer>'
BARE = "The score is 4."


def measure(*answers: tuple[Example, list[str]]) -> dict[str, Any]:
    examples = [e for e, _ in answers]
    columns = metrics.columns(examples, [[sampled(t, e) for t in texts] for e, texts in answers])
    return metrics.metrics(columns, np.ones(len(examples)))


def test_outcomes_are_shares_that_add_up() -> None:
    found = measure(*((example(), [text]) for text in (RIGHT, WRONG, UNIT, BARE)))
    assert (found["accuracy"], found["wrong"], found["unparseable"], found["malformed"]) == (0.25, 0.25, 0.25, 0.25)


def test_any_format_counts_right_values_in_wrong_forms() -> None:
    assert measure(*((example(), [text]) for text in (RIGHT, WRONG, UNIT, BARE)))["accuracy_any_format"] == 0.75


def test_what_is_right_in_the_asked_form_is_right_in_any_form() -> None:
    found = measure((example(), ['<think>x</think><answer>{"answer": "4", "confidence": 0.9}</answer>']))
    assert (found["accuracy"], found["accuracy_any_format"]) == (1, 1)


def test_samples_of_an_example_weigh_as_one_example() -> None:
    assert measure((example(), [RIGHT, WRONG, WRONG, WRONG]), (example(), [RIGHT]))["accuracy"] == pytest.approx((0.25 + 1) / 2)


def test_macro_accuracy_weighs_calculators_alike() -> None:
    found = measure(*[(example(31), [RIGHT])], *[(example(6), [WRONG])] * 9)
    assert (found["accuracy"], found["accuracy_macro"]) == (0.1, 0.5)


def test_an_example_without_samples_counts_for_nothing() -> None:
    assert measure((example(), []), (example(), [RIGHT]))["accuracy"] == 1


def test_no_examples_have_no_accuracy() -> None:
    assert all(math.isnan(v) for v in measure().values())
