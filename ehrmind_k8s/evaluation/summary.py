"""The short forms of a report, from `report.json`: the table at the end of a run, and what `ehrmind report --json` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from ehrmind_k8s.evaluation.report import OUTCOMES, TITLES, chance, percent, points, words

Json = Mapping[str, Any]


def summary_table(report: Json) -> str:
    """The result in a sentence, metrics by policy with 95 % intervals, and the paired differences, as lines of text."""
    policies, primary = report["policies"], report["primary_metric"]
    names = list(dict.fromkeys([primary, *(m for p in policies.values() for m in p["metrics"])]))
    rows = [["", *(TITLES[label] for label in policies)]]
    rows += [[words(name), *(_cell(p["metrics"].get(name)) for p in policies.values())] for name in names if name not in OUTCOMES and "/" not in name]
    rows += [[f"answers {o}", *(str(p["outcomes"].get(o, 0)) for p in policies.values())] for o in OUTCOMES]
    lines = [report["headline"], "", *_aligned(rows)]
    gains = [_gain(d, primary) for d in report["differences"]]
    return "\n".join([*lines, "", *gains] if gains else lines)


def scores(report: Json) -> dict[str, Any]:
    """The figures a script wants: every metric of every policy."""
    metrics = {
        label: {m: {k: e[k] for k in ("value", "low", "high", "n")} for m, e in p["metrics"].items()} for label, p in report["policies"].items()
    }
    return {"run": report["run"]["name"], "task": report["run"]["task"], "primary_metric": report["primary_metric"], "policies": metrics}


def _cell(estimate: Json | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "n/a"
    if estimate["low"] is None or estimate["high"] is None:
        return percent(estimate["value"])
    return f"{percent(estimate['value'])} ({100 * estimate['low']:.1f}-{100 * estimate['high']:.1f})"


def _gain(difference: Json, primary: str) -> str:
    e, names = difference["metrics"][primary], f"{TITLES[difference['policy']]} - {TITLES[difference['baseline']]}"
    p = chance(difference["p_holm"])
    return f"{names}: {words(primary)} {points(e['value'])} points, 95 % interval {points(e['low'])} to {points(e['high'])}, corrected p {p}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])).rstrip() for row in rows]
