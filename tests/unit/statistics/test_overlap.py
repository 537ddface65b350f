"""Records that are nearly the same are found, and others are not."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.statistics import overlap

VOCABULARY = [f"word{i}" for i in range(400)]
texts = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40).map(" ".join)


def record(seed: int, words: int = 300) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def changed(text: str, words: int) -> str:
    found = text.split()
    for place in random.Random(1).sample(range(len(found)), words):
        found[place] = "other"
    return " ".join(found)


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + overlap.WORDS]) for i in range(max(1, len(words) - overlap.WORDS + 1))}


@given(texts, texts)
def test_of_short_records_the_resemblance_is_exact(a: str, b: str) -> None:
    true = len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
    assert overlap.resemblance(overlap.sketch(a), overlap.sketch(b)) == pytest.approx(true)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_of_long_ones_it_is_close(share: float) -> None:
    words = record(1, 2000).split()
    other = " ".join(words[: int(2000 * share)] + record(2, int(2000 * (1 - share))).split())
    true = len(shingles(" ".join(words)) & shingles(other)) / len(shingles(" ".join(words)) | shingles(other))
    assert overlap.resemblance(overlap.sketch(" ".join(words)), overlap.sketch(other)) == pytest.approx(true, abs=0.2)


def test_a_record_with_few_changes_is_found_whatever_its_case_and_layout() -> None:
    these = {str(seed): overlap.sketch(record(seed)) for seed in range(30)}
    those = {"twin": overlap.sketch(changed(record(7), 4).upper().replace(" ", ",\n ")), "other": overlap.sketch(record(99))}
    assert overlap.near(these, those) == [("7", "twin")]


def test_a_phrase_that_every_record_has_makes_none_of_them_near() -> None:
    phrase = "known of the patient up to now and no further than that"
    these = {str(seed): overlap.sketch(f"{phrase} {record(seed)}") for seed in range(200)}
    those = {str(seed): overlap.sketch(f"{phrase} {record(seed)}") for seed in range(200, 300)}
    assert overlap.near(these, those) == []
