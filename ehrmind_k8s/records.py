"""The records that cross borders between packages. Frozen, plain, and cheap to import."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Outcome = Literal["malformed", "unparseable", "scored"]


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with its gold answer; one row of `prepare/<split>.parquet`.

    `group` is the unit that must not cross splits and that the bootstrap resamples (a note, a patient, a topic).
    `messages` are chat messages `{"role", "content"}`; the tokenizer's own template turns them into tokens.
    `target` holds what the task's scorer needs to judge an answer. `sft_text` is a whole completion (reasoning and answer,
    without the stop token) or None where the source has no explanation. `n_tokens` counts the templated prompt.
    """

    id: str
    task: str
    split: Split
    group: str
    category: str
    messages: tuple[Mapping[str, str], ...]
    target: Mapping[str, Any]
    sft_text: str | None = None
    n_tokens: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The record as one JSON-able row."""
        return asdict(self) | {"messages": [dict(m) for m in self.messages]}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a generator needs of an example: its id and its templated tokens (length T)."""

    id: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample of a policy: T tokens and their log-probs under the sampling distribution.

    `text` is decoded without special tokens and starts with whatever the chat template opened (see `tokenization.Tokenizer.opening`).
    `policy` is the name of the weights that made every token of it. `finish_reason` is `stop` or `length`; nothing else is accepted.
    """

    prompt_id: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: Literal["stop", "length"]
    policy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the one scorer says about a text. `parsed` is the canonical value as text, or None.

    `malformed`: the structure is broken; `unparseable`: an answer object is there, its value is not of the answer's type;
    `scored`: a value was read, and `correct` tells whether it is right.
    """

    correct: bool
    parsed: str | None
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that did not become an example, and why (`reason` is a code such as `note_in_test`, never text of the record)."""

    id: str
    split: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageResult:
    """How a stage ended: small enough (4 KiB) for a pod's termination message.

    `reason` is a code for machines (`ok`, `skipped`, or an error class name); `score` is the primary metric where the stage has one, and
    `headline` a few more figures by name (that metric of every policy).
    """

    stage: str
    uri: str
    reason: str = "ok"
    message: str = ""
    score: float | None = None
    seconds: float = 0.0
    outputs: Mapping[str, str] = field(default_factory=dict)
    headline: Mapping[str, float] = field(default_factory=dict)


Rows = Sequence[Example]
