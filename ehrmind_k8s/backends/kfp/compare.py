"""What a sweep found: the reports of its variants side by side, as the last node of `pipelines/sweep.yaml` shows them."""

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.backends.kfp.outputs import Outputs, numbers
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.evaluation import chart, views
from ehrmind_k8s.evaluation.report import TITLES, Estimate, interval, percent, words
from ehrmind_k8s.spec import EXECUTION_KEYS

SKIPPED = (*EXECUTION_KEYS, "name", "inputs")


def write(outputs: Outputs) -> None:
    """Write table, page and figures of the reports that the step's parameter `evaluate_uris` names. Raises SpecError and what a store raises."""
    uris = outputs.parameters.get("evaluate_uris")
    try:
        found = json.loads(uris) if isinstance(uris, str) else uris
    except ValueError:
        found = None
    if not isinstance(found, list) or not found:
        raise SpecError("evaluate_uris: expected the list of outputs of the evaluations, which the loop of a sweep collects; found none")
    trees = [json.loads(storage.open(str(uri)).get_bytes(artifacts.REPORT)) for uri in found]
    if len(metrics := {tree["primary_metric"] for tree in trees}) > 1:
        raise SpecError(f"evaluate_uris: the reports have different primary metrics ({', '.join(sorted(metrics))}); compare variants of one task")
    rows = [(label, tree) for label, tree in zip(labels(trees), trees, strict=True)]
    metric = trees[0]["primary_metric"]
    figures = {f"{i}_{policy}_{metric}": _primary(tree, policy).value for i, tree in enumerate(trees, 1) for policy in tree["policies"]}
    best = max(rows, key=lambda row: _score(row[1]))
    outputs.finish({"best": best[0]}, {"summary": (markdown(rows), {}), "report": (page(rows), {}), "metrics": ("", numbers(figures))})


def labels(trees: Sequence[Mapping[str, Any]]) -> list[str]:
    """The number of each run, which its figures have too, and what is different in it: `1: sft.percent 10`."""
    documents = [{k: v for k, v in views.settings(tree["settings"]) if k.split(".")[0] not in SKIPPED and k not in SKIPPED} for tree in trees]
    keys = [key for key in dict.fromkeys(k for d in documents for k in d) if len({d.get(key) for d in documents}) > 1]
    told = [", ".join(f"{key} {document[key]}" for key in keys if key in document) for document in documents]
    return [f"{i}: {text}".removesuffix(": ") for i, text in enumerate(told, 1)]


def markdown(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The primary metric of every policy of every variant, the best variant first."""
    metric = rows[0][1]["primary_metric"]
    policies = list(dict.fromkeys(p for _, tree in rows for p in tree["policies"]))
    lines = [f"# {words(metric)} by variant", "", "| variant | " + " | ".join(TITLES[p] for p in policies) + " | run |"]
    lines.append("|---" * (len(policies) + 2) + "|")
    for label, tree in sorted(rows, key=lambda row: -_score(row[1])):
        cells = [f"{percent(e.value)} ({interval(e)})" for e in (_primary(tree, p) for p in policies)]
        lines.append(f"| {label} | {' | '.join(cells)} | `{tree['run']['name']}` |")
    lines += ["", "Intervals are of 95 %. Each variant is one training run with one seed: a small difference may be its luck."]
    return "\n".join(lines) + "\n"


def page(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The same as a page with a chart that needs nothing else."""
    style = resources.files("ehrmind_k8s.evaluation").joinpath("templates/report.css").read_text(encoding="utf-8")
    metric = words(rows[0][1]["primary_metric"])
    bars = [(label, f"policy-{_newest(tree)}", _primary(tree, _newest(tree))) for label, tree in sorted(rows, key=lambda row: -_score(row[1]))]
    title = f"{metric[:1].upper()}{metric[1:]} of the newest policy of each variant, with 95 % intervals"
    head = f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style></head>'
    note = "Each variant is one training run with one seed: a small difference may be its luck."
    top = f'<header class="top"><h1>{html.escape(title)}</h1></header>'
    body = f'<main><section><figure>{chart.intervals(title, bars)}</figure>\n<p class="note">{note}</p></section></main>'
    return f"{head}\n<body>{top}\n{body}</body></html>\n"


def _primary(tree: Mapping[str, Any], policy: str) -> Estimate:
    nothing = float("nan")
    found = tree["policies"].get(policy, {"metrics": {}})["metrics"].get(tree["primary_metric"]) or {}
    value, low, high = (nothing if found.get(k) is None else float(found[k]) for k in ("value", "low", "high"))
    return Estimate(value, low, high, int(found.get("n") or 0))


def _newest(tree: Mapping[str, Any]) -> str:
    return str(list(tree["policies"])[-1])


def _score(tree: Mapping[str, Any]) -> float:
    value = _primary(tree, _newest(tree)).value
    return value if value == value else float("-inf")  # NaN is last
