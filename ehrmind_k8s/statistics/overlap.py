"""Records that are nearly the same: in two splits of a run, or in its test split and in what its start model has learned from.

A record is sketched by the K smallest hashes of its five-word shingles. The K smallest hashes of two sketches together are a sample of the
shingles of both records; the share of them that both have estimates the records' resemblance (bottom-k sketches, Broder 1997), and is exact for
records of at most K shingles.
"""

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

WORDS = 5
K = 64
NEAR = 0.8  # resemblance: one word in forty changed, at random places, leaves about this much
COMMON = 64  # a shingle in more records than this is a phrase of the form, and leads to no candidate
FAR = np.uint64(2**64 - 1)  # fills the rows of an array

Sketches = Mapping[str, np.ndarray]


def sketch(text: str) -> np.ndarray:
    """The sketch of a record, at most K hashes in rising order. Case, punctuation and white space do not count."""
    words = re.findall(r"\w+", text.lower())
    codes = np.array([zlib.crc32(w.encode()) for w in words] or [0], dtype=np.uint64)
    width = min(WORDS, len(codes))
    found = np.zeros(len(codes) - width + 1, dtype=np.uint64)
    for i in range(width):
        found = _mixed(found + codes[i : len(codes) - width + 1 + i])
    return np.unique(found)[:K]


def resemblance(a: np.ndarray, b: np.ndarray) -> float:
    """Share of shingles that two records have in common, 0 to 1, from their sketches."""
    union = np.union1d(a, b)[:K]
    return float((np.isin(union, a) & np.isin(union, b)).mean())


def near(these: Sketches, those: Sketches) -> list[tuple[str, str]]:
    """Pairs of names, one of `these` and one of `those`, of records that resemble each other by at least NEAR; the first found of each of `those`."""
    holders: dict[int, list[str]] = defaultdict(list)
    for name, hashes in these.items():
        for one in hashes.tolist():
            holders[one].append(name)
    found = []
    for name, hashes in those.items():
        shared = Counter(holder for one in hashes.tolist() if len(holders.get(one, ())) <= COMMON for holder in holders.get(one, ()))
        candidates = (holder for holder, _ in shared.most_common(5))
        if (twin := next((c for c in candidates if resemblance(these[c], hashes) >= NEAR), None)) is not None:
            found.append((twin, name))
    return found


def rows(sketches: Sketches, more: np.ndarray | None = None) -> np.ndarray:
    """Sketches as an array of shape (G, K), `more` of them below."""
    made = np.full((len(sketches), K), FAR, dtype=np.uint64)
    for row, hashes in zip(made, sketches.values(), strict=True):
        row[: len(hashes)] = hashes
    return made if more is None else np.vstack([made, more])


def named(array: np.ndarray) -> Sketches:
    """The rows of such an array by number."""
    return {str(i): row[row != FAR] for i, row in enumerate(array)}


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): a hash of 64 bits."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
