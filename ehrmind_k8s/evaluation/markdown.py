"""`report.md`: the report for terminals and git."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ehrmind_k8s.evaluation import views
from ehrmind_k8s.evaluation.report import OUTCOMES, TITLES, Difference, Estimate, Report, Table, chance, interval, percent, points, words

_SPECIAL = re.compile(r"([\\`*\[\]|])")


def render(report: Report) -> str:
    """The whole report as GitHub-flavoured Markdown; names that come from data are escaped."""
    sections = [
        _head(report),
        _results(report),
        _diagnosis(report),
        _confusions(report),
        _parts(report),
        *(_table(report, t) for t in report.tables),
        _training(report),
        _data(report),
        _costs(report),
        _rerun(report),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def _head(report: Report) -> str:
    run = report.run
    where = f"Task {_safe(run.task)} ({_safe(run.title)}), preset {run.preset}, recipe {run.recipe}, seed {run.seed}, run id {run.uid}."
    limits = "\n".join(f"- {_safe(sentence)}" for sentence in report.limits)
    serve = f"Serve the result (`{report.model.policy}`, {report.model.kind}):\n\n    {report.model.command}"
    return f"# {_safe(run.name)}\n\n**{_safe(report.headline)}**\n\n{where}\n\n{limits}\n\n{serve}"


def _results(report: Report) -> str:
    policies = report.policies
    head = ["metric", *(f"{TITLES[label]} (`{p.name}`)" for label, p in policies.items())]
    rows = [[words(m), *(_cell(views.estimate(p.metrics, m)) for p in policies.values())] for m in views.metric_names(report)]
    rows += [[f"answers {o}", *(str(p.outcomes.get(o, 0)) for p in policies.values())] for o in OUTCOMES]
    rows += [["mean length (tokens)", *(views.number(p.tokens) for p in policies.values())]]
    samples = f" `mean@` and `pass@` are of {report.samples} samples." if report.samples else ""
    n = f"{report.data.asked - report.data.unscored} test rows of {report.data.groups} groups"
    note = f"Greedy answers on {n}.{samples} In brackets 95 % intervals: a bootstrap over these groups, {report.resamples} resamples."
    gains = "\n".join(_gain(d, report.primary_metric) for d in report.differences)
    gains += f"\n\n{views.COMPARED}" if gains else ""
    return f"## Results\n\n{_grid(head, rows)}\n\n{note}" + (f"\n\n{gains}" if gains else "")


def _gain(difference: Difference, primary: str) -> str:
    e = views.estimate(difference.metrics, primary)
    names = f"{TITLES[difference.policy]} − {TITLES[difference.baseline]}"
    p = f"p {chance(difference.p)}, corrected {chance(difference.p_holm)}"
    return f"- {names}: {words(primary)} {points(e.value)} points (paired, {points(e.low)} to {points(e.high)}), {p}"


def _diagnosis(report: Report) -> str:
    if report.diagnosis is None:
        return f"## SFT\n\n{_safe(views.warm_up(report.warm_up))}" if report.warm_up else ""
    head, rows = views.diagnosis(report)
    found = "\n".join(f"- {_safe(f.category)}: {f.finding}; {_safe(f.why)}" for f in report.diagnosis.findings)
    decided = f"**{_safe(views.warm_up(report.warm_up))}**" if report.warm_up else ""
    table = _grid(head, [[_safe(cell) for cell in row] for row in rows])
    return "\n\n".join(p for p in ["## Diagnosis", views.asked(report.diagnosis), table, found, decided] if p)


def _confusions(report: Report) -> str:
    safe = [(label, [_safe(h) for h in head], [[_safe(c) for c in row] for row in rows]) for label, head, rows in views.confusions(report)]
    tables = [f"{TITLES[label]}:\n\n{_grid(head, rows)}" for label, head, rows in safe]
    return "\n\n".join(["## Confusion", "Rows are what is right, columns what greedy answers say.", *tables]) if tables else ""


def _parts(report: Report) -> str:
    name, parts = views.parts(report)
    if not parts:
        return ""
    rows = [
        [_safe(part), words(metric.partition("/")[0]), *(_cell(views.estimate(p.metrics, metric)) for p in report.policies.values())]
        for part, _, metrics in parts
        for metric in metrics
    ]
    return f"## Metrics by {_safe(name)}\n\n{_grid([name, 'metric', *(TITLES[label] for label in report.policies)], rows)}"


def _table(report: Report, table: Table) -> str:
    head = [table.name, "n", "groups", *(TITLES[label] for label in report.policies)]
    rows = [[_safe(r.label), str(r.n), str(r.groups), *(_cell(views.estimate(r.correct, label)) for label in report.policies)] for r in table.rows]
    return f"## Correct by {_safe(table.name)}\n\n{_grid(head, rows)}\n\nIntervals by Wilson; with few rows one answer moves a line by many points."


def _training(report: Report) -> str:
    lines = report.curves.get("rlvr") or ()
    if not lines:
        return ""
    keys = ("reward", "accuracy", "validation_accuracy", "kl", "entropy", "completion_tokens")
    shown = [lines[round(i * (len(lines) - 1) / 9)] for i in range(10)] if len(lines) > 10 else lines
    rows = [[str(line["step"]), *("" if line.get(k) is None else f"{line[k]:.4g}" for k in keys)] for line in shown]
    resumed = ", ".join(f"{step:g}" for step in views.resumed(lines))
    ledger = ", ".join(f"{name} {n}" for name, n in report.ledger.items())
    text = f"## RLVR\n\n{_grid(['step', *map(words, keys)], rows)}"
    text += f"\n\nResumed at step {resumed}." if resumed else ""
    return text + (f"\n\nPrompts: {ledger}." if ledger else "")


def _data(report: Report) -> str:
    data = report.data
    asked = f"Labels: {_safe(data.labels)}. {data.asked} of {data.total} test rows asked, in {data.groups} groups."
    parts = [f"## Data\n\n{asked}", _safe(data.terms), _counts("rows", data.counts), _counts("dropped", data.drops)]
    source = {key: value for key, value in data.source.items() if key != "about"}
    about = "\n".join(f"    {line}" for line in str(data.source.get("about", "")).splitlines())
    facts = [("source", source), ("check", data.checks), ("audit", data.audit)]
    rows = [[_safe(f"{name}: {key}"), _safe(value)] for name, document in facts for key, value in views.facts(document)]
    rows += [[_safe(f"input: {name}"), f"`{digest}`"] for name, digest in data.inputs.items()]
    return "\n\n".join(p for p in [*parts, _grid(["fact", "value"], rows) if rows else "", about] if p)


def _counts(name: str, document: Mapping[str, Any]) -> str:
    columns, rows = views.counts(document)
    return _grid([name, *columns], [[_safe(label), *map(str, numbers)] for label, numbers in rows]) if rows else ""


def _costs(report: Report) -> str:
    costs = report.costs
    rows = [[c.stage, views.duration(c.seconds), str(c.attempts)] for c in costs.stages]
    tokens = ", ".join(f"{words(name)} {n}" for name, n in costs.tokens.items())
    sync = (
        f" Weight sync took {views.duration(costs.sync_seconds)}, {percent(costs.sync_share)} of all RLVR steps."
        if costs.sync_share is not None
        else ""
    )
    return f"## Costs\n\n{_grid(['stage', 'time', 'attempts'], rows)}\n\nTokens: {tokens}.{sync}"


def _rerun(report: Report) -> str:
    settings = _grid(["setting", "value"], [[_safe(key), _safe(value)] for key, value in views.settings(report.settings)])
    versions = [[stage, ", ".join(f"{_safe(name)} {_safe(v)}" for name, v in found.items())] for stage, found in report.versions.items()]
    return f"## Settings\n\nRecipe hash `{report.run.recipe_hash}`.\n\n{settings}\n\n## Versions\n\n{_grid(['stage', 'software'], versions)}"


def _cell(estimate: Estimate) -> str:
    bracket = interval(estimate)
    return percent(estimate.value) + (f" ({bracket})" if bracket != "n/a" else "")


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in body)


def _safe(text: object) -> str:
    return html.escape(_SPECIAL.sub(r"\\\1", " ".join(str(text).split())), quote=False)
