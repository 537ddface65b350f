"""The status is the operator's only memory: what is written is read back, and nonsense counts as nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s import crd
from ehrmind_k8s.controller import memory
from ehrmind_k8s.controller.state import Advance, Condition, Stage, State
from ehrmind_k8s.crd.status import STAGE_STATES
from ehrmind_k8s.spec import STAGES

WHOLE = st.integers(0, 10**6)
TIMES = st.integers(0, 4 * 10**9).map(float)
NUMBERS = st.none() | st.floats(-1e6, 1e6)
TEXTS = st.text("abc-1", max_size=9)

STAGE = st.builds(
    *(Stage, st.sampled_from(STAGES), st.sampled_from(STAGE_STATES), WHOLE, WHOLE, TEXTS, TEXTS, TEXTS, TIMES, TIMES, TEXTS),
    *(st.none() | st.integers(0, 255), NUMBERS, NUMBERS),
)
CONDITION = st.builds(Condition, st.sampled_from(["True", "False"]), st.just("Why"), TEXTS, TIMES.filter(bool), WHOLE)
STATE = st.builds(
    State,
    state=st.sampled_from(["", *crd.TERMINAL, crd.RUNNING]),
    attempt=WHOLE,
    generation=WHOLE,
    uri=TEXTS,
    started=TIMES,
    completed=TIMES,
    stages=st.lists(STAGE, max_size=4, unique_by=lambda s: s.name).map(tuple),
    conditions=st.dictionaries(st.sampled_from(["Accepted", "Failed"]), CONDITION),
    progress=st.none() | st.builds(Advance, WHOLE, WHOLE, TEXTS, st.dictionaries(st.just("loss"), st.floats(0, 9)), TIMES),
    resolved=st.dictionaries(st.just("trainer"), st.just("pytorchjob")),
    score=NUMBERS,
    message=TEXTS,
)


@given(STATE)
def test_what_is_written_is_read_back(state: State) -> None:
    assert memory.read({"status": memory.render(state)}) == state


@pytest.mark.parametrize(
    "status", [None, 3, [], {"stages": 3}, {"stages": [{"name": 3}, 4]}, {"conditions": {}}, {"startTime": "soon"}, {"score": "high"}]
)
def test_nonsense_counts_as_nothing(status: object) -> None:
    assert memory.read({"status": status}) == State()


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "two\nlines", "\udcff"])
def test_a_message_is_one_line_within_its_bounds(text: str) -> None:
    line = memory.line(text)
    assert len(line.encode()) <= crd.MESSAGE_LIMIT and "\n" not in line
