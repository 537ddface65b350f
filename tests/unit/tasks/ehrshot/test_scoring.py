"""One judge for training and evaluation: both keys must say the same, and nothing raises."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.records import Verdict
from ehrmind_k8s.tasks.ehrshot import prompt, scoring
from ehrmind_k8s.tasks.ehrshot.subtasks import BENCHMARK, Subtask

TARGET = {"subtask": "guo_readmission", "label": 1, "positive": "readmission", "negative": "no readmission"}
every_subtask = pytest.mark.parametrize("subtask", BENCHMARK.values(), ids=list(BENCHMARK))


def judged(prediction: object, label: object) -> Verdict:
    return scoring.score(TARGET, f"<think>.</think><answer>{json.dumps({'prediction': prediction, 'label': label})}</answer>")


def test_the_right_label_under_both_keys_is_correct() -> None:
    assert judged("readmission", 1) == Verdict(True, "1", "scored")
    assert judged("no readmission", 0) == Verdict(False, "0", "scored")


def test_keys_that_disagree_are_wrong_and_vote_for_nothing() -> None:
    for prediction, label in (("readmission", 0), ("no readmission", 1)):
        verdict = judged(prediction, label)
        assert (verdict.correct, verdict.outcome, scoring.vote(verdict)) == (False, "scored", None)


@pytest.mark.parametrize("prediction", [" Readmission ", "READMISSION", "readmission\n"])
def test_case_and_white_space_around_a_name_do_not_matter(prediction: str) -> None:
    assert judged(prediction, "1").correct


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        *((word, 1) for word in ("readmitted", "", None, 1, ["readmission"])),
        *(("readmission", label) for label in (2, -1, 0.5, True, "yes", None, [1], {"label": 1})),
    ],
)
def test_a_value_that_is_no_label_is_unparseable(prediction: object, label: object) -> None:
    assert judged(prediction, label) == Verdict(False, None, "unparseable")


@pytest.mark.parametrize(
    "answer", ["1", "null", '["prediction", "label"]', '{"label": 1}', '{"prediction": "readmission"}', '{"prediction": "readmission", "label": 1,}']
)
def test_an_object_without_both_keys_is_malformed(answer: str) -> None:
    assert scoring.score(TARGET, f"<think>.</think><answer>{answer}</answer>").outcome == "malformed"


@every_subtask
def test_both_examples_of_the_prompt_pass_and_only_the_gold_one_is_correct(subtask: Subtask) -> None:
    for label in (0, 1):
        target = {"subtask": subtask.name, "label": label, "positive": subtask.positive, "negative": subtask.negative}
        assert scoring.score(target, prompt.example(subtask, label)) == Verdict(True, str(label), "scored")
        assert scoring.score(target, prompt.example(subtask, 1 - label)) == Verdict(False, str(1 - label), "scored")
        assert prompt.example(subtask, label) in prompt.messages("record", subtask)[0]["content"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(json_values, json_values)
def test_any_two_values_get_a_verdict(prediction: object, label: object) -> None:
    verdict = judged(prediction, label)
    assert verdict.correct <= (verdict.parsed == "1")
