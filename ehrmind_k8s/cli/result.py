"""The result of a complete run as a small table, and where the report is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.backends.base import RunStatus

STAGE = "evaluate"


def show(status: RunStatus) -> None:
    """Print what the run found, if it has a report, and which command comes next."""
    found = _report(status.uri)
    if found is None:
        click.echo(f"run {status.name}: complete, without evaluate; its output is at {status.uri}")
        return
    report, page = found
    click.echo(table(report))
    click.echo(f"report: {page}")
    click.echo(f"        ehrmind report {status.uri} --open")


def table(report: Mapping[str, Any]) -> str:
    """One row per policy: the primary metric with its interval, and what became of the answers."""
    metric = report["primary_metric"]
    rows = [("policy", metric.replace("_", " "), "95 % interval", "n", *_outcomes(report))]
    for name, policy in report["policies"].items():
        estimate = policy["metrics"][metric]
        counts = policy.get("outcomes") or {}
        shares = [_percent(estimate[k]) for k in ("value", "low", "high")]
        rows.append((name, shares[0], f"{shares[1]} to {shares[2]}", str(estimate["n"]), *(str(counts.get(o, 0)) for o in _outcomes(report))))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))) for row in rows]
    return "\n".join([*lines[:1], "-" * len(lines[0]), *lines[1:]])


def _outcomes(report: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(o for p in report["policies"].values() for o in p.get("outcomes") or {}))


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _report(run_uri: str) -> tuple[dict[str, Any], str] | None:
    """The report's tree and where its page is: a path when the store is a folder."""
    out = storage.open(storage.join(run_uri, STAGE))
    manifest = artifacts.load(out)
    names = [f.name for f in manifest.files] if manifest else []
    tree = next((n for n in names if n.endswith("report.json")), None)
    if tree is None:
        return None
    page = storage.join(out.uri, tree.removesuffix("json") + "html")
    return json.loads(out.get_bytes(tree)), str(Path(page.removeprefix("file://"))) if page.startswith("file://") else page
