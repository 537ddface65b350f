"""`report.html`: one file that needs nothing else. No script, no request: its own content security policy forbids both.

jinja2 escapes every string; the charts come from `chart` as Markup. Text of records and completions is not in the tree, so not here.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from ehrmind_k8s.evaluation import chart, report, views
from ehrmind_k8s.evaluation.report import OUTCOMES, TITLES, Report

OUTCOME_WORDS: Mapping[str, str] = {
    "correct": "the value is right",
    "wrong": "a value was read and is wrong",
    "unparseable": "an answer is there, but no value of the answer's type",
    "malformed": "no readable think and answer blocks",
}


def render(tree: Report) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ehrmind_k8s.evaluation"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": report.percent,
        "interval": report.interval,
        "points": report.points,
        "chance": report.chance,
        "words": report.words,
        "duration": views.duration,
        "number": views.number,
        "thousands": views.thousands,
    }
    environment.globals |= {"views": views, "titles": TITLES, "outcome_words": OUTCOME_WORDS}
    style = resources.files("ehrmind_k8s.evaluation").joinpath("templates/report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template("report.html.jinja")
    css = Markup(style)  # noqa: S704 - our own file
    drawn = {"charts": _charts(tree), "panels": _panels(tree), "calibrations": _calibrations(tree), "strips": _strips(tree)}
    return page.render(r=tree, style=css, style_hash=digest, **drawn)


def _charts(tree: Report) -> dict[str, Markup | None]:
    primary = tree.primary_metric
    estimates = [(TITLES[label], f"policy-{label}", views.estimate(p.metrics, primary)) for label, p in tree.policies.items()]
    said = "; ".join(f"{name} {report.percent(e.value)}, 95 % interval {report.interval(e)}" for name, _, e in estimates)
    bars = [(TITLES[label], [(o, f"outcome-{o}", p.outcomes.get(o, 0)) for o in OUTCOMES]) for label, p in tree.policies.items()]
    return {
        "primary": chart.intervals(f"{report.words(primary)} by policy: {said}", estimates),
        "outcomes": chart.shares("Outcomes of greedy answers by policy", bars),
        "roc": _roc(tree),
        "calibration": _calibration(tree),
    }


def _roc(tree: Report) -> Markup | None:
    drawn = views.roc(tree)
    said = "ROC: recall over the false positive rate, by policy, all rows together; on the diagonal a probability is worth a guess"
    return chart.lines(said, "%", drawn, x_title="false positive rate, %") if drawn else None


def _calibrations(tree: Report) -> list[tuple[str, Markup]]:
    """The calibration curves of each part that is judged apart."""
    parts = dict.fromkeys(part for policy in tree.policies.values() for part in policy.calibration_of)
    return [(part, drawn) for part in parts if (drawn := _calibration(tree, part)) is not None]


def _calibration(tree: Report, part: str | None = None) -> Markup | None:
    drawn = views.calibration(tree, part)
    said = "Share of positive rows over the predicted probability, by policy; on the diagonal a probability means what it says"
    return chart.lines(said, "%", drawn, x_title="predicted, %") if drawn else None


def _panels(tree: Report) -> list[tuple[str, str, Markup]]:
    """Title, remark and chart of each learning curve there is."""
    sft, rlvr = tree.curves.get("sft") or [], tree.curves.get("rlvr") or []
    resumed = views.resumed(rlvr)
    found: list[tuple[str, str, Markup | None]] = [
        (
            "SFT loss",
            "completion tokens only" if tree.settings["sft"]["loss_on"] == "completion" else "whole text",
            _line(sft, "loss", "nats", "SFT loss", views.resumed(sft)),
        ),
        ("Reward", "mean over a step's completions", _line(rlvr, "reward", "reward", "Mean reward", resumed)),
        ("Accuracy", "train samples and greedy validation", _accuracy(rlvr, resumed)),
        ("Outcomes in training", "share of a step's completions", _outcomes(rlvr, resumed)),
        ("KL divergence", "from the SFT policy", _line(rlvr, "kl", "nats per token", "KL divergence from the SFT policy", resumed)),
        ("Entropy", "of the policy at sampled tokens", _line(rlvr, "entropy", "nats per token", "Entropy", resumed)),
        ("Completion length", "mean over a step's completions", _line(rlvr, "completion_tokens", "tokens", "Mean completion length", resumed)),
        ("Time per step", "by what it went into", _times(rlvr, resumed)),
        ("Gradient norm", "before clipping", _line(rlvr, "grad_norm", "norm", "Gradient norm", resumed)),
    ]
    return [(title, remark, drawn) for title, remark, drawn in found if drawn is not None]


def _line(lines: Any, key: str, unit: str, title: str, resumed: list[float]) -> Markup | None:
    drawn = views.series(lines, key, title, "curve")
    if not drawn.points:
        return None
    first, last = drawn.points[0], drawn.points[-1]
    said = f"{title} over steps: {first[1]:.3g} at step {first[0]:g}, {last[1]:.3g} at step {last[0]:g}"
    return chart.lines(said, unit, [drawn], resumed)


def _accuracy(lines: Any, resumed: list[float]) -> Markup | None:
    drawn = [views.series(lines, "accuracy", "train", "curve"), views.series(lines, "validation_accuracy", "validation", "second")]
    return chart.lines("Accuracy over steps, train samples and validation", "%", drawn, resumed, share=True) if drawn[0].points else None


def _outcomes(lines: Any, resumed: list[float]) -> Markup | None:
    drawn = views.outcome_shares(lines)
    return chart.stacked("Share of outcomes over steps", "%", drawn, resumed) if drawn else None


def _times(lines: Any, resumed: list[float]) -> Markup | None:
    drawn = views.times(lines)
    return chart.stacked("Seconds per step by what they went into", "s", drawn, resumed) if drawn else None


def _strips(tree: Report) -> dict[tuple[str, str], Markup]:
    found = {}
    for table in tree.tables:
        for row in table.rows:
            said = ", ".join(f"{TITLES[label]} {report.percent(e.value)}" for label, e in row.correct.items())
            found[table.name, row.label] = chart.strip(f"{row.label}: {said}", [(f"policy-{label}", e.value) for label, e in row.correct.items()])
    return found
