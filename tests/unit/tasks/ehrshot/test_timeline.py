"""The cut: what was known at a second, and nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.tasks.ehrshot.timeline import NAT, Names, Timeline

AT = np.datetime64("2015-06-01T12:00:00")


def make(times: list[np.datetime64], ends: list[np.datetime64] | None = None) -> Timeline:
    size = len(times)
    time = np.array(times, dtype="datetime64[s]")
    return Timeline(
        subject=1,
        birth=None,
        time=time,
        end=np.array(ends or [NAT] * size, dtype="datetime64[s]"),
        code=np.arange(size, dtype=np.int32),
        value=np.full(size, np.nan),
        text=np.full(size, -1, dtype=np.int32),
        unit=np.full(size, -1, dtype=np.int32),
        visit=np.full(size, -1),
        table=np.zeros(size, dtype=np.int8),
        names=Names([f"X/{i}" for i in range(size)], (), ()),
    )


def codes(timeline: Timeline) -> list[int]:
    return timeline.code.tolist()


def test_an_event_of_the_same_second_is_known_and_one_of_the_next_is_not() -> None:
    seconds = [-60, 6, 7, 8, 59, 86400]
    past = make([AT + np.timedelta64(s, "s") for s in seconds]).until(AT + np.timedelta64(7, "s"))
    assert codes(past) == [0, 1, 2]


def test_an_end_after_the_second_is_not_known_and_one_at_it_is() -> None:
    started = [AT - np.timedelta64(1, "D")] * 3
    past = make(started, [AT + np.timedelta64(s, "s") for s in (-1, 0, 1)]).until(AT)
    assert np.isnat(past.end).tolist() == [False, False, True]


def test_facts_without_a_time_are_always_known() -> None:
    assert codes(make([NAT, NAT, AT + np.timedelta64(1, "h")]).until(AT)) == [0, 1]


def test_before_the_first_event_nothing_is_known() -> None:
    assert codes(make([AT]).until(AT - np.timedelta64(1, "m"))) == []


def test_cutting_leaves_the_record_as_it_was() -> None:
    whole = make([AT], [AT + np.timedelta64(3, "D")])
    whole.until(AT)
    assert not np.isnat(whole.end).any()


@given(minutes=st.lists(st.tuples(st.integers(-90, 90), st.integers(0, 60)), max_size=30), at=st.integers(-100, 100))
def test_a_cut_keeps_all_that_is_known_in_order_and_is_the_same_when_done_again(minutes: list[tuple[int, int]], at: int) -> None:
    starts = sorted(minutes)
    whole = make([AT + np.timedelta64(m, "m") for m, _ in starts], [AT + np.timedelta64(m + d, "m") for m, d in starts])
    when = AT + np.timedelta64(at, "m")
    past = whole.until(when)
    assert codes(past) == [i for i, (m, _) in enumerate(starts) if m <= at]
    assert np.isnat(past.end).tolist() == [m + d > at for m, d in starts if m <= at]
    again = past.until(when)
    assert codes(again) == codes(past)
    assert np.array_equal(np.isnat(past.end), np.isnat(again.end))
