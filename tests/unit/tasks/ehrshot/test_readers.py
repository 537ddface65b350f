"""Records of every layout become the same timelines, and files that cannot be read say where without a value."""

import csv
import gzip
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks.ehrshot import buckets, original, patients, readers, synthetic
from ehrmind_k8s.tasks.ehrshot.patients import Patient
from ehrmind_k8s.tasks.ehrshot.readers import Source
from ehrmind_k8s.tasks.ehrshot.serialise import serialise
from ehrmind_k8s.tasks.ehrshot.timeline import BIRTHS, TABLES, Timeline
from tests.conftest import shared_data

SECRET = "1913-secret"
HEADER = ",patient_id,start,end,code,value,unit,visit_id,omop_table\n"
Row = tuple[Any, ...]


@contextmanager
def opened(source: Path) -> Iterator[Source]:
    with TemporaryDirectory() as work:
        yield readers.open(source, Path(work))


def twin(folder: Path, layout: str) -> Path:
    synthetic.write(folder, 7, "unit", layout)
    return folder


def events(source: Path) -> dict[int, Counter[Row]]:
    """Subject -> its events, but for births and facts about the person, which layouts write in their own ways, and for visits."""
    with opened(source) as found:
        return {t.subject: Counter(row for row in rows(t) if row[2] != "person") for t in found.timelines(None)}


def rows(t: Timeline) -> Iterator[Row]:
    for i in range(len(t.time)):
        value = None if np.isnan(t.value[i]) else float(np.float32(t.value[i]))
        text = t.names.texts[t.text[i]] if t.text[i] >= 0 else None
        unit = t.names.units[t.unit[i]] if t.unit[i] >= 0 else None
        yield str(t.time[i]), t.names.codes[t.code[i]], TABLES[t.table[i]], value, text, unit


def drawn() -> list[Patient]:
    return patients.unit(random.Random(7))


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_every_layout_gives_the_events_that_happened(layout: str, tmp_path: Path) -> None:
    found = events(twin(tmp_path, layout))
    assert {p.subject: _written(p) for p in drawn()} == found


def _written(p: Patient) -> Counter[Row]:
    """What was drawn, as `rows` tells it; a date is known at the end of its day."""
    last = np.timedelta64(86399, "s")
    return Counter(
        (
            str(np.datetime64(e.time, "s") + (last if e.dated else 0)),
            e.code,
            e.table,
            float(np.float32(e.value)) if isinstance(e.value, float | int) else None,
            e.value if isinstance(e.value, str) else None,
            e.unit,
        )
        for e in p.events
        if e.table != "person"
    )


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_timelines_are_in_order_with_births_and_sex_known_from_the_start(layout: str, tmp_path: Path) -> None:
    born = {p.subject: p for p in drawn()}
    with opened(twin(tmp_path, layout)) as found:
        for t in found.timelines(None):
            timed = t.time[~np.isnat(t.time)]
            assert (np.diff(timed) >= np.timedelta64(0, "s")).all() and np.isnat(t.time[: len(t.time) - len(timed)]).all()
            assert t.birth == np.datetime64(born[t.subject].birth, "s")
            past = t.until(t.birth)
            assert {t.names.codes[c] for c in past.code} <= {*BIRTHS, "Gender/F", "Gender/M"} and len(past.time) == 2
        assert found.report["subjects"] == {"all": 26, "without_birth": 0}


@pytest.mark.parametrize(("layout", "ends"), [("ehrshot", True), ("meds", False), ("meds_shards", True), ("omop", True)])
def test_ends_and_visits_are_read_where_the_layout_has_them(layout: str, ends: bool, tmp_path: Path) -> None:
    with opened(twin(tmp_path, layout)) as found:
        timelines = list(found.timelines(None))
        assert found.names.visits_end == ends
        assert any((~np.isnat(t.end)).any() for t in timelines) == ends
        assert any((t.visit >= 0).any() for t in timelines) == ends


def test_only_the_subjects_asked_for_are_given_each_once(tmp_path: Path) -> None:
    wanted = {patients.FIRST_SUBJECT, patients.FIRST_SUBJECT + 20, 4}
    with opened(twin(tmp_path, "ehrshot")) as found:
        assert sorted(t.subject for t in found.timelines(wanted)) == sorted(wanted - {4})
        assert len([t.subject for t in found.timelines(None)]) == 26


def test_many_buckets_give_the_same_timelines_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = twin(tmp_path, "ehrshot")
    one = events(source)
    monkeypatch.setattr(readers, "BUCKET_ROWS", 100)
    assert events(source) == one


@pytest.mark.parametrize("layout", ["ehrshot", "meds", "meds_shards"])
def test_splits_are_those_of_the_source(layout: str, tmp_path: Path) -> None:
    words = {"ehrshot": {}, "meds": {"val": "tuning", "test": "held_out"}, "meds_shards": {"val": "tuning", "test": "held_out"}}[layout]
    with opened(twin(tmp_path, layout)) as found:
        assert found.splits.of == {p.subject: words.get(p.split, p.split) for p in drawn()}


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_codes_are_described_by_what_lies_beside_the_records(layout: str, tmp_path: Path) -> None:
    with opened(twin(tmp_path, layout)) as found:
        assert found.names.described["SNOMED/195967001"] == "Asthma"
        assert patients.ICU not in found.names.described
        file = "metadata/codes.parquet" if "meds" in layout else "CONCEPT.csv"
        assert any(name.endswith(file) for name in found.inputs)


# The forms in which people hold OMOP.


def _upper_header(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[name.upper() for name in table[0]], *table[1:]])


def _zipped(path: Path) -> None:
    path.with_name(path.name.lower() + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def _parquet(path: Path) -> None:
    pq.write_table(pyarrow.csv.read_csv(path), path.with_suffix(".parquet"))
    path.unlink()


def _sharded(path: Path) -> None:
    table = pyarrow.csv.read_csv(path)
    folder = path.with_suffix("")
    folder.mkdir()
    half = len(table) // 2
    pq.write_table(table[:half], folder / "part-00000.parquet")
    pq.write_table(table[half:], folder / "part-00001.parquet")
    path.unlink()


@pytest.mark.parametrize("change", [_upper_header, _zipped, _parquet, _sharded])
def test_omop_tables_are_read_in_any_form(change: Callable[[Path], None], tmp_path: Path) -> None:
    plain = events(twin(tmp_path / "a", "omop"))
    source = twin(tmp_path / "b", "omop")
    for path in source.glob("*.csv"):
        if path.name != "CONCEPT.csv":
            change(path)
    assert events(source) == plain


def test_a_comma_separated_concept_table_and_a_missing_one_are_both_fine(tmp_path: Path) -> None:
    source = twin(tmp_path, "omop")
    text = (source / "CONCEPT.csv").read_text(encoding="utf-8")
    (source / "CONCEPT.csv").unlink()
    with opened(source) as found:
        assert found.names.described == {} and any(code.startswith("OMOP/2000000") for code in found.names.codes)
        assert "Visit/IP" in found.names.codes
    table = [line.split("\t") for line in text.splitlines()]
    with (source / "concept.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)
    with opened(source) as found:
        assert found.names.described["SNOMED/195967001"] == "Asthma"


# What counts, and what is refused.


def csv_source(folder: Path, lines: str, header: str = HEADER) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "ehrshot.csv").write_bytes((header + lines).encode("utf-8", "surrogateescape"))
    return folder


def test_columns_are_found_by_name_and_values_may_hold_lines(tmp_path: Path) -> None:
    header = "code,omop_table,start,patient_id,value,extra\r\n"
    lines = 'X/1,measurement,2010-05-01T10:00:00,5,"two\nlines",q\r\nX/2,measurement,2010-05-01 11:00:00,5,7.5,q\r\n'
    with opened(csv_source(tmp_path, lines, header)) as found:
        (t,) = found.timelines(None)
        assert [row[:5] for row in rows(t)] == [
            ("2010-05-01T10:00:00", "X/1", "measurement", None, "two\nlines"),
            ("2010-05-01T11:00:00", "X/2", "measurement", 7.5, None),
        ]


def test_lines_within_a_value_may_fall_on_any_block_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(f'{i},5,2010-05-01 10:00:00,,X/1,"a\nb,\n{"c" * (1 + i % 37)}",,,measurement\n' for i in range(200))
    monkeypatch.setattr(original, "BLOCK_BYTES", 256)
    with opened(csv_source(tmp_path, lines)) as found:
        (t,) = found.timelines(None)
        assert [row[4] for row in rows(t)] == [f"a\nb,\n{'c' * (1 + i % 37)}" for i in range(200)]


def test_what_is_left_out_or_changed_is_counted(tmp_path: Path) -> None:
    lines = (
        "0,5,2010-05-01,,X/1,abc,,,measurement\n"
        f"1,5,2010-05-02 00:00:00,,X/1,{'n' * 81},,,note\n"
        "2,5,2010-05-03 10:00:00,,,1,,,measurement\n"
        "3,5,2010-05-03 10:00:00,,X/2,1,,,no_such_table\n"
    )
    with opened(csv_source(tmp_path, lines)) as found:
        assert found.report == {
            "subjects": {"all": 1, "without_birth": 1},
            "events": {"measurement": 1, "note": 1, "other": 1},
            "events_left_out": {"texts_over_80_characters": 1, "without_code": 1},
            "codes": {"distinct": 2, "described": 0},
            "reading": {"events_known_at_the_end_of_their_day": 2, "values_that_are_text": 2},
        }
        (t,) = found.timelines(None)
        assert t.birth is None and [row[0] for row in rows(t)] == ["2010-05-01T23:59:59", "2010-05-02T23:59:59", "2010-05-03T10:00:00"]


def test_facts_about_the_person_need_no_time_and_nothing_else_is_kept_without_one(tmp_path: Path) -> None:
    """Some write vocabularies in capitals and with two strokes."""
    facts = [("GENDER//F", None), ("Race/5", None), ("ETHNICITY//X", "observation"), ("SITE/1", "person")]
    lost = [("SNOMED/57054005", None), ("MEDS_DEATH", None), ("MEDS_BIRTH", None), ("LOINC/1-1", "measurement")]
    rows = [{"subject_id": 5, "time": None, "code": code, "table": table} for code, table in (*facts, *lost)]
    schema = pa.schema([("subject_id", pa.int64()), ("time", pa.timestamp("us")), ("code", pa.string()), ("table", pa.string())])
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "data" / "0.parquet")
    with opened(tmp_path) as found:
        (t,) = found.timelines(None)
        assert {(t.names.codes[c], TABLES[k]) for c, k in zip(t.code, t.table, strict=True)} == {(code, "person") for code, _ in facts}
        assert found.report["events"] == {"person": 4} and found.report["events_left_out"] == {"without_a_time": 4}


def test_prose_in_the_place_of_a_code_or_a_unit_is_left_out_and_counted(tmp_path: Path) -> None:
    long = "n" * 81
    lines = f"0,5,2010-05-01 10:00:00,,{long},1,,,measurement\n1,5,2010-05-01 11:00:00,,X/1,1,{long},,measurement\n"
    with opened(csv_source(tmp_path, lines)) as found:
        assert found.report["events_left_out"] == {"codes_over_80_characters": 1, "units_over_80_characters": 1}
        assert found.names.codes == ["X/1"] and not found.names.units


def test_a_column_of_codes_that_holds_free_text_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MOST_CODES", 100)
    lines = "".join(f"{i},5,2010-05-01 10:00:00,,{SECRET} {i},1,,,measurement\n" for i in range(200))
    with pytest.raises(DataError, match="holds free text") as error, opened(csv_source(tmp_path, lines)):
        pass
    assert SECRET not in str(error.value)


def test_a_birth_tells_of_the_person_whatever_its_table(tmp_path: Path) -> None:
    lines = "".join(f"{i},5,1910-05-01 00:00:00,,SNOMED/3950001,,,,{table}\n" for i, table in enumerate(("condition_occurrence", "", "observation")))
    with opened(csv_source(tmp_path, lines + "9,5,2010-05-01 10:00:00,,X/1,1,g,,measurement\n")) as found:
        (t,) = found.timelines(None)
        assert [row[:3] for row in rows(t)][:3] == [("1910-05-01T00:00:00", "SNOMED/3950001", "person")] * 3
        shown = serialise(t, np.datetime64("2011-01-01T00:00:00"), 100, lambda text: len(text.split())).text
        assert "90 years or older" in shown and "3950001" not in shown


def test_the_source_s_own_word_stands_for_a_concept_that_is_missing_and_its_prose_does_not(tmp_path: Path) -> None:
    written = ("I21.4", "Hemoglobin A1c", "Seen by Dr Jane Roe on 2019-05-01, MRN 4455667", "seen 4 Mar 2020", "x" * 81, "")
    (tmp_path / "PERSON.csv").write_text("person_id,year_of_birth\n5,1950\n", encoding="utf-8")
    lines = "".join(f'5,0,2020-03-01,"{text}"\n' for text in written)
    header = "person_id,condition_concept_id,condition_start_date,condition_source_value\n"
    (tmp_path / "CONDITION_OCCURRENCE.csv").write_text(header + lines, encoding="utf-8")
    with opened(tmp_path) as found:
        assert set(found.names.codes) == {"MEDS_BIRTH", "SOURCE/I21.4", "SOURCE/Hemoglobin A1c"}
        assert found.report["reading"]["source_values_that_are_prose"] == 3 and found.report["events_left_out"] == {"without_code": 4}


GOOD = "0,5,2010-05-01 10:00:00,,X/1,1,g,7.0,measurement\n"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (f"1,{SECRET},2010-05-01 10:00:00,,X/1,1,,,measurement\n", "column patient_id"),
        (f"1,5,{SECRET},,X/1,1,,,measurement\n", "column start"),
        (f"1,5,2010-05-01 10:00:00,{SECRET},X/1,1,,,measurement\n", "column end"),
        ("1,5,2010-05-01 10:00:00+02:00,,X/1,1,,,measurement\n", "without a zone"),
        (f"1,5,2010-05-01 10:00:00,,X/1,1,,{SECRET},measurement\n", "column visit_id"),
        ("1,5,,,X/1,1,,,measurement\n", "column start is empty"),
        ("1,,2010-05-01 10:00:00,,X/1,1,,,measurement\n", "column patient_id is empty"),
        (f"1,5,2010-05-01 10:00:00,,{SECRET}\n", "another number of fields"),
        (f"1,5,2010-05-01 10:00:00,,{SECRET}\udcff,1,,,measurement\n", "not UTF-8"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_with_its_column_and_without_its_value(bad: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as error, opened(csv_source(tmp_path, GOOD + bad)):
        pass
    assert "ehrshot.csv" in str(error.value) and SECRET not in str(error.value)


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"no column patient_id; did you mean 'patientid'"),
        opened(csv_source(tmp_path, "", "patientid,start,code\n")),
    ):
        pass


def test_two_layouts_or_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"EHRSHOT_ASSETS"), opened(tmp_path / "none"):
        pass
    twin(tmp_path / "two" / "a", "ehrshot")
    twin(tmp_path / "two" / "b", "omop")
    with pytest.raises(DataError, match="two layouts"), opened(tmp_path / "two"):
        pass


def test_a_torn_parquet_file_is_refused(tmp_path: Path) -> None:
    path = twin(tmp_path, "meds") / "data" / "data.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="not a whole parquet file"), opened(tmp_path):
        pass


def _with_types(source: Path, **types: pa.DataType) -> Path:
    path = source / "data" / "data.parquet"
    table = pq.read_table(path)
    for name, kind in types.items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    pq.write_table(table, path)
    return source


def test_meds_columns_of_other_types_are_refused_by_name_and_close_ones_are_read(tmp_path: Path) -> None:
    for name, kind in (("subject_id", pa.string()), ("time", pa.timestamp("us", "UTC")), ("time", pa.string())):
        with pytest.raises(DataError, match=f"column {name}"), opened(_with_types(twin(tmp_path / str(kind), "meds"), **{name: kind})):
            pass
    plain = events(twin(tmp_path / "plain", "meds"))
    close = {"subject_id": pa.uint32(), "time": pa.timestamp("ns"), "code": pa.dictionary(pa.int32(), pa.string()), "numeric_value": pa.float64()}
    assert events(_with_types(twin(tmp_path / "close", "meds"), **close)) == plain


@pytest.mark.parametrize(
    ("kind", "said"),
    [(pa.timestamp("us", "Asia/Tokyo"), "column end has the zone"), (pa.string(), "column end is string"), (pa.int64(), "column end")],
)
def test_ends_of_another_type_are_refused_by_name(kind: pa.DataType, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said), opened(_with_ends(tmp_path, kind)):
        pass


@pytest.mark.parametrize("kind", [pa.timestamp("ms"), pa.date32(), pa.null()])
def test_ends_are_times_dates_or_none(kind: pa.DataType, tmp_path: Path) -> None:
    with opened(_with_ends(tmp_path, kind)) as found:
        ends = np.concatenate([t.end for t in found.timelines(None)])
        assert found.names.visits_end == (kind != pa.null()) == bool((~np.isnat(ends)).any())


def _with_ends(source: Path, kind: pa.DataType) -> Path:
    for path in twin(source, "meds_shards").rglob("data_*.parquet"):
        table = pq.read_table(path)
        ends = pa.nulls(len(table), kind) if kind == pa.null() else table["end"].cast(pa.timestamp("ms")).cast(kind, safe=False)
        pq.write_table(table.set_column(table.schema.get_field_index("end"), "end", ends), path)
    return source


def test_a_subject_in_two_splits_is_refused(tmp_path: Path) -> None:
    source = twin(tmp_path / "a", "ehrshot")
    with (source / "splits" / "person_id_map.csv").open("a", encoding="utf-8") as file:
        file.write(f"test,{patients.FIRST_SUBJECT}\n")
    with pytest.raises(DataError, match="two splits"), opened(source):
        pass


@pytest.mark.parametrize(
    ("column", "bad", "said"),
    [
        ("measurement_date", SECRET, "column measurement_date"),
        ("measurement_datetime", "2010-05-01 10:00:00Z", "without a zone"),
        ("person_id", SECRET, "column person_id"),
        ("measurement_concept_id", SECRET, "column measurement_concept_id"),
    ],
)
def test_an_omop_value_that_cannot_be_read_is_refused_with_its_column_and_without_its_value(column: str, bad: str, said: str, tmp_path: Path) -> None:
    path = twin(tmp_path, "omop") / "MEASUREMENT.csv"
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    table[3][table[0].index(column)] = bad
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)
    with pytest.raises(DataError, match=said) as error, opened(tmp_path):
        pass
    assert "MEASUREMENT.csv" in str(error.value) and SECRET not in str(error.value)


def omop_source(folder: Path, **tables: list[Row]) -> Path:
    """Tables of hand-written rows, the header first."""
    for name, table in tables.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(table)
    return folder


PEOPLE = ("person_id", "gender_concept_id", "year_of_birth", "month_of_birth", "day_of_birth")
RESULTS = ("person_id", "measurement_concept_id", "measurement_date", "value_as_number")


@pytest.mark.parametrize("form", ["{}", " {} ", "{}.0"])
def test_ids_that_a_float_cannot_tell_apart_stay_two_subjects(form: str, tmp_path: Path) -> None:
    ids = (2**53, 2**53 + 1, 7)
    people = [(form.format(i), 8507, 1950, 1, 1) for i in ids]
    results = [(form.format(i), 3000963, "2010-05-01", n) for n, i in enumerate(ids)]
    with opened(omop_source(tmp_path, person=[PEOPLE, *people], measurement=[RESULTS, *results])) as found:
        assert {t.subject: t.value[~np.isnat(t.time)][-1] for t in found.timelines(None)} == dict(zip(ids, (0.0, 1.0, 2.0), strict=True))


@pytest.mark.parametrize("id_", [f"{2**53 + 2}e0", "7.5", "7.0.0", f"{2**63}"])
def test_an_id_that_stands_for_no_one_number_is_refused(id_: str, tmp_path: Path) -> None:
    source = omop_source(tmp_path, person=[PEOPLE, (id_, 8507, 1950, 1, 1)])
    with pytest.raises(DataError, match=r"person\.csv: column person_id holds something else than whole numbers"), opened(source):
        pass


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("measurement.csv", "old/MEASUREMENT.csv"), "measurement.csv and old/MEASUREMENT.csv"),
        (("measurement.csv", "measurement.parquet"), "measurement.csv and measurement.parquet"),
        (("measurement.csv", "measurement_1.csv"), "measurement.csv and measurement_1.csv"),
        (("measurement_1.csv", "measurement_2.csv", "measurement/part-0.csv"), "measurement/part-0.csv and measurement_1.csv"),
        (("a/measurement/part-0.csv", "b/measurement/part-0.csv"), "a/measurement/part-0.csv and b/measurement/part-0.csv"),
        (("measurement/part-0.csv", "measurement/part-0.parquet"), "measurement/part-0.csv and measurement/part-0.parquet"),
        (("measurement_1.csv", "measurement_2.csv"), ""),
        (("measurement/part-0.csv", "measurement/part-1.csv"), ""),
        (("measurement/one.csv", "measurement/two.csv"), ""),
    ],
)
def test_a_table_that_is_there_twice_is_refused_and_shards_are_one(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    omop_source(tmp_path, person=[PEOPLE, (1, 8507, 1950, 1, 1)], rows=[RESULTS, (1, 3000963, "2010-05-01", 7)])
    body = (tmp_path / "rows.csv").read_bytes()
    (tmp_path / "rows.csv").unlink()
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(body)
        if name.endswith(".parquet"):
            pq.write_table(pa.table({name: [] for name in RESULTS}), tmp_path / name)
    if said:
        with pytest.raises(DataError, match=f"measurement is there twice, as {said}"), opened(tmp_path):
            pass
        return
    with opened(tmp_path) as found:
        assert found.report["events"]["measurement"] == len(names)


def test_a_person_who_is_there_twice_is_refused(tmp_path: Path) -> None:
    people = {"person_1": [PEOPLE, (7, 8507, 1950, 1, 1)], "person_2": [PEOPLE, (8, 8507, 1950, 1, 1), (7, 8532, 1960, 1, 1)]}
    with pytest.raises(DataError, match=r"person_2.csv: 1 persons are there twice \(person_id\)"), opened(omop_source(tmp_path, **people)):
        pass


BORN = (*PEOPLE, "birth_datetime")


@pytest.mark.parametrize(
    ("row", "born"),
    [
        ((1950, 3, 2, ""), "1950-03-02"),
        ((1950, 3, "", ""), "1950-03-01"),
        ((1950, "", "", ""), "1950-07-01"),
        ((1950, "", "", "1950-11-30 08:15:00"), "1950-11-30"),
        ((1950, 3, 2, "1950-03-02"), "1950-03-02"),
        ((2000, 2, 29, ""), "2000-02-29"),
        (("", "", "", "1950-11-30"), "1950-11-30"),
    ],
)
def test_a_birth_is_as_near_as_the_table_tells(row: tuple[object, ...], born: str, tmp_path: Path) -> None:
    with opened(omop_source(tmp_path, person=[BORN, (7, 8507, *row)])) as found:
        (t,) = found.timelines(None)
        assert str(t.birth)[:10] == born


@pytest.mark.parametrize(
    "row", [(2001, 2, 29, ""), (1950, 2, 30, ""), (1950, 13, 1, ""), (1950, 4, 31, ""), ("", 4, 1, ""), (1849, 1, 1, ""), (10**17, 1, 1, "")]
)
def test_a_birth_that_no_calendar_has_is_refused(row: tuple[object, ...], tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"person.csv: 1 persons have no date of birth"),
        opened(omop_source(tmp_path, person=[BORN, (7, 8507, *row)])),
    ):
        pass


def test_meds_events_are_those_in_its_data_folder_where_it_has_one(tmp_path: Path) -> None:
    source = twin(tmp_path, "meds")
    plain = events(source)
    (source / "backup").mkdir()
    shutil.copy(source / "data" / "data.parquet", source / "backup" / "data.parquet")
    assert events(source) == plain
    (source / "data").rename(source / "all")
    shutil.rmtree(source / "backup")
    assert events(source) == plain


def test_two_data_folders_of_meds_are_refused_and_shards_by_split_are_one(tmp_path: Path) -> None:
    source = twin(tmp_path, "meds")
    plain = events(source)
    table = pq.read_table(source / "data" / "data.parquet")
    (source / "data" / "data.parquet").unlink()
    for n, split in enumerate(("train", "held_out")):
        (source / "data" / split).mkdir()
        pq.write_table(table.filter(pa.array([s % 2 == n for s in table["subject_id"].to_pylist()])), source / "data" / split / "0.parquet")
    assert events(source) == plain
    shutil.copytree(source / "data", source / "copy" / "data")
    with pytest.raises(DataError, match="two MEDS data folders, copy/data and data"), opened(source):
        pass


DIAGNOSED = "person_id,condition_concept_id,condition_start_date,condition_start_datetime,condition_type_concept_id,visit_occurrence_id\n"
BILL, PROBLEM_LIST = 32019, 32840


@pytest.mark.parametrize(
    ("table", "time", "kind", "visit", "known"),
    [
        ("condition", "", PROBLEM_LIST, "7", "2020-03-05T12:00:00"),
        ("condition", "2020-03-01 00:00:00", 0, "7", "2020-03-05T12:00:00"),
        ("condition", "2020-03-01 23:59:59", 0, "7", "2020-03-05T12:00:00"),
        ("condition", "2020-03-01 10:05:00", BILL, "7", "2020-03-05T12:00:00"),
        ("condition", "2020-03-01 10:05:00", 38000200, "7", "2020-03-05T12:00:00"),
        ("condition", "2020-03-01 10:05:00", PROBLEM_LIST, "7", "2020-03-01T10:05:00"),
        ("condition", "", BILL, "", "2020-03-01T23:59:59"),
        ("condition", "", BILL, "8", "2020-03-20T09:00:00"),  # a visit without an end, with its last event
        ("condition", "", BILL, "9", "2020-03-01T23:59:59"),  # a visit that the source lacks
        ("observation", "", 0, "7", "2020-03-05T12:00:00"),
        ("procedure", "", 0, "7", "2020-03-01T23:59:59"),
        ("procedure", "", 32855, "7", "2020-03-05T12:00:00"),
        ("measurement", "", 0, "7", "2020-03-01T23:59:59"),
    ],
)
def test_what_is_written_for_a_bill_is_known_when_the_visit_is_over(table: str, time: str, kind: int, visit: str, known: str, tmp_path: Path) -> None:
    name = {"condition": "condition_occurrence", "procedure": "procedure_occurrence"}.get(table, table)
    header = DIAGNOSED.replace("condition_start", "condition_start" if table == "condition" else table).replace("condition", table)
    person = "person_id,year_of_birth\n5,1950\n6,1950\n"
    visits = (
        "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_start_datetime,visit_end_date,visit_end_datetime\n"
        "7,5,9201,2020-03-01,2020-03-01 10:00:00,2020-03-05,2020-03-05 12:00:00\n8,5,9201,2020-03-01,2020-03-01 10:00:00,,\n"
        "7,6,9201,2020-03-01,2020-03-01 10:00:00,2020-09-05,2020-09-05 12:00:00\n"
    )
    drugs = (
        "person_id,drug_concept_id,drug_exposure_start_date,drug_exposure_start_datetime,visit_occurrence_id\n5,3,2020-03-20,2020-03-20 09:00:00,8\n"
    )
    files = {"PERSON": person, "VISIT_OCCURRENCE": visits, "DRUG_EXPOSURE": drugs, name: f"{header}5,4,2020-03-01,{time},{kind},{visit}\n"}
    for file, text in files.items():
        (tmp_path / f"{file}.csv").write_text(text, encoding="utf-8")
    with opened(tmp_path) as found:
        mine = next(t for t in found.timelines(None) if t.subject == 5)
        assert [row[0] for row in rows(mine) if row[1] == "OMOP/4"] == [known]
        held = visit != "" and (kind in (BILL, 38000200, 32855) or (table in ("condition", "observation") and "10:05" not in time))
        assert found.report["reading"].get("events_known_at_the_end_of_their_visit", 0) == held


def test_events_of_somebody_who_is_not_in_person_are_kept_and_counted(tmp_path: Path) -> None:
    path = twin(tmp_path, "omop") / "PERSON.csv"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    with opened(tmp_path) as found:
        assert found.report["subjects"] == {"all": 26, "without_birth": 1}


# Public data, where this machine has it.


def test_the_28_persons_of_synthea_have_the_rows_of_their_source_page() -> None:
    with opened(shared_data("ehrshot_public/synthea27nj_omop54")) as found:
        assert found.layout == readers.OMOP
        assert found.report["subjects"] == {"all": 28, "without_birth": 0}
        told = found.report["events"]
        assert (told["visit_occurrence"], told["visit_detail"], told["condition_occurrence"]) == (1791, 1791, 470)
        assert (told["measurement"], told["observation"], told["drug_exposure"], told["procedure_occurrence"]) == (10_040, 8_099, 883, 1_649)
        assert (told["device_exposure"], told["death"]) == (1, 3)
        assert len(list(found.timelines(None))) == 28


def test_the_200_subjects_of_femr_have_the_events_of_their_source_page() -> None:
    with opened(shared_data("ehrshot_public/femr_synthetic_meds")) as found:
        assert found.layout == readers.MEDS
        assert found.report["subjects"] == {"all": 200, "without_birth": 0}
        assert sum(found.report["events"].values()) == 2589
        assert found.splits.of is not None and len(found.splits.of) == 200
