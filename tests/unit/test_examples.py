"""Prepared rows survive the way to disk and back, and a damaged file is an error, not fewer rows."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s import examples
from ehrmind_k8s.errors import DataError
from ehrmind_k8s.records import SPLITS, Example

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
value = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), text)
rows = st.builds(
    Example,
    id=text,
    task=text,
    split=st.sampled_from(SPLITS),
    group=text,
    category=text,
    messages=st.lists(st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": text}), max_size=3).map(tuple),
    target=st.dictionaries(text, value, max_size=3),
    sft_text=st.none() | text,
    n_tokens=st.integers(0, 2**40),
    meta=st.dictionaries(text, value, max_size=2),
)
ONE = Example("a", "t", "train", "g", "c", ({"role": "user", "content": "x\ny"},), {"answer": "4"}, "z", 3)


@pytest.mark.parametrize("form", examples.FORMATS)
@given(st.lists(rows, max_size=4))
def test_what_is_written_is_what_is_read(form: str, given_rows: list[Example]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"train.{form}"
        examples.write_split(path, given_rows)
        assert examples.read_split(path) == given_rows


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        examples.write_split(tmp_path / f"{name}.parquet", [ONE] * 100)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    examples.write_split(path, [ONE] * 100)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train\.parquet: not a whole parquet file"):
        examples.read_split(path)


def test_a_parquet_file_of_another_layout_names_what_is_missing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "split": ["train"]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="columns missing: category, group, messages"):
        examples.read_split(tmp_path / "train.parquet")


def test_a_line_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    examples.write_split(path, [ONE, ONE])
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match=r"train\.jsonl, line 2: not a JSON object"):
        examples.read_split(path)


@pytest.mark.parametrize("line", ["[1]", '{"id": "a"}', '"text"'])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=r"train\.jsonl, row 1: keys missing"):
        examples.read_split(path)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    for form in examples.FORMATS:
        with pytest.raises(DataError, match="no such file"):
            examples.read_split(tmp_path / f"gone.{form}")


def test_json_lines_of_another_encoding_are_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    examples.write_split(path, [ONE])
    path.write_bytes(path.read_bytes() + '{"id": "µ"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.jsonl, line 2: not UTF-8"):
        examples.read_split(path)
