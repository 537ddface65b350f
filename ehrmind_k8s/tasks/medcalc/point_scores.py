"""Point scores from stated findings: each item's points, summed.

A finding that the entities do not mention is absent, as in the benchmark; a measured value that they do not mention makes the score
not computable. Left out: APACHE II, Charlson, PSI, Caprini and SOFA, whose items are graded in words that differ from row to row.
"""

from collections.abc import Callable, Mapping

from ehrmind_k8s.tasks.medcalc.quantities import Entities, NotComputable

PREVIOUS_CLOT = ("Previously documented Deep Vein Thrombosis", "Previously Documented Pulmonary Embolism")


def cha2ds2_vasc(e: Entities) -> float:
    """Lip et al., Chest 2010: 2 points for age >= 75 and for stroke, TIA or thromboembolism; 1 for 65 to 74, female sex and the rest."""
    age = e.amount("age", "years")
    stroke = e.any("Stroke", "Transient Ischemic Attacks History", "Thromboembolism history")
    rest = e.count("Congestive Heart Faliure", "Hypertension history", "Vascular disease history", "Diabetes history")
    return (2 if age >= 75 else 1 if age >= 65 else 0) + e.female() + 2 * stroke + rest


def wells_pulmonary_embolism(e: Entities) -> float:
    """Wells et al., Thromb Haemost 2000."""
    likely = e.count("Clinical signs and symptoms of Deep Vein Thrombosis", "Pulmonary Embolism is #1 diagnosis OR equally likely")
    still = e.any("Immobilization for at least 3 days", "Surgery in the previous 4 weeks")
    rest = e.count("Hemoptysis", "Malignancy with treatment within 6 months or palliative")
    return 3 * likely + 1.5 * (_pulse(e) > 100) + 1.5 * still + 1.5 * e.any(*PREVIOUS_CLOT) + rest


def wells_deep_vein_thrombosis(e: Entities) -> float:
    """Wells et al., N Engl J Med 2003."""
    bedridden = e.any("Bedridden recently >3 days or major surgery within 12 weeks", "Bedridden recently >3 days", "Major surgery within 12 weeks")
    rest = e.count(
        "Active cancer",
        "Paralysis, paresis, or recent plaster immobilization of the lower extremity",
        "Previously documented Deep Vein Thrombosis",
        "Calf swelling >3 centimeters compared to the other leg",
        "Collateral (nonvaricose) superficial veins present",
        "Entire Leg Swollen",
        "Localized tenderness along the deep venous system",
        "Pitting edema, confined to symptomatic leg",
    )
    return bedridden + rest - 2 * e.flag("Alternative diagnosis to Deep Vein Thrombosis as likely or more likely")


def child_pugh(e: Entities) -> float:
    """Pugh et al., Br J Surg 1973: 1 to 3 points each for bilirubin, albumin, INR, ascites and encephalopathy."""
    bilirubin, albumin, inr = e.amount("Bilirubin", "bilirubin"), e.amount("Albumin", "albumin"), e.number("international normalized ratio")
    ascites = e.choice("Ascites", {"absent": 1, "slight": 2, "moderate": 3}, missing=1)
    mind = e.choice("Encephalopathy", {"no encephalopathy": 1, "grade 0": 1, "grade 1-2": 2, "grade 3-4": 3}, missing=1)
    laboratory = _band(bilirubin, 2, 3.0001) + _band(-albumin, -3.5, -2.7999) + _band(inr, 1.7, 2.3001)
    return laboratory + ascites + mind


def revised_cardiac_risk(e: Entities) -> float:
    """Lee et al., Circulation 1999."""
    stroke = e.any("History of cerebrovascular disease", "Cerebrovascular disease history")
    heart = e.count("History of ischemic heart disease", "Congestive Heart Failure criteria for the Cardiac Risk Index rule")
    rest = e.count("Elevated-risk surgery", "Pre-operative treatment with insulin")
    return stroke + heart + rest + (e.amount("Pre-operative creatinine", "creatinine") > 2)


def heart(e: Entities) -> float:
    """Six et al., Neth Heart J 2008."""
    age = e.amount("age", "years")
    known = e.count(
        "Hypertension history",
        "hypercholesterolemia",
        "obesity",
        "smoking",
        "parent or sibling with Cardiovascular disease before age 65",
    ) + e.any("Diabetes mellitus criteria for CCI rule", "Diabetes mellitus")
    atherosclerosis = e.any("atherosclerotic disease", "Transient Ischemic Attacks History")
    risk = 2 if atherosclerosis or known >= 3 else int(known > 0)
    history = e.choice("Suspicion History", {"slightly suspicious": 0, "moderately suspicious": 1, "highly suspicious": 2})
    ecg = {"normal": 0, "non-specific repolarization disturbance": 1, "significant st deviation": 2}
    normal = "less than or equal to normal limit"
    troponin = {normal: 0, "between the normal limit or up to three times the normal limit": 1, "greater than three times normal limit": 2}
    tests = e.choice("Electrocardiogram Test", ecg, missing=0) + e.choice("Initial troponin", troponin, missing=0)
    return history + tests + (2 if age >= 65 else 1 if age >= 45 else 0) + risk


def centor(e: Entities) -> float:
    """Modified by McIsaac et al., CMAJ 1998: 1 point for 3 to 14 years, -1 from 45 years on."""
    age = e.amount("age", "years")
    signs = e.count("Cough Absent", "Tender/swollen anterior cervical lymph nodes", "Exudate or swelling on tonsils")
    return (1 if 3 <= age < 15 else -1 if age >= 45 else 0) + (_celsius(e) > 38) + signs


def glasgow_coma(e: Entities) -> float:
    """Teasdale and Jennett, Lancet 1974: eye 1 to 4, verbal 1 to 5, motor 1 to 6. A component that cannot be tested has no points."""
    eye = {"no eye opening": 1, "eye opening to pain": 2, "eye opening to verbal command": 3, "eyes open spontaneously": 4}
    verbal = {"no verbal response": 1, "incomprehensible sounds": 2, "inappropriate words": 3, "confused": 4, "oriented": 5}
    motor = {
        "no motor response": 1,
        "extension to pain": 2,
        "flexion to pain": 3,
        "withdrawal from pain": 4,
        "localizes pain": 5,
        "obeys commands": 6,
    }
    return e.choice("Best eye response", eye) + e.choice("Best verbal response", verbal) + e.choice("Best motor response", motor)


def has_bled(e: Entities) -> float:
    """Pisters et al., Chest 2010: alcohol counts from 8 drinks a week."""
    findings = e.count(
        "Renal disease criteria for the HAS-BLED rule",
        "Liver disease criteria for the HAS-BLED rule",
        "Stroke",
        "Prior major bleeding or predisposition to bleeding",
        "Labile international normalized ratio",
        "Medication usage predisposing to bleeding",
    )
    drinks = e.number("Number of Alcoholic Drinks Per Week") if e.has("Number of Alcoholic Drinks Per Week") else 0
    return e.any("Hypertension history", "Hypertension") + findings + (e.amount("age", "years") > 65) + (drinks >= 8)


def glasgow_blatchford(e: Entities) -> float:
    """Blatchford et al., Lancet 2000: urea nitrogen in mg/dL, hemoglobin in g/dL."""
    urea, blood = e.amount("Blood Urea Nitrogen (BUN)", "urea"), e.amount("Hemoglobin", "hemoglobin")
    pressure = e.amount("Systolic Blood Pressure", "mmHg")
    for_urea = 0 if urea < 18.2 else 2 if urea < 22.4 else 3 if urea < 28 else 4 if urea < 70 else 6
    for_blood = (
        (0 if blood >= 12 else 1 if blood >= 10 else 6) if e.female() else (0 if blood >= 13 else 1 if blood >= 12 else 3 if blood >= 10 else 6)
    )
    for_pressure = 0 if pressure >= 110 else 1 if pressure >= 100 else 2 if pressure >= 90 else 3
    findings = e.flag("Melena present") + 2 * e.count("Recent syncope", "Hepatic disease history", "Cardiac failure present")
    return for_urea + for_blood + for_pressure + (_pulse(e) >= 100) + findings


def fever_pain(e: Entities) -> float:
    """Little et al., BMJ 2013."""
    early = e.any("Symptom onset ≤3 days", "Symptom onset <=3 days")
    return early + e.count("Purulent tonsils", "Fever in past 24 hours", "Severe tonsil inflammation", "Absence of cough or coryza")


def curb_65(e: Entities) -> float:
    """Lim et al., Thorax 2003: urea nitrogen > 19 mg/dL, 30 breaths a minute, systolic < 90 or diastolic <= 60 mmHg, 65 years."""
    low = e.amount("Systolic Blood Pressure", "mmHg") < 90 or e.amount("Diastolic Blood Pressure", "mmHg") <= 60
    measured = (e.amount("Blood Urea Nitrogen (BUN)", "urea") > 19) + (e.amount("respiratory rate", "breaths") >= 30)
    return e.flag("Confusion") + measured + low + (e.amount("age", "years") >= 65)


def perc(e: Entities) -> float:
    """Kline et al., J Thromb Haemost 2004: criteria met of eight."""
    measured = (e.amount("age", "years") >= 50) + (_pulse(e) >= 100) + (e.amount("O₂ saturation percentage", "percent") < 95)
    return measured + e.any(*PREVIOUS_CLOT) + e.count("Unilateral Leg Swelling", "Hemoptysis", "Recent surgery or trauma", "Hormone use")


def sirs(e: Entities) -> float:
    """Bone et al., Chest 1992: criteria met of four; white cells in 10^9/L, PaCO2 < 32 mmHg counts as fast breathing."""
    celsius, cells = _celsius(e), e.amount("White blood cell count", "white cells")
    fast = e.amount("respiratory rate", "breaths") > 20
    for name in ("PaCO₂", "PaCO2"):
        fast = fast or (e.has(name) and e.amount(name, "mmHg") < 32)
    return (celsius > 38 or celsius < 36) + (_pulse(e) > 90) + fast + (cells > 12 or cells < 4)


def _pulse(e: Entities) -> float:
    return e.amount("Heart Rate or Pulse", "beats")


def _celsius(e: Entities) -> float:
    """Temperature, whose unit is spelled in many ways. Raises NotComputable for one that no patient has."""
    value, unit = e.number("Temperature"), e.unit("Temperature")
    celsius = (value - 32) / 1.8 if "fahr" in unit else value
    if not 20 <= celsius <= 45:
        raise NotComputable("Temperature")
    return celsius


def _band(value: float, middle: float, high: float) -> int:
    """1, 2 or 3 points for a value below `middle`, below `high`, or above."""
    return 1 + (value >= middle) + (value >= high)


FORMULAS: Mapping[int, Callable[[Entities], float]] = {
    4: cha2ds2_vasc,
    8: wells_pulmonary_embolism,
    15: child_pugh,
    16: wells_deep_vein_thrombosis,
    17: revised_cardiac_risk,
    18: heart,
    20: centor,
    21: glasgow_coma,
    25: has_bled,
    27: glasgow_blatchford,
    33: fever_pain,
    45: curb_65,
    48: perc,
    51: sirs,
}
