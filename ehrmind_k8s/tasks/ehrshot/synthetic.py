"""A seeded twin of EHRSHOT: invented patients in the real layouts, nothing to download, the same bytes for a seed.

Two sizes:

`unit`        26 patients, all 15 tasks, both answers to each in every split, with the quirks of the real files: rows in no order, an unnamed index,
              visit ids as floats, text among numbers, odd units, dates without a time, visits that overlap, that end after the question or at a
              time that nobody wrote down, a diagnosis at the very minute of the question, group codes of LOINC, a patient without a label, a child.
`quickstart`  short records for a toy model on a CPU, one question: readmission. A patient returns where points add up to 3: heart failure 3,
              kidney disease 1, low hemoglobin 1, low sodium 1. **The SFT traces come from an imperfect teacher**, who overlooks heart failure with
              probability TEACHER_ERROR: that is what leaves RLVR something to mend. The labels are right.

Layouts are those of the readers: `ehrshot` (EHRSHOT_ASSETS), `meds` (one file, no visits), `meds_shards` (shards with visits and ends, inside a
folder) and `omop` (tables as CSV with CONCEPT and CONCEPT_ANCESTOR; no label files, they follow from the events).
"""

import csv
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ehrmind_k8s.tasks.ehrshot import patients, prompt, subtasks
from ehrmind_k8s.tasks.ehrshot.patients import Event, Label, Patient

LAYOUTS = ("ehrshot", "meds", "meds_shards", "omop")
READMISSION = "guo_readmission"
SHOTS = (1, 2)  # per class, beside -1 for all
FIRST_CONCEPT = 2_000_000_001  # OMOP leaves ids from 2 billion on to sites
STANDARD = {"Gender/M": 8507, "Gender/F": 8532, "Visit/IP": 9201, "Visit/OP": 9202}
CONCEPT = (
    *("concept_id", "concept_name", "domain_id", "vocabulary_id", "concept_class_id", "standard_concept", "concept_code"),
    *("valid_start_date", "valid_end_date", "invalid_reason"),
)


def write(folder: Path, seed: int, size: str, layout: str = "ehrshot") -> None:
    """Write the twin. `size` is `unit` or `quickstart`, `layout` one of those above."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    found = patients.quickstart(draw) if size == "quickstart" else patients.unit(draw)
    write_patients(folder, found, draw, layout)
    about = (__doc__ or "").replace("TEACHER_ERROR", str(patients.TEACHER_ERROR))
    (folder / "README.md").write_text(f"Size `{size}`, seed {seed}, layout `{layout}`.\n\n{about}", encoding="utf-8")


def write_patients(folder: Path, found: Sequence[Patient], draw: random.Random, layout: str) -> None:
    """Write these patients; `draw` shuffles rows where a layout has them in no order."""
    {"ehrshot": _ehrshot, "meds": _meds, "meds_shards": _meds_shards, "omop": _omop}[layout](folder, found, draw)


# EHRSHOT_ASSETS: one CSV of events, splits, labels and few-shot samples by subtask, and a CONCEPT that a user would put beside them.


def _ehrshot(folder: Path, found: Sequence[Patient], draw: random.Random) -> None:
    rows = [(p, e) for p in found for e in p.events]
    draw.shuffle(rows)
    events = ((i, p.subject, *_ehrshot_row(e)) for i, (p, e) in enumerate(rows))
    _csv(folder / "data" / "ehrshot.csv", ("", "patient_id", "start", "end", "code", "value", "unit", "visit_id", "omop_table"), events)
    _csv(folder / "splits" / "person_id_map.csv", ("split", "omop_person_id"), ((p.split, p.subject) for p in found))
    names = sorted({name for p in found for name in p.labels})
    for name in names:
        labels = list(patients.labels_of(found, name))
        kind = "boolean" if all(isinstance(label.value, bool) for _, label in labels) else "categorical"
        file = folder / "benchmark" / name / "labeled_patients.csv"
        _csv(file, ("patient_id", "prediction_time", "value", "label_type"), ((p.subject, lb.time, lb.value, kind) for p, lb in labels))
        document = {finding: _shots([(p, lb) for p, lb in labels], bit, draw) for finding, bit in _findings(name)}
        (file.parent / "all_shots_data.json").write_text(json.dumps(document), encoding="utf-8")
    _traces(folder / "benchmark" / "traces.jsonl", found)
    _concept(folder / "CONCEPT.csv", found)


def _ehrshot_row(e: Event) -> tuple[object, ...]:
    start = e.time.date() if e.dated and e.code.endswith("1") else e.time  # both forms of a date without a time
    return (start, e.end, e.code, e.value, e.unit, None if e.visit is None else float(e.visit), e.table)


def _findings(name: str) -> list[tuple[str, int | None]]:
    """Keys of a subtask's few-shot file, and the bit of a label that each is about."""
    if name != subtasks.CHEXPERT:
        return [(name, None)]
    return [(finding, len(subtasks.FINDINGS) - 1 - place) for place, finding in enumerate(subtasks.FINDINGS)]


def _shots(labels: Sequence[tuple[Patient, Label]], bit: int | None, draw: random.Random) -> dict[str, dict[str, dict[str, object]]]:
    """k -> replicate -> the labels of the sample, as parallel lists."""
    sizes: tuple[int, ...] = (*SHOTS, -1) if bit is None else SHOTS[:1]
    return {str(k): {str(r): _sample(labels, k, bit, draw) for r in range(2 if k > 0 else 1)} for k in sizes}


def _sample(labels: Sequence[tuple[Patient, Label]], k: int, bit: int | None, draw: random.Random) -> dict[str, object]:
    sample: dict[str, object] = {}
    for word in ("train", "val"):
        chosen: list[tuple[Patient, Label]] = []
        for positive in (False, True):
            of_class = [(p, lb) for p, lb in labels if p.split == word and _positive(lb, bit) == positive]
            chosen += of_class if k < 0 else draw.sample(of_class, min(k, len(of_class)))
        sample[f"patient_ids_{word}_k"] = [p.subject for p, _ in chosen]
        sample[f"label_times_{word}_k"] = [lb.time.isoformat() for _, lb in chosen]
        sample[f"label_values_{word}_k"] = [int(_positive(lb, bit)) for _, lb in chosen]
    return sample


def _positive(label: Label, bit: int | None) -> bool:
    return bool(label.value) if bit is None else bool(int(label.value) >> bit & 1)


def _traces(path: Path, found: Iterable[Patient]) -> None:
    asked = subtasks.BENCHMARK[READMISSION]
    names = {"positive": asked.positive, "negative": asked.negative}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for p in found:
            for when, trace in p.traces.items():
                text = prompt.completion(trace.reasoning, {**names, "label": int(trace.answer)})
                line = {"subject": p.subject, "prediction_time": str(when), "subtask": READMISSION, "text": text}
                file.write(json.dumps(line) + "\n")


# MEDS: events sorted by subject and time, labels as parquet.


def _meds(folder: Path, found: Sequence[Patient], draw: random.Random) -> None:
    """One file, as EHRSHOT_MEDS: `omop_table`, no visits and no ends."""
    rows = [_meds_row(p, e) | {"omop_table": e.table} for p in found for e in sorted(p.events, key=lambda e: e.time)]
    _parquet(folder / "data" / "data.parquet", rows, {**_MEDS, "omop_table": pa.string()})
    _meds_rest(folder, found)


def _meds_shards(folder: Path, found: Sequence[Patient], draw: random.Random) -> None:
    """Shards with visits and ends, as the OMOP release, inside one folder; a fact about the person has no time."""
    folder = folder / "meds_omop_ehrshot"
    for shard in range(3):
        rows = [
            _meds_row(p, e) | {"table": e.table, "visit_id": e.visit, "end": e.end} | ({"time": None} if e.code.startswith("Gender/") else {})
            for p in found[shard::3]
            for e in sorted(p.events, key=lambda e: e.time)
        ]
        more = {"table": pa.string(), "visit_id": pa.int64(), "end": pa.timestamp("us"), "note_id": pa.int64(), "clarity_table": pa.string()}
        _parquet(folder / "data" / f"data_{shard}.parquet", rows, {**_MEDS, **more})
    _meds_rest(folder, found)


_MEDS = {
    "subject_id": pa.int64(),
    "time": pa.timestamp("us"),
    "code": pa.string(),
    "numeric_value": pa.float32(),
    "text_value": pa.string(),
    "unit": pa.string(),
}


def _meds_row(p: Patient, e: Event) -> dict[str, object]:
    number = e.value if isinstance(e.value, float | int) else None
    text = e.value if isinstance(e.value, str) else None
    code = "MEDS_BIRTH" if e.time == p.birth and e.code.startswith("SNOMED") else e.code
    return {"subject_id": p.subject, "time": e.time, "code": code, "numeric_value": number, "text_value": text, "unit": e.unit}


def _meds_rest(folder: Path, found: Sequence[Patient]) -> None:
    words = {"train": "train", "val": "tuning", "test": "held_out"}
    splits = [{"subject_id": p.subject, "split": words[p.split]} for p in found]
    _parquet(folder / "metadata" / "subject_splits.parquet", splits, {"subject_id": pa.int64(), "split": pa.string()})
    codes = [{"code": code, "description": text, "parent_codes": None} for code, text in patients.NAMES.items()]
    _parquet(folder / "metadata" / "codes.parquet", codes, {"code": pa.string(), "description": pa.string(), "parent_codes": pa.list_(pa.string())})
    document = {"dataset_name": "twin", "dataset_version": "1", "etl_name": "synthetic", "etl_version": "1", "meds_version": "0.3.3"}
    (folder / "metadata" / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    for name in sorted({name for p in found for name in p.labels}):
        labels = list(patients.labels_of(found, name))
        column, kind = ("boolean_value", pa.bool_()) if isinstance(labels[0][1].value, bool) else ("integer_value", pa.int64())
        rows = [{"subject_id": p.subject, "prediction_time": lb.time, column: lb.value} for p, lb in labels]
        types = {"subject_id": pa.int64(), "prediction_time": pa.timestamp("us"), column: kind}
        _parquet(folder / "labels" / name / "labels.parquet", rows, types)
    _traces(folder / "labels" / "traces.jsonl", found)


# OMOP CDM 5.4: one CSV per table, upper-case names as some exports have them, dates always and times where there are any.


def _omop(folder: Path, found: Sequence[Patient], draw: random.Random) -> None:
    ids = _concept(folder / "CONCEPT.csv", found)
    levels = ("ancestor_concept_id", "descendant_concept_id", "min_levels_of_separation", "max_levels_of_separation")
    diagnoses = [id_ for code, id_ in ids.items() if code.startswith("SNOMED/")]
    _csv(folder / "CONCEPT_ANCESTOR.csv", levels, ((id_, id_, 0, 0) for id_ in diagnoses), "\t")
    _csv(
        folder / "PERSON.csv",
        ("person_id", "gender_concept_id", "year_of_birth", "month_of_birth", "day_of_birth", "birth_datetime", "race_concept_id"),
        ((p.subject, STANDARD["Gender/F" if p.female else "Gender/M"], p.birth.year, p.birth.month, p.birth.day, p.birth, 0) for p in found),
    )
    for table, stem in _STEMS.items():
        rows = [(p, e) for p in found for e in p.events if e.table == table]
        if not rows and table in _RARE:
            continue
        draw.shuffle(rows)
        kind = table.split("_")[0] if table != "visit_detail" else table
        header = (
            *(f"{table}_id", "person_id", f"{kind}_concept_id", f"{stem[0]}_date", f"{stem[0]}_datetime"),
            *((f"{stem[1]}_date", f"{stem[1]}_datetime") if stem[1] else ()),
            *(("value_as_number", "value_as_concept_id", "unit_concept_id", "unit_source_value", "value_source_value") if not stem[1] else ()),
            *(("visit_occurrence_id",) if table != "visit_occurrence" else ()),
        )
        _csv(folder / f"{table.upper()}.csv", header, (_omop_row(i, p, e, ids, stem) for i, (p, e) in enumerate(rows, 1)))


_STEMS: Mapping[str, tuple[str, str]] = {
    "visit_occurrence": ("visit_start", "visit_end"),
    "visit_detail": ("visit_detail_start", "visit_detail_end"),
    "condition_occurrence": ("condition_start", "condition_end"),
    "drug_exposure": ("drug_exposure_start", "drug_exposure_end"),
    "procedure_occurrence": ("procedure", "procedure_end"),
    "measurement": ("measurement", ""),
    "observation": ("observation", ""),
    "device_exposure": ("device_exposure_start", "device_exposure_end"),
    "death": ("death", ""),
}
_RARE = ("observation", "device_exposure", "death")  # tables that are written where somebody has rows in them


def _omop_row(i: int, p: Patient, e: Event, ids: Mapping[str, int], stem: tuple[str, str]) -> tuple[object, ...]:
    row: list[object] = [e.visit if e.table == "visit_occurrence" else i, p.subject, ids[e.code], e.time.date(), None if e.dated else e.time]
    if stem[1]:
        row += [e.end and e.end.date(), e.end]
    else:
        row += [e.value if isinstance(e.value, float | int) else None, 0, 0, e.unit, e.value]
    return tuple(row if e.table == "visit_occurrence" else [*row, e.visit])


def _concept(path: Path, found: Iterable[Patient]) -> dict[str, int]:
    """CONCEPT as Athena writes it, with tabs; the id of each code. Codes that nobody describes are left out of names, not of the file."""
    codes = sorted({e.code for p in found for e in p.events} | set(patients.NAMES))
    ids = {code: STANDARD.get(code, FIRST_CONCEPT + i) for i, code in enumerate(codes)}
    parts = ((ids[code], patients.NAMES.get(code), *code.split("/", 1)) for code in codes)
    rows = ((id_, name, "", vocabulary, "", "S", rest, "19700101", "20991231", "") for id_, name, vocabulary, rest in parts)
    _csv(path, CONCEPT, rows, "\t")
    return ids


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _parquet(path: Path, rows: Sequence[Mapping[str, object]], types: Mapping[str, pa.DataType]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=pa.schema(list(types.items()))), path)
