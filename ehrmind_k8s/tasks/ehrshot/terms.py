"""Whose data a source is: a sentence for prepare's manifest, every model made from it, and the report."""

from ehrmind_k8s.tasks.ehrshot import readers

EHRSHOT = (
    "EHRSHOT (Wornow et al. 2023, arXiv 2307.02028), EHRSHOT Data Set License 1.0 of Stanford University: for scientific research by people who"
    " have signed it, never for care. Records are not shared and nobody in them is identified. Models, data sets and services made from it carry"
    " the same terms."
)
OWN = (
    "Health records of a data owner: their agreement says who may read them, and it holds for a model trained on them too, which may repeat what"
    " it has read. For research, not for care."
)


def of(layout: str) -> str:
    """The terms of a source, by its layout: EHRSHOT's own files are told by their names and columns, all others are somebody's own records."""
    return EHRSHOT if layout in readers.BENCHMARK else OWN
