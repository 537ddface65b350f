"""The prompt shows a format that the scorer accepts, and nothing of the answer."""

from pathlib import Path
from typing import Any, get_args

import pytest

from ehrmind_k8s.tasks.medcalc import prompt, scoring
from ehrmind_k8s.tasks.medcalc.calculators import Scoring

GOLDEN = Path(__file__).parents[3] / "golden" / "medcalc"
KINDS = get_args(Scoring)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shown_example_is_read_by_the_scorer_as_it_stands(kind: Scoring) -> None:
    gold = "1" if kind in ("decimal", "integer") else {"date": "09/23/2014", "weeks_days": "1 weeks, 1 days"}[kind]
    target: dict[str, Any] = {"calculator": 6, "scoring": kind, "answer": gold, "lower": gold, "upper": gold, "abstain": False}
    shown = prompt.messages("A note.", "A question?", kind, abstain=False)[0]["content"]
    assert shown.endswith(prompt.example(kind))
    verdict = scoring.score(target, prompt.example(kind))
    assert (verdict.outcome, verdict.correct) == ("scored", False)


@pytest.mark.parametrize("abstain", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_words_of_the_prompt(kind: Scoring, abstain: bool) -> None:
    """A change here changes every training run: it should be seen, and mean to be one."""
    golden = GOLDEN / f"prompt_{kind}{'_abstain' if abstain else ''}.txt"
    (message,) = prompt.messages("The note stands here.\n", "The question stands here? ", kind, abstain)
    assert message["role"] == "user"
    assert message["content"] + "\n" == golden.read_text(encoding="utf-8")


def test_the_fixed_words_are_few() -> None:
    """At most 120 tokens of ordinary English BPE, at about four characters a token."""
    longest = max(len(prompt.messages("", "", kind, abstain=True)[0]["content"]) for kind in KINDS)
    assert longest < 4 * 120
