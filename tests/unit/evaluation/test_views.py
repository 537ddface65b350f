"""The report's three forms: golden files, hostile names, and runs that lack a part."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from ehrmind_k8s.evaluation import markdown, page, summary, views
from ehrmind_k8s.evaluation.report import Bin, Confusion, Cut, Estimate, Report, Row, Table, WarmUp, headline, interval, percent, points
from tests.conftest import ROOT
from tests.unit.evaluation import report_sample

GOLDEN = ROOT / "tests" / "golden" / "report"
HOSTILE = '<script>alert("x")</script>|`*_&'
MISSING = Estimate(math.nan, math.nan, math.nan, 0)


@pytest.fixture(scope="module")
def report() -> Report:
    return report_sample.build()


def test_json_and_markdown_are_as_reviewed(report: Report) -> None:
    """After an intended change: python tests/unit/evaluation/report_sample.py tests/golden/report, and read the diff."""
    assert report.to_json() == (GOLDEN / "report.json").read_text(encoding="utf-8")
    assert markdown.render(report) == (GOLDEN / "report.md").read_text(encoding="utf-8")


def test_the_page_needs_no_script_and_no_request(report: Report) -> None:
    text = page.render(report)
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|https?://|\son\w+=|\sstyle=", text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text


def test_names_from_data_are_escaped_in_page_and_markdown(report: Report) -> None:
    row = Row(HOSTILE, 3, 3, report.tables[0].rows[0].correct)
    found, data = report.diagnosis, replace(report.data, inputs={HOSTILE: "ab"}, audit={HOSTILE: HOSTILE})
    assert found
    strange = replace(found, findings=(replace(found.findings[0], category=HOSTILE),))
    warm_up = WarmUp(True, (HOSTILE,), f"knowledge is missing in {HOSTILE}", "source", {}, 1)
    hostile = replace(report, tables=(Table("category", (row,)),), data=data, diagnosis=strange, warm_up=warm_up)
    assert "<script" not in page.render(hostile)
    table = [line for line in markdown.render(hostile).splitlines() if "script" in line]
    assert table and not any("<script" in line for line in table)
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in table if line.startswith("|")]
    assert bars[:2] == [10, 7], "a finding has nine cells, a line of correct answers six"


def test_a_confusion_matrix_is_shown_where_answers_are_classes(report: Report) -> None:
    found = Confusion(("no", HOSTILE), ((31, 7, 2), (4, 59, 1)))
    told = replace(report, policies=report.policies | {"rlvr": replace(report.policies["rlvr"], confusion=found)})
    text = markdown.render(told)
    assert "| no | 31 | 7 | 2 |" in text and "none of them" in text and "<script" not in text
    assert "<td>59</td>" in page.render(told) and "<script" not in page.render(told)
    assert "Confusion" not in markdown.render(report)


def test_every_chart_says_in_words_what_it_shows_and_every_column_has_a_header(report: Report) -> None:
    text = page.render(report)
    for drawn in re.findall(r"<svg[^>]*>(.{0,8})", text):
        assert drawn.startswith("<title>")
    seen = _Headers()
    seen.feed(text)
    assert not seen.unscoped


def test_a_resumed_attempt_is_marked_in_every_curve(report: Report) -> None:
    assert page.render(report).count('class="resumed"') == 8
    assert "Resumed at step 11." in markdown.render(report)
    once = replace(report, curves={"rlvr": [line for line in report.curves["rlvr"] if line["attempt"] == 1]})
    assert 'class="resumed"' not in page.render(once)


@pytest.mark.parametrize("label", ["base", "rlvr"])
def test_a_run_with_one_policy_has_a_report(label: str, report: Report) -> None:
    one = {label: report.policies[label]}
    table = Table("category", tuple(replace(r, correct={label: r.correct[label]}) for r in report.tables[0].rows))
    alone = replace(report, policies=one, differences=(), tables=(table,), headline=headline("accuracy", one, ()))
    assert alone.headline.endswith(f"(95 % interval {interval(one[label].metrics['accuracy'])}).")
    for text in (page.render(alone), markdown.render(alone), summary.summary_table(as_json(alone))):
        assert alone.headline in text


def test_a_run_without_rlvr_has_a_report_without_its_curves(report: Report) -> None:
    without = replace(report, curves={"sft": report.curves["sft"]}, ledger={}, costs=replace(report.costs, step_seconds=None, sync_share=None))
    assert "SFT loss" in page.render(without) and "Time per step" not in page.render(without)
    assert "## RLVR" not in markdown.render(without)


def test_a_skipped_sft_says_whose_weights_it_has(report: Report) -> None:
    skipped = replace(report, curves={}, policies={**report.policies, "sft": replace(report.policies["sft"], same_as="base")})
    assert "(is Start model)" in page.render(skipped)
    assert "Learning curves" not in page.render(skipped)


def test_metrics_of_parts_have_their_own_table_and_a_curve_its_chart(report: Report) -> None:
    labels = [row.label for row in report.tables[0].rows]
    policies = {
        name: replace(
            p,
            metrics={**p.metrics, **{f"auroc/{label}": Estimate(0.75, 0.5, 0.9, 20) for label in labels}},
            calibration=(Bin(0.1, 0.25, 12), Bin(0.9, 0.8, 5)),
            calibration_of={"one": (Bin(0.2, 0.5, 4),), "other": (Bin(0.7, 0.75, 8),)},
            roc=(Cut(0.875, 0.125, 0.5), Cut(0.0, 1.0, 1.0)),
        )
        for name, p in report.policies.items()
    }
    judged = replace(report, policies=policies)
    assert views.metric_names(judged) == views.metric_names(report)
    assert views.parts(judged) == ("category", [(row.label, row.n, [f"auroc/{row.label}"]) for row in report.tables[0].rows])
    assert f"| {labels[0]} | auroc | 75.0 % (50.0 to 90.0) |" in markdown.render(judged)
    text = page.render(judged)
    assert text.count("<td>87.5 %</td><td>12.5 %</td><td>50.0 %</td>") == len(policies) and "<h2>ROC</h2>" in text
    assert "<h3>one</h3>" in text and "<h3>other</h3>" in text
    assert "Metrics by category" in text and "Calibration" in text and text.count("<td>25.0 %</td><td>12</td>") == len(policies)
    seen = _Headers()
    seen.feed(text)
    assert not seen.unscoped
    assert "<h2>ROC</h2>" not in page.render(report)
    assert "Calibration" not in page.render(report) and "Metrics by" not in page.render(report)


def test_an_undefined_figure_is_null_in_json_and_n_a_for_people(report: Report) -> None:
    undefined = {"base": replace(report.policies["base"], metrics={"accuracy": MISSING}, tokens=math.nan)}
    lacking = replace(report, policies=undefined, differences=(), headline=headline("accuracy", undefined, ()))
    assert as_json(lacking)["policies"]["base"]["metrics"]["accuracy"]["value"] is None
    for text in (page.render(lacking), markdown.render(lacking), summary.summary_table(as_json(lacking))):
        assert "n/a" in text and "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", text.lower())


def test_the_headline_says_when_a_gain_may_be_chance(report: Report) -> None:
    unsure = tuple(replace(d, metrics={"accuracy": Estimate(0.02, -0.01, 0.05, 200)}) for d in report.differences)
    assert "not clearly different from SFT (+2.0 points, −1.0 to +5.0)" in headline("accuracy", report.policies, unsure)
    clear = tuple(replace(d, metrics={"accuracy": Estimate(0.05, 0.01, 0.09, 200)}, p=0.02, p_holm=0.06) for d in report.differences)
    assert "not clearly different from SFT (+5.0 points, +1.0 to +9.0)" in headline("accuracy", report.policies, clear)
    worse = tuple(replace(d, metrics={"accuracy": Estimate(-0.2, -0.3, -0.1, 200)}) for d in report.differences)
    assert "worse than SFT (−20.0 points" in headline("accuracy", report.policies, worse)


def test_the_json_for_scripts_has_exactly_what_is_promised(report: Report) -> None:
    found = summary.scores(as_json(report))
    assert list(found) == ["run", "task", "primary_metric", "policies"]
    assert list(found["policies"]) == ["base", "sft", "rlvr"]
    assert set(found["policies"]["rlvr"]["accuracy"]) == {"value", "low", "high", "n"}


def test_columns_of_the_summary_are_aligned(report: Report) -> None:
    lines = summary.summary_table(as_json(report)).splitlines()
    assert lines[0] == report.headline
    ends = {len(line) for line in lines[2:] if line.startswith(("accuracy", "mean", "pass", "answers", " "))}
    assert len(ends) == 1


def test_figures_are_written_alike_everywhere() -> None:
    assert (percent(0.435), percent(None), percent(math.nan)) == ("43.5 %", "n/a", "n/a")
    assert (points(-0.051), points(0.0)) == ("−5.1", "0.0")


def as_json(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.to_json())
    return found


class _Headers(HTMLParser):
    """Collects header cells without a scope."""

    def __init__(self) -> None:
        super().__init__()
        self.unscoped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "th" and dict(attrs).get("scope") not in ("row", "col"):
            self.unscoped.append(self.get_starttag_text() or "")
