"""Which labels are asked, in which split, and what was left out before any record was read.

The benchmark's split is kept where the source has one; else subjects are split by lot. Then, with `data.shots`, train and validation are the
benchmark's own few-shot sample, or k labels of each class by lot. Without it both hold at most `data.labels_per_subject` labels of a subject and
subtask, and train is balanced per subtask: reward counts right answers, so a policy would else learn to say no. Test is always whole, since a
sample of it would have another prevalence, and its figures would compare with nobody's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.records import SPLITS
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.ehrshot import labels, sampling, subtasks
from ehrmind_k8s.tasks.ehrshot.labels import Labels
from ehrmind_k8s.tasks.ehrshot.sampling import TEST, TRAIN, Asked
from ehrmind_k8s.tasks.ehrshot.subtasks import FINDINGS, Subtask

CANONICAL, BY_SUBJECT = "canonical", "by_subject"
SPLIT_WAYS = (CANONICAL, BY_SUBJECT)
RARE = 10  # test labels of a class below which a subtask's figures say little
WHOLE = 0.9  # a source with this share of the benchmark's subjects claims to be the benchmark, and is compared with its published counts


@dataclass(frozen=True)
class Cohort:
    """`asked` are the labels that become prompts, by subject, time and subtask; `given` all labels of each subtask, each question once."""

    asked: Asked
    given: Mapping[str, Labels]
    audit: dict[str, Any]


def build(
    chosen: Sequence[Subtask], read: Mapping[str, Labels], splits: Mapping[int, str] | None, shot_files: Mapping[str, Path], data: DataSpec, seed: int
) -> Cohort:
    """The cohort of a run. `read` are the labels of each subtask as files or events give them. Raises DataError."""
    parts = {s.name: labels.unique(read[s.name]) for s in chosen}
    given = {name: kept for name, (kept, _, _) in parts.items()}
    everything = _split(sampling.join(list(given.values())), splits, data, seed)
    everything = everything.rows(everything.split >= 0)
    if not len(everything):
        raise DataError(
            f"no label of {', '.join(given)} belongs to a subject of the split; check data.subtasks, and that labels and split are of one source"
        )
    asked, left_out = _sampled(everything, chosen, shot_files, data, seed)
    audit = {
        "labels": {
            name: {"labels": len(kept), "positive": int(kept.value.sum()), "repeated": len(repeated), "contradicting": len(torn)}
            for name, (kept, repeated, torn) in parts.items()
        },
        "labels_without_split": sum(map(len, given.values())) - len(everything),
        "left_out": {SPLITS[code]: counts for code, counts in left_out.items()},
        "classes": _classes(asked, chosen),
    }
    if warnings := [*_rare(asked, chosen), *_published(everything, chosen, splits)]:
        audit["warnings"] = warnings
    return Cohort(asked.rows(np.lexsort((asked.subtask, asked.time, asked.subject))), given, audit)


def shot_files(source: Path) -> dict[str, Path]:
    """Folder of a subtask -> the benchmark's few-shot samples, where the source has them."""
    return {path.parent.name: path for path in sorted(source.rglob(labels.SHOTS_NAME))}


def _split(asked: Asked, splits: Mapping[int, str] | None, data: DataSpec, seed: int) -> Asked:
    if splits is not None and data.split != BY_SUBJECT:
        return sampling.canonical(asked, splits, data.validation_fraction, seed)
    if data.split == CANONICAL:
        raise DataError(f"data.split {CANONICAL}: the source has no split file; set data.split={BY_SUBJECT}")
    return sampling.by_subject(asked, data.test_fraction, data.validation_fraction, seed)


def _sampled(
    asked: Asked, chosen: Sequence[Subtask], files: Mapping[str, Path], data: DataSpec, seed: int
) -> tuple[Asked, dict[int, dict[str, int]]]:
    """The labels that are asked, and per split how many were left out by which rule."""
    lot = sampling.lots(asked, [s.name for s in chosen], seed)
    if data.shots is None:
        few = asked.split == TEST
        few |= data.labels_per_subject is None or sampling.at_most(asked, lot, data.labels_per_subject)
        rules = {"over_labels_per_subject": few}
        rows = np.flatnonzero(few & (asked.split == TRAIN))
        rules["balanced_away"] = _all_but(rows[~sampling.balanced(asked.rows(rows), lot[rows])], len(asked))
    else:
        rules = {"not_in_shots": _shots(asked, lot, chosen, files, data.shots, seed)}
    left_out: dict[int, dict[str, int]] = {}
    kept = np.ones(len(asked), dtype=bool)
    for rule, mask in rules.items():
        for code in range(len(SPLITS)):
            left_out.setdefault(code, {})[rule] = int((kept & ~mask & (asked.split == code)).sum())
        kept &= mask
    return asked.rows(kept), left_out


def _shots(asked: Asked, lot: np.ndarray, chosen: Sequence[Subtask], files: Mapping[str, Path], k: int, seed: int) -> np.ndarray:
    """Mask of all test labels, and of k labels of each class in train and in validation."""
    kept: np.ndarray = asked.split == TEST
    for code, subtask in enumerate(chosen):
        rows = np.flatnonzero((asked.subtask == code) & ~(asked.split == TEST))
        if subtask.folder not in files:
            kept[rows[sampling.balanced(asked.rows(rows), lot[rows], k)]] = True
            continue
        path = files[subtask.folder]
        finding = None if subtask.bit is None else FINDINGS[len(FINDINGS) - 1 - subtask.bit]
        sample = labels.shots(path, subtask, finding, k, seed)
        keys = zip(asked.split[rows].tolist(), asked.subject[rows].tolist(), labels.minutes(asked.time[rows]), strict=True)
        mine = np.array([(subject, minute) in sample[SPLITS[split]] for split, subject, minute in keys], dtype=bool)
        if not mine.any():
            raise DataError(
                f"{path.parent.name}/{path.name}: none of its labels is among those of {subtask.name}; the two files are of different releases"
            )
        kept[rows[mine]] = True
    return kept


def _all_but(rows: np.ndarray, size: int) -> np.ndarray:
    mask = np.ones(size, dtype=bool)
    mask[rows] = False
    return mask


def _classes(asked: Asked, chosen: Sequence[Subtask]) -> dict[str, dict[str, dict[str, int]]]:
    """Subtask -> split -> how many negative and positive labels are asked."""
    cell = (asked.subtask * len(SPLITS) + asked.split) * 2 + asked.value
    counts = np.bincount(cell, minlength=len(chosen) * len(SPLITS) * 2).reshape(len(chosen), len(SPLITS), 2).tolist()
    return {
        s.name: {split: {"negative": n, "positive": p} for split, (n, p) in zip(SPLITS, of, strict=True)}
        for s, of in zip(chosen, counts, strict=True)
    }


def _rare(asked: Asked, chosen: Sequence[Subtask]) -> list[str]:
    """One sentence per subtask whose test split has few labels of a class, or whose train split has one class alone: it teaches to say that."""
    found = []
    for name, splits in _classes(asked, chosen).items():
        if sum(splits["train"].values()) and not all(splits["train"].values()):
            only = max(splits["train"], key=lambda word: splits["train"][word])
            found.append(f"{name} has only {only} train labels, so training on it teaches to say {'yes' if only == 'positive' else 'no'}")
        word, n = min(splits["test"].items(), key=lambda item: item[1])
        if n < RARE:
            found.append(f"{name} has {n} {word} test labels")
    return found


def _published(asked: Asked, chosen: Sequence[Subtask], splits: Mapping[int, str] | None) -> list[str]:
    """What differs from the benchmark's published counts, in a source of the benchmark's size."""
    subjects = Counter(sampling.WORDS[word] for word in (splits or {}).values())
    if subjects.total() < WHOLE * sum(subtasks.SUBJECTS.values()):
        return []
    found = [f"{split} has {subjects[split]} subjects, the benchmark {n}" for split, n in subtasks.SUBJECTS.items() if subjects[split] != n]
    for code, subtask in enumerate(chosen):
        for split, (rows, positive) in subtasks.published(subtask).items():
            mine = asked.value[(asked.subtask == code) & (asked.split == SPLITS.index(split))]
            if (len(mine), int(mine.sum())) != (rows, positive):
                found.append(f"{subtask.name} has {len(mine)} {split} labels ({mine.sum()} positive), the benchmark {rows} ({positive})")
    return found
