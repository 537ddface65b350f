"""A published row, and files made of rows, for tests that need one thing to be different."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ehrmind_k8s.tasks.medcalc.layouts import FULL

ROW = {
    "Row Number": "7",
    "Calculator ID": "6",
    "Calculator Name": "Body Mass Index (BMI)",
    "Category": "physical",
    "Output Type": "decimal",
    "Note ID": "made-up-7",
    "Note Type": "Template",
    "Patient Note": "Weight 80 kg,\nheight 200 cm; “well”.",
    "Question": "What is the patient's body mass mass index (BMI)? Your answer should be in terms of kg/m².",
    "Relevant Entities": "{'weight': [80.0, 'kg'], 'height': [200.0, 'cm']}",
    "Ground Truth Answer": "20.0",
    "Lower Limit": "19.0",
    "Upper Limit": "21.0",
    "Ground Truth Explanation": "80 kg / (2 m)^2 = 20.0 kg/m^2",
}


def make(**changes: str) -> dict[str, str]:
    """ROW with some columns changed, named with underscores: `make(Patient_Note="...")`."""
    return ROW | {name.replace("_", " "): value for name, value in changes.items()}


def numbered(count: int, **changes: str) -> list[dict[str, str]]:
    """Rows 1..count with a note each."""
    return [make(Row_Number=str(i), Patient_Note=f"Patient {i} of this file.", **changes) for i in range(1, count + 1)]


def text(rows: Sequence[dict[str, str]], columns: Sequence[str] = FULL) -> str:
    """CSV as the releases write it: commas, quotes where needed, LF."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write(path: Path, rows: Sequence[dict[str, str]], columns: Sequence[str] = FULL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(rows, columns), encoding="utf-8")
    return path
