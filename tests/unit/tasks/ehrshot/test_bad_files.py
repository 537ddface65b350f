"""Files of other forms than ours: what can be read is read, and what cannot is refused by file and column, never by a library's own error."""

import csv
import gzip
import json
import random
import uuid
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks.ehrshot import labels, outcomes, subtasks, synthetic
from ehrmind_k8s.tasks.ehrshot.timeline import Timeline
from tests.unit.tasks.ehrshot.test_readers import events, opened, twin

SECRET = "1913-secret"
TIME = datetime(2019, 3, 1, 23, 59)


def refused(source: Path, *said: str) -> None:
    """That reading the source stops with a message that has these words and none of a record's."""
    with pytest.raises(DataError) as error, opened(source) as found:
        list(found.timelines(None))
        outcomes.hierarchy(source)
    assert all(word in str(error.value) for word in said), str(error.value)
    assert SECRET not in str(error.value)


def table_of(path: Path) -> pa.Table:
    return pyarrow.csv.read_csv(path)


def as_parquet(path: Path, change: Callable[[pa.Table], pa.Table], name: str = "") -> Path:
    """A CSV table in its place as parquet, changed."""
    target = path.with_name(name or f"{path.stem}.parquet")
    pq.write_table(change(table_of(path)), target)
    path.unlink()
    return target


def _with(table: pa.Table, made: dict[str, Any]) -> pa.Table:
    for name, column in made.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


# OMOP.


def _mark(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def _returns(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def _blanks(path: Path) -> None:
    header, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(header.replace(b",", b" , ") + b"\n" + rest)


def _quotes(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(table)


def _loud_gzip(path: Path) -> None:
    path.with_name(f"{path.name.upper()}.GZ").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def _loud_parquet(path: Path) -> None:
    as_parquet(path, lambda table: table, f"{path.stem}.PARQUET")


def _large_texts(path: Path) -> None:
    as_parquet(path, lambda t: _with(t, {f.name: t[f.name].cast(pa.string()).cast(pa.large_string()) for f in t.schema}))


def _dictionaries(path: Path) -> None:
    as_parquet(path, lambda t: _with(t, {f.name: t[f.name].cast(pa.string()).combine_chunks().dictionary_encode() for f in t.schema}))


def _bytes(path: Path) -> None:
    as_parquet(path, lambda t: _with(t, {f.name: t[f.name].cast(pa.string()).cast(pa.binary()) for f in t.schema}))


def _floats_with_nan(path: Path) -> None:
    """As pandas writes whole numbers among which some are missing."""

    def change(table: pa.Table) -> pa.Table:
        ids = {f.name: table[f.name] for f in table.schema if f.name.endswith("_id") and f.name != "person_id"}
        return _with(table, {n: pa.array(c.cast(pa.float64()).to_pandas().to_numpy(), from_pandas=False) for n, c in ids.items()})

    as_parquet(path, change)


def _decimals(path: Path) -> None:
    """As databases export NUMBER."""
    as_parquet(path, lambda t: _with(t, {n: pa.array([Decimal(v) for v in t[n].to_pylist()], pa.decimal128(19, 0)) for n in ("person_id",)}))


@pytest.mark.parametrize(
    "change", [_mark, _returns, _blanks, _quotes, _loud_gzip, _loud_parquet, _large_texts, _dictionaries, _bytes, _floats_with_nan, _decimals]
)
def test_omop_tables_are_read_from_whatever_wrote_them(change: Callable[[Path], None], tmp_path: Path) -> None:
    plain = events(twin(tmp_path / "a", "omop"))
    source = twin(tmp_path / "b", "omop")
    for path in sorted(source.glob("*.csv")):
        if path.name not in ("CONCEPT.csv", "CONCEPT_ANCESTOR.csv"):
            change(path)
    assert events(source) == plain


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_table_without_rows_is_no_events(ending: str, tmp_path: Path) -> None:
    source = twin(tmp_path, "omop")
    plain = events(source)
    (source / "DEVICE_EXPOSURE.csv").write_text(f"person_id,device_concept_id,device_exposure_start_date{ending}", encoding="utf-8")
    assert events(source) == plain


@pytest.mark.parametrize("kind", [str, bytes])
def test_visits_may_have_any_ids_and_the_same_one_stays_the_same(kind: type, tmp_path: Path) -> None:
    """Visit ids that are UUIDs, which hospitals have and the CDM does not allow."""
    source = twin(tmp_path, "omop")
    with opened(source) as found:
        visits = {t.subject: _pattern(t) for t in found.timelines(None)}
    draw = random.Random(1)
    names: dict[Any, str] = {}
    for path in (source / "VISIT_OCCURRENCE.csv", source / "MEASUREMENT.csv"):
        ids = [
            names.setdefault(v, str(uuid.UUID(int=draw.getrandbits(128)))) if v is not None else None
            for v in table_of(path)["visit_occurrence_id"].to_pylist()
        ]
        as_parquet(path, lambda t, ids=ids: _with(t, {"visit_occurrence_id": pa.array(ids, pa.string() if kind is str else pa.binary())}))
    for path in source.glob("*.csv"):
        if "VISIT_DETAIL" in path.name or path.name.startswith(("COND", "DRUG", "PROC")):
            rows = table_of(path)
            ids = [names.get(v) for v in rows["visit_occurrence_id"].to_pylist()]
            pyarrow.csv.write_csv(_with(rows, {"visit_occurrence_id": pa.array(ids, pa.string())}), path)
    with opened(source) as found:
        assert {t.subject: _pattern(t) for t in found.timelines(None)} == visits


def _pattern(t: Timeline) -> list[tuple[str, int]]:
    """Events by code and time, each with the number of its visit in the order in which visits come; -1 for none."""
    order: dict[int, int] = {-1: -1}
    rows = sorted((str(t.time[i]), t.names.codes[t.code[i]], int(t.visit[i])) for i in range(len(t.time)))
    return [(f"{time} {code}", order.setdefault(visit, len(order))) for time, code, visit in rows]


def test_a_number_that_is_none_does_not_hide_the_text_beside_it(tmp_path: Path) -> None:
    source = twin(tmp_path / "csv", "omop")
    path = source / "MEASUREMENT.csv"
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    number, written = (table[0].index(name) for name in ("value_as_number", "value_source_value"))
    table[1][number], table[1][written] = "NaN", "hemolysed"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)
    other = twin(tmp_path / "parquet", "omop")
    (other / "MEASUREMENT.csv").write_bytes(path.read_bytes())
    as_parquet(
        other / "MEASUREMENT.csv", lambda t: _with(t, {"value_as_number": pc.fill_null(t["value_as_number"].cast(pa.float64()), float("nan"))})
    )
    for folder in (source, other):
        texts = {row[4] for rows in events(folder).values() for row in rows}
        assert "hemolysed" in texts and not {"nan", "NaN"} & texts


def _torn_gzip(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-60])
    path.unlink()


def _no_gzip(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.gz"))


def _torn_page(path: Path) -> None:
    target = as_parquet(path, lambda table: table)
    body = bytearray(target.read_bytes())
    body[4:2000] = bytes(1996)
    target.write_bytes(bytes(body))


def _torn_footer(path: Path) -> None:
    target = as_parquet(path, lambda table: table)
    target.write_bytes(target.read_bytes()[:-200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("table", ["MEASUREMENT", "PERSON", "CONCEPT"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_torn_gzip, "not a whole gzip file"),
        (_no_gzip, "not a whole gzip file"),
        (_torn_page, "not a whole parquet file"),
        (_torn_footer, "not a whole parquet file"),
        (_empty, "empty"),
    ],
)
def test_an_omop_file_that_is_torn_is_refused_by_name(change: Callable[[Path], None], said: str, table: str, tmp_path: Path) -> None:
    path = twin(tmp_path, "omop") / f"{table}.csv"
    if table == "CONCEPT":
        path.write_text(path.read_text(encoding="utf-8").replace(",", " ").replace("\t", ","), encoding="utf-8")
    change(path)
    refused(tmp_path, table, said)


@pytest.mark.parametrize(
    ("table", "column", "made", "said"),
    [
        ("MEASUREMENT", "value_source_value", pa.array([[SECRET]]), "list"),
        ("MEASUREMENT", "value_source_value", pa.array([b"\xff\xfe"]), "not UTF-8"),
        ("MEASUREMENT", "value_as_number", pa.array([[1.0]]), "list"),
        ("MEASUREMENT", "measurement_date", pa.array([20200101]), "int64, expected dates or times"),
        ("MEASUREMENT", "measurement_date", pa.array([b"\xff\xfe"]), "binary, expected dates or times"),
        ("MEASUREMENT", "measurement_concept_id", pa.array([[1]]), "something else than whole numbers"),
        ("MEASUREMENT", "visit_occurrence_id", pa.array([[1]]), "list"),
        ("PERSON", "person_id", pa.array([1.5]), "something else than whole numbers"),
        ("PERSON", "person_id", pa.array([float(2**53 + 2)]), "something else than whole numbers"),
    ],
)
def test_an_omop_column_of_another_type_is_refused_by_file_and_column(table: str, column: str, made: pa.Array, said: str, tmp_path: Path) -> None:
    def change(rows: pa.Table) -> pa.Table:
        return _with(rows, {column: pa.concat_arrays([made] * len(rows))})

    as_parquet(twin(tmp_path, "omop") / f"{table}.csv", change)
    refused(tmp_path, f"{table}.parquet", f"column {column}", said)


@pytest.mark.parametrize("column", ["concept_id", "vocabulary_id", "concept_code", "concept_name"])
def test_a_concept_table_without_a_column_is_refused(column: str, tmp_path: Path) -> None:
    path = twin(tmp_path, "omop") / "CONCEPT.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(column, "something", 1), encoding="utf-8")
    refused(tmp_path, f"CONCEPT.csv: no column {column}")


# MEDS.


def meds(folder: Path, change: Callable[[pa.Table], pa.Table], layout: str = "meds_shards") -> Path:
    synthetic.write(folder, 7, "unit", layout)
    for path in folder.rglob("data/*.parquet"):
        pq.write_table(change(pq.read_table(path)), path)
    return folder


def filled(**made: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: _with(table, {name: pa.concat_arrays([one] * len(table)) for name, one in made.items()})


@pytest.mark.parametrize(
    ("column", "made", "said"),
    [
        ("numeric_value", pa.array(["7"]), "string, expected numbers"),
        ("end", pa.array(["2020-01-01"]), "string, expected timestamps"),
        ("text_value", pa.array([1.5]), "double, expected texts"),
        ("unit", pa.array([[SECRET]]), "expected texts"),
        ("table", pa.array([1]), "int64, expected texts"),
        ("visit_id", pa.array([[1]]), "expected texts"),
        ("subject_id", pa.array([2**63], pa.uint64()), "a number over"),
    ],
)
def test_a_meds_column_of_another_type_is_refused_by_its_name(column: str, made: pa.Array, said: str, tmp_path: Path) -> None:
    refused(meds(tmp_path, filled(**{column: made})), "data_0.parquet", f"column {column}", said)


def test_meds_columns_of_other_types_with_the_same_meaning_are_read(tmp_path: Path) -> None:
    plain = events(meds(tmp_path / "a", lambda table: table))

    def large(table: pa.Table) -> pa.Table:
        texts = {f.name: table[f.name].cast(pa.large_string()) for f in table.schema if pa.types.is_string(f.type)}
        return _with(table, {**texts, "visit_id": table["visit_id"].cast(pa.string()), "end": table["end"].cast(pa.timestamp("ns"))})

    assert events(meds(tmp_path / "c", lambda table: _with(table, {"end": table["end"].cast(pa.date32(), safe=False)}))) == plain
    assert events(meds(tmp_path / "b", large)) == plain


def test_bytes_that_are_no_text_and_a_torn_page_of_meds_are_refused(tmp_path: Path) -> None:
    torn = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    refused(meds(tmp_path / "a", filled(unit=torn)), "data_0.parquet: column unit", "not UTF-8")
    (path,) = twin(tmp_path / "b", "meds").rglob("data.parquet")
    body = bytearray(path.read_bytes())
    body[4:2000] = bytes(1996)
    path.write_bytes(bytes(body))
    refused(tmp_path / "b", "data.parquet: not a whole parquet file")


def test_descriptions_and_parents_of_another_type_are_refused(tmp_path: Path) -> None:
    def written(name: str, **columns: pa.Array) -> Path:
        (path,) = twin(tmp_path / name, "meds").rglob("codes.parquet")
        pq.write_table(pa.table(columns), path)
        return tmp_path / name

    code = pa.array(["SNOMED/1"])
    refused(written("a", code=code, description=pa.array([[SECRET]])), "codes.parquet: column description")
    refused(written("b", code=code, description=code, parent_codes=code), "codes.parquet: column parent_codes is string")
    body = (path := next((tmp_path / "b").rglob("codes.parquet"))).read_bytes()
    path.write_bytes(body[:-50])
    refused(tmp_path / "b", "codes.parquet: not a whole parquet file")


# EHRSHOT as released.


def test_ehrshot_with_blanks_and_a_mark_in_its_header_is_read(tmp_path: Path) -> None:
    plain = events(twin(tmp_path / "a", "ehrshot"))
    path = twin(tmp_path / "b", "ehrshot") / "data" / "ehrshot.csv"
    _blanks(path)
    _mark(path)
    assert events(tmp_path / "b") == plain


# Labels, samples, traces.


def shard(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def test_labels_in_a_folder_for_each_split_are_the_labels_of_one_subtask(tmp_path: Path) -> None:
    row = {"subject_id": 7, "prediction_time": TIME, "boolean_value": True}
    for n, name in enumerate(("train/0", "train/1", "tuning/0", "held_out/0")):
        shard(tmp_path / "labels" / "sepsis" / f"{name}.parquet", [row | {"subject_id": n}])
    shard(tmp_path / "labels" / "guo_los" / "labels.parquet", [row])
    found = labels.find(tmp_path)
    assert set(found) == {"sepsis", "guo_los"}
    assert sorted(labels.read(found["sepsis"], subtasks.own("sepsis", {})).subject.tolist()) == [0, 1, 2, 3]
    assert len(labels.shards(found["sepsis"])) == 4


def test_a_shard_without_labels_is_none_whatever_kind_the_others_have(tmp_path: Path) -> None:
    kinds = [("subject_id", pa.int64()), ("prediction_time", pa.timestamp("us")), ("integer_value", pa.int64())]
    shard(tmp_path / "labels" / "lab_anemia" / "0.parquet", [{"subject_id": 7, "prediction_time": TIME, "integer_value": 3}])
    shard(tmp_path / "labels" / "lab_anemia" / "1.parquet", [], pa.schema(kinds))
    assert labels.read(labels.find(tmp_path)["lab_anemia"], subtasks.BENCHMARK["lab_anemia"]).value.tolist() == [1]


def test_a_torn_label_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels" / "sepsis.parquet"
    shard(path, [{"subject_id": n, "prediction_time": TIME, "boolean_value": True} for n in range(2000)])
    body = bytearray(path.read_bytes())
    body[4:200] = bytes(196)
    path.write_bytes(bytes(body))
    with pytest.raises(DataError, match=r"labels/sepsis.parquet: not a whole parquet file"):
        labels.read(path, subtasks.own("sepsis", {}))


def sample(**other: Any) -> Any:
    fine = {f"{key}_{w}_k": v for w in ("train", "val") for key, v in (("patient_ids", [7]), ("label_times", ["2019-03-01T23:59:00"]))}
    return {"guo_los": {"1": {"0": fine | other}}}


@pytest.mark.parametrize(
    "document",
    [
        *([], 7, {}, {"guo_los": 7}, {"guo_los": {"one": {}}}, {"guo_los": {"1": []}}, {"guo_los": {"1": {}}}, {"guo_los": {"1": {"first": {}}}}),
        *({"guo_los": {"1": {"0": 7}}}, {"guo_los": {"1": {"0": {}}}}),
        *(
            sample(patient_ids_train_k=[SECRET]),
            sample(patient_ids_train_k=7),
            sample(patient_ids_train_k=[None]),
            sample(patient_ids_train_k=[1, 2]),
        ),
        *(sample(label_times_val_k=[7]), sample(label_times_val_k=7), sample(label_times_val_k=[SECRET]), sample(label_times_val_k=[[]])),
    ],
)
def test_few_shot_samples_of_any_other_form_are_refused_without_an_id(document: Any, tmp_path: Path) -> None:
    path = tmp_path / "guo_los" / "all_shots_data.json"
    path.parent.mkdir()
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=r"guo_los/all_shots_data.json") as error:
        labels.shots(path, subtasks.BENCHMARK["guo_los"], None, 1, 0)
    assert SECRET not in str(error.value)


def test_traces_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_bytes(b'{"subject": "\xff"}\n')
    with pytest.raises(DataError, match=r"traces.jsonl: not UTF-8"):
        labels.traces(tmp_path, {})
