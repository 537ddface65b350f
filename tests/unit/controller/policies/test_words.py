"""Words and numbers of the lines that people read."""

import pytest

from ehrmind_k8s import crd
from ehrmind_k8s.controller.policies import words
from ehrmind_k8s.controller.state import Advance, Stage
from tests.unit.controller.world import an_object

RUN = crd.run(an_object())


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.2, "3.2"), (0.612, "0.61"), (0.95, "0.95"), (2.0, "2"), (0.0, "0"), (-2.0, "-2"), (100.0, "100"), (1e-5, "1e-05"), (1e300, "1e+300")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("stage", "advance", "text"),
    [
        ("prepare", None, "Preparing data"),
        ("prepare", Advance(120, 600, "rows"), "Preparing data 120/600 rows"),
        ("rlvr", Advance(12, 30, "step"), "RLVR step 12/30"),
        ("evaluate", Advance(120, 600, "prompts"), "Evaluating 120/600 prompts"),
    ],
)
def test_a_position_reads_as_a_phrase(stage: str, advance: Advance | None, text: str) -> None:
    assert words.position(Stage(stage), advance) == text


def test_the_headline_names_metric_and_policy_where_they_are_known() -> None:
    assert words.headline({"accuracy@base": 0.4, "accuracy@rlvr": 0.95}, 0.95) == "accuracy 0.95 (rlvr)"
    assert words.headline({"base": 0.4, "rlvr": 0.95}, 0.95) == "score 0.95 (rlvr)"
    assert words.headline({}, 0.95) == "score 0.95"
    assert words.headline({"accuracy@rlvr": 0.95}, None) == ""


FAILURES = {
    "retries that are used": (
        Stage("rlvr", "failed", 4, 3, reason="OOMKilled", exit_code=137),
        "RLVR attempt 4: the trainer was OOM-killed (OOMKilled, exit code 137), and all 3 retries are used;"
        " give rlvr more memory in profile 'default', then raise spec.attempt; see: ehrmind logs demo --of rlvr-a4",
    ),
    "a permanent error": (
        Stage("prepare", "failed", 1, 0, reason="DataError", exit_code=10),
        "Preparing data attempt 1: it ended with DataError (exit code 10); see: ehrmind logs demo --of prepare-a1",
    ),
    "a store that stayed away": (
        Stage("sft", "failed", 4, 3, reason="StoreUnavailable", exit_code=75),
        "SFT attempt 4: the object store did not answer or refused (StoreUnavailable, exit code 75), and all 3 retries are used;"
        " bring the object store back, then raise spec.attempt; see: ehrmind logs demo --of sft-a4",
    ),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_says_what_to_do(what: str) -> None:
    stage, text = FAILURES[what]
    assert words.failure(stage, RUN) == text
