"""The contract of a clinical task. A task is one folder with the same six files; an installed package can bring another.

A task knows its data, its prompt, its scorer and its metrics. It does not know models, training, stores or other tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ehrmind_k8s.records import Drop, Example, Verdict
from ehrmind_k8s.spec import DataSpec


@dataclass(frozen=True)
class TaskData:
    """What a reader found. `inputs` maps each file read to its SHA-256; `audit` holds counts and checks for the manifest and the report."""

    examples: list[Example]
    drops: list[Drop]
    inputs: Mapping[str, str]
    audit: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampled:
    """One text of a policy with its verdict, as metrics need it."""

    text: str
    verdict: Verdict


class Task(Protocol):
    """One clinical task. Instances are stateless."""

    name: str
    title: str
    primary_metric: str
    label_sets: tuple[str, ...]
    terms: str  # whose data it is, its licence and what it may not be used for: a sentence for the report
    layouts: str  # one paragraph: the source layouts that `read` accepts

    def read(self, source: Path, data: DataSpec, seed: int) -> TaskData:
        """Examples of all three splits from a file, folder or zip; `n_tokens` is left 0. Raises DataError."""

    def synthesize(self, folder: Path, seed: int, size: str = "quickstart") -> None:
        """Write the synthetic twin in one of the layouts that `read` accepts. `size` is `unit` or `quickstart`."""

    def score(self, example: Example, text: str) -> Verdict:
        """Judge a whole completion (with what the chat template opened). Total: any text gives a Verdict, in bounded time."""

    def gold(self, example: Example) -> str:
        """A whole completion with the right answer, in the very form that the prompt shows. prepare checks that it scores correct."""

    def columns(self, examples: Sequence[Example], samples: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
        """Per-example arrays (length N) that `metrics` needs; `samples[i]` are the texts for `examples[i]`."""

    def metrics(self, columns: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Point estimates from (possibly resampled) columns. NaN where a metric is undefined."""

    def breakdown(self, example: Example) -> Mapping[str, str]:
        """Table name -> row label of this example, for the report (`calculator`, `category`)."""
