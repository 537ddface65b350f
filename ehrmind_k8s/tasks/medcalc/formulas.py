"""Formulas over measured values: every lab, physical and date calculator but the Framingham risk, and the two dosage conversions.

Each says its source. What a question itself sets is kept (the weight of Cockcroft-Gault, a normal albumin of 4 g/dL, an ideal sodium of
140 mEq/L). Left out: the Framingham risk, since v1.0 does not say whether it wants a fraction or a percentage.
"""

import datetime
import math
from collections.abc import Callable, Mapping

from ehrmind_k8s.tasks.medcalc.quantities import Entities, NotComputable
from ehrmind_k8s.tasks.medcalc.scoring import weeks_days

# Body size


def body_mass_index(e: Entities) -> float:
    """weight / height^2, kg/m^2 (Quetelet)."""
    return e.amount("weight", "kg") / (e.amount("height", "cm") / 100) ** 2


def ideal_body_weight(e: Entities) -> float:
    """50 (men) or 45.5 (women) + 2.3 kg per inch over 60 (Devine, Drug Intell Clin Pharm 1974)."""
    return (45.5 if e.female() else 50.0) + 2.3 * (e.amount("height", "cm") / 2.54 - 60)


def adjusted_body_weight(e: Entities) -> float:
    """IBW + 0.4 (weight - IBW), kg (Winter, Basic Clinical Pharmacokinetics)."""
    ideal = ideal_body_weight(e)
    return ideal + 0.4 * (e.amount("weight", "kg") - ideal)


def target_weight(e: Entities) -> float:
    """Target BMI x height^2, kg."""
    return e.amount("Body Mass Index (BMI)", "bmi") * (e.amount("height", "cm") / 100) ** 2


def body_surface_area(e: Entities) -> float:
    """sqrt(height x weight / 3600), m^2 (Mosteller, N Engl J Med 1987)."""
    return math.sqrt(e.amount("height", "cm") * e.amount("weight", "kg") / 3600)


def maintenance_fluids(e: Entities) -> float:
    """4 mL/kg/h for the first 10 kg, 2 for the next 10, 1 above (Holliday and Segar, Pediatrics 1957)."""
    weight = e.amount("weight", "kg")
    return 4 * min(weight, 10) + 2 * min(max(weight - 10, 0), 10) + max(weight - 20, 0)


# Circulation


def mean_arterial_pressure(e: Entities) -> float:
    """(systolic + 2 diastolic) / 3, mmHg."""
    return (e.amount("Systolic Blood Pressure", "mmHg") + 2 * e.amount("Diastolic Blood Pressure", "mmHg")) / 3


def _qt_and_rr(e: Entities) -> tuple[float, float]:
    """QT (ms) and RR (s)."""
    return e.amount("QT interval", "msec"), 60 / e.amount("Heart Rate or Pulse", "beats")


def qtc_bazett(e: Entities) -> float:
    """QT / sqrt(RR), ms (Bazett, Heart 1920)."""
    qt, rr = _qt_and_rr(e)
    return qt / math.sqrt(rr)


def qtc_fridericia(e: Entities) -> float:
    """QT / RR^(1/3), ms (Fridericia, Acta Med Scand 1920)."""
    qt, rr = _qt_and_rr(e)
    return float(qt / rr ** (1 / 3))


def qtc_framingham(e: Entities) -> float:
    """QT + 154 (1 - RR), ms (Sagie et al., Am J Cardiol 1992)."""
    qt, rr = _qt_and_rr(e)
    return qt + 154 * (1 - rr)


def qtc_hodges(e: Entities) -> float:
    """QT + 1.75 (heart rate - 60), ms (Hodges et al., J Am Coll Cardiol 1983)."""
    qt, rr = _qt_and_rr(e)
    return qt + 1.75 * (60 / rr - 60)


def qtc_rautaharju(e: Entities) -> float:
    """QT (120 + heart rate) / 180, ms (Rautaharju et al., J Am Coll Cardiol 1993)."""
    qt, rr = _qt_and_rr(e)
    return qt * (120 + 60 / rr) / 180


# Kidney, liver, metabolism


def creatinine_clearance(e: Entities) -> float:
    """(140 - age) weight / (72 creatinine), x 0.85 for women, mL/min (Cockcroft and Gault, Nephron 1976).

    Weight as the question states: actual if BMI < 18.5, the smaller of ideal and actual if below 25, adjusted above.
    """
    weight, bmi = e.amount("weight", "kg"), body_mass_index(e)
    if bmi >= 25:
        weight = adjusted_body_weight(e)
    elif bmi >= 18.5:
        weight = min(weight, ideal_body_weight(e))
    return (140 - e.amount("age", "years")) * weight / (72 * e.amount("creatinine", "creatinine")) * (0.85 if e.female() else 1)


def ckd_epi(e: Entities) -> float:
    """142 min(Scr/k, 1)^a max(Scr/k, 1)^-1.2 0.9938^age (x 1.012 for women), mL/min/1.73 m^2 (Inker et al., N Engl J Med 2021)."""
    female = e.female()
    ratio = e.amount("creatinine", "creatinine") / (0.7 if female else 0.9)
    slope = min(ratio, 1) ** (-0.241 if female else -0.302) * max(ratio, 1) ** -1.2
    return float(142 * slope * 0.9938 ** e.amount("age", "years") * (1.012 if female else 1))


def mdrd(e: Entities) -> float:
    """175 Scr^-1.154 age^-0.203 (x 0.742 for women, x 1.212 for black patients), mL/min/1.73 m^2 (Levey et al., Ann Intern Med 2006)."""
    race = 1.212 if e.has("Race") and e.get("Race") == "Black" else 1
    sex = 0.742 if e.female() else 1
    return float(175 * e.amount("creatinine", "creatinine") ** -1.154 * e.amount("age", "years") ** -0.203 * sex * race)


def fib_4(e: Entities) -> float:
    """age AST / (platelets sqrt(ALT)), platelets in 10^9/L (Sterling et al., Hepatology 2006)."""
    transaminases = e.amount("Aspartate aminotransferase", "enzyme") / math.sqrt(e.amount("Alanine aminotransferase", "enzyme"))
    return e.amount("age", "years") * transaminases / e.amount("Platelet count", "platelets")


def meld_na(e: Entities) -> float:
    """MELD-Na as OPTN policy 9.1.D has it (2016): creatinine 1 to 4 (4 under dialysis), bilirubin and INR at least 1, sodium 125 to 137."""
    dialysis = e.flag("Dialysis at least twice in the past week") or e.flag("Continuous veno-venous hemodialysis for ≥24 hours in the past week")
    creatinine = 4.0 if dialysis else min(max(e.amount("creatinine", "creatinine"), 1), 4)
    bilirubin, inr = max(e.amount("Bilirubin", "bilirubin"), 1), max(e.number("international normalized ratio"), 1)
    meld = round(10 * (0.957 * math.log(creatinine) + 0.378 * math.log(bilirubin) + 1.12 * math.log(inr) + 0.643))
    if meld > 11:
        gap = 137 - min(max(e.amount("Sodium", "sodium"), 125), 137)
        meld = round(meld + 1.32 * gap - 0.033 * meld * gap)
    return float(min(meld, 40))


def homa_ir(e: Entities) -> float:
    """insulin (µIU/mL) glucose (mg/dL) / 405 (Matthews et al., Diabetologia 1985)."""
    return e.amount("Insulin", "insulin") * e.amount("Glucose", "glucose") / 405


def ldl(e: Entities) -> float:
    """total cholesterol - HDL - triglycerides / 5, mg/dL (Friedewald et al., Clin Chem 1972)."""
    hdl = e.amount("high-density lipoprotein cholesterol", "cholesterol")
    return e.amount("Total cholesterol", "cholesterol") - hdl - e.amount("Triglycerides", "triglycerides") / 5


# Electrolytes


def corrected_calcium(e: Entities) -> float:
    """calcium + 0.8 (4 - albumin), mg/dL (Payne et al., BMJ 1973)."""
    return e.amount("Calcium", "calcium") + 0.8 * (4 - e.amount("Albumin", "albumin"))


def corrected_sodium(e: Entities) -> float:
    """sodium + 0.024 (glucose - 100), mEq/L (Hillier et al., Am J Med 1999)."""
    return e.amount("Sodium", "sodium") + 0.024 * (e.amount("Glucose", "glucose") - 100)


def serum_osmolality(e: Entities) -> float:
    """2 sodium + urea nitrogen / 2.8 + glucose / 18, mOsm/kg (Smithline and Gardner, JAMA 1976)."""
    return 2 * e.amount("Sodium", "sodium") + e.amount("Blood Urea Nitrogen (BUN)", "urea") / 2.8 + e.amount("Glucose", "glucose") / 18


def free_water_deficit(e: Entities) -> float:
    """body water (sodium / 140 - 1), L (Adrogue and Madias, N Engl J Med 2000).

    Share of body water: 0.6 in children and men, 0.5 in women and in men of 65 or more, 0.45 in women of 65 or more.
    """
    age, female = e.amount("age", "years"), e.female()
    share = 0.6 if age < 18 else (0.6, 0.5, 0.45)[female + (age >= 65)]
    return share * e.amount("weight", "kg") * (e.amount("Sodium", "sodium") / 140 - 1)


def fractional_excretion_of_sodium(e: Entities) -> float:
    """100 urine sodium creatinine / (sodium urine creatinine), % (Espinel, JAMA 1976)."""
    urine = e.amount("Urine sodium", "urine sodium") / e.amount("Urine creatinine", "urine creatinine")
    return 100 * urine * e.amount("creatinine", "creatinine") / e.amount("Sodium", "sodium")


def anion_gap(e: Entities) -> float:
    """sodium - chloride - bicarbonate, mEq/L (Emmett and Narins, Medicine 1977)."""
    return e.amount("Sodium", "sodium") - e.amount("Chloride", "chloride") - e.amount("Bicarbonate", "bicarbonate")


def delta_gap(e: Entities) -> float:
    """anion gap - 12, mEq/L (Wrenn, Ann Emerg Med 1990)."""
    return anion_gap(e) - 12


def delta_ratio(e: Entities) -> float:
    """delta gap / (24 - bicarbonate)."""
    return delta_gap(e) / (24 - e.amount("Bicarbonate", "bicarbonate"))


def corrected_anion_gap(e: Entities) -> float:
    """anion gap + 2.5 (4 - albumin), mEq/L (Figge et al., Crit Care Med 1998)."""
    return anion_gap(e) + 2.5 * (4 - e.amount("Albumin", "albumin"))


def corrected_delta_gap(e: Entities) -> float:
    """albumin corrected anion gap - 12, mEq/L."""
    return corrected_anion_gap(e) - 12


def corrected_delta_ratio(e: Entities) -> float:
    """albumin corrected delta gap / (24 - bicarbonate)."""
    return corrected_delta_gap(e) / (24 - e.amount("Bicarbonate", "bicarbonate"))


# Doses

# mg of each drug equal to 5 mg of prednisone (Asare, Am J Health Syst Pharm 2007), by mouth or vein.
STEROID_MG = {
    "betamethasone": 0.75,
    "cortisone": 25,
    "dexamethasone": 0.75,
    "hydrocortisone": 20,
    "methylprednisolone": 4,
    "prednisolone": 5,
    "prednisone": 5,
    "triamcinolone": 4,
}
# Morphine equivalents per mg, or per µg for fentanyl (CDC Clinical Practice Guideline, MMWR Recomm Rep 2022, table; buccal: CDC 2016).
MORPHINE_PER_UNIT = {
    "codeine": 0.15,
    "fentanyl buccal": 0.13,
    "hydrocodone": 1,
    "hydromorphone": 5,
    "methadone": 4.7,
    "morphine": 1,
    "oxycodone": 1.5,
    "oxymorphone": 3,
    "tapentadol": 0.4,
    "tramadol": 0.2,
}


def steroid_conversion(e: Entities) -> float:
    """dose x equivalent of the target / equivalent of the source, mg."""
    source, target = e.get("input steroid"), e.get("target steroid")
    if not (isinstance(source, list) and len(source) == 3 and isinstance(source[1], int | float) and source[2] == "mg"):
        raise NotComputable("input steroid")
    return float(source[1]) * _steroid(target) / _steroid(source[0])


def morphine_equivalents(e: Entities) -> float:
    """Sum over drugs of dose x doses per day x factor, MME. A fentanyl patch is dosed in µg per hour; one in mg says nothing."""
    drugs = [name.removesuffix(" dose") for name in e.items() if name.endswith(" dose")]
    if not drugs or any(drug not in MORPHINE_PER_UNIT for drug in drugs):
        raise NotComputable("dose")
    return sum(MORPHINE_PER_UNIT[d] * e.amount(f"{d} dose", "dose") * e.amount(f"{d} dose per day", "times") for d in drugs)


def _steroid(name: object) -> float:
    drug = str(name).lower().rsplit(" ", 1)[0]
    if drug not in STEROID_MG:
        raise NotComputable("steroid")
    return STEROID_MG[drug]


# Pregnancy


def due_date(e: Entities) -> str:
    """280 days after the last period, moved by what the cycle is longer than 28 days: Naegele's rule as the benchmark states it.

    Its calendar form (a year on, 3 months back, 7 days on), which the relabelling uses, lies up to 3 days later.
    """
    return _text(_last_period(e) + datetime.timedelta(days=280 + _cycle(e) - 28))


def conception(e: Entities) -> str:
    """14 days after the last period, moved by what the cycle is longer than 28 days (ovulation is 14 days before the next period)."""
    return _text(_last_period(e) + datetime.timedelta(days=14 + _cycle(e) - 28))


def gestational_age(e: Entities) -> str:
    """Whole weeks and days since the last period."""
    days = (_date(e, "Current Date") - _last_period(e)).days
    if days < 0:
        raise NotComputable("Current Date")
    return weeks_days(days)


def _last_period(e: Entities) -> datetime.date:
    return _date(e, "Last menstrual date")


def _cycle(e: Entities) -> int:
    """Length of the cycle (days); 28 where none is given."""
    return int(e.number("cycle length")) if e.has("cycle length") else 28


def _date(e: Entities, name: str) -> datetime.date:
    try:
        return datetime.datetime.strptime(str(e.get(name)), "%m/%d/%Y").date()
    except ValueError:
        raise NotComputable(name) from None


def _text(day: datetime.date) -> str:
    return f"{day:%m/%d/%Y}"


FORMULAS: Mapping[int, Callable[[Entities], float | str]] = {
    2: creatinine_clearance,
    3: ckd_epi,
    5: mean_arterial_pressure,
    6: body_mass_index,
    7: corrected_calcium,
    9: mdrd,
    10: ideal_body_weight,
    11: qtc_bazett,
    13: due_date,
    19: fib_4,
    22: maintenance_fluids,
    23: meld_na,
    24: steroid_conversion,
    26: corrected_sodium,
    30: serum_osmolality,
    31: homa_ir,
    38: free_water_deficit,
    39: anion_gap,
    40: fractional_excretion_of_sodium,
    44: ldl,
    49: morphine_equivalents,
    56: qtc_fridericia,
    57: qtc_framingham,
    58: qtc_hodges,
    59: qtc_rautaharju,
    60: body_surface_area,
    61: target_weight,
    62: adjusted_body_weight,
    63: delta_gap,
    64: delta_ratio,
    65: corrected_anion_gap,
    66: corrected_delta_gap,
    67: corrected_delta_ratio,
    68: conception,
    69: gestational_age,
}
