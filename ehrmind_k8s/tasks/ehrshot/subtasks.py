"""What may be asked: the 15 tasks of EHRSHOT (Wornow et al. 2023, arXiv 2307.02028), each as a yes-or-no question, and a user's own.

    guo_*      Guo et al. 2023 (Sci Rep 13, 3767): about an admission, asked at the end of its first day or of the day of discharge
    lab_*      about a laboratory result, asked one minute before it; grades 1 to 3 (mild, moderate, severe) are positive, as in the benchmark
    new_*      about a first diagnosis within a year, asked at the end of the day of discharge
    chexpert_* about one of 14 findings of a chest X-ray report, asked 24 hours before it; `chexpert` stands for all of them

Times, thresholds and counts are those of the benchmark's labelers and its statistics (github.com/som-shahlab/ehrshot-benchmark, a7cfb52).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ehrmind_k8s.errors import DataError, SpecError, nearest
from ehrmind_k8s.records import SPLITS, Split

PAPER = ("guo_readmission", "new_acutemi", "new_hyperlipidemia", "new_hypertension", "new_pancan")  # what EHRMIND was evaluated on
CHEXPERT = "chexpert"
# The order in which the benchmark writes findings into its 14-bit labels, the first as the most significant bit.
FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Lung Opacity",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
SUBJECTS: Mapping[Split, int] = {"train": 2295, "validation": 2232, "test": 2212}


@dataclass(frozen=True, slots=True)
class Subtask:
    """One yes-or-no question.

    `positive` and `negative` are the label names that an answer gives beside 1 and 0. `folder` is where its label files are; a label of
    `chexpert` holds all findings, and `bit` is this one's. `published` are (labels, positive labels) of train, validation and test.
    """

    name: str
    title: str
    question: str
    positive: str
    negative: str
    folder: str
    bit: int | None = None
    published: tuple[tuple[int, int], ...] = ()

    def value(self, raw: int) -> int:
        """0 or 1 from a label as the benchmark stores it: a boolean, a grade from 0 to 3, or findings as bits."""
        return raw >> self.bit & 1 if self.bit is not None else int(raw >= 1)

    @property
    def highest(self) -> int:
        """The largest value that its label files may hold."""
        if self.bit is not None:
            return (1 << len(FINDINGS)) - 1
        return 3 if self.name.startswith("lab_") else 1


def _guo(name: str, title: str, question: str, positive: str, published: tuple[tuple[int, int], ...]) -> Subtask:
    return Subtask(f"guo_{name}", title, question, positive, f"no {positive}", f"guo_{name}", published=published)


def _lab(name: str, analyte: str, low_or_high: str, published: tuple[tuple[int, int], ...]) -> Subtask:
    question = f"The next {analyte} is about to be reported. Will it show {name}, that is, be {low_or_high}?"
    return Subtask(f"lab_{name}", name.capitalize(), question, name, f"no {name}", f"lab_{name}", published=published)


def _new(name: str, diagnosis: str, published: tuple[tuple[int, int], ...]) -> Subtask:
    question = f"The patient leaves hospital today and has never been diagnosed with {diagnosis}. Will the first diagnosis follow within one year?"
    return Subtask(f"new_{name}", f"New diagnosis: {diagnosis}", question, diagnosis, f"no {diagnosis}", f"new_{name}", published=published)


def _finding(place: int, finding: str) -> Subtask:
    words = finding.lower()
    asked = "mention no finding" if place == 0 else f"show {words}"
    negative = "some finding" if place == 0 else f"no {words}"
    name = f"{CHEXPERT}_{words.replace(' ', '_')}"
    question = f"A chest X-ray will be reported in 24 hours. Will the report {asked}?"
    return Subtask(name, f"Chest X-ray: {words}", question, words, negative, CHEXPERT, bit=len(FINDINGS) - 1 - place)


BENCHMARK: Mapping[str, Subtask] = {
    s.name: s
    for s in (
        _guo(
            "los",
            "Long length of stay",
            "The patient was admitted today. Will the stay last 7 days or more?",
            "long stay",
            ((2569, 681), (2231, 534), (2195, 552)),
        ),
        _guo(
            "readmission",
            "30-day readmission",
            "The patient leaves hospital today. Will the patient be admitted again within 30 days?",
            "readmission",
            ((2608, 370), (2206, 281), (2189, 260)),
        ),
        _guo(
            "icu",
            "ICU transfer",
            "The patient was admitted today, not to intensive care. Will the patient be moved to intensive care during this stay?",
            "ICU transfer",
            ((2402, 113), (2052, 92), (2037, 85)),
        ),
        _lab("thrombocytopenia", "platelet count", "below 150 x 10^9/L", ((68776, 22714), (54504, 17867), (56338, 19137))),
        _lab("hyperkalemia", "potassium result", "above 5.5 mmol/L", ((76349, 1829), (60168, 1386), (63653, 1554))),
        _lab("hypoglycemia", "glucose result", "at most 3.9 mmol/L (70 mg/dL)", ((122108, 1904), (95488, 1449), (100568, 1368))),
        _lab("hyponatremia", "sodium result", "at most 135 mmol/L", ((81336, 23877), (64473, 17557), (67028, 19274))),
        _lab("anemia", "hemoglobin result", "below 120 g/L (12 g/dL)", ((70501, 49028), (56224, 38498), (58155, 39970))),
        _new("hypertension", "hypertension", ((1259, 182), (1247, 175), (1258, 159))),
        _new("hyperlipidemia", "hyperlipidemia", ((1684, 205), (1441, 189), (1317, 172))),
        _new("pancan", "pancreatic cancer", ((2576, 155), (2215, 53), (2220, 56))),
        _new("celiac", "celiac disease", ((2623, 62), (2284, 11), (2222, 21))),
        _new("lupus", "lupus", ((2570, 104), (2225, 33), (2243, 20))),
        _new("acutemi", "acute myocardial infarction", ((2534, 175), (2176, 145), (2127, 144))),
        *(_finding(place, finding) for place, finding in enumerate(FINDINGS)),
    )
}
FOLDERS = frozenset(s.folder for s in BENCHMARK.values())
NAMES = (
    *PAPER,
    *(name for name in BENCHMARK if name not in PAPER and not name.startswith(CHEXPERT)),
    CHEXPERT,
    *(n for n in BENCHMARK if n[:4] == "chex"),
)


def own(name: str, told: Mapping[str, str]) -> Subtask:
    """A user's own subtask. `told` may hold `question`, `positive` and `negative`; without them the name itself is asked."""
    words = name.replace("_", " ")
    question = told.get("question", f"Will the outcome {words!r} occur?")
    return Subtask(name, told.get("title", words), question, told.get("positive", words), told.get("negative", f"no {words}"), name)


def describe(path: Path) -> dict[str, dict[str, str]]:
    """`subtasks.json`: name -> {"question", "positive", "negative", "title"}, for labels that the benchmark does not know. Raises DataError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path.name}: not JSON ({type(error).__name__}); expected an object of subtask names") from None
    allowed = ("title", "question", "positive", "negative")
    if not isinstance(document, dict):
        raise DataError(f"{path.name}: expected an object of subtask names, found {type(document).__name__}")
    for name, told in document.items():
        if not isinstance(told, dict) or not all(isinstance(v, str) and v.strip() for v in told.values()):
            raise DataError(f"{path.name}: {name!r} must be an object of non-empty texts ({', '.join(allowed)})")
        if unknown := [key for key in told if key not in allowed]:
            raise DataError(f"{path.name}: {name!r} has the key {unknown[0]!r}; {nearest(unknown[0], allowed)}")
        if str(told.get("positive", name)).strip().casefold() == str(told.get("negative", "")).strip().casefold():
            raise DataError(f"{path.name}: {name!r} has the same name for both labels")
    return document


def choose(wanted: Sequence[str], folders: Collection[str] | None, told: Mapping[str, Mapping[str, str]]) -> list[Subtask]:
    """The subtasks of a run. `folders` are the label files there are (None: labels are computed), `told` what a user says of own ones.

    Nothing wanted: the paper's five as far as there are labels, else all there are. Raises SpecError for a name nobody knows and DataError
    for one without labels.
    """
    mine = {} if folders is None else {name: own(name, told.get(name, {})) for name in sorted(folders) if name not in FOLDERS}
    known = {**BENCHMARK, **mine}
    if not wanted:
        here = [name for name in known if folders is None or known[name].folder in folders]
        return [known[name] for name in ([n for n in PAPER if n in here] or here)]
    chosen: dict[str, Subtask] = {}
    for name in wanted:
        if name != CHEXPERT and name not in known:
            raise SpecError(f"data.subtasks: {name!r} is unknown; {nearest(name, [*known, CHEXPERT])}")
        chosen |= {n: s for n, s in known.items() if n == name or (name == CHEXPERT and s.folder == CHEXPERT)}
    if folders is not None and (missing := sorted({s.folder for s in chosen.values()} - set(folders))):
        raise DataError(f"data.subtasks: no label file for {', '.join(missing)}; the source has those for {', '.join(sorted(folders)) or 'none'}")
    return list(chosen.values())


def published(subtask: Subtask) -> dict[Split, tuple[int, int]]:
    """(labels, positive labels) of each split as the benchmark has them; empty for chest X-ray findings and a user's own."""
    return dict(zip(SPLITS, subtask.published, strict=False))
