"""Every published form becomes the same rows; a broken file is refused with its name, place and column, never with its text."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks import sources
from ehrmind_k8s.tasks.medcalc import layouts
from tests.unit.tasks.medcalc import rows


def read(path: Path) -> list[layouts.Row]:
    (file,) = sources.find(path, layouts.SUFFIXES)
    return layouts.read(file)


def test_a_csv_row_keeps_text_as_text(tmp_path: Path) -> None:
    (row,) = read(rows.write(tmp_path / "test.csv", [rows.make()]))
    assert (row.number, row.calculator.id, row.scoring) == (7, 6, "decimal")
    assert (row.answer, row.lower, row.upper) == ("20.0", "19.0", "21.0")
    assert row.note == rows.ROW["Patient Note"]


def test_parquet_and_csv_give_the_same_rows(tmp_path: Path) -> None:
    record = rows.make() | {"Row Number": 7, "Calculator ID": 6}
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "test.parquet")
    (from_csv,) = read(rows.write(tmp_path / "csv" / "test.csv", [rows.make()]))
    (from_parquet,) = read(tmp_path / "test.parquet")
    assert from_parquet.where == "test.parquet, row 7"
    assert (from_parquet.answer, from_parquet.note, from_parquet.entities) == (from_csv.answer, from_csv.note, from_csv.entities)


def test_the_papers_parquet_is_read_without_its_prompts(tmp_path: Path) -> None:
    record = rows.make() | {"prompt": [{"role": "user", "content": "their words"}], "reward_model": {"ground_truth": {"calid": 6}}}
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "test.parquet")
    (row,) = read(tmp_path / "test.parquet")
    assert row.question == rows.ROW["Question"] and not row.relabelled


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text(rows.text([rows.make()]), encoding="utf-8-sig")
    assert len(read(path)) == 1


@pytest.mark.parametrize("category", ["lab test", "lab", "anything"])
@pytest.mark.parametrize("output", ["decimal", "integer", "date"])
def test_category_and_output_type_never_decide_how_a_row_is_judged(tmp_path: Path, category: str, output: str) -> None:
    (row,) = read(rows.write(tmp_path / "test.csv", [rows.make(Category=category, Output_Type=output)]))
    assert (row.scoring, row.calculator.category) == ("decimal", "physical")


RELABELLED = {"Unique ID": "3", "Ground Truth Answer": "N/A", "Lower Limit": "N/A", "Upper Limit": "N/A"}


def test_the_relabelled_csv_names_its_calculator(tmp_path: Path) -> None:
    (row,) = read(rows.write(tmp_path / "test.csv", [rows.make() | RELABELLED], layouts.RELABELLED))
    assert (row.number, row.calculator.id, row.answer, row.relabelled) == (3, 6, "N/A", True)


def test_a_relabelled_gestational_age_in_days_is_judged_as_a_number_of_days(tmp_path: Path) -> None:
    days = {"Calculator Name": "Estimated Gestational Age", "Question": "... in total number of days?", "Ground Truth Answer": "173"}
    (row,) = read(rows.write(tmp_path / "test.csv", [rows.make() | RELABELLED | days], layouts.RELABELLED))
    assert (row.scoring, row.answer) == ("integer", "173")


def chat(question: str, limits: list[str]) -> dict[str, Any]:
    user = f"Patient Note: A note.\nTwo lines.\n\nQuestion: {question}\n\nResponse:"
    return {"prompt": [{"role": "user", "content": user}], "reward_model": {"ground_truth": limits}, "extra_info": {"uid": 3}}


CHAT = {
    "a decimal": ("What is the patient's delta ratio?", ["0.95", "1.05"], "1.0"),
    "a score": ("What is the patient's HEART score?", ["3.8", "4.2"], "4"),
    "a date": ("What is the patient's estimated due date?", ["2002/11/17", "2002/11/17"], "11/17/2002"),
    "a gestational age": ("What is the patient's estimated gestational age?", ["164.35", "181.65"], "24 weeks, 5 days"),
    "an abstention": ("What is the patient's albumin corrected anion gap in mEq/L?", ["unknown", "unknown"], "N/A"),
}


@pytest.mark.parametrize(("question", "limits", "answer"), CHAT.values(), ids=CHAT)
def test_the_relabelled_parquet_gives_its_answer_by_its_limits(tmp_path: Path, question: str, limits: list[str], answer: str) -> None:
    pq.write_table(pa.Table.from_pylist([chat(question, limits)]), tmp_path / "test.parquet")
    (row,) = read(tmp_path / "test.parquet")
    assert (row.number, row.note.strip(), row.question.strip(), row.answer) == (3, "A note.\nTwo lines.", question, answer)


@pytest.mark.parametrize(
    "change",
    [{"reward_model": None}, {"prompt": []}, {"reward_model": {"ground_truth": ["1"]}}, {"reward_model": {"ground_truth": ["low", "high"]}}],
    ids=str,
)
def test_a_chat_row_of_another_make_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    good = chat(*CHAT["a decimal"][:2])
    pq.write_table(pa.Table.from_pylist([good, good | change]), tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"test\.parquet, row 3: prompt is no chat, or"):
        read(tmp_path / "test.parquet")


def broken(tmp_path: Path, content: str | bytes, name: str = "test.csv") -> str:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as error:
        read(tmp_path / name)
    assert rows.ROW["Patient Note"][:8] not in str(error.value) and name in str(error.value)
    return str(error.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    columns = [c for c in layouts.FULL if c != "Upper Limit"]
    assert "Upper Limit" in broken(tmp_path, rows.text([rows.make()], columns))


def test_a_wrong_delimiter_is_guessed(tmp_path: Path) -> None:
    assert "commas" in broken(tmp_path, rows.text([]).replace(",", ";"))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "missing" in broken(tmp_path, "")


def test_text_of_another_encoding_is_refused_with_its_place(tmp_path: Path) -> None:
    assert "UTF-8" in broken(tmp_path, rows.text([rows.make()]).encode("utf-16"))


def test_a_csv_cut_inside_a_note_is_refused_with_its_line(tmp_path: Path) -> None:
    whole = rows.text([rows.make(), rows.make()])
    assert "line" in broken(tmp_path, whole[: whole.rindex("height")])


def test_a_csv_cut_inside_the_last_column_is_refused_with_its_line(tmp_path: Path) -> None:
    whole = rows.text([rows.make(Ground_Truth_Explanation="First, the height.\nThen the weight.")])
    assert "line" in broken(tmp_path, whole[: whole.rindex("weight")])


def test_a_csv_cut_between_columns_is_refused_with_its_line(tmp_path: Path) -> None:
    whole = rows.text([rows.make(), rows.make()])
    assert "line" in broken(tmp_path, whole[: whole.rindex(",21.0")])


def test_a_cut_parquet_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([rows.make()]), tmp_path / "whole.parquet")
    assert "whole parquet" in broken(tmp_path, (tmp_path / "whole.parquet").read_bytes()[:-20], "test.parquet")


def test_an_unknown_calculator_is_named_with_its_row(tmp_path: Path) -> None:
    message = broken(tmp_path, rows.text([rows.make(Calculator_ID="12")]))
    assert "row 7" in message and "12" in message and "69" in message


def test_a_row_number_that_is_text_is_refused_without_showing_it(tmp_path: Path) -> None:
    assert json.dumps("Mr Smith") not in broken(tmp_path, rows.text([rows.make(Row_Number="Mr Smith")]))
