"""The order of rows is a pure function of seed and position."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.training.order import positions

SIZES = {"seed": st.integers(0, 2**31), "rows": st.integers(1, 40), "count": st.integers(0, 200)}


@given(**SIZES)
def test_a_longer_order_begins_with_the_shorter_one(seed: int, rows: int, count: int) -> None:
    assert list(positions(seed, rows, count + 7))[:count] == list(positions(seed, rows, count))


@given(**SIZES)
def test_an_epoch_has_every_row_once_and_no_issue_occurs_twice(seed: int, rows: int, count: int) -> None:
    found = list(positions(seed, rows, count))
    assert len(set(found)) == len(found) == count
    whole = Counter(epoch for epoch, _ in found)
    assert all(n == rows for epoch, n in whole.items() if epoch < max(whole))


def test_epochs_and_seeds_differ_in_order() -> None:
    first, second = list(positions(1, 50, 100))[:50], list(positions(1, 50, 100))[50:]
    assert [i for _, i in first] != [i for _, i in second]
    assert first != list(positions(2, 50, 50))
