"""What a report says that its figures do not show."""

from dataclasses import replace

import pytest

from ehrmind_k8s import spec
from ehrmind_k8s.evaluation import limits
from ehrmind_k8s.evaluation.report import Estimate, Report
from tests.unit.evaluation import report_sample


@pytest.fixture(scope="module")
def report() -> Report:
    return report_sample.build()


def said(report: Report, **document: object) -> str:
    whole = {"task": "medcalc", "preset": "tiny", "name": "demo", **document}
    return "\n".join(limits.sentences(report, spec.load(whole)))


def test_a_toy_and_a_twin_are_named_and_a_real_model_on_real_data_is_neither(report: Report) -> None:
    toy = said(report)
    assert "a toy of about a million" in toy and "synthetic twin" in toy and "train rows cover: 7 category." in toy
    real = said(report, model={"uri": "/models/m"}, data={"uri": "/data"})
    assert "toy" not in real and "twin" not in real


def test_an_imperfect_teacher_is_counted_unless_nobody_learned_from_it(report: Report) -> None:
    assert "40 of 800 explanations" in said(report)
    assert "explanations" not in said(report, sft={"mode": "never"})


def test_labels_that_disagree_with_a_recomputation_are_counted(report: Report) -> None:
    assert "42 of 400 test labels" in said(report)
    assert "test labels" not in said(replace(report, data=replace(report.data, audit={})))


def test_what_the_reader_of_the_data_warns_of_is_said(report: Report) -> None:
    warned = replace(report.data, audit={"warnings": ["new_lupus has 3 positive test labels", "test has 7 subjects"]})
    assert "The preparation warns: new_lupus has 3 positive test labels; test has 7 subjects." in said(replace(report, data=warned))
    assert "warns" not in said(report)


def test_rows_that_were_not_asked_dropped_or_not_scored_are_counted(report: Report) -> None:
    data = replace(report.data, asked=200, total=400, unscored=3, drops={"test": {"prompt_too_long": 2}})
    text = said(replace(report, data=data))
    assert "200 of 400 test rows were asked" in text and "3 of 200 test rows had no answer" in text and "2 test rows were dropped" in text
    everything = said(replace(report, data=replace(report.data, asked=400, total=400)))
    assert "were asked" not in everything and "dropped" not in everything


def test_an_interval_without_width_is_not_taken_for_certainty(report: Report) -> None:
    base = replace(report.policies["base"], metrics={"accuracy": Estimate(0.0, 0.0, 0.0, 200)})
    assert "1.5 points away" in said(replace(report, policies={"base": base}))
    assert "points away" not in said(report)
