"""The 55 calculators of MedCalc-Bench: what each one computes and how its answers are judged.

Ids run from 2 to 69 with gaps. Category and `Output Type` are spelled differently from release to release (`lab test` and `lab`;
calculators 8, 16, 24, 49 and 69 change their type), so a row is judged by its calculator id alone.
Scoring classes follow the benchmark's own evaluator (arXiv 2406.12036, section 3): decimals inside the row's limits,
integers equal after rounding, dates equal, weeks and days equal.
"""

from dataclasses import dataclass
from typing import Literal

Scoring = Literal["decimal", "integer", "date", "weeks_days"]


@dataclass(frozen=True, slots=True)
class Calculator:
    """One calculator. `output` is its `Output Type` in the v1.0 test file."""

    id: int
    name: str
    category: str
    scoring: Scoring
    output: str


def _table(scoring: Scoring, category: str, names: dict[int, str], output: str = "") -> list[Calculator]:
    return [Calculator(i, name, category, scoring, output or scoring) for i, name in names.items()]


_ALL = [
    *_table(
        "decimal",
        "lab",
        {
            2: "Creatinine Clearance (Cockcroft-Gault Equation)",
            3: "CKD-EPI Equations for Glomerular Filtration Rate",
            7: "Calcium Correction for Hypoalbuminemia",
            9: "MDRD GFR Equation",
            19: "Fibrosis-4 (FIB-4) Index for Liver Fibrosis",
            23: "MELD Na (UNOS/OPTN)",
            26: "Sodium Correction for Hyperglycemia",
            30: "Serum Osmolality",
            31: "HOMA-IR (Homeostatic Model Assessment for Insulin Resistance)",
            38: "Free Water Deficit",
            39: "Anion Gap",
            40: "Fractional Excretion of Sodium (FENa)",
            44: "LDL Calculated",
            46: "Framingham Risk Score for Hard Coronary Heart Disease",
            63: "Delta Gap",
            64: "Delta Ratio",
            65: "Albumin Corrected Anion Gap",
            66: "Albumin Corrected Delta Gap",
            67: "Albumin Corrected Delta Ratio",
        },
    ),
    *_table(
        "decimal",
        "physical",
        {
            5: "Mean Arterial Pressure (MAP)",
            6: "Body Mass Index (BMI)",
            10: "Ideal Body Weight",
            11: "QTc Bazett Calculator",
            22: "Maintenance Fluids Calculations",
            56: "QTc Fridericia Calculator",
            57: "QTc Framingham Calculator",
            58: "QTc Hodges Calculator",
            59: "QTc Rautaharju Calculator",
            60: "Body Surface Area Calculator",
            61: "Target weight",
            62: "Adjusted Body Weight",
        },
    ),
    *_table("decimal", "risk", {8: "Wells' Criteria for Pulmonary Embolism"}),
    *_table("decimal", "dosage", {24: "Steroid Conversion Calculator", 49: "Morphine Milligram Equivalents (MME) Calculator"}),
    *_table(
        "integer",
        "risk",
        {
            4: "CHA2DS2-VASc Score for Atrial Fibrillation Stroke Risk",
            16: "Wells' Criteria for DVT",
            17: "Revised Cardiac Risk Index for Pre-Operative Risk",
            18: "HEART Score for Major Cardiac Events",
            25: "HAS-BLED Score for Major Bleeding Risk",
            27: "Glasgow-Blatchford Bleeding Score (GBS)",
            28: "APACHE II Score",
            32: "Charlson Comorbidity Index (CCI)",
            36: "Caprini Score for Venous Thromboembolism (2005)",
            43: "Sequential Organ Failure Assessment (SOFA) Score",
            45: "CURB-65 Score for Pneumonia Severity",
        },
    ),
    *_table(
        "integer",
        "severity",
        {
            15: "Child-Pugh Score for Cirrhosis Mortality",
            20: "Centor Score (Modified/McIsaac) for Strep Pharyngitis",
            21: "Glasgow Coma Score (GCS)",
            29: "PSI Score: Pneumonia Severity Index for CAP",
        },
    ),
    *_table(
        "integer",
        "diagnosis",
        {33: "FeverPAIN Score for Strep Pharyngitis", 48: "PERC Rule for Pulmonary Embolism", 51: "SIRS Criteria"},
    ),
    *_table("date", "date", {13: "Estimated Due Date", 68: "Estimated of Conception"}),
    *_table("weeks_days", "date", {69: "Estimated Gestational Age"}, output="integer"),
]

BY_ID: dict[int, Calculator] = {c.id: c for c in sorted(_ALL, key=lambda c: c.id)}
BY_NAME: dict[str, Calculator] = {c.name: c for c in BY_ID.values()} | {"Estimated Date of Conception": BY_ID[68]}


# What a question asks for, in words that v1.0 and Verified share; the longest that occurs decides ("albumin corrected anion gap").
_ASKED = {
    2: "creatinine clearance", 3: "ckd-epi", 4: "cha2ds2-vasc", 5: "mean arterial pressure", 6: "body mass", 7: "calcium correction",
    8: "wells' criteria for pulmonary embolism", 9: "mdrd", 10: "ideal body weight formula", 11: "bazett", 13: "due date", 15: "child-pugh",
    16: "deep vein thrombosis", 17: "cardiac risk index", 18: "heart score", 19: "fibrosis", 20: "centor", 21: "glasgow coma",
    22: "maintenance fluid", 23: "meld", 24: "equivalent dosage", 25: "has-bled", 26: "corrected sodium", 27: "glasgow-blatchford",
    28: "apache", 29: "pneumonia severity", 30: "osmolality", 31: "homa-ir", 32: "charlson", 33: "feverpain", 36: "caprini",
    38: "free water deficit", 39: "anion gap", 40: "fractional excretion", 43: "sofa", 44: "ldl", 45: "curb-65", 46: "framingham risk score",
    48: "perc rule for pulmonary embolism", 49: "morphine", 51: "sirs", 56: "fridericia", 57: "framingham formula", 58: "hodges",
    59: "rautaharju", 60: "body surface area", 61: "target weight", 62: "adjusted body weight formula", 63: "delta gap", 64: "delta ratio",
    65: "albumin corrected anion gap", 66: "albumin corrected delta gap", 67: "albumin corrected delta ratio", 68: "conception",
    69: "gestational age",
}  # fmt: skip


def asked_by(question: str) -> Calculator | None:
    """The calculator that a question asks for, or None."""
    text = question.lower().replace("’", "'")
    found = [i for i, words in _ASKED.items() if words in text]
    return BY_ID[max(found, key=lambda i: len(_ASKED[i]))] if found else None
