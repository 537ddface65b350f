"""Scales and drawings: round ticks, everything inside the frame, every name escaped."""

import math
import re

from hypothesis import assume, given
from hypothesis import strategies as st

from ehrmind_k8s.evaluation import chart
from ehrmind_k8s.evaluation.chart import Scale, Series
from ehrmind_k8s.evaluation.report import Estimate

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(finite, finite, st.integers(2, 8))
def test_ticks_are_even_and_cover_the_values(a: float, b: float, count: int) -> None:
    low, high = min(a, b), max(a, b)
    assume(high - low > 1e-6 * max(1.0, abs(low), abs(high)))
    scale, slack = Scale.over(low, high, 0, 100, count), 1e-9 * (high - low)
    assert scale.low <= low + slack and scale.high >= high - slack
    assert 2 <= len(scale.ticks) <= 2 * count + 3
    gaps = [q - p for p, q in zip(scale.ticks, scale.ticks[1:], strict=False)]
    assert max(gaps) - min(gaps) < 1e-6 * (abs(scale.high) + abs(scale.low) + 1)


def test_ticks_are_at_round_numbers_with_equal_decimals() -> None:
    scale = Scale.over(0, 0.063, 0, 100, 4)
    assert [scale.label(t) for t in scale.ticks] == ["0.00", "0.02", "0.04", "0.06", "0.08"]
    assert [Scale.over(-3, 3, 0, 1, 3).label(t) for t in (-2, 0, 2)] == ["−2", "0", "2"]


@given(st.lists(finite, min_size=1, max_size=50))
def test_a_line_stays_inside_its_frame(values: list[float]) -> None:
    drawn = chart.lines("t", "u", [Series("a", "curve", list(enumerate(values, 1)))])
    path = re.search(r'd="M([^"]+)" class="line', drawn)
    assert path is not None
    for point in path[1].split("L"):
        x, y = map(float, point.split(","))
        assert chart.LEFT - 0.1 <= x <= chart.WIDTH - chart.RIGHT + 0.1
        assert chart.TOP - 0.1 <= y <= chart.HEIGHT - chart.BOTTOM + 0.1


def test_layers_stack_to_their_sum() -> None:
    a, b = Series("a", "time-train", [(1, 1.0), (2, 1.0)]), Series("b", "time-sync", [(1, 3.0), (2, 1.0)])
    paths = re.findall(r'd="M([^"Z]+)Z" class="area', chart.stacked("t", "s", [a, b]))
    roof = [float(p.split(",")[1]) for p in paths[1].split("L")[:2]]
    assert roof[0] == chart.TOP  # 4 is the top tick
    assert roof[1] == (chart.TOP + chart.HEIGHT - chart.BOTTOM) / 2


def test_the_parts_of_a_bar_fill_it() -> None:
    drawn = chart.shares("t", [("row", [("a", "outcome-correct", 1), ("b", "outcome-wrong", 3)])])
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="16"', drawn)]
    assert widths[1] == 3 * widths[0]
    assert sum(widths) == chart.WIDTH - 28


def test_an_undefined_estimate_has_no_bar() -> None:
    drawn = chart.intervals(
        "t", [("base", "policy-base", Estimate(math.nan, math.nan, math.nan, 0)), ("sft", "policy-sft", Estimate(0.5, 0.4, 0.6, 9))]
    )
    assert drawn.count('class="bar') == 1 and "n/a" in drawn


def test_text_and_attributes_are_escaped() -> None:
    drawn = chart.lines('<t & "u">', "<u>", [Series("<b>", '"x"', [(1, 1), (2, 2)]), Series("c", "curve", [(1, 1)])])
    assert "<b>" not in drawn and "<u>" not in drawn and '""x""' not in drawn
    assert "&lt;t &amp; &quot;u&quot;&gt;" in drawn
