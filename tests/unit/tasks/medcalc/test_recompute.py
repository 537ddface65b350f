"""Own formulas against textbook numbers, and units that mean something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.tasks.medcalc import recompute
from ehrmind_k8s.tasks.medcalc.quantities import Entities, NotComputable

GAP = "'Sodium': [140, 'mEq/L'], 'Chloride': [104, 'mEq/L'], 'Bicarbonate': [14, 'mEq/L']"
BODY = "'sex': 'Male', 'age': [50, 'years'], 'weight': [70, 'kg'], 'height': [175, 'cm']"
PERIOD = "'Last menstrual date': '01/01/2021'"

# Calculator, entities, answer worked out by hand.
WORKED = {
    "Cockcroft-Gault, normal weight": (2, f"{BODY}, 'creatinine': [1.0, 'mg/dL']", 90 * 70 / 72),
    "Cockcroft-Gault, underweight, woman": (
        2, "'sex': 'Female', 'age': [40, 'years'], 'weight': [45, 'kg'], 'height': [170, 'cm'], 'creatinine': [0.9, 'mg/dL']", 100 * 45 * 0.85 / 64.8,
    ),
    "Cockcroft-Gault, obese": (
        2, "'sex': 'Male', 'age': [40, 'years'], 'weight': [120, 'kg'], 'height': [180, 'cm'], 'creatinine': [1.0, 'mg/dL']", 100 * 92.9953 / 72,
    ),
    "CKD-EPI, man at the knot": (3, "'sex': 'Male', 'age': [0, 'years'], 'creatinine': [0.9, 'mg/dL']", 142),
    "CKD-EPI, woman above the knot": (3, "'sex': 'Female', 'age': [0, 'years'], 'creatinine': [1.4, 'mg/dL']", 142 * 2**-1.2 * 1.012),
    "mean arterial pressure": (5, "'Systolic Blood Pressure': [120, 'mm hg'], 'Diastolic Blood Pressure': [90, 'mmhg']", 100),
    "body mass index": (6, "'weight': [80, 'kg'], 'height': [200, 'cm']", 20),
    "corrected calcium": (7, "'Calcium': [8.0, 'mg/dL'], 'Albumin': [20, 'g/L']", 9.6),
    "MDRD of a black woman": (
        9, "'sex': 'Female', 'Race': 'Black', 'age': [1, 'years'], 'creatinine': [1, 'mg/dL']", 175 * 0.742 * 1.212,
    ),
    "ideal body weight of 5 feet": (10, "'sex': 'Female', 'height': [60, 'in']", 45.5),
    "Bazett at 60 beats": (11, "'QT interval': [400, 'msec'], 'Heart Rate or Pulse': [60, 'bpm']", 400),
    "Bazett at 240 beats": (11, "'QT Interval': [200, 'msec'], 'Heart Rate or Pulse': [240, 'bpm']", 400),
    "Fridericia at 480 beats is no heart": (56, "'QT interval': [200, 'msec'], 'Heart Rate or Pulse': [480, 'bpm']", None),
    "Framingham QTc": (57, "'QT interval': [400, 'msec'], 'Heart Rate or Pulse': [120, 'bpm']", 477),
    "Hodges": (58, "'QT interval': [400, 'msec'], 'Heart Rate or Pulse': [80, 'bpm']", 435),
    "Rautaharju": (59, "'QT interval': [360, 'msec'], 'Heart Rate or Pulse': [60, 'bpm']", 360),
    "due date of a 28-day cycle": (13, PERIOD, "10/08/2021"),
    "due date of a short cycle is earlier": (13, PERIOD + ", 'cycle length': 22", "10/02/2021"),
    "conception of a long cycle is later": (68, PERIOD + ", 'cycle length': 30", "01/17/2021"),
    "gestational age": (69, PERIOD + ", 'Current Date': '02/01/2021'", "4 weeks, 3 days"),
    "gestational age before the period": (69, PERIOD + ", 'Current Date': '12/01/2020'", None),
    "FIB-4": (
        19, "'age': [50, 'years'], 'Aspartate aminotransferase': [40, 'U/L'], 'Alanine aminotransferase': [25, 'U/L'],"
        " 'Platelet count': [200000, 'µL']", 2,
    ),
    "maintenance of an infant": (22, "'weight': [5000, 'g']", 20),
    "maintenance of a child": (22, "'weight': [15, 'kg']", 50),
    "maintenance of an adult": (22, "'weight': [70, 'kg']", 110),
    "MELD-Na with everything normal": (
        23, "'creatinine': [0.8, 'mg/dL'], 'Bilirubin': [0.5, 'mg/dL'], 'international normalized ratio': 0.9, 'Sodium': [140, 'mEq/L']", 6,
    ),
    "MELD-Na under dialysis, low sodium": (
        23,
        "'creatinine': [1, 'mg/dL'], 'Bilirubin': [1, 'mg/dL'], 'international normalized ratio': 1.0, 'Sodium': [120, 'mEq/L'],"
        " 'Dialysis at least twice in the past week': True",
        28,  # round(10 (0.957 ln 4 + 0.643)) = 20; 20 + 1.32 x 12 - 0.033 x 20 x 12 = 27.92
    ),
    "steroid": (24, "'input steroid': ['Hydrocortisone IV', 40, 'mg'], 'target steroid': 'PredniSONE PO'", 10),
    "unknown steroid": (24, "'input steroid': ['Water PO', 40, 'mg'], 'target steroid': 'PredniSONE PO'", None),
    "corrected sodium": (26, "'Sodium': [130, 'mmol/L'], 'Glucose': [600, 'mg/dL']", 142),
    "osmolality": (30, "'Sodium': [140, 'mEq/L'], 'Blood Urea Nitrogen (BUN)': [14, 'mg/dL'], 'Glucose': [90, 'mg/dL']", 290),
    "HOMA-IR": (31, "'Insulin': [10, 'µIU/mL'], 'Glucose': [81, 'mg/dL']", 2),
    "free water deficit of a woman of 70": (38, "'sex': 'Female', 'age': [70, 'years'], 'weight': [60, 'kg'], 'Sodium': [154, 'mEq/L']", 2.7),
    "free water deficit of an infant": (38, "'sex': 'Female', 'age': [9, 'months'], 'weight': [10, 'kg'], 'Sodium': [154, 'mEq/L']", 0.6),
    "anion gap": (39, GAP, 22),
    "fractional excretion": (
        40, "'Urine sodium': [20, 'mEq/L'], 'Sodium': [140, 'mEq/L'], 'Urine creatinine': [100, 'mg/dL'], 'creatinine': [2, 'mg/dL']", 0.286,
    ),
    "LDL": (
        44, "'Total cholesterol': [200, 'mg/dL'], 'high-density lipoprotein cholesterol': [50, 'mg/dL'], 'Triglycerides': [150, 'mg/dL']", 120,
    ),
    "morphine equivalents": (
        49, "'OxyCODONE Dose': [10, 'mg'], 'OxyCODONE Dose Per Day': [2, 'per day'], 'Codeine Dose': [20, 'mg'],"
        " 'Codeine Dose Per Day': [1, 'per day']", 33,
    ),
    "a fentanyl patch in mg": (49, "'FentANYL patch Dose': [60, 'mg'], 'FentANYL patch Dose Per Day': [1, 'per day']", None),
    "body surface area": (60, "'weight': [72, 'kg'], 'height': [200, 'cm']", 2),
    "target weight": (61, "'Body Mass Index (BMI)': [25, 'kg/m^2'], 'height': [2, 'm']", 100),
    "adjusted body weight": (62, "'sex': 'Male', 'weight': [100, 'kg'], 'height': [60, 'in']", 70),
    "delta gap": (63, GAP, 10),
    "delta ratio": (64, GAP, 1),
    "delta ratio over a normal bicarbonate": (64, GAP.replace("14", "24"), None),
    "corrected anion gap": (65, f"{GAP}, 'Albumin': [2, 'g/dL']", 27),
    "corrected delta gap": (66, f"{GAP}, 'Albumin': [2, 'g/dL']", 15),
    "corrected delta ratio": (67, f"{GAP}, 'Albumin': [2, 'g/dL']", 1.5),
    "CHA2DS2-VASc of a woman of 80 with a stroke": (4, "'sex': 'Female', 'age': [80, 'years'], 'Stroke': True, 'Diabetes history': True", 6),
    "CHA2DS2-VASc: stroke and TIA count once": (
        4, "'sex': 'Male', 'age': [65, 'years'], 'Stroke': True, 'Transient Ischemic Attacks History': True, 'Hypertension history': False", 3,
    ),
    "CHA2DS2-VASc without an age": (4, "'sex': 'Female'", None),
    "Wells PE at a pulse of 100": (8, "'Heart Rate or Pulse': [100, 'bpm'], 'Hemoptysis': True", 1),
    "Wells PE: surgery and rest count once": (
        8,
        "'Heart Rate or Pulse': [101, 'bpm'], 'Surgery in the previous 4 weeks': True, 'Immobilization for at least 3 days': True,"
        " 'Pulmonary Embolism is #1 diagnosis OR equally likely': True", 6,
    ),
    "Child-Pugh at the lower edges": (
        15,
        "'Bilirubin': [2.0, 'mg/dL'], 'Albumin': [3.5, 'g/dL'], 'international normalized ratio': 1.7, 'Ascites': 'slight',"
        " 'Encephalopathy': 'Grade 1-2'", 10,
    ),
    "Child-Pugh at the upper edges": (15, "'Bilirubin': [3.0, 'mg/dL'], 'Albumin': [2.8, 'g/dL'], 'international normalized ratio': 2.3", 8),
    "Child-Pugh at its worst": (
        15,
        "'Bilirubin': [3.1, 'mg/dL'], 'Albumin': [2.7, 'g/dL'], 'international normalized ratio': 2.4, 'Ascites': 'moderate',"
        " 'Encephalopathy': 'Grade 3-4'", 15,
    ),
    "Wells DVT with another likely diagnosis": (16, "'Active cancer': True, 'Entire Leg Swollen': True,"
        " 'Alternative diagnosis to Deep Vein Thrombosis as likely or more likely': True", 0),
    "revised cardiac risk at a creatinine of 2": (17, "'Pre-operative creatinine': [2.0, 'mg/dL'], 'Elevated-risk surgery': True", 1),
    "revised cardiac risk above it": (17, "'Pre-operative creatinine': [2.1, 'mg/dL'], 'Elevated-risk surgery': True", 2),
    "HEART of a man of 65 with three risk factors": (
        18, "'age': [65, 'years'], 'Suspicion History': 'Highly suspicious', 'obesity': True, 'smoking': True, 'Diabetes mellitus': True,"
        " 'Electrocardiogram Test': 'Significant ST deviation'", 8,
    ),
    "HEART: one risk factor at 45": (18, "'age': [45, 'years'], 'Suspicion History': 'Slightly suspicious', 'smoking': True", 2),
    "Centor of a child of 14": (20, "'age': [14, 'years'], 'Temperature': [102, 'degrees fahreinheit'], 'Cough Absent': True", 3),
    "Centor from 45 years on": (20, "'age': [45, 'years'], 'Temperature': [38.0, 'degrees celsius']", -1),
    "Glasgow Coma Score at its best": (
        21, "'Best eye response': 'eyes open spontaneously', 'Best verbal response': 'oriented', 'Best motor response': 'obeys commands'", 15,
    ),
    "Glasgow Coma Score of an intubated patient": (
        21, "'Best eye response': 'no eye opening', 'Best verbal response': 'not testable', 'Best motor response': 'obeys commands'", None,
    ),
    "HAS-BLED at 65 with 8 drinks": (25, "'age': [65, 'years'], 'Number of Alcoholic Drinks Per Week': 8, 'Stroke': True", 2),
    "Glasgow-Blatchford with nothing": (
        27, "'sex': 'Male', 'Hemoglobin': [13, 'g/dL'], 'Blood Urea Nitrogen (BUN)': [18, 'mg/dL'],"
        " 'Systolic Blood Pressure': [110, 'mm Hg'], 'Heart Rate or Pulse': [99, 'bpm']", 0,
    ),
    "Glasgow-Blatchford of a bleeding woman": (
        27, "'sex': 'Female', 'Hemoglobin': [9, 'g/dL'], 'Blood Urea Nitrogen (BUN)': [10, 'mmol/L'], 'Melena Present': True,"
        " 'Systolic Blood Pressure': [89, 'mm Hg'], 'Heart Rate or Pulse': [100, 'bpm'], 'Recent syncope': True", 17,
    ),
    "FeverPAIN": (33, "'Purulent tonsils': True, 'Symptom onset <=3 days': True, 'Fever in past 24 hours': False", 2),
    "CURB-65 at the edges": (
        45, "'age': [65, 'years'], 'Systolic Blood Pressure': [90, 'mm hg'], 'Diastolic Blood Pressure': [60, 'mm hg'],"
        " 'Blood Urea Nitrogen (BUN)': [19, 'mg/dL'], 'respiratory rate': [30, 'breaths per minute']", 3,
    ),
    "PERC of a woman of 49 on hormones": (
        48, "'age': [49, 'years'], 'Heart Rate or Pulse': [99, 'bpm'], 'O₂ saturation percentage': [95, '%'], 'Hormone use': True", 1,
    ),
    "SIRS at the edges": (
        51, "'Temperature': [38.0, 'degrees celsius'], 'Heart Rate or Pulse': [90, 'bpm'], 'respiratory rate': [20, 'breaths per minute'],"
        " 'White blood cell count': [12000, 'm^3']", 0,
    ),
    "SIRS with low carbon dioxide and few cells": (
        51, "'Temperature': [35.9, 'degrees celsius'], 'Heart Rate or Pulse': [91, 'bpm'], 'respiratory rate': [20, 'breaths per minute'],"
        " 'PaCO₂': [31, 'mm hg'], 'White blood cell count': [3.9e9, 'L']", 4,
    ),
    "a calculator without a formula": (43, "'Bilirubin': [1, 'mg/dL']", None),
}  # fmt: skip


@pytest.mark.parametrize(("calculator", "entities", "answer"), WORKED.values(), ids=WORKED)
def test_worked_example(calculator: int, entities: str, answer: float | str | None) -> None:
    found = recompute.recompute(calculator, f"{{{entities}}}")
    if isinstance(answer, str) or answer is None:
        assert found == answer
    else:
        assert found is not None and float(found) == pytest.approx(answer, abs=6e-4)


def test_every_formula_has_a_worked_example() -> None:
    assert set(recompute.FORMULAS) <= {calculator for calculator, _, _ in WORKED.values()}


AMOUNTS = {
    "in its unit": ("creatinine", [1.4, "mg/dL"], 1.4),
    "in another unit": ("creatinine", [124, "µmol/L"], 1.403),
    "with the other micro sign": ("creatinine", [124, "μmol/L"], 1.403),
    "impossible in its unit, possible in one": ("creatinine", [200, "mmol/L"], 2.262),
    "in a unit that cannot be": ("sodium", [137, "mg/dL"], 137),
    "albumin in g/L that can only be g/dL": ("albumin", [4.2, "g/L"], 4.2),
    "high but possible": ("albumin", [10, "g/L"], 1),
}


@pytest.mark.parametrize(("kind", "value", "amount"), AMOUNTS.values(), ids=AMOUNTS)
def test_amount(kind: str, value: list[object], amount: float) -> None:
    assert Entities(repr({"x": value})).amount("X", kind) == pytest.approx(amount, abs=1e-3)


NO_AMOUNTS = {
    "missing": None,
    "no unit": 1.4,
    "a bool": [True, "mg/dL"],
    "text": ["1.4", "mg/dL"],
    "infinite": [1e999, "mg/dL"],
    "impossible in every unit": [1e9, "mg/dL"],
    "possible in two units": [39, "stones"],
}


@pytest.mark.parametrize("value", NO_AMOUNTS.values(), ids=NO_AMOUNTS)
def test_no_amount(value: object) -> None:
    entities = Entities(repr({"x": value} if value is not None else {}).replace("inf", "1e999"))
    with pytest.raises(NotComputable):
        entities.amount("x", "creatinine")


@given(st.sampled_from(sorted(recompute.FORMULAS)), st.text() | st.dictionaries(st.text(), st.lists(st.floats() | st.text(), max_size=3)).map(repr))
def test_any_entities_are_computed_or_not(calculator: int, entities: str) -> None:
    assert isinstance(recompute.recompute(calculator, entities), str | None)


def test_entities_longer_than_any_published_ones_are_not_read() -> None:
    with pytest.raises(NotComputable):
        Entities(repr({"x": "y" * 20_000}))


@pytest.mark.parametrize("text", ["(" * 10_000, "{" * 200, "__import__('os').getcwd()", "{'a': 9**9**9}", "[]", "{[]: 1}", "\0"])
def test_entities_that_are_no_literal_of_a_dictionary_are_not_evaluated(text: str) -> None:
    with pytest.raises(NotComputable):
        Entities(text)
