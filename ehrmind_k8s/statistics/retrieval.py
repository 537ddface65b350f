"""How well a score ranks the documents of one topic, with the semantics of trec_eval (9.0): ties go by document id, the greater first.

A topic without a relevant document has 0, as there. Gains are linear in the grade, and the discount is log2(rank + 1) (Järvelin and Kekäläinen 2002).
"""

import math
from collections.abc import Sequence


def ranked(scores: Sequence[float], documents: Sequence[str], grades: Sequence[int]) -> list[int]:
    """The grades of one topic's documents, best score first."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i], documents[i]), reverse=True)
    return [grades[i] for i in order]


def ndcg(grades: Sequence[int], depth: int) -> float:
    """Discounted gain of the first `depth` ranks over that of the best order of the same documents."""
    best = _gain(sorted(grades, reverse=True), depth)
    return _gain(grades, depth) / best if best else 0.0


def precision(grades: Sequence[int], depth: int, relevant: int) -> float:
    """Share of the first `depth` ranks with a grade of at least `relevant`; ranks without a document count as not relevant."""
    return sum(g >= relevant for g in grades[:depth]) / depth


def r_precision(grades: Sequence[int], relevant: int) -> float:
    """Precision at R, the number of relevant documents."""
    total = sum(g >= relevant for g in grades)
    return precision(grades, total, relevant) if total else 0.0


def reciprocal_rank(grades: Sequence[int], relevant: int) -> float:
    """1 over the rank of the first relevant document."""
    return next((1 / rank for rank, g in enumerate(grades, 1) if g >= relevant), 0.0)


def _gain(grades: Sequence[int], depth: int) -> float:
    return sum(g / math.log2(rank + 1) for rank, g in enumerate(grades[:depth], 1))
