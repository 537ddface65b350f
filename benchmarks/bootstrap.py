"""How long 2,000 clustered resamples of every EHRSHOT figure take over 60,000 predictions, as one policy's interval asks for.

python benchmarks/bootstrap.py
"""

import time

import numpy as np

from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.statistics import bootstrap
from ehrmind_k8s.tasks.base import Sampled
from ehrmind_k8s.tasks.ehrshot import metrics
from ehrmind_k8s.tasks.ehrshot.subtasks import PAPER

PREDICTIONS, SUBJECTS, RESAMPLES, SAMPLES = 60_000, 2_200, 2_000, 8


def main() -> None:
    draw = np.random.default_rng(1)
    subjects = draw.integers(SUBJECTS, size=PREDICTIONS)
    label = (draw.random(PREDICTIONS) < 0.1).astype(int)
    share = np.clip(0.2 + 0.2 * label + 0.2 * draw.standard_normal(PREDICTIONS), 0, 1)
    examples = [
        Example(str(i), "ehrshot", "test", f"s{subjects[i]}", "", (), {"subtask": PAPER[i % 5], "label": int(label[i])}) for i in range(PREDICTIONS)
    ]
    texts = {vote: Sampled("", Verdict(False, str(vote), "scored")) for vote in (0, 1)}
    votes = [[texts[v] for v in row] for row in (draw.random((PREDICTIONS, SAMPLES)) < share[:, None]).astype(int).tolist()]
    for name, columns in (
        ("votes", metrics.columns(examples, [v[:1] for v in votes], votes)),
        ("probabilities", _continuous(examples, votes, share)),
    ):
        start, start_cpu = time.perf_counter(), time.process_time()
        found = bootstrap.intervals(metrics.metrics, columns, [e.group for e in examples], resamples=RESAMPLES, seed=1)
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        auroc = found["auroc"]
        print(
            f"{name}: {RESAMPLES} resamples of {len(found)} figures over {PREDICTIONS} predictions of {SUBJECTS} subjects"
            f" in {seconds:.2f} s ({cpu:.2f} s of CPU); auroc {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})"
        )


def _continuous(examples: list[Example], votes: list[list[Sampled]], share: np.ndarray) -> dict[str, np.ndarray]:
    """The same rows with a score of its own for each, as answer log-probs would give: the longest histograms there can be."""
    columns = metrics.columns(examples, [v[:1] for v in votes], votes)
    return columns | metrics.of_probability(share, columns["positive"], columns["subtask"])


if __name__ == "__main__":
    main()
