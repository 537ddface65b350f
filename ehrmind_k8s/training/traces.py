"""Traces: the whole completions that SFT learns from, who wrote them, and what the scorer says of each.

`sft.traces` names the author. The source's own explanations and a user's file become part of the train rows in stage prepare. The start
model's own right samples and a teacher's answers are gathered by stage diagnose, which knows the categories that need them and holds no
training GPUs while somebody writes; they travel in `traces.jsonl`, in the form of a user's file, one JSON object a line:

    {"id": "medcalc-v1.2/17", "text": "<think>2 + 1 = 3</think><answer>{\"answer\": \"3\"}</answer>"}

Of the last three authors only texts that the scorer accepts are kept (rejection sampling; STaR, arXiv 2203.14465, without its
rationalisation: nobody is shown the answer, since a text written towards a known answer argues for it, right or wrong).
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ehrmind_k8s import artifacts
from ehrmind_k8s.errors import DataError, IntegrityError, nearest
from ehrmind_k8s.evaluation.generate import Answer, stratify
from ehrmind_k8s.records import Example
from ehrmind_k8s.spec import SftSpec
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.tasks.base import Task
from ehrmind_k8s.tokenization import Tokenizer

GATHERED: tuple[str, ...] = ("own", "teacher")  # by stage diagnose


@dataclass(frozen=True, slots=True)
class Gathered:
    """Row id -> the text that is kept for it; `judged` counts `rows`, those `kept`, and all texts by what the scorer said."""

    texts: Mapping[str, str]
    judged: Mapping[str, int]

    @classmethod
    def of(cls, rows: int, texts: Mapping[str, str], said: Counter[str]) -> "Gathered":
        """From what was said of every text."""
        return cls(texts, {"rows": rows, "kept": len(texts), **dict(sorted(said.items()))})


def judge(task: Task, tokenizer: Tokenizer, example: Example, text: str, longest: int) -> str:
    """`correct`, `wrong`, `malformed`, or `too_long`: more than `longest` tokens, which RLVR would cut."""
    if len(tokenizer.completion(text)) > longest:
        return "too_long"
    verdict = task.score(example, text)
    if verdict.outcome == "malformed":
        return "malformed"
    return "correct" if verdict.correct else "wrong"


def wanted(train: Sequence[Example], categories: Sequence[str]) -> list[Example]:
    """The train rows of these categories (none: of all). Raises DataError for a category that no row has."""
    known = sorted({e.category for e in train})
    if strange := sorted(set(categories) - set(known)):
        raise DataError(f"sft.categories: no train row is of category {strange[0]!r}; {nearest(strange[0], known)}")
    return [e for e in train if not categories or e.category in categories]


def to_ask(sft: SftSpec, train: Sequence[Example], categories: Sequence[str], seed: int) -> list[Example]:
    """The rows that a teacher is asked about: `sft.percent` of those wanted, stratified."""
    rows = wanted(train, categories)
    return stratify(rows, share(sft, len(rows)), seed)


def share(sft: SftSpec, rows: int) -> int:
    """How many rows `sft.percent` of `rows` are, at least 1."""
    return max(1, round(rows * sft.percent / 100))


def own(task: Task, tokenizer: Tokenizer, examples: Sequence[Example], answers: Iterable[Answer], longest: int) -> Gathered:
    """Of the samples on each row, the first that the scorer accepts."""
    by_id = {e.id: e for e in examples}
    texts: dict[str, str] = {}
    said: Counter[str] = Counter()
    for answer in answers:
        if answer.id in by_id:
            outcome = judge(task, tokenizer, by_id[answer.id], answer.text, longest)
            said[outcome] += 1
            if outcome == "correct":
                texts.setdefault(answer.id, answer.text)
    return Gathered.of(len(examples), texts, said)


def read(path: Path) -> dict[str, str]:
    """Row id -> text. Raises DataError naming the line of a file that is not of this form, or holds a row twice."""
    found: dict[str, str] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            row_id, text = _line(line, f"{path.name}, line {number}")
            if row_id in found:
                raise DataError(f"{path.name}, line {number}: row {row_id} is there twice; one text a row")
            found[row_id] = text
    return found


def write(path: Path, texts: Mapping[str, str]) -> None:
    """The file that `read` reads."""
    lines = (json.dumps({"id": row_id, "text": text}, ensure_ascii=False) + "\n" for row_id, text in texts.items())
    path.write_text("".join(lines), encoding="utf-8")


def lay_over(train: Sequence[Example], diagnose: ObjectStore, work: Path) -> list[Example]:
    """The train rows with the texts that stage diagnose has gathered in place of their own. Raises IntegrityError where it has none."""
    manifest = artifacts.load(diagnose)
    if manifest is None or artifacts.TRACES not in {f.name for f in manifest.files}:
        raise IntegrityError(
            f"{diagnose.uri}: no {artifacts.TRACES} here; this diagnosis was made with another sft.traces, or for an SFT that was skipped"
        )
    artifacts.fetch(diagnose, "", work, [artifacts.TRACES])
    texts = read(work / artifacts.TRACES)
    return [replace(e, sft_text=texts.get(e.id)) for e in train]


def _line(line: bytes, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line.decode())
    except ValueError:  # UnicodeDecodeError is one
        raise DataError(f'{where}: not a JSON object in UTF-8; expected {{"id": "...", "text": "..."}}') from None
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "text")):
        raise DataError(f'{where}: expected {{"id": "...", "text": "..."}}, both texts')
    return row["id"], row["text"]
