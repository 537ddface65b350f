"""EHRSHOT-shaped records into prompts: ours against a pandas script that does the same job, and how memory grows with the records.

    python benchmarks/ehrshot_preparation.py                       # 4.17 million events, a tenth of EHRSHOT, then ours at ten times that
    python benchmarks/ehrshot_preparation.py --events 200000 --times 1

The job is the whole of it: read the CSV, cut each record at each of its labels, write what was known into 4,096 tokens (counted alike on both
sides), and write the prompts to files. Records are generated: events per subject are log-normal and codes Zipf-like, as EHRSHOT's are
(median 2,592, mean 6,182), a third of all values are empty, rows are in no order. Each side runs in a process of its own, which tells its time
and its peak of resident memory. The pandas script reads with types, groups by subject, and writes the last three values of each code by table; ours
also checks, hashes its inputs, and compares labels with events. The larger source is read by ours alone.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

EVENTS = 4_170_000
LABELS = 20  # of one subject, as data.labels_per_subject keeps
BUDGET = 4096
SUBTASK = "guo_los"
PER_SUBJECT = 2592.0  # median; the mean is 6,182
SPREAD = float(np.sqrt(2 * np.log(6182 / 2592)))
CODES = 20_000
PART = 500_000  # events generated at a time
FIRST_SUBJECT = 9_000_001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--times", type=int, default=10, help="how many times as many events for ours alone; 0: none")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=("ours", "pandas"), help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        started = time.perf_counter()
        prompts = {"ours": ours, "pandas": with_pandas}[arguments.side](arguments.source)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"s": time.perf_counter() - started, "cpu_s": time.process_time(), "mb": peak_mb, "prompts": prompts}))
        return
    with tempfile.TemporaryDirectory(prefix="ehrmind-benchmark-") as folder:
        source = generate(Path(folder) / "small", arguments.events)
        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "pandas": []}
        for _ in range(arguments.rounds):
            for side, all_ in runs.items():
                all_.append(run(side, source))
        best = {side: min(found, key=lambda r: float(r["s"])) for side, found in runs.items()}
        for side, found in best.items():
            tell(arguments.events, side, found)
        ratio = {name: best["pandas"][name] / best["ours"][name] for name in ("s", "cpu_s", "mb")}
        print(f"ours is {ratio['s']:.1f} times as fast ({ratio['cpu_s']:.1f} in CPU time), with {1 / ratio['mb']:.2f} of the memory")
    if arguments.times:
        with tempfile.TemporaryDirectory(prefix="ehrmind-benchmark-") as folder:
            larger = run("ours", generate(Path(folder) / "large", arguments.events * arguments.times))
        tell(arguments.events * arguments.times, "ours", larger)
        print(f"{arguments.times} times the records take {larger['mb'] / best['ours']['mb']:.2f} of the memory")


def tell(events: int, side: str, found: dict[str, Any]) -> None:
    print(f"{events:>11,} events  {side:<6}  {found['s']:7.1f} s  {found['cpu_s']:7.1f} s CPU  {found['mb']:5.0f} MB  {found['prompts']:,} prompts")


def run(side: str, source: Path) -> dict[str, Any]:
    """One side in its own process."""
    line = [sys.executable, __file__, "--side", side, "--source", str(source)]
    found: dict[str, Any] = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return found


# The two sides.


def ours(source: Path) -> int:
    """What `prepare` does with a source, without the model's tokenizer."""
    from ehrmind_k8s import examples
    from ehrmind_k8s.records import SPLITS
    from ehrmind_k8s.spec import DataSpec
    from ehrmind_k8s.tasks.base import words
    from ehrmind_k8s.tasks.ehrshot import data

    spec = DataSpec(subtasks=(SUBTASK,), labels_per_subject=LABELS, max_prompt_tokens=BUDGET)
    found = data.read(source, spec, 1, words)
    n = 0
    with ExitStack() as stack:
        writers = {split: stack.enter_context(examples.SplitWriter(source / f"ours-{split}.parquet")) for split in SPLITS}
        for example in found.examples:
            writers[example.split].write(example)
            n += 1
    return n


def with_pandas(source: Path) -> int:
    """The script that one would write first, knowing pandas: the last three values of each code, by table, the last seen first."""
    import pandas as pd

    types = {"patient_id": "int64", "code": "category", "value": "string", "unit": "category", "omop_table": "category"}
    events = pd.read_csv(source / "data" / "ehrshot.csv", dtype=types, usecols=[*types, "start"], parse_dates=["start"])
    labels = pd.read_csv(source / "benchmark" / SUBTASK / "labeled_patients.csv", parse_dates=["prediction_time"])
    splits = pd.read_csv(source / "splits" / "person_id_map.csv").set_index("omop_person_id")["split"]
    records = dict(iter(events.sort_values(["patient_id", "start"], kind="stable").groupby("patient_id")))
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in splits.unique()}
    for label in labels.itertuples():
        record = records[label.patient_id]
        past = record[record["start"] <= label.prediction_time]
        if past.empty:
            continue
        prompt = _pandas_prompt(past, label.prediction_time)
        rows[splits[label.patient_id]].append({"patient": label.patient_id, "label": bool(label.value), "prompt": prompt})
    for split, found in rows.items():
        pd.DataFrame(found).to_parquet(source / f"pandas-{split}.parquet", compression="zstd")
    return sum(map(len, rows.values()))


def _pandas_prompt(past: Any, at: Any) -> str:
    last = past.groupby(["omop_table", "code"], observed=True, sort=False).tail(3).iloc[::-1]
    days = (at.normalize() - last["start"].dt.normalize()).dt.days
    told: dict[str, dict[str, list[str]]] = {}
    columns = (last["omop_table"].astype(str), last["code"].astype(str), last["value"].fillna(""), last["unit"].astype("string").fillna(""), days)
    for table, code, value, unit, day in zip(*columns, strict=True):
        values = told.setdefault(table, {}).setdefault(code, [f"({day} days ago)"])
        if value:
            values.append(f"{value} {unit}")
    lines, used, allowed = [], 0, 0
    for table, codes in told.items():
        allowed += BUDGET // len(told)
        lines.append(f"{table}:")
        for code, values in codes.items():
            line = f"- {code} {', '.join(values)}"
            used += 2 * len(line.split())
            if used > allowed:
                break
            lines.append(line)
    return "\n".join(lines)


# The records.


def generate(folder: Path, events: int) -> Path:
    """Write `events` events in the layout of EHRSHOT_ASSETS, with LABELS labels for each subject, in parts, so that memory stays small."""
    random = np.random.default_rng(1)
    sizes = _sizes(random, events)
    subjects = FIRST_SUBJECT + np.arange(len(sizes))
    (folder / "data").mkdir(parents=True)
    (folder / "splits").mkdir()
    (folder / "benchmark" / SUBTASK).mkdir(parents=True)
    codes, tables = _codes()
    share = sizes / sizes.sum()
    header = True
    with pa.OSFile(str(folder / "data" / "ehrshot.csv"), "wb") as file:
        for start in range(0, events, PART):
            size = min(PART, events - start)
            _write(file, _part(random, start, random.choice(subjects, size, p=share), codes, tables), header)
            header = False
        births = _births(events, subjects)
        _write(file, births, False)
    split = np.array(["train", "val", "test"])[np.arange(len(subjects)) % 3]
    _table(folder / "splits" / "person_id_map.csv", {"split": split, "omop_person_id": subjects})
    asked = np.repeat(subjects, LABELS)
    minute = random.integers(_DAY * 365, _DAY * 3650, len(asked)) // 60 * 60
    _table(
        folder / "benchmark" / SUBTASK / "labeled_patients.csv",
        {
            "patient_id": asked,
            "prediction_time": (_EPOCH + minute).astype("datetime64[s]").astype(str),
            "value": np.where(np.arange(len(asked)) % 2, "True", "False"),  # as many of each, so that nothing is balanced away
            "label_type": np.full(len(asked), "boolean"),
        },
    )
    return folder


_DAY = 86400
_EPOCH = np.datetime64("2010-01-01", "s").astype(np.int64)


def _sizes(random: np.random.Generator, events: int) -> np.ndarray:
    """Events of each subject: log-normal, until there are enough."""
    sizes: list[np.ndarray] = []
    while sum(int(s.sum()) for s in sizes) < events:
        sizes.append(np.maximum(20, random.lognormal(np.log(PER_SUBJECT), SPREAD, 16)).astype(np.int64))
    return np.concatenate(sizes)


def _codes() -> tuple[np.ndarray, np.ndarray]:
    """Codes and the table of each; the commonest are laboratory results."""
    kinds = (*[("LOINC", "measurement")] * 2, ("SNOMED", "condition_occurrence"), ("RxNorm", "drug_exposure"), ("CPT4", "procedure_occurrence"))
    names = [f"{kinds[i % 5][0]}/{10_000 + i}" for i in range(CODES)]
    return np.array(names), np.array([kinds[i % 5][1] for i in range(CODES)])


def _part(random: np.random.Generator, start: int, subject: np.ndarray, codes: np.ndarray, tables: np.ndarray) -> pa.Table:
    size = len(subject)
    code = np.minimum((random.pareto(0.9, size) * 12).astype(np.int64), CODES - 1)
    seconds = _EPOCH + random.integers(0, _DAY * 3650, size)
    measured = tables[code] == "measurement"
    kind = random.random(size)
    value = np.round(random.lognormal(3, 1, size), 1).astype(str).astype(object)
    value[kind < 0.03] = "Normal"
    value[~measured | (kind > 0.85)] = None
    unit = np.where(measured, np.array(["mg/dL", "mmol/L", "g/dL", "K/uL", "%"])[code % 5], None)
    end = np.where(measured, np.iinfo(np.int64).min, seconds + 3600).astype("datetime64[s]")
    return pa.table(
        {
            "": np.arange(start, start + size),
            "patient_id": subject,
            "start": pa.array(seconds.astype("datetime64[s]")),
            "end": pa.array(end),
            "code": codes[code],
            "value": pa.array(value, pa.string()),
            "unit": pa.array(unit, pa.string()),
            "visit_id": random.integers(31_000_000, 32_000_000, size).astype(float),
            "omop_table": tables[code],
        }
    )


def _births(start: int, subjects: np.ndarray) -> pa.Table:
    size, none = len(subjects), pa.nulls(len(subjects), pa.string())
    born = np.full(size, np.datetime64("1950-05-01", "s"))
    columns = {"": np.arange(start, start + size), "patient_id": subjects, "start": pa.array(born), "end": pa.nulls(size, pa.timestamp("s"))}
    columns |= {"code": np.full(size, "SNOMED/3950001"), "value": none, "unit": none, "visit_id": pa.nulls(size, pa.float64())}
    return pa.table({**columns, "omop_table": np.full(size, "person")})


def _write(file: pa.NativeFile, table: pa.Table, header: bool) -> None:
    pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(include_header=header, quoting_style="needed"))


def _table(path: Path, columns: dict[str, np.ndarray]) -> None:
    pyarrow.csv.write_csv(pa.table(columns), path, pyarrow.csv.WriteOptions(quoting_style="needed"))


if __name__ == "__main__":
    main()
