"""TREC Clinical Trials 2021 and 2022: does this patient fit this trial? README.md in this folder says what is read and how it is judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import Count, Reliability, Sampled, TaskData, words
from ehrmind_k8s.tasks.trec import data, layouts, metrics, prompt, qrels, scoring, synthetic


class Trec:
    """The task `trec`."""

    name = "trec"
    title = "TREC Clinical Trials: does a patient fit a trial?"
    primary_metric = "balanced_accuracy"
    label_sets = data.LABEL_SETS
    splits = data.SPLIT_WAYS
    subtasks = ()
    classes = qrels.GRADES
    terms = (
        "TREC Clinical Trials 2021 and 2022: topics and judgments of NIST and NLM, public; trial records of ClinicalTrials.gov, public, to be"
        " attributed with their date. For research, not for clinical use."
    )
    layouts = layouts.LAYOUTS

    def read(self, source: Path, data_spec: DataSpec, seed: int, count: Count = words) -> TaskData:
        return data.read(source, data_spec, seed)

    def synthesize(self, folder: Path, seed: int, size: str = "quickstart") -> None:
        synthetic.write(folder, seed, size)

    def score(self, example: Example, text: str) -> Verdict:
        return scoring.score(example.target, text)

    def gold(self, example: Example) -> str:
        return prompt.completion("The reasoning stands here.", example.target["grade"])

    def columns(self, examples: Sequence[Example], answers: Sequence[Sequence[Sampled]], votes: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
        return metrics.columns(examples, answers, votes)

    def metrics(self, columns: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, float]:
        return metrics.metrics(columns, weights)

    def reliability(self, category: str) -> Reliability:
        return Reliability(at_least=6, classes=len(qrels.GRADES))

    def record(self, example: Example) -> str:
        return prompt.record(example.messages)

    def breakdown(self, example: Example) -> Mapping[str, str]:
        return {"category": example.category}
