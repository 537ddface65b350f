"""Holm's correction, against a worked example and what it promises."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.statistics.comparison import holm


def test_the_smallest_is_multiplied_by_all_the_next_by_one_less_and_none_overtakes() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(c(.01, .04, .03, .005), "holm")


def test_no_comparison_stays_none_and_does_not_count() -> None:
    found = holm([0.02, math.nan, 0.5])
    assert (found[0], found[2]) == (pytest.approx(0.04), 0.5) and math.isnan(found[1])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_correction_never_lowers_keeps_the_order_and_is_at_most_bonferroni(p: list[float]) -> None:
    found = holm(p)
    assert all(before <= after <= min(1.0, len(p) * before) + 1e-12 for before, after in zip(p, found, strict=True))
    assert [after for _, after in sorted(zip(p, found, strict=True))] == sorted(found)
