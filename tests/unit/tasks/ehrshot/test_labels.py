"""Label files as the benchmark, femr and MEDS write them, and what is wrong with others."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks.ehrshot import labels, subtasks
from ehrmind_k8s.tasks.ehrshot.labels import Labels

READMISSION, ANEMIA, EDEMA = (subtasks.BENCHMARK[name] for name in ("guo_readmission", "lab_anemia", "chexpert_edema"))
HEADER = "patient_id,prediction_time,value,label_type\n"


def written(folder: Path, text: str, task: str = "guo_readmission") -> Path:
    path = folder / "benchmark" / task / "labeled_patients.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def meds(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def told(found: Labels) -> list[tuple[int, str, int]]:
    return [(int(s), str(t)[:16], int(v)) for s, t, v in zip(found.subject, found.time, found.value, strict=True)]


def test_columns_are_read_by_name_and_both_separators_of_date_and_time_are_read(tmp_path: Path) -> None:
    benchmark = written(tmp_path / "a", HEADER + "7,2019-03-01 23:59:00,True,boolean\n8,2020-03-01 23:59:00,False,boolean\n")
    femr = written(
        tmp_path / "b", "patient_id,prediction_time,label_type,value\n7,2019-03-01T23:59:59,boolean,True\n8,2020-03-01T23:59:00,boolean,False\n"
    )
    assert (
        told(labels.read(benchmark, READMISSION)) == told(labels.read(femr, READMISSION)) == [(7, "2019-03-01T23:59", 1), (8, "2020-03-01T23:59", 0)]
    )


def exact(found: Labels) -> list[str]:
    return [str(t) for t in found.time]


def test_a_time_counts_to_the_second_and_to_the_minute_where_the_benchmark_writes_minutes(tmp_path: Path) -> None:
    csv = written(tmp_path, HEADER + "7,2019-03-01 10:00:29.9,True,boolean\n8,2019-03-01T23:59:59,True,boolean\n")
    row = {"boolean_value": True, "subject_id": 7, "prediction_time": datetime(2019, 3, 1, 10, 0, 29, 900_000)}
    parquet = meds(tmp_path / "sepsis.parquet", [row, row | {"prediction_time": datetime(2019, 3, 1, 23, 59, 59)}])
    for path in (csv, parquet):
        assert exact(labels.read(path, READMISSION)) == ["2019-03-01T10:00:29", "2019-03-01T23:59:59"]
        assert exact(labels.read(path, READMISSION, to_the_minute=True)) == ["2019-03-01T10:00:00", "2019-03-01T23:59:00"]


def test_two_answers_within_a_minute_do_not_contradict_each_other() -> None:
    time = np.array(["2020-01-01T10:00:10", "2020-01-01T10:00:50"], dtype="datetime64[s]")
    kept, repeated, torn = labels.unique(Labels(np.array([1, 1]), time, np.array([0, 1])))
    assert (len(kept), len(repeated), len(torn)) == (2, 0, 0)


def test_grades_and_findings_become_yes_or_no(tmp_path: Path) -> None:
    grades = written(tmp_path, HEADER + "".join(f"{i},2019-03-01 10:00:00,{i},categorical\n" for i in range(4)), "lab_anemia")
    assert [v for _, _, v in told(labels.read(grades, ANEMIA))] == [0, 1, 1, 1]
    findings = written(tmp_path, HEADER + "1,2019-03-01 10:00:00,256,categorical\n2,2019-03-01 10:00:00,8192,categorical\n", "chexpert")
    assert [v for _, _, v in told(labels.read(findings, EDEMA))] == [1, 0]


def test_meds_labels_are_read_whole_or_sharded_and_with_either_kind_of_value(tmp_path: Path) -> None:
    row = {"subject_id": 7, "prediction_time": datetime(2019, 3, 1, 23, 59), "boolean_value": True}
    meds(tmp_path / "labels" / "sepsis" / "0.parquet", [row])
    meds(tmp_path / "labels" / "sepsis" / "1.parquet", [row | {"subject_id": 8, "boolean_value": False}])
    meds(tmp_path / "labels" / "lab_anemia.parquet", [{"subject_id": 7, "prediction_time": row["prediction_time"], "integer_value": 3}])
    meds(tmp_path / "mortality.parquet", [row])
    meds(tmp_path / "data" / "0.parquet", [{"subject_id": 7, "time": row["prediction_time"], "code": "A"}])
    found = labels.find(tmp_path)
    assert set(found) == {"sepsis", "lab_anemia", "mortality"}
    assert told(labels.read(found["sepsis"], subtasks.own("sepsis", {}))) == [(7, "2019-03-01T23:59", 1), (8, "2019-03-01T23:59", 0)]
    assert told(labels.read(found["lab_anemia"], ANEMIA)) == [(7, "2019-03-01T23:59", 1)]


def test_two_label_files_for_one_subtask_are_refused_with_both_names(tmp_path: Path) -> None:
    written(tmp_path, HEADER)
    meds(
        tmp_path / "labels" / "guo_readmission" / "labels.parquet",
        [{"subject_id": 1, "prediction_time": datetime(2020, 1, 1), "boolean_value": True}],
    )
    with pytest.raises(DataError, match=r"benchmark/guo_readmission/labeled_patients.csv and labels/guo_readmission"):
        labels.find(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7.5,2019-03-01 23:59:00,True,boolean", "row 2: column patient_id is not a whole number"),
        ("7,2019-03-01 23:59:00,maybe,boolean", "row 2: column value is not True or False"),
        ("7,2019-03-01 23:59:00,2,boolean", "row 2: column value is not True or False"),
        ("7,01/03/2019 23:59,True,boolean", "row 2: column prediction_time is not YYYY-MM-DD HH:MM:SS"),
        ("7,2019-03-01,True,boolean", "row 2: column prediction_time"),
        ("7,2019-03-01T23:59:00+01:00,True,boolean", "row 2: column prediction_time is not .* without a time zone"),
        ("7,2019-02-30 23:59:00,True,boolean", "a time that no calendar has"),
        ("7,,True,boolean", "row 2: column prediction_time is empty"),
        ("7,2019-03-01 23:59:00,,boolean", "row 2: column value is empty"),
        ("7,2019-03-01 23:59:00,True,categorical", "label_type has 2 values"),
        ("7,2019-03-01 23:59:00,True", "not a CSV file that can be read"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_by_file_row_and_column(line: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}6,2019-03-01 23:59:00,True,boolean\n{line}\n")
    with pytest.raises(DataError, match=message) as error:
        labels.read(path, READMISSION)
    assert "guo_readmission/labeled_patients.csv" in str(error.value)


def test_a_label_outside_its_range_and_a_missing_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1 has the label 4, lab_anemia knows 0 to 3"):
        labels.read(written(tmp_path, HEADER + "7,2019-03-01 23:59:00,4,categorical\n", "lab_anemia"), ANEMIA)
    with pytest.raises(DataError, match="row 1 has the label 16384"):
        labels.read(written(tmp_path, HEADER + "7,2019-03-01 23:59:00,16384,categorical\n", "chexpert"), EDEMA)
    with pytest.raises(DataError, match="no column prediction_time; did you mean 'prediction_tme'"):
        labels.read(written(tmp_path, "patient_id,prediction_tme,value\n7,2019-03-01 23:59:00,True\n"), READMISSION)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"boolean_value": None}, "no values in boolean_value or integer_value"),
        ({"float_value": 0.5}, "columns of values: float_value"),
        ({"boolean_value": "yes"}, "column boolean_value is string"),
        ({"subject_id": "7", "boolean_value": True}, "column subject_id is string"),
        ({"prediction_time": "2019-03-01", "boolean_value": True}, "prediction_time is string, expected a timestamp"),
        ({"prediction_time": None, "boolean_value": True}, "row 2: column prediction_time is empty"),
    ],
)
def test_a_meds_label_of_another_type_is_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    fine = {"subject_id": 6, "prediction_time": datetime(2019, 3, 1)}
    first = [fine | {"boolean_value": True}] if row.get("prediction_time", "") is None else []
    with pytest.raises(DataError, match=message):
        labels.read(meds(tmp_path / "sepsis.parquet", [*first, fine | row]), subtasks.own("sepsis", {}))


def test_a_meds_time_with_a_zone_is_refused(tmp_path: Path) -> None:
    schema = pa.schema([("subject_id", pa.int64()), ("prediction_time", pa.timestamp("us", "UTC")), ("boolean_value", pa.bool_())])
    path = meds(tmp_path / "sepsis.parquet", [{"subject_id": 6, "prediction_time": datetime(2019, 3, 1), "boolean_value": True}], schema)
    with pytest.raises(DataError, match="expected a timestamp without a time zone"):
        labels.read(path, subtasks.own("sepsis", {}))


def test_a_repeated_label_counts_once_and_a_contradicting_one_not_at_all() -> None:
    subject, value = np.array([3, 1, 1, 2, 2, 2, 3]), np.array([1, 1, 1, 0, 1, 0, 0])
    time = np.array(["2020-01-01"] * 6 + ["2021-01-01"], dtype="datetime64[s]")
    kept, repeated, torn = labels.unique(Labels(subject, time, value))
    assert told(kept) == [(1, "2020-01-01T00:00", 1), (3, "2020-01-01T00:00", 1), (3, "2021-01-01T00:00", 0)]
    assert (len(repeated), len(torn)) == (1, 3)
    assert [len(found) for found in labels.unique(Labels(subject[:0], time[:0], value[:0]))] == [0, 0, 0]


def shots(folder: Path, sample: dict[str, Any]) -> Path:
    path = folder / "guo_readmission" / "all_shots_data.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"guo_readmission": sample}), encoding="utf-8")
    return path


def test_the_benchmarks_few_shot_sample_names_labels_and_a_repeated_draw_counts_once(tmp_path: Path) -> None:
    def sample(subject: int) -> dict[str, Any]:
        draws = [subject, subject, 9]
        times = [f"2019-03-0{1 + (s == 9)}T23:59:00" for s in draws]
        return {f"{key}_{word}_k": value for word in ("train", "val") for key, value in (("patient_ids", draws), ("label_times", times))}

    path = shots(tmp_path, {"1": {"0": sample(7), "1": sample(8)}, "-1": {"0": sample(7)}})
    minute = {day: labels.minutes(np.array([f"2019-03-0{day}T23:59"], dtype="datetime64[s]"))[0] for day in (1, 2)}
    assert labels.shots(path, READMISSION, None, 1, 0)["train"] == {(7, minute[1]), (9, minute[2])}
    assert labels.shots(path, READMISSION, None, 1, 3)["validation"] == {(8, minute[1]), (9, minute[2])}, "replicates count round"
    with pytest.raises(DataError, match="no sample of 5 per class; it has 1"):
        labels.shots(path, READMISSION, None, 5, 0)


@pytest.mark.parametrize("sample", [[], {"1": {"0": {}}}, {"1": {"0": {"patient_ids_train_k": [1]}}}])
def test_few_shot_samples_of_another_form_are_refused(sample: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all_shots_data\.json|data\.shots"):
        labels.shots(shots(tmp_path, sample), READMISSION, None, 1, 0)


def test_traces_are_kept_for_the_labels_that_are_asked(tmp_path: Path) -> None:
    rows = [{"subject": s, "prediction_time": "2019-03-01T23:59:00", "subtask": "guo_los", "text": f"trace {s}"} for s in (1, 2)]
    (tmp_path / "traces.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    key = (2, labels.seconds(np.array(["2019-03-01T23:59"], dtype="datetime64[s]"))[0], "guo_los")
    assert labels.traces(tmp_path, {key: None}) == {key: "trace 2"}


def test_a_trace_is_of_the_second_that_it_names_unless_its_subtask_counts_in_minutes(tmp_path: Path) -> None:
    row = {"subject": 1, "prediction_time": "2019-03-01T10:00:29", "subtask": "guo_los", "text": "trace"}
    (tmp_path / "traces.jsonl").write_text(json.dumps(row), encoding="utf-8")
    second, minute = ((1, labels.seconds(np.array([f"2019-03-01T10:00:{s}"], dtype="datetime64[s]"))[0], "guo_los") for s in ("29", "00"))
    assert labels.traces(tmp_path, {second: None, minute: None}) == {second: "trace"}
    assert labels.traces(tmp_path, {second: None, minute: None}, {"guo_los"}) == {minute: "trace"}


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"subject": 1}', '{"subject": 1, "prediction_time": "2019-03-01 23:59:00", "subtask": "guo_los", "text": 1}']
)
def test_a_trace_that_cannot_be_read_is_named_by_its_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text(f"\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        labels.traces(tmp_path, {})
