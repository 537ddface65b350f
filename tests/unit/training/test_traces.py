"""Texts that SFT learns from: a file of them, the model's own, and which rows want one."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.errors import DataError, IntegrityError
from ehrmind_k8s.evaluation.generate import Answer
from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.spec import SftSpec
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import traces
from tests.unit.training.conftest import example


class Scorer:
    """Just enough of a task."""

    def score(self, example: Example, text: str) -> Verdict:
        return Verdict(text.startswith("right"), None, "scored")


def answer(row_id: str, text: str) -> Answer:
    return Answer(row_id, False, text, 3, "stop", text.startswith("right"), None, "scored")


def test_the_models_first_right_sample_of_each_row_is_kept(tokenizer: Tokenizer) -> None:
    rows = [example(1), example(2)]
    samples = [answer("e1", "no"), answer("e1", "right a"), answer("e1", "right b"), answer("e2", "no"), answer("e3", "right, of another row")]
    found = traces.own(Scorer(), tokenizer, rows, samples, longest=40)  # type: ignore[arg-type]
    assert found.texts == {"e1": "right a"}
    assert found.judged == {"rows": 2, "kept": 1, "correct": 2, "wrong": 2}


@given(texts=st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=30), max_size=8))
def test_a_file_read_back_holds_the_same_texts(texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    traces.write(path, texts)
    assert traces.read(path) == texts


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"not json", "line 2: not a JSON object in UTF-8"),
        (b"\xff\xfe", "line 2: not a JSON object in UTF-8"),
        (b'["e1", "text"]', "line 2: expected"),
        (b'{"id": "e2"}', "line 2: expected"),
        (b'{"id": "e2", "text": null}', "line 2: expected"),
        (b'{"id": "e1", "text": "again"}', "line 2: row e1 is there twice"),
    ],
)
def test_a_line_that_is_no_trace_is_named_without_its_text(line: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(json.dumps({"id": "e1", "text": "one"}).encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=said) as error:
        traces.read(path)
    assert "again" not in str(error.value)


def test_a_teacher_is_asked_about_percent_of_the_rows_that_are_wanted() -> None:
    rows = [example(i, category=["labs", "risk"][i % 4 == 0], sft_text=None) for i in range(40)]
    asked = traces.to_ask(SftSpec(percent=50), rows, ("risk",), seed=1)
    assert len(asked) == 5 and {e.category for e in asked} == {"risk"}


def test_a_diagnosis_without_traces_is_not_taken_for_one_with_none_that_fit(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"no traces\.jsonl here; this diagnosis was made with another sft\.traces"):
        traces.lay_over([example(1)], store, tmp_path / "work")
