"""The split that a source gives its subjects: found under its names, read in its forms, and never lost without a word."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import words
from ehrmind_k8s.tasks.ehrshot import data, splits, synthetic
from ehrmind_k8s.tasks.ehrshot.splits import Splits

BENCHMARK = "split,omop_person_id\ntrain,1\nval,2\ntest,3\n"
MEDS = {"subject_id": [1, 2, 3], "split": ["train", "tuning", "held_out"]}


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def parquet(path: Path, rows: dict[str, list[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path)
    return path


@pytest.mark.parametrize("name", ["splits/person_id_map.csv", "Person_ID_Map.csv"])
@pytest.mark.parametrize("content", [BENCHMARK, "\ufeff" + BENCHMARK, BENCHMARK.replace("\n", "\r\n"), BENCHMARK.replace(",", ", ")])
def test_the_benchmarks_split_file_is_read_in_the_forms_that_editors_leave(name: str, content: str, tmp_path: Path) -> None:
    assert splits.find(tmp_path) == Splits()
    path = text(tmp_path / name, content)
    assert splits.find(tmp_path) == Splits({1: "train", 2: "val", 3: "test"}, path, [])


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("column", ["split", "split_name"])
def test_a_csv_of_subjects_and_splits_is_read_also_with_the_mark_that_excel_sets_before_it(start: str, column: str, tmp_path: Path) -> None:
    path = text(tmp_path / "metadata" / "subject_splits.csv", f"{start}subject_id,{column}\n1,train\n2,tuning\n")
    assert splits.find(tmp_path) == Splits({1: "train", 2: "tuning"}, path, [])


def test_the_benchmarks_file_decides_and_a_meds_file_that_differs_is_told(tmp_path: Path) -> None:
    parquet(tmp_path / "metadata" / "subject_splits.parquet", {"subject_id": [1, 2, 9], "split": ["held_out", "tuning", "train"]})
    path = text(tmp_path / "splits" / "person_id_map.csv", BENCHMARK)
    told = "splits/person_id_map.csv and metadata/subject_splits.parquet give 1 subjects different splits; the first decides"
    assert splits.find(tmp_path) == Splits({1: "train", 2: "val", 3: "test"}, path, [told])


def test_a_file_of_another_name_does_not_stand_before_the_one_that_meds_names(tmp_path: Path) -> None:
    text(tmp_path / "a_old_split.csv", "subject_id,split\n1,test\n2,test\n3,test\n")
    path = parquet(tmp_path / "metadata" / "subject_splits.parquet", MEDS)
    found = splits.find(tmp_path)
    assert found.file == path and found.of == dict(zip(*MEDS.values(), strict=True))
    assert found.warnings == ["metadata/subject_splits.parquet and a_old_split.csv give 2 subjects different splits; the first decides"]


def test_the_same_split_in_other_words_is_no_difference(tmp_path: Path) -> None:
    text(tmp_path / "person_id_map.csv", BENCHMARK)
    parquet(tmp_path / "metadata" / "subject_splits.parquet", MEDS)
    assert splits.find(tmp_path).warnings == []


def test_two_files_of_a_kind_that_disagree_are_refused_with_both_names(tmp_path: Path) -> None:
    text(tmp_path / "a" / "person_id_map.csv", BENCHMARK)
    text(tmp_path / "b" / "person_id_map.csv", BENCHMARK)
    assert splits.find(tmp_path).of == {1: "train", 2: "val", 3: "test"}
    text(tmp_path / "b" / "person_id_map.csv", BENCHMARK.replace("test", "val"))
    with pytest.raises(DataError, match=r"a/person_id_map.csv and b/person_id_map.csv give 1 subjects different splits"):
        splits.find(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("split,person_id\ntrain,1\n", "no column omop_person_id, expected omop_person_id and split; did you mean 'person_id'"),
        ("split;omop_person_id\ntrain;1\n", "no column omop_person_id"),
        ("split,omop_person_id\ntrain,one\n", "column omop_person_id holds something else than whole numbers"),
        ("split,omop_person_id\ntrain,\n", "column omop_person_id is empty in 1 rows"),
        ("split,omop_person_id\n,1\n", "column split is empty in 1 rows"),
        ("split,omop_person_id\ntrain,1\ntest,1\n", "a subject is in two splits, train and test"),
        ("split,omop_person_id,SPLIT\ntrain,1,test\n", "two columns are called"),
        ("split,omop_person_id\ntrain,1,2\n", "another number of fields"),
        ("", "empty; a header line is expected"),
    ],
)
def test_a_split_file_that_cannot_be_read_is_refused(content: str, said: str, tmp_path: Path) -> None:
    text(tmp_path / "person_id_map.csv", content)
    with pytest.raises(DataError, match=said) as error:
        splits.find(tmp_path)
    assert "person_id_map.csv" in str(error.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"subject_id": [1, 2], "split": ["train", None]}, "column split is empty in 1 rows"),
        ({"subject_id": [1, None], "split": ["train", "test"]}, "column subject_id is empty in 1 rows"),
        ({"subject_id": [1, 2], "split": [0, 1]}, "column split is int64, expected texts"),
        ({"subject": [1], "split": ["train"]}, "no column subject_id"),
    ],
)
def test_a_parquet_of_splits_that_cannot_be_read_is_refused(rows: dict[str, list[object]], said: str, tmp_path: Path) -> None:
    parquet(tmp_path / "metadata" / "subject_splits.parquet", rows)
    with pytest.raises(DataError, match=rf"subject_splits.parquet: {said}"):
        splits.find(tmp_path)


def test_a_file_that_has_split_in_its_name_and_no_splits_in_it_is_none(tmp_path: Path) -> None:
    text(tmp_path / "split_counts.csv", "split,subjects\ntrain,4\n")
    parquet(tmp_path / "data" / "split_0.parquet", {"subject_id": [1], "time": [None], "code": ["A"]})
    assert splits.find(tmp_path) == Splits()


def test_the_audit_says_which_file_split_the_subjects_or_that_lots_did(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "meds", 7, "unit", "meds")
    synthetic.write(tmp_path / "omop", 7, "unit", "omop")

    def told(layout: str, **settings: str) -> str:
        found: str = data.read(tmp_path / layout, DataSpec(subtasks=("lab_anemia",), **settings), 1, words).audit["split_from"]
        return found

    assert told("meds") == "metadata/subject_splits.parquet"
    assert told("meds", split="by_subject") == told("omop") == "by lot"
    synthetic.write(tmp_path / "ehrshot", 7, "unit", "ehrshot")
    (tmp_path / "ehrshot" / "splits").rename(tmp_path / "meds" / "splits")
    assert told("meds") == "splits/person_id_map.csv"
