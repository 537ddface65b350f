"""One prompt per label: what was known of the patient, then the question, then the form of the answer.

Only the record is fitted to the budget. The question and the form are never cut: `room` is what they leave.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ehrmind_k8s.tasks.ehrshot.subtasks import Subtask

# What a chat template may add around one user turn (tokens); Llama 3's adds 25 and Qwen 3's 9, a default system message some 20 more.
TEMPLATE_TOKENS = 64


def messages(record: str, subtask: Subtask) -> tuple[Mapping[str, str], ...]:
    """The chat messages of one example; `record` is the serialised past."""
    text = (
        f"Health record of one patient, up to now:\n{record.strip()}\n\n"
        f"Question: {subtask.question}\n\n"
        f"Reason step by step, then end in one of the two answers. Write nothing outside this format:\n"
        f"{example(subtask, 1)}\nor\n{example(subtask, 0)}"
    )
    return ({"role": "user", "content": text},)


def record(found: Sequence[Mapping[str, str]]) -> str:
    """The serialised past inside these messages."""
    return found[0]["content"].removeprefix("Health record of one patient, up to now:\n").rpartition("\n\nQuestion: ")[0]


def example(subtask: Subtask, label: int) -> str:
    """An answer in the form that is asked for."""
    return completion("your reasoning", {"positive": subtask.positive, "negative": subtask.negative, "label": label})


def completion(reasoning: str, target: Mapping[str, Any]) -> str:
    """A whole completion that ends in the label of `target`."""
    name = target["positive"] if target["label"] else target["negative"]
    answer = json.dumps({"prediction": name, "label": int(target["label"])}, ensure_ascii=False)
    return f"<think>{reasoning.strip()}</think>\n<answer>{answer}</answer>"


def room(subtask: Subtask, budget: int, count: Callable[[str], int]) -> int:
    """How many tokens of a prompt of at most `budget` the record may take; not positive where the question alone is too long."""
    return budget - TEMPLATE_TOKENS - count(messages("", subtask)[0]["content"])
