"""MedCalc-Bench: compute a clinical score from a patient note (arXiv 2406.12036). README.md in this folder says what is read and how it is judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import Count, Reliability, Sampled, TaskData, words
from ehrmind_k8s.tasks.medcalc import calculators, data, labels, metrics, prompt, scoring, synthetic

# The paper's rule for small integers, which guessing hits (its pass@k analysis): right in r of 12, entropy below 0.8 ln C. Numbers and dates: r = 1.
RELIABILITY: Mapping[str, Reliability] = {"diagnosis": Reliability(3, 7), "severity": Reliability(3, 7), "risk": Reliability(2, 21)}


class MedCalc:
    """The task `medcalc`."""

    name = "medcalc"
    title = "MedCalc-Bench: 55 clinical calculators"
    primary_metric = "accuracy"
    label_sets = labels.LABEL_SETS
    splits = ()
    subtasks = ()
    classes = ()
    terms = "MedCalc-Bench (Khandekar et al. 2024, arXiv 2406.12036), licence CC-BY-SA 4.0. For research, not for clinical use."
    layouts = (
        "MedCalc-Bench as CSV or parquet with its 14 columns (v1.0, v1.1, v1.2, Verified, the paper's parquet), or the relabelled v1.0 test rows"
        " (7-column CSV or its parquet). A file, a folder or a zip; file names hold train, test or val, else set data.train and data.test."
    )

    def read(self, source: Path, data_spec: DataSpec, seed: int, count: Count = words) -> TaskData:
        return data.read(source, data_spec, seed)

    def synthesize(self, folder: Path, seed: int, size: str = "quickstart") -> None:
        synthetic.write(folder, seed, size)

    def score(self, example: Example, text: str) -> Verdict:
        return scoring.score(example.target, text)

    def gold(self, example: Example) -> str:
        return prompt.completion("The reasoning stands here.", example.target["answer"])

    def columns(self, examples: Sequence[Example], answers: Sequence[Sequence[Sampled]], votes: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
        return metrics.columns(examples, answers)

    def metrics(self, columns: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, float]:
        return metrics.metrics(columns, weights)

    def reliability(self, category: str) -> Reliability:
        return RELIABILITY.get(category, Reliability())

    def record(self, example: Example) -> str:
        return prompt.record(example.messages)

    def breakdown(self, example: Example) -> Mapping[str, str]:
        return {"calculator": calculators.BY_ID[example.target["calculator"]].name, "category": example.category}
