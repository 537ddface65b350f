"""Which labels become prompts: splits by subject, at most so many of one subject, and a train split that is balanced.

Every choice is by a number that seed, subtask, subject and time make (`lots`), the lowest first. So a choice does not depend on the order of
files, and a larger one holds the smaller: 8 shots are among the 16.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.records import SPLITS, Split
from ehrmind_k8s.tasks.ehrshot.labels import Labels
from ehrmind_k8s.tasks.ehrshot.mixing import mixed

WORDS: Mapping[str, Split] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "tuning": "validation",
    "test": "test",
    "held_out": "test",
}
TRAIN, VALIDATION, TEST = range(3)  # codes of SPLITS


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """N labels of all subtasks: subject (int64), time (datetime64[s]), value (0 or 1), subtask and split as codes."""

    subject: np.ndarray
    time: np.ndarray
    value: np.ndarray
    subtask: np.ndarray
    split: np.ndarray

    def __len__(self) -> int:
        return len(self.subject)

    def rows(self, chosen: np.ndarray) -> "Asked":
        """The labels that an index or a mask chooses."""
        return Asked(*(getattr(self, name)[chosen] for name in self.__slots__))


def join(found: Collection[Labels]) -> Asked:
    """Labels of each subtask, in the order of their codes; the split is still that of nobody (-1)."""
    parts = list(found)
    subtask = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    subject, time, value = (np.concatenate([getattr(p, name) for p in parts]) for name in ("subject", "time", "value"))
    return Asked(subject, time, value, subtask, np.full(len(subtask), -1))


def canonical(asked: Asked, splits: Mapping[int, str], validation_fraction: float, seed: int) -> Asked:
    """The source's own split; -1 stays where it does not name the subject. Where it has no validation, that share of train is taken by lot.

    Raises DataError for a split that it calls by an unknown name.
    """
    unknown = sorted(set(splits.values()) - set(WORDS))
    if unknown:
        raise DataError(f"the source's split file names the split {unknown[0]!r}; expected {', '.join(WORDS)}")
    subjects, place = np.unique(asked.subject, return_inverse=True)
    codes = [SPLITS.index(WORDS[splits[s]]) if s in splits else -1 for s in subjects.tolist()]
    found = np.array(codes, dtype=np.int64)
    if not (found == VALIDATION).any():
        train = np.flatnonzero(found == TRAIN)
        lot = np.argsort(mixed(subjects[train].astype(np.uint64) + np.uint64(_salt(seed, "split"))), kind="stable")
        found[train[lot[: round(validation_fraction * len(train))]]] = VALIDATION
    return replace(asked, split=found[place])


def by_subject(asked: Asked, test_fraction: float, validation_fraction: float, seed: int) -> Asked:
    """Shares of the subjects, by lot: `test_fraction` of all for test, then `validation_fraction` of the others."""
    subjects, place = np.unique(asked.subject, return_inverse=True)
    order = np.argsort(mixed(subjects.astype(np.uint64) + np.uint64(_salt(seed, "split"))), kind="stable")
    test = round(test_fraction * len(subjects))
    validation = round(validation_fraction * (len(subjects) - test))
    codes = np.full(len(subjects), TRAIN, dtype=np.int64)
    codes[order[:test]], codes[order[test : test + validation]] = TEST, VALIDATION
    return replace(asked, split=codes[place])


def lots(asked: Asked, names: Sequence[str], seed: int) -> np.ndarray:
    """A number for each label, as if drawn by lot (uint64, length N). `names` are the subtasks in the order of their codes."""
    salts = np.array([_salt(seed, name) for name in names], dtype=np.uint64)
    minutes = asked.time.astype("datetime64[m]").astype(np.int64).astype(np.uint64)
    return mixed(mixed(asked.subject.astype(np.uint64)) + minutes + salts[asked.subtask])


def at_most(asked: Asked, lot: np.ndarray, limit: int) -> np.ndarray:
    """Mask of the `limit` labels with the lowest lots of each subject and subtask."""
    return _place_in(lot, asked.subject, asked.subtask) < limit


def balanced(asked: Asked, lot: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Mask that keeps as many labels of each class as the rarer class has, and at most `limit`; per split and subtask, the lowest lots.

    A subtask with one class only cannot be balanced and is kept, `limit` apart.
    """
    group = asked.split * (asked.subtask.max(initial=0) + 1) + asked.subtask
    size = int(group.max(initial=0)) + 1
    by_class = [np.bincount(group[asked.value == v], minlength=size) for v in (0, 1)]
    fewer = np.minimum(*by_class)
    allowed = np.where(fewer > 0, fewer, np.maximum(*by_class))
    allowed = allowed if limit is None else np.minimum(allowed, limit)
    kept: np.ndarray = _place_in(lot, group, asked.value) < allowed[group]
    return kept


def _place_in(lot: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The place of each row's lot among the rows with the same two keys, 0 for the lowest."""
    order = np.lexsort((lot, second, first))
    new = np.ones(len(lot), dtype=bool)
    new[1:] = (first[order][1:] != first[order][:-1]) | (second[order][1:] != second[order][:-1])
    place = np.arange(len(lot)) - np.maximum.accumulate(np.where(new, np.arange(len(lot)), 0))
    found = np.empty(len(lot), dtype=np.int64)
    found[order] = place
    return found


def _salt(seed: int, word: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{word}".encode(), digest_size=8).digest(), "little")
