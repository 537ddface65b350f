"""From published files to examples: which rows, whose answers, which split, and what was left out and why.

A group is a note: several calculators share one, and a note in two splits would let training rehearse the test. Train rows whose note
occurs in test are dropped by default; validation rows always are. Validation is held out of train by note, stratified by category.
"""

import hashlib
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ehrmind_k8s.errors import DataError, SpecError, nearest
from ehrmind_k8s.records import SPLITS, Drop, Example, Split
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks import sources
from ehrmind_k8s.tasks.base import TaskData
from ehrmind_k8s.tasks.medcalc import labels, layouts, prompt, scoring
from ehrmind_k8s.tasks.medcalc.layouts import Row


def read(source: Path, data: DataSpec, seed: int) -> TaskData:
    """Examples of all splits that the source holds. Raises DataError (files, rows) or SpecError (an unknown label set)."""
    if data.labels not in labels.LABEL_SETS:
        raise SpecError(f"data.labels {data.labels!r} is unknown; {nearest(data.labels, labels.LABEL_SETS)}")
    files = sources.find(source, layouts.SUFFIXES)
    chosen = sources.by_split(source, files, data)
    rows = {split: [row for file in chosen[split] for row in layouts.read(file)] for split in SPLITS if split in chosen}
    corrections, also_read = _corrections(source, files, rows) if data.labels == labels.CORRECTED else ({}, [])
    drops: list[Drop] = []
    examples = {split: _examples(rows[split], split, data.labels, corrections, drops) for split in rows}
    _drop_shared_notes(examples, data.note_overlap, drops)
    if "validation" not in examples and "train" in examples:
        _hold_out(examples, data.validation_fraction, seed)
    for split in rows:
        if not examples[split]:
            raise DataError(f"{source}: no row of the {split} split is left after filtering ({_reasons(drops, split)})")
    _assert_disjoint(examples, data.note_overlap)
    flat = [e for split in SPLITS for e in examples.get(split, ())]
    read_files = {f.path for f in [*also_read, *(f for fs in chosen.values() for f in fs)]}
    inputs = {p.relative_to(source).as_posix() if p != source else p.name: sources.sha256(p) for p in sorted(read_files)}
    return TaskData(flat, drops, inputs, _audit(flat), len(flat))


def note_hash(note: str) -> str:
    """The group of a note: equal for texts that differ only in case, white space and punctuation."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", note).casefold())
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def _corrections(source: Path, files: Sequence[sources.File], rows: Mapping[Split, Sequence[Row]]) -> tuple[dict[int, Row], list[sources.File]]:
    """The relabelled answers by v1.0 row number, from a relabelled file beside the test file; none needed where the test file is one itself.

    The CSV is preferred to its parquet, which holds limits without answers.
    """
    if all(row.relabelled for row in rows.get("test", ())):
        return {}, []
    found = sorted((f for f in files if layouts.is_relabelled(f)), key=lambda f: (f.suffix != ".csv", f.name))
    if not found:
        raise DataError(f"data.labels {labels.CORRECTED}: no relabelled file in {source}; put medcalc_v1_corrected.csv beside the test file")
    return {row.number: row for row in layouts.read(found[0])}, found[:1]


def _examples(rows: Sequence[Row], split: Split, label_set: str, corrections: Mapping[int, Row], drops: list[Drop]) -> list[Example]:
    made, seen = [], Counter[int]()
    for row in rows:
        seen[row.number] += 1
        again = f"-{seen[row.number]}" if seen[row.number] > 1 else ""
        id = f"medcalc-{split}-{row.number:05}{again}"
        label = labels.label(row, split, label_set, corrections)
        if label is None:
            drops.append(Drop(id, split, "not_relabelled"))
        elif not scoring.is_gold(label.target):
            drops.append(Drop(id, split, "answer_outside_limits"))
        else:
            made.append(_example(id, split, row, label))
    return made


def _example(id: str, split: Split, row: Row, label: labels.Label) -> Example:
    text, why = _sft_text(row, label)
    meta = {
        "row": row.where,
        "note_id": row.note_id,
        "note_type": row.note_type,
        "labels": label.source,
        "recomputed": label.check,
        "limits_widened": label.widened,
        "impossible_score": label.impossible,
        "sft_text": why,
    }
    messages = prompt.messages(row.note, row.question, row.scoring, bool(label.target["abstain"]))
    return Example(id, "medcalc", split, note_hash(row.note), row.calculator.category, tuple(messages), label.target, text, meta=meta)


def _sft_text(row: Row, label: labels.Label) -> tuple[str | None, str]:
    """A completion to learn, or None, and a code that says why.

    An explanation that is a whole completion by itself is a teacher's trace and is used as it stands, right or wrong (the audit counts both).
    One that argues for an answer which a label set has replaced is not used.
    """
    if not row.explanation.strip():
        return None, "no_explanation"
    if label.source != labels.ORIGINAL:
        return None, "explains_another_answer"
    trace = scoring.score(label.target, row.explanation)
    if trace.outcome == "scored":
        return row.explanation, "trace_correct" if trace.correct else "trace_wrong"
    text = prompt.completion(row.explanation, label.target["answer"])
    if not scoring.score(label.target, text).correct:
        return None, "tags_in_explanation"
    return text, "explanation"


def _drop_shared_notes(examples: dict[Split, list[Example]], note_overlap: str, drops: list[Drop]) -> None:
    """Let no train or validation row keep a note of a later split (train rows keep test notes only if asked to)."""
    in_test = {e.group for e in examples.get("test", ())}
    in_validation = {e.group for e in examples.get("validation", ())}
    for split, taken, reason in (
        ("validation", in_test, "note_in_test"),
        ("train", in_test if note_overlap == "drop" else set(), "note_in_test"),
        ("train", in_validation - in_test, "note_in_validation"),
    ):
        if split in examples:
            drops += [Drop(e.id, split, reason) for e in examples[split] if e.group in taken]
            examples[split] = [e for e in examples[split] if e.group not in taken]


def _hold_out(examples: dict[Split, list[Example]], fraction: float, seed: int) -> None:
    """Move a share of the train notes to validation: per category, at least one note where there are two, never a note of test."""
    in_test = {e.group for e in examples.get("test", ())}
    notes: dict[str, set[str]] = defaultdict(set)
    category: dict[str, str] = {}
    for e in examples["train"]:
        notes[category.setdefault(e.group, e.category)].add(e.group)
    held: set[str] = set()
    for name, groups in sorted(notes.items()):
        free = sorted(groups - in_test)
        random.Random(f"{seed}:{name}").shuffle(free)
        count = round(fraction * len(groups)) or int(fraction > 0 and len(groups) > 1)
        held |= set(free[:count])
    examples["validation"] = [replace(e, split="validation") for e in examples["train"] if e.group in held]
    examples["train"] = [e for e in examples["train"] if e.group not in held]


def _assert_disjoint(examples: dict[Split, list[Example]], note_overlap: str) -> None:
    groups = {split: {e.group for e in es} for split, es in examples.items()}
    for a, b in (("train", "validation"), ("validation", "test"), ("train", "test")):
        shared = groups.get(a, set()) & groups.get(b, set())  # type: ignore[call-overload]
        assert not shared or (b == "test" and a == "train" and note_overlap == "keep"), f"{len(shared)} notes are in {a} and in {b}"


def _audit(examples: Iterable[Example]) -> dict[str, dict[str, dict[str, int]]]:
    """Table -> split -> counts, for the manifest and the report."""
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for e in examples:
        for table in ("labels", "recomputed", "sft_text"):
            counts[table][e.split][e.meta[table]] += 1
        for flag in ("limits_widened", "impossible_score"):
            counts["flags"][e.split][flag] += e.meta[flag]
        counts["calculators"][e.split][str(e.target["calculator"])] += 1
    return {table: {split: dict(sorted(c.items())) for split, c in splits.items()} for table, splits in counts.items()}


def _reasons(drops: Sequence[Drop], split: str) -> str:
    counts = Counter(d.reason for d in drops if d.split == split)
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "it had none"
