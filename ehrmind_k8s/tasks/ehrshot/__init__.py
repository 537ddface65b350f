"""EHRSHOT: predictions from health records (arXiv 2307.02028). README.md in this folder says what is read and how it is judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import Count, Reliability, Sampled, TaskData, words
from ehrmind_k8s.tasks.ehrshot import cohort, data, metrics, prompt, readers, scoring, subtasks, synthetic, terms

# Half of all guesses are right, so most of 12 samples have to be: at 10 of 12 the entropy of two answers falls below 0.8 ln 2.
RELIABILITY = Reliability(at_least=10, classes=2)


class Ehrshot:
    """The task `ehrshot`."""

    name = "ehrshot"
    title = "EHRSHOT: predictions from health records"
    primary_metric = "auroc"
    label_sets = data.LABEL_SETS
    splits = cohort.SPLIT_WAYS
    subtasks = subtasks.NAMES
    classes = ("no", "yes")
    terms = terms.EHRSHOT
    layouts = readers.LAYOUTS

    def read(self, source: Path, data_spec: DataSpec, seed: int, count: Count = words) -> TaskData:
        return data.read(source, data_spec, seed, count)

    def synthesize(self, folder: Path, seed: int, size: str = "quickstart") -> None:
        synthetic.write(folder, seed, size)

    def score(self, example: Example, text: str) -> Verdict:
        return scoring.score(example.target, text)

    def gold(self, example: Example) -> str:
        return prompt.completion("The reasoning stands here.", example.target)

    def columns(self, examples: Sequence[Example], answers: Sequence[Sequence[Sampled]], votes: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
        return metrics.columns(examples, answers, votes)

    def metrics(self, columns: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, float]:
        return metrics.metrics(columns, weights)

    def reliability(self, category: str) -> Reliability:
        return RELIABILITY

    def record(self, example: Example) -> str:
        return prompt.record(example.messages)

    def breakdown(self, example: Example) -> Mapping[str, str]:
        target = example.target
        name = target["positive"] if target["label"] else target["negative"]
        return {"subtask": target["subtask"], "label": f"{target['subtask']}: {name}"}
