"""Small charts as inline SVG: lines, stacked areas, intervals, shares. Colours are CSS classes of the page, so light and dark share one drawing.

Every chart is drawn at about the width it has on a phone (user units are CSS pixels there) and sits in a grid of such panels on a wide
screen, so text keeps its size on both. Each has a `<title>` that says in words what it shows.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ehrmind_k8s.evaluation.report import Estimate, interval, percent

WIDTH, HEIGHT = 400, 236
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 30, 40
CHARACTER = 6.2  # mean width of a character at the font size of labels (px)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """A named line or layer. `style` is the CSS class that colours it; points are (x, y) with x rising, gaps left out."""

    name: str
    style: str
    points: Points


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels, with round ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, low: float, high: float, start: float, end: float, count: int, steps: bool = False) -> "Scale":
        """A scale from `low` to `high` with about `count` ticks at 1, 2 or 5 times a power of ten, widened to whole ticks.

        `steps`: for counted things, ticks at whole numbers, and not widened.
        """
        if high - low <= max(1e-12, 1e-9 * max(abs(low), abs(high))):
            high = low + max(abs(low), 1e-3)
        raw = (high - low) / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        step = max(1.0, step) if steps else step
        first, last = (math.ceil(low / step), math.floor(high / step)) if steps else (math.floor(low / step), math.ceil(high / step))
        ticks = tuple(i * step for i in range(first, last + 1))
        return cls(low if steps else ticks[0], high if steps else ticks[-1], start, end, ticks)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def label(self, tick: float) -> str:
        """The tick as text, all ticks of a scale with the same number of decimals."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        if self.high >= 10_000:
            return f"{tick / 1000:g}k"
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return (f"{tick:.{decimals}f}" if decimals <= 4 else f"{tick:.3g}").replace("-", "−")


def lines(title: str, unit: str, series: Sequence[Series], resumed: Iterable[float] = (), x_title: str = "step", share: bool = False) -> Markup:
    """Lines over steps; a dashed vertical at each x of `resumed`, where a new attempt went on. `share` shows 0 to 1 as percent, from 0 on."""
    drawn = [Series(s.name, s.style, _scaled(s.points, 100 if share else 1)) for s in series if s.points]
    points = [p for s in drawn for p in s.points]
    x, y = _scales([*points, (points[0][0], 0.0)] if share else points)
    body = [*_frame(x, y, unit, x_title), *_resumed(x, resumed), *_legend(drawn, "line")]
    for s in drawn:
        body.append(_tag("path", d="M" + "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in s.points), class_=f"line {s.style}"))
        if len(s.points) < 16:
            body += [_tag("circle", cx=f"{x(a):.1f}", cy=f"{y(b):.1f}", r=3, class_=f"dot {s.style}") for a, b in s.points]
    return _svg(WIDTH, HEIGHT, title, body)


def stacked(title: str, unit: str, series: Sequence[Series], resumed: Iterable[float] = ()) -> Markup:
    """Layers over steps that add up, the first at the bottom; all series share the same x."""
    drawn = [s for s in series if any(y for _, y in s.points)]
    sums = [sum(s.points[i][1] for s in drawn) for i in range(len(drawn[0].points))]
    xs = [p[0] for p in drawn[0].points]
    x, y = _scales([*zip(xs, sums, strict=True), (xs[0], 0.0)])
    body, floor = _frame(x, y, unit, "step"), [0.0] * len(xs)
    for s in drawn:
        roof = [a + b for a, (_, b) in zip(floor, s.points, strict=True)]
        forth = "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, roof, strict=True))
        back = "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in reversed(list(zip(xs, floor, strict=True))))
        body.append(_tag("path", d=f"M{forth}L{back}Z", class_=f"area {s.style}"))
        floor = roof
    return _svg(WIDTH, HEIGHT, title, [*body, *_resumed(x, resumed), *_legend(drawn, "box")])


def intervals(title: str, rows: Sequence[tuple[str, str, Estimate]]) -> Markup:
    """One line per (name, style, estimate) of a share: a bar to the value, the interval over it, the figures above."""
    height = 26 + 46 * len(rows)
    top = max((e.high for _, _, e in rows if math.isfinite(e.high)), default=1.0)
    x = Scale.over(0, min(100.0, 100 * max(top, 0.05)), 12, WIDTH - 16, 5)
    body = []
    for tick in x.ticks:
        body.append(_tag("line", x1=f"{x(tick):.1f}", x2=f"{x(tick):.1f}", y1=4, y2=height - 20, class_="grid"))
        body.append(_text(x(tick), height - 5, f"{x.label(tick)} %", "middle", "tick"))
    for i, (name, style, estimate) in enumerate(rows):
        y = 8 + 46 * i
        body.append(_text(12, y + 10, name, "start", "name"))
        body.append(_text(WIDTH - 16, y + 10, f"{percent(estimate.value)}  ({interval(estimate)})", "end", "value"))
        if not math.isfinite(estimate.value):
            continue
        body.append(_tag("rect", x=12, y=y + 18, width=f"{x(100 * estimate.value) - 12:.1f}", height=12, class_=f"bar {style}"))
        if math.isfinite(estimate.low) and math.isfinite(estimate.high):
            low, high, middle = x(100 * estimate.low), x(100 * estimate.high), y + 24
            whisker = f"M{low:.1f},{middle - 5}V{middle + 5}M{low:.1f},{middle}H{high:.1f}M{high:.1f},{middle - 5}V{middle + 5}"
            body += [_tag("path", d=whisker, class_="halo"), _tag("path", d=whisker, class_="whisker")]
    return _svg(WIDTH, height, title, body)


def shares(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, str, int]]]]) -> Markup:
    """One full bar per row, cut into (name, style, count) parts; a part says its percentage where that fits. The first row gives the legend."""
    height = 26 + 44 * len(rows)
    body = _legend([Series(name, style, ()) for name, style, _ in rows[0][1]], "box", left=12)
    for i, (label, parts) in enumerate(rows):
        total, at, y = sum(n for _, _, n in parts), 12.0, 34 + 44 * i
        body.append(_text(12, y + 4, f"{label} (n = {total})", "start", "name"))
        for name, style, n in parts:
            width = (WIDTH - 28) * n / total if total else 0.0
            hover = _tag("title", content=f"{label}, {name}: {n} of {total}")
            body.append(_tag("rect", x=f"{at:.1f}", y=y + 10, width=f"{width:.1f}", height=16, class_=f"area {style}", content=hover))
            text = f"{100 * n / total:.0f} %" if total else ""
            if width > len(text) * CHARACTER + 6:
                body.append(_text(at + width / 2, y + 22, text, "middle", f"inside {style}"))
            at += width
    return _svg(WIDTH, height + 14, title, body)


def strip(title: str, rows: Sequence[tuple[str, float]]) -> Markup:
    """Thin bars of shares, one under the other, for a table cell."""
    body = [_tag("rect", x=0, y=0, width=100, height=5 * len(rows) + 1, class_="track")]
    body += [_tag("rect", x=0, y=1 + 5 * i, width=f"{100 * v:.1f}", height=4, class_=f"bar {s}") for i, (s, v) in enumerate(rows) if math.isfinite(v)]
    return _svg(100, 5 * len(rows) + 1, title, body, "strip", "none")


def _scales(points: Points) -> tuple[Scale, Scale]:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low = min(ys) if min(ys) < 0 or min(ys) > 0.5 * max(ys) else 0.0
    x = Scale.over(min(xs), max(xs), LEFT, WIDTH - RIGHT, 6, steps=True)
    return x, Scale.over(low, max(ys), HEIGHT - BOTTOM, TOP, 4)


def _frame(x: Scale, y: Scale, unit: str, x_title: str) -> list[Markup]:
    body = []
    for tick in y.ticks:
        body.append(_tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y(tick):.1f}", y2=f"{y(tick):.1f}", class_="zero" if tick == 0 else "grid"))
        body.append(_text(LEFT - 6, y(tick) + 4, y.label(tick), "end", "tick"))
    for tick in x.ticks:
        body.append(_text(x(tick), HEIGHT - BOTTOM + 16, x.label(tick), "middle", "tick"))
        body.append(_tag("line", x1=f"{x(tick):.1f}", x2=f"{x(tick):.1f}", y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 4, class_="grid"))
    return [*body, _text(4, 14, unit, "start", "tick"), _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_title, "middle", "tick")]


def _resumed(x: Scale, places: Iterable[float]) -> list[Markup]:
    body = []
    for place in places:
        hover = _tag("title", content=f"a new attempt went on at step {place:g}")
        body.append(_tag("line", x1=f"{x(place):.1f}", x2=f"{x(place):.1f}", y1=TOP, y2=HEIGHT - BOTTOM, class_="resumed", content=hover))
    return body


def _legend(series: Sequence[Series], mark: str, left: float | None = None) -> list[Markup]:
    """Names with their colour, ending at the right edge (or starting at `left`); nothing for a single line."""
    if len(series) < 2:
        return []
    widths = [18 + CHARACTER * len(s.name) + 8 for s in series]
    at, body = WIDTH - RIGHT - sum(widths) + 8 if left is None else left, []
    for s, width in zip(series, widths, strict=True):
        if mark == "line":
            body.append(_tag("path", d=f"M{at:.1f},10H{at + 13:.1f}", class_=f"line {s.style}"))
        else:
            body.append(_tag("rect", x=f"{at + 2:.1f}", y=5, width=10, height=10, class_=f"area {s.style}"))
        body.append(_text(at + 17, 14, s.name, "start", "tick"))
        at += width
    return body


def _scaled(points: Points, factor: float) -> Points:
    return [(x, factor * y) for x, y in points]


def _text(x: float, y: float, content: str, anchor: str, style: str) -> Markup:
    return _tag("text", x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=style, content=content)


def _svg(width: int, height: int, title: str, body: Iterable[Markup], style: str = "chart", fit: str = "xMinYMin") -> Markup:
    content = Markup("").join([_tag("title", content=title), *body])
    return _tag("svg", viewBox=f"0 0 {width} {height}", preserveAspectRatio=fit, role="img", class_=style, content=content)


def _tag(name: str, content: str | Markup = "", **attributes: object) -> Markup:
    """An element; text and attribute values are escaped, Markup is taken as it is. `class_` is class, `text_anchor` is text-anchor."""
    pairs = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items())
    inner = content if isinstance(content, Markup) else html.escape(content)
    return Markup(f"<{name}{pairs}>{inner}</{name}>")  # noqa: S704 - every part was escaped above
