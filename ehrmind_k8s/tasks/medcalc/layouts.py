"""Every published form of MedCalc-Bench, read into one kind of row. All values stay text: answers and limits mix numbers, dates and tuples.

    14 columns   v1.0 (both uploads), v1.1, v1.2, Verified; as CSV or parquet. More columns are ignored, so the parquet of the paper's
                 code (these 14, then its own prompt and reward columns) is read the same way, and its prompts are not.
    7 columns    the physician-led relabelling of 887 v1.0 test rows (arXiv 2512.19691): `Unique ID` is v1.0's `Row Number`.
    its parquet  the same rows as chat prompts: note and question are cut from the prompt, and the question names the calculator.

The 7-column file asks for gestational age (69) in days: those rows are judged as integers, since a row is judged by what it asks.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ehrmind_k8s.errors import DataError, nearest
from ehrmind_k8s.tasks.medcalc.calculators import BY_ID, BY_NAME, Calculator, Scoring, asked_by
from ehrmind_k8s.tasks.medcalc.scoring import ABSTAIN, weeks_days
from ehrmind_k8s.tasks.sources import File

SUFFIXES = (".csv", ".parquet")
FULL = (
    "Row Number",
    "Calculator ID",
    "Calculator Name",
    "Category",
    "Output Type",
    "Note ID",
    "Note Type",
    "Patient Note",
    "Question",
    "Relevant Entities",
    "Ground Truth Answer",
    "Lower Limit",
    "Upper Limit",
    "Ground Truth Explanation",
)
RELABELLED = ("Unique ID", "Calculator Name", "Question", "Patient Note", "Ground Truth Answer", "Lower Limit", "Upper Limit")
CHAT = ("prompt", "reward_model", "extra_info")


@dataclass(frozen=True, slots=True)
class Row:
    """One published row. `where` names file and row for messages; `relabelled` tells whose answers these are."""

    where: str
    number: int
    calculator: Calculator
    scoring: Scoring
    note: str
    question: str
    answer: str
    lower: str
    upper: str
    entities: str = ""
    explanation: str = ""
    note_id: str = ""
    note_type: str = ""
    relabelled: bool = False


def read(file: File) -> list[Row]:
    """The rows of one file. Raises DataError naming file, row and column; never text of a row."""
    columns, records = _csv(file) if file.suffix == ".csv" else _parquet(file)
    for wanted, make in ((FULL, _full), (RELABELLED, _relabelled), (CHAT, _chat)):
        if set(wanted) <= set(columns):
            return [make(file.name, record) for record in records]
    missing = [c for c in FULL if c not in columns]
    hint = "; is it separated by something else than commas?" if len(columns) == 1 else ""
    raise DataError(f"{file.name}: {len(columns)} columns, of which these are missing: {', '.join(missing)}{hint}")


def is_relabelled(file: File) -> bool:
    """Whether a file holds the relabelled answers. Raises DataError where it cannot be read."""
    columns, _ = _csv(file) if file.suffix == ".csv" else _parquet(file)
    return not set(FULL) <= set(columns) and (set(RELABELLED) <= set(columns) or set(CHAT) <= set(columns))


def _csv(file: File) -> tuple[list[str], Iterator[Mapping[str, Any]]]:
    try:
        text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name}: not UTF-8 (byte {error.start}); convert it, for example with iconv") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    return list(reader.fieldnames or ()), _csv_rows(file.name, reader)


def _csv_rows(name: str, reader: "csv.DictReader[str]") -> Iterator[Mapping[str, Any]]:
    try:
        for record in reader:
            if None in record or None in record.values():
                raise DataError(f"{name}, line {reader.line_num}: another number of columns than the header; quoting is broken before this line")
            yield record
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: not valid CSV ({error}); the file may be cut off") from None


def _parquet(file: File) -> tuple[list[str], Iterator[Mapping[str, Any]]]:
    try:
        table = pq.read_table(io.BytesIO(file.read()))
    except (pa.ArrowException, OSError):
        raise DataError(f"{file.name}: not a whole parquet file; copy it again") from None
    return table.schema.names, iter(table.to_pylist())


def _full(name: str, record: Mapping[str, Any]) -> Row:
    values = {c: "" if record[c] is None else str(record[c]) for c in FULL}
    number = _integer(values["Row Number"], "Row Number", name)
    where = f"{name}, row {number}"
    calculator = BY_ID.get(_integer(values["Calculator ID"], "Calculator ID", where))
    if calculator is None:
        raise DataError(f"{where}: Calculator ID {values['Calculator ID']} is unknown; known: {', '.join(map(str, BY_ID))}")
    return Row(
        where,
        number,
        calculator,
        calculator.scoring,
        values["Patient Note"],
        values["Question"],
        values["Ground Truth Answer"].strip(),
        values["Lower Limit"].strip(),
        values["Upper Limit"].strip(),
        values["Relevant Entities"],
        values["Ground Truth Explanation"],
        values["Note ID"],
        values["Note Type"],
    )


def _relabelled(name: str, record: Mapping[str, Any]) -> Row:
    values = {c: str(record[c]) for c in RELABELLED}
    number = _integer(values["Unique ID"], "Unique ID", name)
    calculator = BY_NAME.get(values["Calculator Name"].strip())
    if calculator is None:
        raise DataError(f"{name}, row {number}: unknown Calculator Name; {nearest(values['Calculator Name'], BY_NAME)}")
    answer, lower, upper = (values[c].strip() for c in ("Ground Truth Answer", "Lower Limit", "Upper Limit"))
    where, note, question = f"{name}, row {number}", values["Patient Note"], values["Question"]
    scoring: Scoring = "integer" if calculator.scoring == "weeks_days" and "number of days" in question else calculator.scoring
    return Row(where, number, calculator, scoring, note, question, answer, lower, upper, relabelled=True)


def _chat(name: str, record: Mapping[str, Any]) -> Row:
    """A chat row holds limits only: the gold of a decimal or an integer is their middle."""
    number = _integer(str((record["extra_info"] or {}).get("uid", "")), "extra_info.uid", name)
    try:
        text, limits = record["prompt"][-1]["content"], [str(v) for v in record["reward_model"]["ground_truth"]]
        note, _, question = text.removeprefix("Patient Note:").removesuffix("Response:").rpartition("\n\nQuestion:")
        calculator = asked_by(question)
        answer, lower, upper = _middle(calculator.scoring, *limits) if calculator else ("", "", "")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise DataError(f"{name}, row {number}: prompt is no chat, or reward_model.ground_truth not the two limits that its calculator has") from None
    if calculator is None:
        raise DataError(f"{name}, row {number}: no calculator is known by this question")
    return Row(f"{name}, row {number}", number, calculator, calculator.scoring, note, question, answer, lower, upper, relabelled=True)


def _middle(scoring: Scoring, lower: str, upper: str) -> tuple[str, str, str]:
    """Answer and limits from the limits of a chat row: its dates are Y/M/D, its gestational ages days, its abstentions `unknown`."""
    if lower == "unknown":
        return (ABSTAIN,) * 3
    if scoring == "date":
        year, month, day = lower.split("/")
        return (f"{month}/{day}/{year}",) * 3
    middle = (float(lower) + float(upper)) / 2
    if scoring == "weeks_days":
        return (weeks_days(round(middle)),) * 3
    return str(middle if scoring == "decimal" else round(middle)), lower, upper


def _integer(text: str, column: str, where: str) -> int:
    if not (text.strip().isascii() and text.strip().isdigit()):
        raise DataError(f"{where}: {column} is not a whole number")
    return int(text)
