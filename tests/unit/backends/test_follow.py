"""What a person hears of a run that is followed, and what its end means to a script."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ehrmind_k8s.backends import follow
from ehrmind_k8s.backends.base import Attempt, RunStatus
from ehrmind_k8s.controller.policies import outcomes
from ehrmind_k8s.errors import Cancelled, EhrmindError, RunFailed, TryAgain

START = RunStatus("demo", "s3://b/runs/demo", "medcalc", "pending", uid="1")


def at(stage: str, reason: str, attempt: int = 1, state: str = "running", **more: object) -> RunStatus:
    return replace(START, state=state, attempts=(Attempt(stage, attempt, reason, seconds=31.0 if reason == "succeeded" else 0.0),), **more)


def hear(*answers: RunStatus | EhrmindError, warnings: tuple[str, ...] = ()) -> list[str]:
    """Lines said while a run gives these answers, one after the other."""
    left, lines = iter(answers), []

    def read() -> RunStatus:
        answer = next(left)
        if isinstance(answer, EhrmindError):
            raise answer
        return answer

    def warn(status: RunStatus) -> Iterator[str]:
        yield from warnings

    follow.follow(read, warn, lines.append, pause=lambda seconds: None)
    return lines


def test_each_change_is_one_line() -> None:
    lines = hear(
        replace(START, message="waiting"),
        at("sft", "running", message="SFT step 1/9"),
        at("sft", "running", message="SFT step 1/9"),
        at("sft", "running", message="SFT step 2/9"),
        at("sft", "succeeded", state="succeeded", message="Succeeded"),
    )
    assert lines == ["waiting", "sft: attempt 1 has begun", "SFT step 1/9", "SFT step 2/9", "sft: succeeded after 31 s", "Succeeded"]


def test_the_next_attempt_of_a_stage_is_said() -> None:
    lines = hear(at("sft", "running"), at("sft", "pending", 1), at("sft", "running", 2), at("sft", "succeeded", 2, state="succeeded"))
    assert lines == ["sft: attempt 1 has begun", "sft: attempt 2 has begun", "sft: succeeded after 31 s"]


def test_how_an_earlier_try_ended_is_no_news_to_who_continues_a_run() -> None:
    before = replace(START, attempts=(Attempt("prepare", 1, "succeeded", seconds=4.0), Attempt("sft", 2, "Cancelled", seconds=61.0)))
    after = replace(before, state="succeeded", attempts=(before.attempts[0], Attempt("sft", 3, "succeeded")))
    assert hear(before, after) == ["prepare: succeeded after 4 s", "sft: succeeded"]


def test_a_warning_that_says_what_the_message_says_is_not_said_twice() -> None:
    end = replace(START, state="succeeded", message="all done")
    assert hear(end, warnings=("warning: X: all done", "warning: Y: disk is slow")) == ["all done", "warning: Y: disk is slow"]


def test_a_server_that_is_away_for_a_while_ends_nothing() -> None:
    lines = hear(at("sft", "running"), TryAgain("no answer"), TryAgain("no answer"), at("sft", "succeeded", state="succeeded"))
    assert lines[1:] == ["no answer; trying again, what runs goes on meanwhile", "there is an answer again", "sft: succeeded after 31 s"]


def test_an_error_that_waiting_does_not_mend_ends_it() -> None:
    with pytest.raises(Cancelled, match="deleted"):
        hear(START, Cancelled("run demo was deleted"))


def test_another_run_of_the_same_name_is_not_followed() -> None:
    with pytest.raises(Cancelled, match="another has its name; what it stored stays at s3://b/runs/demo"):
        hear(START, replace(START, uid="2"))


@pytest.mark.parametrize(
    ("reason", "code", "error"),
    [
        ("DataError", 10, RunFailed),
        ("Error", 1, RunFailed),
        ("DeadlineExceeded", None, RunFailed),
        ("StoreUnavailable", 75, TryAgain),
        ("OOMKilled", 137, TryAgain),
        ("ReportMissing", 1, TryAgain),
        ("Lost", None, TryAgain),
    ],
)
def test_the_exit_code_says_whether_the_same_submit_may_help(reason: str, code: int | None, error: type[EhrmindError]) -> None:
    failed = replace(START, state="failed", message="Failed: SFT", attempts=(Attempt("sft", 4, reason, exit_code=code),))
    with pytest.raises(error, match="run demo: Failed: SFT") as ended:
        follow.ended(failed)
    assert ended.value.exit_code == error.exit_code


def test_a_cancelled_run_is_code_31() -> None:
    with pytest.raises(Cancelled) as ended:
        follow.ended(replace(START, state="cancelled"))
    assert ended.value.exit_code == 31


def test_the_words_are_those_of_the_operator() -> None:
    assert {outcomes.OOM_KILLED, outcomes.KILLED, outcomes.LOST, outcomes.NO_REPORT} <= set(follow.MENDABLE)
