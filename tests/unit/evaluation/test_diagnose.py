"""What k samples show of a model, and what SFT does about it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s import spec
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.evaluation import diagnose, generate
from ehrmind_k8s.evaluation.report import Diagnosis
from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.spec import SftSpec
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tasks.base import Reliability
from tests.unit.evaluation.conftest import MALFORMED, Script, ask, gold_of, subject

OPEN, SEVERITY = Reliability(), Reliability(3, 7)
K = 12


def verdicts(right: int, others: Sequence[str | None] = ()) -> list[Verdict]:
    """`right` samples that say `x`, and wrong ones that say `others` (None: nothing that can be read)."""
    return [Verdict(True, "x", "scored")] * right + [Verdict(False, o, "scored" if o else "malformed") for o in others]


def test_an_open_answer_is_known_when_it_is_right_once() -> None:
    assert diagnose.reliable(OPEN, verdicts(1, list("abcdefghijk")))
    assert not diagnose.reliable(OPEN, verdicts(0, ["a"] * K))


def test_one_of_few_classes_must_be_right_three_times_and_not_among_answers_at_random() -> None:
    assert diagnose.reliable(SEVERITY, verdicts(3, ["a"] * 9))
    assert not diagnose.reliable(SEVERITY, verdicts(2, ["a"] * 10))
    # 3 right beside 2, 2, 2, 1, 1, 1: entropy 1.86 nats, above 0.8 ln 7 = 1.56.
    assert not diagnose.reliable(SEVERITY, verdicts(3, ["a", "a", "b", "b", "c", "c", "d", "e", "f"]))


def test_the_entropy_is_of_the_answers_that_can_be_read() -> None:
    assert diagnose.entropy(verdicts(6, ["a"] * 6)) == pytest.approx(math.log(2))
    assert diagnose.entropy(verdicts(6, [None] * 6)) == 0
    assert diagnose.entropy(verdicts(0, [None] * 6)) == 0
    assert diagnose.entropy(verdicts(1, list("abcdefghijk"))) == pytest.approx(math.log(12))


@pytest.mark.parametrize(("at_least", "k", "wanted"), [(3, 12, 3), (3, 4, 1), (6, 8, 4), (2, 7, 2), (1, 2, 1), (6, 12, 6)])
def test_for_another_k_the_right_samples_are_asked_in_proportion(at_least: int, k: int, wanted: int) -> None:
    assert diagnose.needed(Reliability(at_least), k) == wanted


@given(st.integers(1, 12), st.none() | st.integers(2, 30), st.lists(st.sampled_from("abcd"), max_size=20), st.integers(0, 12))
def test_right_instead_of_wrong_never_makes_a_row_less_reliable_where_answers_are_open(
    at_least: int, classes: int | None, others: list[str], right: int
) -> None:
    rule = Reliability(at_least, classes)
    row = verdicts(right, others)
    assert 0 <= diagnose.entropy(row) <= math.log(max(1, len(row))) + 1e-9
    if row:
        assert diagnose.reliable(rule, [Verdict(True, "x", "scored")] * len(row)), "all right is always known"
    if diagnose.reliable(rule, row):
        assert diagnose.reliable(Reliability(rule.at_least), row), "the entropy rule only takes away"


def diagnosed(examples: Sequence[Example], text: Callable[[str, int], str], claim: Claim, work: Path, label: str = "base") -> Diagnosis:
    """A diagnosis of the model that answers sample i on a row with `text(row id, i)`."""
    questions = ask(examples, samples=K)
    script = Script(lambda row_id, _, i: text(row_id, i))
    (work / label).mkdir()
    found = generate.answers(subject(label, weights=label), questions, script, claim, work / label, lambda done: None)
    samples = [a for a in found if not a.greedy]
    return diagnose.judge(registry.get("medcalc"), examples, samples, label, K, 0.5)


def auto(diagnosis: Diagnosis, *overrides: str) -> diagnose.Choice:
    document = spec.load({"task": "medcalc", "preset": "tiny"}, ["sft.mode=auto", *overrides])
    return diagnose.choose(document.sft, diagnosis)


def test_a_model_that_lacks_knowledge_is_warmed_up_and_one_that_misapplies_it_is_not(examples: list[Example], claim: Claim, tmp_path: Path) -> None:
    gold = gold_of(examples)
    wrong = '<think>?</think><answer>{"answer": "-999999"}</answer>'
    lacking = diagnosed(examples, lambda row_id, i: wrong, claim, tmp_path, "lacking")
    misapplying = diagnosed(examples, lambda row_id, i: gold[row_id] if i % 3 == 0 else wrong, claim, tmp_path, "misapplying")
    assert {f.finding for f in lacking.findings} == {"missing"} and {f.finding for f in misapplying.findings} == {"misapplied"}
    first, second = auto(lacking), auto(misapplying)
    assert first.train and first.categories == tuple(sorted({e.category for e in examples}))
    assert not second.train and "no category lacks knowledge (misapplied:" in second.why


def test_only_the_category_that_lacks_knowledge_is_warmed_up(examples: list[Example], claim: Claim, tmp_path: Path) -> None:
    gold, lab = gold_of(examples), {e.id for e in examples if e.category == "lab"}
    found = diagnosed(examples, lambda row_id, i: MALFORMED if row_id in lab else gold[row_id], claim, tmp_path)
    by_name = {f.category: f for f in found.findings}
    assert by_name["lab"].finding == "missing" and "the form is missing too" in by_name["lab"].why
    assert by_name["risk"].finding == "solved" and by_name["risk"].mean == 1
    assert auto(found).categories == ("lab",)
    assert auto(found).why == "knowledge is missing in lab: SFT on it, then RLVR"


def test_figures_of_a_category_are_those_of_its_rows(examples: list[Example], claim: Claim, tmp_path: Path) -> None:
    rows = [e for e in examples if e.category == "lab"][:4]
    gold = gold_of(rows)
    found = diagnosed(rows, lambda row_id, i: gold[row_id] if row_id == rows[0].id and i < 6 else MALFORMED, claim, tmp_path)
    (lab,) = found.findings
    assert (lab.n, lab.groups) == (len(rows), len({e.group for e in rows}))
    assert lab.mean == pytest.approx(0.5 / len(rows)) and lab.passed == lab.reliable.value == pytest.approx(1 / len(rows))
    assert lab.unreadable == pytest.approx(1 - 0.5 / len(rows))
    assert lab.reliable.low < lab.reliable.value < lab.reliable.high


def test_few_rows_near_the_threshold_are_said_not_to_settle_it(examples: list[Example], claim: Claim, tmp_path: Path) -> None:
    rows = [e for e in examples if e.category == "lab"]
    gold, known = gold_of(rows), {e.id for e in rows[: len(rows) // 2 + 1]}
    found = diagnosed(rows, lambda row_id, i: gold[row_id] if row_id in known and i < 6 else MALFORMED, claim, tmp_path)
    assert f"the interval holds 50.0 %, so {len(rows)} rows do not settle it" in found.findings[0].why


@pytest.mark.parametrize(
    ("overrides", "train", "categories", "why"),
    [
        (["sft.mode=always"], True, (), "SFT on all categories, as sft.mode always asks; the diagnosis alone would have led to SFT on lab"),
        (
            ["sft.mode=never"],
            False,
            (),
            "as sft.mode never asks; the diagnosis alone would have led to SFT on lab",
        ),
        (["sft.categories=[risk]"], True, ("risk",), "SFT on risk, as sft.categories asks; the diagnosis alone would have led to SFT on lab"),
        (["sft.categories=[lab]"], True, ("lab",), "SFT on lab, as sft.categories asks"),
    ],
)
def test_what_the_document_asks_for_overrules_the_diagnosis_which_says_so(
    overrides: list[str], train: bool, categories: tuple[str, ...], why: str, examples: list[Example], claim: Claim, tmp_path: Path
) -> None:
    gold, lab = gold_of(examples), {e.id for e in examples if e.category == "lab"}
    choice = auto(diagnosed(examples, lambda row_id, i: MALFORMED if row_id in lab else gold[row_id], claim, tmp_path), *overrides)
    assert (choice.train, choice.categories) == (train, categories)
    assert choice.why.endswith(why)


def test_without_a_diagnosis_the_mode_decides_alone() -> None:
    assert diagnose.choose(SftSpec(mode="always"), None) == diagnose.Choice(True, (), "SFT on all categories, as sft.mode always asks")
    assert not diagnose.choose(SftSpec(mode="never"), None).train


def test_rows_without_a_usable_sample_are_left_out_and_counted(examples: list[Example]) -> None:
    found = diagnose.judge(registry.get("medcalc"), examples, [], "base", K, 0.5)
    assert (found.findings, found.asked, found.unscored) == ((), len(examples), len(examples))


def test_a_diagnosis_read_back_is_the_same(examples: list[Example], claim: Claim, tmp_path: Path) -> None:
    found = diagnosed(examples, lambda row_id, i: MALFORMED, claim, tmp_path)
    assert diagnose.from_json(diagnose.to_json(found)) == found


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 3))
def test_each_category_is_asked_the_same_number_of_rows_where_it_has_them(categories: list[str], limit: int, seed: int) -> None:
    rows = [Example(str(i), "t", "train", str(i), c, (), {}) for i, c in enumerate(categories)]
    chosen = generate.of_each(rows, limit, seed)
    assert [e.id for e in chosen] == [e.id for e in rows if e in chosen]
    for category in set(categories):
        assert sum(e.category == category for e in chosen) == min(limit, categories.count(category))
