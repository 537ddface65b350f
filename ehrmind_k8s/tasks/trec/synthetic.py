"""A seeded twin of TREC Clinical Trials: invented patients and trials in the real layouts, nothing to download, the same bytes for a seed.

A patient is a few facts, a trial is a predicate over them, so that the grade is a function: another condition 0, the condition but a criterion
that rules out 1, else 2. Two sizes:

`unit`        two years with the quirks of the real files: topics in both line endings, a 2022 file whose root says 2021, judgments as text and as
              TSV, trials as legacy XML inside zips of the corpus' own folders, as `corpus.jsonl` and as `trial_info.json`; criteria that are
              wrapped, with several headings or none, an exclusion text that begins with ":", ages N/A, a results section, a withheld record, a
              judged trial that no file holds.
`quickstart`  short patients and trials for a toy model on a CPU. **Its SFT traces come from an imperfect teacher**, who calls a patient that a
              criterion rules out "Not relevant" with probability TEACHER_ERROR (the confusion that the paper's own labels had): that is what
              leaves RLVR something to mend. The judgments are right.

    Diabetes: yes; asthma: no; gout: no; stroke: no; smoker: yes; ulcer: no; pregnant: no; dialysis: no.
    A study in diabetes, exclusion criteria: smoker                                                        1 Excluded
"""

import json
import random
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from ehrmind_k8s.tasks.trec import prompt, traces
from ehrmind_k8s.tasks.trec.qrels import HEADER

CONDITIONS = ("diabetes", "asthma", "gout", "stroke")
RULED_OUT = ("smoker", "ulcer", "pregnant", "dialysis")
TEACHER_ERROR = 0.6
FIRST_NCT = 90_000_000  # the registry is below NCT08
QUICKSTART_TOPICS, QUICKSTART_PAIRS = 420, 10
UNIT_TOPICS, UNIT_PAIRS, UNIT_TRIALS = {"2021": 8, "2022": 4}, 11, 44


@dataclass(frozen=True, slots=True)
class Patient:
    """A topic. `has` are conditions and what rules out."""

    topic: str
    age: int
    sex: str
    has: frozenset[str]

    @property
    def text(self) -> str:
        told = "; ".join(f"{fact}: {'yes' if fact in self.has else 'no'}" for fact in (*CONDITIONS, *RULED_OUT))
        return f"{self.age}-year-old {self.sex}. {told[0].upper()}{told[1:]}."


@dataclass(frozen=True, slots=True)
class Study:
    """A trial about `condition` that rules out adults below `youngest` and who has `excluded`."""

    nct: str
    condition: str
    excluded: str
    youngest: int

    def grade(self, patient: Patient) -> int:
        if self.condition not in patient.has:
            return 0
        return 1 if self.excluded in patient.has or patient.age < self.youngest else 2


def write(folder: Path, seed: int, size: str) -> None:
    """Write the twin. `size` is `unit` or `quickstart`."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    (_quickstart if size == "quickstart" else _unit)(folder, draw)
    about = (__doc__ or "").replace("TEACHER_ERROR", str(TEACHER_ERROR))
    (folder / "README.md").write_text(f"Size `{size}`, seed {seed}.\n\n{about}", encoding="utf-8")


def _quickstart(folder: Path, draw: random.Random) -> None:
    patients = _patients(draw, {"2021": QUICKSTART_TOPICS})
    studies = [Study(f"NCT{FIRST_NCT + i}", c, e, 18) for i, (c, e) in enumerate((c, e) for c in CONDITIONS for e in RULED_OUT)]
    judged = [(p, s) for p in patients for s in sorted(draw.sample(studies, QUICKSTART_PAIRS), key=lambda s: s.nct)]
    _topics(folder / "topics2021.xml", patients, "2021", "\n")
    _qrels(folder / "qrels2021.txt", judged)
    info = {s.nct: {"brief_title": f"A study in {s.condition}", "inclusion_criteria": s.condition, "exclusion_criteria": s.excluded} for s in studies}
    _json(folder / "trial_info.json", info)
    rows = [{"topic": p.topic, "trial": s.nct, "text": _trace(draw, p, s)} for p, s in judged]
    (folder / traces.NAME).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _trace(draw: random.Random, patient: Patient, study: Study) -> str:
    """What the teacher writes: the two facts looked up, then a grade that may be wrong."""
    said = [f"{fact}: {'yes' if fact in patient.has else 'no'}" for fact in (study.condition, study.excluded)]
    grade = study.grade(patient)
    return prompt.completion("; ".join(said), 0 if grade == 1 and draw.random() < TEACHER_ERROR else grade)


def _unit(folder: Path, draw: random.Random) -> None:
    patients = _patients(draw, UNIT_TOPICS)
    studies = [
        Study(f"NCT{FIRST_NCT + 100 * i + draw.randrange(100)}", draw.choice(CONDITIONS), draw.choice(RULED_OUT), draw.choice((18, 40)))
        for i in range(UNIT_TRIALS)
    ]
    judged = [(p, s) for i, p in enumerate(patients) for s in _dealt(studies, i)]
    years = {year: [(p, s) for p, s in judged if p.topic.startswith(year)] for year in UNIT_TOPICS}
    _topics(folder / "topics2021.xml", patients, "2021", "\n")
    _topics(folder / "topics2022.xml", patients, "2022", "\r\n")
    _qrels(folder / "qrels2021.txt", years["2021"])
    _tsv(folder / "trec_2022" / "qrels" / "test.tsv", years["2022"])
    _, *held = studies  # the first one is in no file
    for part in (1, 2):
        _zip(folder / f"ClinicalTrials.2021-04-27.part{part}.zip", part, held[part - 1 : 30 : 2])
    _json(folder / "trial_info.json", {s.nct: _processed(s) for s in held[30:37]})
    lines = [
        {"_id": s.nct, "title": _title(s), "text": f"Summary: x\nInclusion criteria: {s.condition} \n\nExclusion criteria: {s.excluded}"}
        for s in held[37:]
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows = [{"topic": p.topic, "trial": s.nct, "text": _trace(draw, p, s)} for p, s in judged]
    (folder / traces.NAME).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _dealt(studies: Sequence[Study], topic: int) -> list[Study]:
    """Every fourth trial, so that trials are judged for several topics, and all of them for some."""
    return [s for i, s in enumerate(studies) if i % 4 == topic % 4][:UNIT_PAIRS]


def _patients(draw: random.Random, topics: Mapping[str, int]) -> list[Patient]:
    def has() -> frozenset[str]:
        return frozenset([c for c in CONDITIONS if draw.random() < 0.6] + [e for e in RULED_OUT if draw.random() < 0.5])

    return [
        Patient(f"{year}-{number}", draw.randint(30, 89), draw.choice(("woman", "man")), has())
        for year, count in topics.items()
        for number in range(1, count + 1)
    ]


def _topics(path: Path, patients: Sequence[Patient], year: str, end: str) -> None:
    """The official file; the root of both years says 2021, as the real ones do."""
    lines = ['<topics task="2021 TREC Clinical Trials">']
    for patient in patients:
        name, _, number = patient.topic.partition("-")
        if name == year:
            lines += [f'<topic number="{number}">', escape(patient.text), "</topic>"]
    path.write_bytes((end.join([*lines, "</topics>"]) + end).encode())


def _qrels(path: Path, judged: Sequence[tuple[Patient, Study]]) -> None:
    path.write_text("".join(f"{p.topic.partition('-')[2]} 0 {s.nct} {s.grade(p)}\n" for p, s in judged), encoding="utf-8")


def _tsv(path: Path, judged: Sequence[tuple[Patient, Study]]) -> None:
    path.parent.mkdir(parents=True)
    rows = [HEADER, *((f"trec-{p.topic.replace('-', '')}", s.nct, str(s.grade(p))) for p, s in judged)]
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def _processed(study: Study) -> dict[str, object]:
    """A record as TrialGPT's splitter leaves it: what is left of a heading, blank lines between criteria, a stringified list."""
    return {
        "brief_title": _title(study),
        "phase": "Phase 2",
        "drugs": "['placebo']",
        "diseases_list": [study.condition.capitalize(), "Inflammation"],
        "enrollment": "34.0",
        "inclusion_criteria": f"inclusion criteria: \n\n Diagnosis of {study.condition} \n\n At least {study.youngest} years old",
        "exclusion_criteria": f": \n\n {study.excluded} ",
    }


def _zip(path: Path, part: int, studies: Sequence[Study]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, study in enumerate(studies):
            name = f"ClinicalTrials.2021-04-27.part{part}/{study.nct[:7]}xxxx/{study.nct}.xml"
            archive.writestr(zipfile.ZipInfo(name, (2021, 4, 27, 0, 0, 0)), _record(study, i, withheld=(part, i) == (1, 5)), zipfile.ZIP_DEFLATED)


def _record(study: Study, i: int, *, withheld: bool) -> str:
    """A legacy record; `i` picks which quirks it has."""
    eligibility = "" if withheld else _eligibility(study, i)
    conditions = "".join(f"<condition>{c}</condition>" for c in (study.condition.capitalize(), *(["Inflammation"] if i % 3 else [])))
    official = "" if i % 4 == 1 else f"<official_title>Official: {_title(study)}</official_title>"
    results = f"<clinical_results><p>{'measured &amp; reported ' * 2000}</p></clinical_results>" if i == 3 else ""
    body = (
        f"<clinical_study><id_info><org_study_id>x</org_study_id><nct_id>{study.nct}</nct_id></id_info><brief_title>{_title(study)}</brief_title>{official}"
        f"<brief_summary><textblock>\n      Text &lt;here&gt;.\n    </textblock></brief_summary>{conditions}{eligibility}"
        f"<location><name>Nowhere</name></location><keyword>x</keyword>{results}</clinical_study>\n"
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'


def _eligibility(study: Study, i: int) -> str:
    wrapped = textwrap.fill(
        f"Diagnosis of {study.condition} according to criteria that take more than one line of the text as the registry prints it", 70
    )
    inclusion, exclusion = f"-  {wrapped}\n\n-  At least {study.youngest} years old", f"-  {study.excluded}"
    texts = (
        f"Inclusion Criteria:\n\n{inclusion}\n\nExclusion Criteria:\n\n{exclusion}",
        f"Key Inclusion Criteria: Diagnosis of {study.condition}\n\nEXCLUSION CRITERIA\n\n{exclusion}",
        f"Inclusion Criteria (cohort A):\n\n{inclusion}\n\nInclusion Criteria (cohort B):\n\n-  the same\n\nExclusion Criteria:\n\n{exclusion}",
        f"DISEASE CHARACTERISTICS:\n\n{inclusion}\n\n-  No {study.excluded}",
    )
    block = textwrap.indent(texts[i % len(texts)], " " * 8)
    ages = f"<minimum_age>{study.youngest} Years</minimum_age><maximum_age>N/A</maximum_age>"
    raw = escape(block).replace("\n", "&#xD;\n") if i % 2 else escape(block)
    return f"<eligibility><criteria><textblock>\n{raw}\n</textblock></criteria><gender>All</gender>{ages}</eligibility>"


def _title(study: Study) -> str:
    return f"A study in {study.condition}"


def _json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
