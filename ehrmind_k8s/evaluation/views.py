"""What every view of a report shows alike: the order and names of metrics, curves as series, nested facts as rows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ehrmind_k8s.evaluation.chart import Series
from ehrmind_k8s.evaluation.report import OUTCOMES, TITLES, Diagnosis, Estimate, Finding, Report, WarmUp, interval, percent
from ehrmind_k8s.records import SPLITS

Line = Mapping[str, Any]
COMPARED = "p: two-sided, from the same resamples; corrected by Holm for all comparisons of policies by this metric."
TIMES: tuple[str, ...] = ("generate", "train", "publish", "sync")


def metric_names(report: Report) -> list[str]:
    """Every metric of every policy, the primary one first. Shares of outcomes are left to the table of counts, metrics of parts to `parts`."""
    names = dict.fromkeys([report.primary_metric, *(m for p in report.policies.values() for m in p.metrics)])
    return [name for name in names if name not in OUTCOMES and "/" not in name]


def asked(diagnosis: Diagnosis) -> str:
    """What was asked to diagnose a policy, and what its figures mean."""
    n = diagnosis.asked - diagnosis.unscored
    left = f" {diagnosis.unscored} rows had no sample with finite log-probs." if diagnosis.unscored else ""
    return (
        f"What the start model knew before training: {diagnosis.samples} samples on each of {n} train rows. A row is reliably right when"
        " enough samples are right and, where the answer is one of few classes, they agree. Below"
        f" {percent(diagnosis.threshold)} of reliable rows knowledge is missing, above it misapplied; right in most samples it is solved.{left}"
    )


WIDE: tuple[str, ...] = ("groups", "rule", "entropy (nats)")  # columns of findings that a phone has no room for


def diagnosis(report: Report) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of findings; `before → after` where the SFT policy was asked the same rows."""
    found, after = report.diagnosis, report.after_sft
    assert found is not None
    k, later = found.samples, {f.category: f for f in after.findings} if after else {}
    head = ["category", "rows", "groups", "rule", f"reliable pass@{k}", f"mean@{k}", f"pass@{k}", "entropy (nats)", "finding"]
    return head, [_finding(f, later.get(f.category), k) for f in found.findings]


def _finding(before: Finding, after: Finding | None, k: int) -> list[str]:
    rule = f"{before.at_least} of {k} right" + (f", entropy below 0.8 ln {before.classes}" if before.classes else "")
    figures = [
        f"{percent(before.reliable.value)} ({interval(before.reliable)})" + (f" → {percent(after.reliable.value)}" if after else ""),
        percent(before.mean) + (f" → {percent(after.mean)}" if after else ""),
        percent(before.passed) + (f" → {percent(after.passed)}" if after else ""),
        f"{before.entropy:.2f}" + (f" → {after.entropy:.2f}" if after else ""),
        before.finding + (f" → {after.finding}" if after else ""),
    ]
    return [before.category, str(before.n), str(before.groups), rule, *figures]


def warm_up(done: WarmUp) -> str:
    """What SFT did, why, and from which texts, in a sentence or two."""
    reason = done.why[0].upper() + done.why[1:]
    if not done.trained:
        return f"{reason}."
    judged = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in done.judged.items())
    return f"{reason}. It learned from {done.rows} rows; traces: {done.traces} ({judged})."


def parts(report: Report) -> tuple[str, list[tuple[str, int | None, list[str]]]]:
    """What the parts are that metrics are given for (`subtask`), and each part with its test rows and the names of its metrics.

    The table of correct answers with the same labels tells what a part is and how many rows it has.
    """
    found: dict[str, dict[str, None]] = {}
    for name in dict.fromkeys(m for p in report.policies.values() for m in p.metrics if "/" in m):
        found.setdefault(name.partition("/")[2], {})[name] = None
    table = next((t for t in report.tables if found and set(found) == {row.label for row in t.rows}), None)
    rows = {row.label: row.n for row in table.rows} if table else {}
    return table.name if table else "part", [(part, rows.get(part), list(names)) for part, names in found.items()]


def confusions(report: Report) -> list[tuple[str, list[str], list[list[str]]]]:
    """Policy, head and rows of each confusion matrix; nothing for a task whose answers are open."""
    return [
        (
            label,
            ["", *found.classes, "none of them"],
            [[name, *map(str, counts)] for name, counts in zip(found.classes, found.counts, strict=True)],
        )
        for label, policy in report.policies.items()
        if (found := policy.confusion)
    ]


def calibration(report: Report, part: str | None = None) -> list[Series]:
    """Share of positives over predicted probability (percent), a curve per policy beside the diagonal where both are equal; none without one.

    Over all rows, or over those of a part.
    """
    found = {label: p.calibration if part is None else p.calibration_of.get(part, ()) for label, p in report.policies.items()}
    curves = [
        Series(TITLES[label], f"policy-{label}", [(100 * b.predicted, 100 * b.observed) for b in bins]) for label, bins in found.items() if bins
    ]
    return [Series("perfect", "diagonal", [(0.0, 0.0), (100.0, 100.0)]), *curves] if curves else []


def roc(report: Report) -> list[Series]:
    """Recall over false positive rate (percent), a curve per policy beside the diagonal of guessing; none where no task predicts probabilities."""
    curves = [
        Series(TITLES[label], f"policy-{label}", [(0.0, 0.0), *((100 * cut.false_positive_rate, 100 * cut.recall) for cut in policy.roc)])
        for label, policy in report.policies.items()
        if policy.roc
    ]
    return [Series("guessing", "diagonal", [(0.0, 0.0), (100.0, 100.0)]), *curves] if curves else []


def estimate(metrics: Mapping[str, Estimate], name: str) -> Estimate:
    """The estimate, or an undefined one where a policy lacks the metric."""
    return metrics.get(name, Estimate(math.nan, math.nan, math.nan, 0))


def series(lines: Iterable[Line], key: str, name: str, style: str) -> Series:
    """One figure over steps; steps where it is missing or undefined are left out."""
    return Series(name, style, [(float(line["step"]), float(line[key])) for line in lines if _finite(line.get(key))])


def times(lines: Sequence[Line]) -> list[Series]:
    """Seconds of each step by what they went into; `other` is what the parts leave of the total."""
    rows = [(float(line["step"]), line["seconds"]) for line in lines if line.get("seconds")]
    parts = [Series(name, f"time-{name}", [(step, float(s.get(name) or 0.0)) for step, s in rows]) for name in TIMES]
    rest = [(step, max(0.0, float(s["total"]) - sum(float(s.get(name) or 0.0) for name in TIMES))) for step, s in rows]
    return [*parts, Series("other", "time-other", rest)] if rows else []


def outcome_shares(lines: Sequence[Line]) -> list[Series]:
    """Percent of each outcome among a step's scored completions."""
    rows = [(float(line["step"]), line["outcomes"]) for line in lines if sum((line.get("outcomes") or {}).values())]
    return (
        [Series(o, f"outcome-{o}", [(step, 100 * counts.get(o, 0) / sum(counts.values())) for step, counts in rows]) for o in OUTCOMES]
        if rows
        else []
    )


def resumed(lines: Sequence[Line]) -> list[float]:
    """Steps at which a new attempt went on."""
    return [float(b["step"]) for a, b in pairwise(lines) if b.get("attempt", 0) > a.get("attempt", 0)]


def settings(document: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested document as rows `a.b`, value."""
    if isinstance(document, Mapping) and document:
        return [row for key, value in document.items() for row in settings(value, f"{prefix}{key}.")]
    return [(prefix.rstrip("."), _plain(document))]


def facts(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Counts and checks as rows: a mapping of plain values is one row `key 3, other 4`, a deeper one gives a row per entry."""
    rows = []
    for key, value in _by_split(document):
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
            rows += facts(value, f"{name}, ")
        elif isinstance(value, Mapping):
            rows.append((name, ", ".join(f"{k} {_plain(v)}".replace("_", " ") for k, v in _by_split(value)) or "none"))
        else:
            rows.append((name, _plain(value)))
    return rows


def counts(document: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """Columns (splits) and rows of a table of counts: rows and groups, then each label of the shortest breakdown. Longer ones stay in report.json."""
    splits = [s for s in SPLITS if s in document]
    tables = {name: len(counts) for s in splits for name, counts in document[s].items() if isinstance(counts, Mapping)}
    shortest = min(tables, key=lambda name: tables[name], default="")
    flat = [{**{k: n for k, n in document[s].items() if not isinstance(n, Mapping)}, **document[s].get(shortest, {})} for s in splits]
    labels = dict.fromkeys(label for column in flat for label in ("rows", "groups", *column) if label in column)
    return list(splits), [(label, [int(column.get(label, 0)) for column in flat]) for label in labels]


def _by_split(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Items in their order, splits in theirs: a manifest's keys come sorted."""
    return sorted(document.items(), key=lambda item: SPLITS.index(item[0]) if item[0] in SPLITS else 0)


def duration(seconds: float | None) -> str:
    """`3 min 20 s`; hours from 60 minutes on."""
    if seconds is None or not math.isfinite(seconds):
        return "n/a"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def number(value: float) -> str:
    """One decimal, `n/a` where it is undefined."""
    return f"{value:.1f}" if math.isfinite(value) else "n/a"


def thousands(count: float) -> str:
    """`1 234 567`, with narrow spaces."""
    return f"{count:,.0f}".replace(",", " ")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value) or "none"
    return str(value)
