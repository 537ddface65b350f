"""The rate of writes."""

from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.controller.runtime.rate import Bucket


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    clock = Clock()
    bucket = Bucket(20, 40, clock, clock.sleep)
    waits = [bucket.wait() for _ in range(60)]
    assert waits[:40] == [0.0] * 40
    assert abs(clock.now - 50.0 - 20 / 20) < 1e-6


def test_a_bucket_fills_up_again_but_not_beyond_its_burst() -> None:
    clock = Clock()
    bucket = Bucket(10, 5, clock, clock.sleep)
    for _ in range(5):
        bucket.wait()
    clock.now += 1000
    assert [bucket.allow() for _ in range(7)] == [True] * 5 + [False] * 2


def test_the_server_can_ask_for_a_pause() -> None:
    clock = Clock()
    bucket = Bucket(20, 40, clock, clock.sleep)
    bucket.pause(3)
    assert abs(bucket.wait() - 3) < 1e-6
    assert not bucket.allow()


@given(st.lists(st.floats(0, 0.5), max_size=60), st.integers(1, 10))
def test_never_more_calls_in_any_time_than_the_rate_and_one_burst(gaps: list[float], burst: int) -> None:
    clock = Clock()
    bucket = Bucket(10, burst, clock, clock.sleep)
    times = []
    for gap in gaps:
        clock.now += gap
        bucket.wait()
        times.append(clock.now)
    for i in range(len(times)):
        for j in range(i, len(times)):
            assert j - i + 1 <= burst + 10 * (times[j] - times[i]) + 1e-6
