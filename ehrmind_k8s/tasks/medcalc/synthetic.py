"""A seeded twin of MedCalc-Bench: invented patients in the exact v1.0 layout, nothing to download, the same bytes for a seed.

Two sizes, each a folder with `train.csv`, `test.csv` and a README:

`unit`        a few rows of every scoring class and category, with the quirks of the real files: quoted notes of several lines, µ ² × in text,
              entities as Python literals, answers as text, the two spellings of a category, an `Output Type` that says nothing, and calculators
              24 and 49 with exact limits in train and 5 % in test.
`quickstart`  CHA2DS2-VASc alone, one line a note, for a toy model on a CPU. **Its SFT traces come from an imperfect teacher**, who scores each
              2-point item (stroke, age >= 75) as 1 with probability TEACHER_ERROR: a stand-in for noisy rationales written by a language model,
              and what leaves RLVR something to mend. The gold answers are right. The other 54 calculators are not in it.

    A 78-year-old woman. Heart failure: no; hypertension: yes; stroke: yes; vascular disease: no; diabetes: no.   gold 6 (2 + 1 + 1 + 2)
"""

import csv
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from ehrmind_k8s.tasks.medcalc.calculators import BY_ID
from ehrmind_k8s.tasks.medcalc.layouts import FULL

TRAIN_SPELLINGS = {"lab": "lab test", "dosage": "dosage conversion"}
EXACT_IN_TRAIN = (24, 49)
TEACHER_ERROR = 0.6
QUICKSTART_ROWS = {"train": 2700, "test": 300}
UNIT_ROWS = {"train": 4, "test": 2}  # per calculator


@dataclass(frozen=True, slots=True)
class Case:
    """One invented row. `answer` is the gold as the benchmark writes it."""

    calculator: int
    note: str
    question: str
    entities: Mapping[str, Any]
    answer: str
    explanation: str


def write(folder: Path, seed: int, size: str) -> None:
    """Write the twin. `size` is `unit` or `quickstart`."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    splits = _quickstart(draw) if size == "quickstart" else _unit(draw)
    for split, cases in splits.items():
        _write_csv(folder / f"{split}.csv", cases, split)
    about = (__doc__ or "").replace("TEACHER_ERROR", str(TEACHER_ERROR))
    (folder / "README.md").write_text(f"Size `{size}`, seed {seed}.\n\n{about}", encoding="utf-8")


def _write_csv(path: Path, cases: list[Case], split: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FULL)
        for number, case in enumerate(cases, 1):
            writer.writerow(_row(case, number, split))


def _row(case: Case, number: int, split: str) -> tuple[str | int, ...]:
    calculator = BY_ID[case.calculator]
    category = TRAIN_SPELLINGS.get(calculator.category, calculator.category) if split == "train" else calculator.category
    output = "date" if case.calculator == 69 and split == "train" else calculator.output
    note_id = f"twin-{split}-{number}"
    lower, upper = _limits(case, split)
    about = (number, case.calculator, calculator.name, category, output, note_id, "Template")
    return (*about, case.note, case.question, repr(dict(case.entities)), case.answer, lower, upper, case.explanation)


def _limits(case: Case, split: str) -> tuple[str, str]:
    """5 % of the truth around a decimal, the answer itself for everything else."""
    exact = split == "train" and case.calculator in EXACT_IN_TRAIN
    if BY_ID[case.calculator].scoring != "decimal" or exact:
        return case.answer, case.answer
    value = float(case.answer)
    low, high = sorted((value * 0.95, value * 1.05))
    return _number(low), _number(high)


def _number(value: float) -> str:
    return str(round(value, 3))


# The quickstart: one point score, every item stated.

_ITEMS = {
    "heart failure": "Congestive Heart Faliure",  # spelled as in the benchmark
    "hypertension": "Hypertension history",
    "stroke": "Stroke",
    "vascular disease": "Vascular disease history",
    "diabetes": "Diabetes history",
}


def _quickstart(draw: random.Random) -> dict[str, list[Case]]:
    wanted = sum(QUICKSTART_ROWS.values())
    cases: dict[str, Case] = {}  # by note: no note twice, so none in two splits
    while len(cases) < wanted:
        case = _cha2ds2_vasc(draw)
        cases.setdefault(case.note, case)
    rows = list(cases.values())
    return {"train": rows[: QUICKSTART_ROWS["train"]], "test": rows[QUICKSTART_ROWS["train"] :]}


def _cha2ds2_vasc(draw: random.Random) -> Case:
    """CHA2DS2-VASc: age >= 75 and stroke 2 points, age 65-74, female sex and the rest 1 (Lip et al., Chest 2010)."""
    age, female = draw.randint(40, 95), draw.random() < 0.5
    has = {item: draw.random() < 0.5 for item in _ITEMS}
    points = {"age": 2 if age >= 75 else 1 if age >= 65 else 0, "sex": int(female)}
    points |= {item: (2 if item == "stroke" else 1) * present for item, present in has.items()}
    taught = {item: 1 if value == 2 and draw.random() < TEACHER_ERROR else value for item, value in points.items()}
    items = "; ".join(f"{item}: {'yes' if present else 'no'}" for item, present in has.items())
    sum_of = ", ".join(f"{item} {value}" for item, value in taught.items())
    total = sum(taught.values())
    return Case(
        calculator=4,
        note=f"A {age}-year-old {'woman' if female else 'man'}. {items.capitalize()}.",
        question="What is the patient's CHA2DS2-VASc Score?",
        entities={"sex": "Female" if female else "Male", "age": [age, "years"], **{key: has[item] for item, key in _ITEMS.items()}},
        answer=str(sum(points.values())),
        explanation=f'<think>{sum_of}: {total}</think>\n<answer>{{"answer": "{total}"}}</answer>',
    )


# The unit size: one short maker per calculator.


def _unit(draw: random.Random) -> dict[str, list[Case]]:
    seen: set[str] = set()

    def fresh(make: Callable[[random.Random], Case]) -> Case:
        while (case := make(draw)).note in seen:
            pass
        seen.add(case.note)
        return case

    return {split: [fresh(make) for make in _MAKERS for _ in range(n)] for split, n in UNIT_ROWS.items()}


def _anion_gap(draw: random.Random) -> Case:
    sodium, chloride, bicarbonate = draw.randint(125, 150), draw.randint(90, 110), draw.randint(12, 28)
    gap = _number(float(sodium - chloride - bicarbonate))
    return Case(
        39,
        f"A man presents with “nausea”.\n\nLabs: Na {sodium} mEq/L, Cl {chloride} mEq/L,\nHCO₃ {bicarbonate} mEq/L; WBC 8 × 10⁹/L.",
        "What is the patient's anion gap in terms of mEq/L?",
        {"Sodium": [float(sodium), "mEq/L"], "Chloride": [float(chloride), "mEq/L"], "Bicarbonate": [float(bicarbonate), "mEq/L"]},
        gap,
        f"Sodium minus chloride minus bicarbonate: {sodium} - ({chloride} + {bicarbonate}) = {gap} mEq/L.",
    )


def _creatinine_clearance(draw: random.Random) -> Case:
    age, weight, creatinine = draw.randint(30, 88), draw.randint(48, 110), draw.randint(60, 300)
    mg_dl = creatinine * 113.12 / 10_000  # 113.12 g/mol
    value = _number((140 - age) * weight / (72 * mg_dl))
    return Case(
        2,
        f"{age}-year-old man, weight {weight} kg, seen for swelling.\nCreatinine {creatinine} µmol/L; urea 7 mmol/L.",
        "What is the patient’s Creatinine Clearance using the Cockroft-Gault Equation in terms of mL/min?",
        {"sex": "Male", "age": [age, "years"], "weight": [float(weight), "kg"], "creatinine": [float(creatinine), "µmol/L"]},
        value,
        f"Creatinine is {creatinine} µmol/L = {mg_dl:.3f} mg/dL. (140 - {age}) * {weight} / (72 * {mg_dl:.3f}) = {value} mL/min.",
    )


def _body_mass_index(draw: random.Random) -> Case:
    weight, height = draw.randint(45, 130), draw.randint(148, 198)
    value = _number(weight / (height / 100) ** 2)
    return Case(
        6,
        f"Weight {weight} kg, height {height} cm, “no complaints”. Body surface 1.9 m².",
        "What is the patient's body mass mass index (BMI)? Your answer should be in terms of kg/m².",
        {"weight": [float(weight), "kg"], "height": [float(height), "cm"]},
        value,
        f"The height is {height / 100} m, so {weight} kg / ({height / 100} m)² = {value} kg/m².",
    )


def _mean_arterial_pressure(draw: random.Random) -> Case:
    systolic, diastolic = draw.randint(85, 190), draw.randint(45, 84)
    value = _number((systolic + 2 * diastolic) / 3)
    return Case(
        5,
        f"On arrival BP {systolic}/{diastolic} mmHg, pulse 92/min.",
        "What is patient's mean arterial pressure in mm Hg?",
        {"Systolic Blood Pressure": [float(systolic), "mm hg"], "Diastolic Blood Pressure": [float(diastolic), "mm hg"]},
        value,
        f"2/3 * {diastolic} mm Hg + 1/3 * {systolic} mm Hg = {value} mm Hg.",
    )


def _curb_65(draw: random.Random) -> Case:
    age, urea, breaths = draw.randint(30, 90), draw.randint(8, 40), draw.randint(14, 38)
    systolic, diastolic, confused = draw.randint(75, 150), draw.randint(45, 90), draw.random() < 0.5
    points = (confused, urea > 19, breaths >= 30, systolic < 90 or diastolic <= 60, age >= 65)
    total = str(sum(points))
    return Case(
        45,
        f"{age} years old, cough for 3 days.\nBP {systolic}/{diastolic} mmHg, RR {breaths}/min, BUN {urea} mg/dL. Confused: {confused}.",
        "What is the patient's CURB-65 score?",
        {
            "age": [age, "years"],
            "Blood Urea Nitrogen (BUN)": [float(urea), "mg/dL"],
            "respiratory rate": [float(breaths), "breaths per minute"],
            "Systolic Blood Pressure": [float(systolic), "mm hg"],
            "Diastolic Blood Pressure": [float(diastolic), "mm hg"],
            "Confusion": confused,
        },
        total,
        f"Confusion, urea, respiratory rate, blood pressure, age: {' + '.join(str(int(p)) for p in points)} = {total}.",
    )


def _centor(draw: random.Random) -> Case:
    age, fever, nodes, no_cough, exudate = draw.randint(4, 70), *(draw.random() < 0.5 for _ in range(4))
    points = (1 if age < 15 else -1 if age > 44 else 0, fever, nodes, no_cough, exudate)
    total = str(sum(points))
    temperature = 38.9 if fever else 36.8
    return Case(
        20,
        f"{age}-year-old with a sore throat, {temperature} °C. Tender nodes: {nodes}. Cough: {not no_cough}. Exudate: {exudate}.",
        "What is the patient's Centor Score?",
        {
            "age": [age, "years"],
            "Temperature": [temperature, "degrees celsius"],
            "Tender/swollen anterior cervical lymph nodes": nodes,
            "Cough Absent": no_cough,
            "Exudate or swelling on tonsils": exudate,
        },
        total,
        f"Age, fever, nodes, no cough, exudate: {' + '.join(str(int(p)) for p in points)} = {total}.",
    )


def _sirs(draw: random.Random) -> Case:
    temperature, pulse = draw.choice((36.6, 39.1)), draw.randint(60, 130)
    breaths, cells = draw.randint(12, 30), 100 * draw.randint(50, 180)
    points = (temperature > 38, pulse > 90, breaths > 20, cells > 12_000)
    total = str(sum(points))
    return Case(
        51,
        f"T {temperature} °C, HR {pulse}/min, RR {breaths}/min, WBC {cells}/µL.",
        "What is the number of SIRS critiera met by the patient?",
        {
            "Temperature": [temperature, "degrees celsius"],
            "Heart Rate or Pulse": [float(pulse), "beats per minute"],
            "respiratory rate": [float(breaths), "breaths per minute"],
            "White blood cell count": [float(cells), "µL"],
        },
        total,
        f"Temperature, pulse, breaths, cells: {' + '.join(str(int(p)) for p in points)} = {total}.",
    )


_PREGNANCY_NOTE = "The patient's last menstrual period was {start}. Cycle length: {cycle} days."


def _due_date(draw: random.Random) -> Case:
    start, cycle = date(2010, 1, 1) + timedelta(days=draw.randrange(4000)), draw.randint(21, 35)
    due = _date(start + timedelta(days=280 + cycle - 28))
    return Case(
        13,
        _PREGNANCY_NOTE.format(start=_date(start), cycle=cycle),
        "Using Naegele's Rule, what is the the patient's estimated due date? Your response should be in the format of M/D/Y (ie 08/31/2023).",
        {"cycle length": cycle, "Last menstrual date": _date(start)},
        due,
        f"40 weeks after {_date(start)}, and {cycle - 28} days for the cycle length: {due}.",
    )


def _conception(draw: random.Random) -> Case:
    start, cycle = date(2010, 1, 1) + timedelta(days=draw.randrange(4000)), draw.randint(21, 35)
    day = _date(start + timedelta(days=14 + cycle - 28))
    return Case(
        68,
        _PREGNANCY_NOTE.format(start=_date(start), cycle=cycle),
        "Based on the patient's last menstrual period and cycle length, what is the the patient's estimated date of conception?",
        {"cycle length": cycle, "Last menstrual date": _date(start)},
        day,
        f"2 weeks after {_date(start)}, and {cycle - 28} days for the cycle length: {day}.",
    )


def _gestational_age(draw: random.Random) -> Case:
    start, days = date(2010, 1, 1) + timedelta(days=draw.randrange(4000)), draw.randint(20, 280)
    now = start + timedelta(days=days)
    answer = f"('{days // 7} weeks', '{days % 7} days')"
    return Case(
        69,
        f"The patient's last menstrual period was {_date(start)}. Today's date is {_date(now)}.",
        "What is the patient's estimated gestational age? Your answer should be a tuple of weeks and days (i.e. (4 weeks, 3 days)).",
        {"Current Date": _date(now), "Last menstrual date": _date(start)},
        answer,
        f"From {_date(start)} to {_date(now)}: {days // 7} weeks and {days % 7} days.",
    )


def _steroid(draw: random.Random) -> Case:
    dose = draw.randint(5, 400)
    value = _number(dose * 5 / 20)  # prednisone 5 mg for hydrocortisone 20 mg
    return Case(
        24,
        f"Hydrocortisone PO {dose} mg daily.",
        "Based on the patient's dose of Hydrocortisone PO, what is the equivalent dosage in mg of PredniSONE PO?",
        {"input steroid": ["Hydrocortisone PO", float(dose), "mg"], "target steroid": "PredniSONE PO"},
        value,
        f"{dose} mg × 0.25 = {value} mg.",
    )


def _morphine(draw: random.Random) -> Case:
    dose, times = 10 * draw.randint(1, 8), draw.randint(1, 4)
    value = _number(dose * times * 1.5)  # oxycodone 1.5 MME/mg (CDC 2022)
    return Case(
        49,
        f"OxyCODONE {dose} mg, {times} × daily.",
        "What is the patient's daily Morphine Miligram Equivalents (MME)?",
        {"OxyCODONE Dose": [dose, "mg"], "OxyCODONE Dose Per Day": [times, "per day"]},
        value,
        f"{dose} mg × {times} × 1.5 MME/mg = {value} MME.",
    )


def _date(day: date) -> str:
    return f"{day:%m/%d/%Y}"


_MAKERS: tuple[Callable[[random.Random], Case], ...] = (
    _creatinine_clearance,
    _anion_gap,
    _mean_arterial_pressure,
    _body_mass_index,
    _curb_65,
    _centor,
    _sirs,
    _steroid,
    _morphine,
    _due_date,
    _conception,
    _gestational_age,
)
