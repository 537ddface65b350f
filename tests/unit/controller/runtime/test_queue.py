"""The queue: one look at a time for each key, nothing lost, failing keys later and later."""

import threading
import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ehrmind_k8s.controller.runtime.queue import Queue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Queue[str], Clock]:
    clock = Clock()
    return Queue(clock=clock, jitter=lambda: 1.0), clock


def test_ten_events_of_one_run_are_one_look() -> None:
    queue, _ = make()
    for _ in range(10):
        queue.add("a")
    assert [queue.get(0), queue.get(0)] == ["a", None]


def test_keys_come_in_the_order_they_were_added() -> None:
    queue, _ = make()
    for key in "cab":
        queue.add(key)
    assert [queue.get(0) for _ in range(3)] == ["c", "a", "b"]


def test_a_key_that_changes_while_it_is_worked_on_comes_again_afterwards_and_not_before() -> None:
    queue, _ = make()
    queue.add("a")
    queue.get(0)
    queue.add("a")
    assert queue.get(0) is None
    queue.done("a")
    assert queue.get(0) == "a"


def test_the_earliest_of_several_times_counts() -> None:
    queue, clock = make()
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 60)
    clock.now += 10
    assert queue.get(0) == "a"
    queue.done("a")
    clock.now += 100
    assert queue.get(0) is None


def test_each_failure_doubles_the_pause_up_to_five_minutes_and_success_resets_it() -> None:
    queue, clock = make()
    queue.add("a")
    pauses = []
    for _ in range(20):
        clock.now += 300
        assert queue.get(0) == "a"
        pauses.append(queue.retry("a"))
    assert pauses[:4] == [0.005, 0.01, 0.02, 0.04]
    assert pauses[-1] == 300.0
    clock.now += 300
    queue.get(0)
    queue.done("a")
    queue.add("a")
    queue.get(0)
    assert queue.retry("a") == 0.005


def test_news_brings_a_failing_key_forward_but_at_most_once_a_second() -> None:
    queue, clock = make()
    queue.add("a")
    for _ in range(15):  # the next pause would be over a minute
        clock.now += 300
        queue.get(0)
        queue.retry("a")
    queue.add("a")
    assert queue.get(0) is None
    clock.now += 1.0
    assert queue.get(0) == "a"


def test_a_pause_that_the_server_asked_for_is_kept() -> None:
    queue, clock = make()
    queue.add("a")
    queue.get(0)
    assert queue.retry("a", at_least_s=7) == 7
    clock.now += 6.9
    assert queue.get(0) is None
    clock.now += 0.2
    assert queue.get(0) == "a"


def test_holding_a_key_back_does_not_forget_its_failures() -> None:
    queue, clock = make()
    queue.add("a")
    queue.get(0)
    queue.retry("a")
    clock.now += 1
    queue.get(0)
    queue.hold("a", 5)
    assert queue.get(0) is None
    clock.now += 5
    assert queue.get(0) == "a"
    assert queue.retry("a") == 0.01


def test_how_long_a_key_waited_and_is_worked_on_is_known() -> None:
    clock, waited = Clock(), []
    queue: Queue[str] = Queue(clock=clock, waited=waited.append)
    queue.add("a")
    assert queue.depth() == 1
    clock.now += 3
    queue.get(0)
    clock.now += 4
    assert (waited, queue.depth(), queue.oldest_s()) == ([3.0], 0, 4.0)
    queue.done("a")
    assert queue.oldest_s() == 0


def test_a_closed_queue_lets_waiting_workers_go() -> None:
    queue: Queue[str] = Queue()
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.close()
    worker.join(5)
    assert got == [None]


def test_threads_never_share_a_key_and_lose_none() -> None:
    """Each of 20 keys gets 50 numbers; whoever works on a key takes all numbers that are there. At the end none may be left."""
    queue: Queue[int] = Queue()
    there: dict[int, Counter[int]] = {k: Counter() for k in range(20)}
    busy: set[int] = set()
    shared = []

    def work() -> None:
        while (key := queue.get()) is not None:
            if key in busy:
                shared.append(key)
            busy.add(key)
            time.sleep(0)
            there[key].clear()
            busy.discard(key)
            queue.done(key)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for w in workers:
        w.start()
    for number in range(50):
        for key in there:
            there[key][number] += 1
            queue.add(key)
    until = time.monotonic() + 20
    while (any(there.values()) or queue.depth() or queue.oldest_s()) and time.monotonic() < until:
        time.sleep(0.01)
    queue.close()
    for w in workers:
        w.join(5)
    assert shared == []
    assert not any(there.values())


class QueueMachine(RuleBasedStateMachine):
    """Whatever is called in whatever order: a key that was added is handed out within its pause, and never to two workers."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.clock = make()
        self.working: set[str] = set()
        self.owed: dict[str, float] = {}  # by when a key must have been handed out

    keys = st.sampled_from("abc")

    @rule(key=keys)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.owed[key] = min(self.owed.get(key, float("inf")), self.clock.now + 1.0)

    @rule(key=keys, delay=st.floats(0, 50))
    def add_after(self, key: str, delay: float) -> None:
        self.queue.add_after(key, delay)
        self.owed[key] = min(self.owed.get(key, float("inf")), self.clock.now + delay)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def get(self) -> None:
        key = self.queue.get(0)
        if key is None:
            late = {k for k, due in self.owed.items() if due < self.clock.now and k not in self.working}
            assert late == set()
        else:
            assert key not in self.working
            assert key in self.owed
            del self.owed[key]
            self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.discard(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        pause = self.queue.retry(key)
        self.owed[key] = min(self.owed.get(key, float("inf")), self.clock.now + pause)
        self.working.discard(key)

    @invariant()
    def nothing_is_due_that_nobody_asked_for(self) -> None:
        assert self.queue.depth() <= len(self.owed)


TestQueueMachine = QueueMachine.TestCase


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_keys_come_in_the_order_of_their_times(delays: list[int]) -> None:
    queue, clock = make()
    for i, delay in enumerate(delays):
        queue.add_after(str(i), delay)
    clock.now += 100
    order = [int(str(queue.get(0))) for _ in delays]
    assert [delays[i] for i in order] == sorted(delays)
