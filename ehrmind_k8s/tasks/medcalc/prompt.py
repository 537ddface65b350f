"""The one prompt of the task: note, question, and a format whose example passes the scorer.

The fixed words are few, since a note takes most of a context. The example's values are out of reach of every calculator, so that a model
which copies the example is wrong on every row.
"""

from collections.abc import Mapping, Sequence

from ehrmind_k8s.tasks.medcalc.calculators import Scoring

HINTS: Mapping[Scoring, tuple[str, str]] = {
    "decimal": ("a plain number without a unit", "98765.4"),
    "integer": ("a whole number", "999"),
    "date": ("a date as M/D/YYYY", "02/29/1904"),
    "weeks_days": ("weeks and days", "99 weeks, 6 days"),
}


def example(scoring: Scoring) -> str:
    """The completion that the prompt shows as the format."""
    return f'<think>your reasoning</think>\n<answer>{{"answer": "{HINTS[scoring][1]}"}}</answer>'


def messages(note: str, question: str, scoring: Scoring, abstain: bool) -> Sequence[Mapping[str, str]]:
    """One user message. `abstain` offers N/A, for label sets that know it."""
    kind = HINTS[scoring][0]
    otherwise = ', or "N/A" if the note lacks what is needed' if abstain else ""
    text = (
        f"Patient note:\n{note.strip()}\n\nQuestion: {question.strip()}\n\n"
        f"Reason step by step, then answer with {kind}{otherwise}. Write nothing outside this format:\n{example(scoring)}"
    )
    return ({"role": "user", "content": text},)


def record(found: Sequence[Mapping[str, str]]) -> str:
    """The note inside these messages."""
    return found[0]["content"].removeprefix("Patient note:\n").rpartition("\n\nQuestion: ")[0]


def completion(explanation: str, answer: str) -> str:
    """A whole completion to learn: the source's explanation as the reasoning, then the gold answer."""
    return f'<think>\n{explanation.strip()}\n</think>\n<answer>{{"answer": "{answer}"}}</answer>'
