"""Figures of the three-way decision, and of the ranking that its probabilities make of each topic's trials.

    balanced_accuracy, accuracy, macro_f1     of the (greedy) answers; one that cannot be read, or names two grades, is wrong
    ndcg_at_10                                gains 2 / 1 / 0, the headline of the TREC tracks
    p_at_10, r_precision, reciprocal_rank     grade 2 alone is relevant (`trec_eval -l 2`)

The score that ranks is the expected grade, p(1) + 2 p(2), with p the shares of votes (k samples; the greedy answer where there are none). A
vote that cannot be read adds nothing, so it ranks its trial low. Only the rows that were asked are ranked, and all of them are judged: this
is reranking of a judged pool, easier than the tracks' search over 375,580 trials, and not to be compared with it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ehrmind_k8s.records import Example
from ehrmind_k8s.statistics import classification, retrieval
from ehrmind_k8s.tasks.base import Sampled
from ehrmind_k8s.tasks.trec.qrels import GRADES

DEPTH = 10
RELEVANT = 2
RANKING = ("ndcg_at_10", "p_at_10", "r_precision", "reciprocal_rank")
SAID = tuple(f"said_{grade}" for grade in range(len(GRADES) + 1))  # the last is none of them


def columns(examples: Sequence[Example], answers: Sequence[Sequence[Sampled]], votes: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
    """All of length N: `truth` (the grade); SAID, the shares of the answers; `cell` (N, 12), the same spread over the confusion matrix; `first`,
    1 on one row of each topic, and RANKING, the topic's figures on that row and 0 on the others."""
    truth = np.array([e.target["grade"] for e in examples], dtype=np.int64)
    said = _shares(answers)
    cell = (np.eye(len(GRADES))[truth][:, :, None] * said[:, None, :]).reshape(len(examples), len(GRADES) * len(SAID))
    return {"truth": truth, "cell": cell} | {name: said[:, i] for i, name in enumerate(SAID)} | _ranking(examples, votes)


def metrics(columns: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, float]:
    """Point estimates; row i counts `weights[i]` times. NaN over no rows."""
    table = (weights @ columns["cell"]).reshape(len(GRADES), len(SAID))
    total, topics = table.sum(), weights @ columns["first"]
    return {
        "balanced_accuracy": classification.over_classes(classification.recalls(table)),
        "accuracy": float(table.trace() / total) if total else float("nan"),
        "macro_f1": classification.over_classes(classification.f1(table)),
        **{name: float(weights @ columns[name] / topics) if topics else float("nan") for name in RANKING},
    }


def _ranking(examples: Sequence[Example], votes: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
    topics: dict[str, list[int]] = defaultdict(list)
    for i, e in enumerate(examples):
        topics[e.group].append(i)
    found = {name: np.zeros(len(examples)) for name in ("first", *RANKING)}
    for rows in topics.values():
        documents, grades = [examples[i].target["trial"] for i in rows], [examples[i].target["grade"] for i in rows]
        order = retrieval.ranked([_expected(votes[i]) for i in rows], documents, grades)
        found["first"][rows[0]] = 1
        found["ndcg_at_10"][rows[0]] = retrieval.ndcg(order, DEPTH)
        found["p_at_10"][rows[0]] = retrieval.precision(order, DEPTH, RELEVANT)
        found["r_precision"][rows[0]] = retrieval.r_precision(order, RELEVANT)
        found["reciprocal_rank"][rows[0]] = retrieval.reciprocal_rank(order, RELEVANT)
    return found


def _counts(texts: Sequence[Sampled]) -> list[int]:
    """How many texts say each grade, and how many say none."""
    counts = [0] * len(SAID)
    for text in texts:
        parsed = text.verdict.parsed
        counts[int(parsed) if parsed in ("0", "1", "2") else -1] += 1
    return counts


def _expected(votes: Sequence[Sampled]) -> float:
    """The expected grade, divided once, so that equal ones are equal to the last bit and ties stay ties."""
    _, one, two, _ = _counts(votes)
    return (one + 2 * two) / max(1, len(votes))


def _shares(texts: Sequence[Sequence[Sampled]]) -> np.ndarray:
    """Shares of each row's texts that say each grade, and none (N, 4); zeros where there is no text."""
    counts = np.array([_counts(t) for t in texts], dtype=float).reshape(len(texts), len(SAID))
    return classification.ratio(counts, np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape), 0.0)
