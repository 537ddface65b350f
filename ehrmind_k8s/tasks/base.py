"""The contract of a clinical task. A task is one folder with the same six files; an installed package can bring another.

A task knows its data, its prompt, its scorer and its metrics. It does not know models, training, stores or other tasks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ehrmind_k8s.records import Drop, Example, Verdict
from ehrmind_k8s.spec import DataSpec

Count = Callable[[str], int]


def words(text: str) -> int:
    """A stand-in for a tokenizer where there is none yet: twice the words, about what a tokenizer makes of clinical text, so rather too many."""
    return 2 * len(text.split())


@dataclass(frozen=True)
class TaskData:
    """What a reader found. `inputs` maps each file read to its SHA-256; `audit` holds counts and checks for the manifest and the report,
    and under `warnings` sentences that belong beside the figures.

    `examples` is read once, to its end. A reader of large sources makes them as they are asked for; its `drops` and `audit` are whole only then.
    `total` is about how many examples there will be, for the progress bar. `terms` replaces the task's where they depend on the source.
    """

    examples: Iterable[Example]
    drops: list[Drop]
    inputs: Mapping[str, str]
    audit: Mapping[str, Any] = field(default_factory=dict)
    total: int = 0
    terms: str = ""


@dataclass(frozen=True)
class Sampled:
    """One text of a policy with its verdict, as metrics need it."""

    text: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Reliability:
    """When k samples of one row show knowledge rather than a lucky guess.

    `at_least` of 12 samples must be right (in proportion for another k, at least one). Where the answer is one of `classes` (C), the entropy
    of the sampled answers must also stay below 0.8 ln C; None: the answer is open, and right once is no accident.
    """

    at_least: int = 1
    classes: int | None = None


class Task(Protocol):
    """One clinical task. Instances are stateless."""

    name: str
    title: str
    primary_metric: str
    label_sets: tuple[str, ...]
    splits: tuple[str, ...]  # values of `data.split`, the default first; empty where the source's own split is all there is
    subtasks: tuple[str, ...]  # values of `data.subtasks`; empty where the task is one
    classes: tuple[str, ...]  # what an answer can say, where it is one of a few (columns `truth` and `said_<i>`); empty where it is open
    terms: str  # whose data it is, its licence and what it may not be used for: a sentence for the report
    layouts: str  # one paragraph: the source layouts that `read` accepts

    def read(self, source: Path, data: DataSpec, seed: int, count: Count = words) -> TaskData:
        """Examples of all three splits from a file, folder or zip; `n_tokens` is left 0. Raises DataError.

        `count` tells the tokens of a text, for a task that chooses what of a long record goes into a prompt of `data.max_prompt_tokens`.
        """

    def synthesize(self, folder: Path, seed: int, size: str = "quickstart") -> None:
        """Write the synthetic twin in one of the layouts that `read` accepts. `size` is `unit` or `quickstart`."""

    def score(self, example: Example, text: str) -> Verdict:
        """Judge a whole completion (with what the chat template opened). Total: any text gives a Verdict, in bounded time."""

    def gold(self, example: Example) -> str:
        """A whole completion with the right answer, in the very form that the prompt shows. prepare checks that it scores correct."""

    def record(self, example: Example) -> str:
        """The patient's record inside the prompt: what must not stand, nearly the same, in two splits."""

    def columns(self, examples: Sequence[Example], answers: Sequence[Sequence[Sampled]], votes: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
        """Per-example arrays (length N) that `metrics` needs.

        `answers[i]` are the texts that count as the answer to `examples[i]` (one greedy text, or several that weigh as one); `votes[i]` those
        whose shares are the probabilities of its classes (k samples, or the answers again where there are none). Columns `probability` and
        `positive` (0 or 1), where a task has them, give the report its calibration and ROC curves; with `of/<part>` (0 or 1) for the rows of each
        part that is judged apart, a calibration curve each. A task with C `classes` has `truth` (0 to C - 1) and `said_0` to `said_<C>`, the
        shares of the answers that say each class and, last, none: the report's confusion matrix.
        """

    def metrics(self, columns: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, float]:
        """Point estimates; row i counts `weights[i]` times (N whole numbers, 0 for a row that a resample did not draw). NaN where undefined.

        A name `<metric>/<part>` is a metric over one part of the rows (a subtask); the report shows parts in a table of their own.
        """

    def reliability(self, category: str) -> Reliability:
        """How rows of a category (`Example.category`) show that their answer is known; stage diagnose asks."""

    def breakdown(self, example: Example) -> Mapping[str, str]:
        """Table name -> row label of this example, for the report (`calculator`, `category`)."""
