"""Sampling a policy on the test split: what is asked, what survives a kill, what is never asked twice."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s import artifacts
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.errors import Fenced, RolloutUnavailable
from ehrmind_k8s.evaluation import generate
from ehrmind_k8s.evaluation.generate import Questions
from ehrmind_k8s.records import Example
from tests.unit.evaluation.conftest import MALFORMED, Script, ask, gold_of, subject


def example(name: str, category: str) -> Example:
    return Example(name, "medcalc", "test", name, category, (), {})


def silent(done: int) -> None:
    pass


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 5))
def test_a_limit_takes_that_many_rows_in_their_old_order(categories: list[str], limit: int, seed: int) -> None:
    rows = [example(str(i), c) for i, c in enumerate(categories)]
    chosen = generate.stratify(rows, limit, seed)
    assert len(chosen) == min(limit, len(rows))
    assert [e.id for e in chosen] == [e.id for e in rows if e in chosen]


@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=60), st.integers(3, 60))
def test_every_category_is_asked_where_the_limit_allows(categories: list[str], limit: int) -> None:
    chosen = generate.stratify([example(str(i), c) for i, c in enumerate(categories)], limit, 0)
    assert {e.category for e in chosen} == set(categories)


def test_categories_are_taken_in_proportion() -> None:
    rows = [example(f"{c}{i}", c) for c, n in (("a", 60), ("b", 30), ("c", 10)) for i in range(n)]
    chosen = generate.stratify(rows, 20, 0)
    assert [sum(e.category == c for e in chosen) for c in "abc"] == [12, 6, 2]


def test_the_choice_does_not_depend_on_the_order_of_rows() -> None:
    rows = [example(str(i), "a") for i in range(50)]
    assert {e.id for e in generate.stratify(rows, 7, 3)} == {e.id for e in generate.stratify(rows[::-1], 7, 3)}
    assert {e.id for e in generate.stratify(rows, 7, 3)} != {e.id for e in generate.stratify(rows, 7, 4)}


def test_a_killed_evaluation_asks_only_what_is_missing(many: Questions, claim: Claim, tmp_path: Path) -> None:
    dying = Script(lambda *_: MALFORMED, servers=3)  # the first chunk, and the greedy half of the second
    with pytest.raises(RolloutUnavailable):
        generate.answers(subject(), many, dying, claim, tmp_path / "a", silent)
    second = Script(lambda *_: MALFORMED)
    (tmp_path / "b").mkdir()
    found = generate.answers(subject(), many, second, claim, tmp_path / "b", silent)
    assert second.asked[0][0] == many.prompts[generate.CHUNK].id
    assert [a.id for a in found if a.greedy] == [e.id for e in many.examples]


def test_a_finished_policy_is_not_asked_again(questions: Questions, claim: Claim, tmp_path: Path) -> None:
    first = generate.answers(subject(), questions, Script(lambda *_: MALFORMED), claim, tmp_path, silent)
    again = generate.answers(subject(), questions, Script(lambda *_: MALFORMED, servers=0), claim, tmp_path, silent)
    assert again == first


@pytest.mark.parametrize("change", ["weights", "sampling", "rows"])
def test_answers_to_another_question_are_not_reused(change: str, questions: Questions, claim: Claim, tmp_path: Path) -> None:
    generate.answers(subject(), questions, Script(lambda *_: MALFORMED), claim, tmp_path, silent)
    other = {
        "weights": (subject(weights="cd"), questions),
        "sampling": (subject(), replace(questions, greedy=replace(questions.greedy, max_tokens=17))),
        "rows": (subject(), ask(questions.examples[1:])),
    }[change]
    script = Script(lambda *_: MALFORMED)
    (tmp_path / "again").mkdir()
    generate.answers(*other, script, claim, tmp_path / "again", silent)
    assert script.asked


def test_chunks_are_gone_once_the_policy_is_an_artifact(questions: Questions, claim: Claim, tmp_path: Path) -> None:
    generate.answers(subject(), questions, Script(lambda *_: MALFORMED), claim, tmp_path, silent)
    names = [o.key for o in claim.store.list("results/")]
    assert names == ["results/sft/completions-sft.jsonl", "results/sft/manifest.json"]
    manifest = artifacts.load(claim.store, "results/sft")
    assert manifest is not None and manifest.meta["rows"] == len(questions.examples)


def test_an_attempt_that_was_taken_over_leaves_nothing(questions: Questions, claim: Claim, tmp_path: Path) -> None:
    Claim(claim.store, 2).take()
    with pytest.raises(Fenced):
        generate.answers(subject(), questions, Script(lambda *_: MALFORMED), claim, tmp_path, silent)
    assert not list(claim.store.list("results/"))


def test_every_answer_keeps_its_verdict_and_text_in_the_store_and_out_of_the_log(
    questions: Questions, claim: Claim, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = gold_of(questions.examples)
    generate.answers(subject(), questions, Script(lambda i, *_: gold[i]), claim, tmp_path, silent)
    body = claim.store.get_bytes("results/sft/completions-sft.jsonl").decode()
    assert body.count('"correct": true') == 3 * len(questions.examples)
    assert "<answer>" in body and "<answer>" not in "".join(capsys.readouterr())


@pytest.fixture
def many(examples: list[Example], tmp_path: Path) -> Questions:
    """Two chunks of questions; `a` is the work folder of the attempt that dies."""
    (tmp_path / "a").mkdir()
    rows = [replace(examples[i % len(examples)], id=f"row-{i}") for i in range(generate.CHUNK + 5)]
    return ask(rows)
