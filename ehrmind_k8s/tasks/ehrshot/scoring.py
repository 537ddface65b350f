"""Right or wrong: `{"prediction": label name, "label": 0 or 1}`, where both must say the same.

A target is `{"subtask", "label", "positive", "negative"}`: the gold label and the names of both labels, as the prompt gives them.
"""

from collections.abc import Mapping
from typing import Any

from ehrmind_k8s.records import Verdict
from ehrmind_k8s.tasks import answer

KEYS = ("prediction", "label")
CONTRADICTION = "contradiction"  # a canonical value of its own: the two keys are readable and disagree


def score(target: Mapping[str, Any], text: str) -> Verdict:
    """Judge a whole completion. Total: any text gives a Verdict, in time linear in its length.

    An answer whose keys disagree was read and is wrong. Letter case and white space around the label name are ignored.
    """
    found = answer.parse(text, KEYS)
    if found is None:
        return Verdict(False, None, "malformed")
    named, number = _named(found["prediction"], target), answer.number(found["label"])
    if named is None or number not in (0, 1):
        return Verdict(False, None, "unparseable")
    if named != number:
        return Verdict(False, CONTRADICTION, "scored")
    return Verdict(named == target["label"], str(named), "scored")


def vote(verdict: Verdict) -> int | None:
    """The label that an answer votes for; None where it has none, or says both."""
    return int(verdict.parsed) if verdict.parsed in ("0", "1") else None


def _named(prediction: Any, target: Mapping[str, Any]) -> int | None:
    if not isinstance(prediction, str):
        return None
    name = " ".join(prediction.split()).casefold()
    return next((label for label, key in enumerate(("negative", "positive")) if name == " ".join(str(target[key]).split()).casefold()), None)
