"""Follow a run to its end: what a person hears meanwhile, and what an end means to a script. Used by `submit --follow` and by a pipeline's node.

It asks again and again instead of watching: an answer that is missed is made up for by the next, whatever stood still meanwhile.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ehrmind_k8s.backends.base import ENDS, Attempt, RunStatus
from ehrmind_k8s.errors import Cancelled, Fenced, RunFailed, TryAgain

T = TypeVar("T")

POLL_S = 2.0
PATIENCE_S = 900.0  # without an answer; an API server that restarts, or a laptop that slept, is back by then
UNSEEN_S = 30.0  # a living operator has looked at a new run long before
BEGUN = ("running", "succeeded", "failed", "skipped")
# Of a stage that used up its tries: ends that yet another one may mend, as exit code of its process or as the operator's word.
MENDABLE_CODES = (75, 137, 143)
MENDABLE = ("OOMKilled", "Killed", "Lost", "ReportMissing", "Terminated", "StoreUnavailable", "RolloutUnavailable")


def follow(
    read: Callable[[], RunStatus],
    warnings: Callable[[RunStatus], Iterable[str]],
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> RunStatus:
    """Say what changes until the run has ended. Returns how it ended; raises Cancelled, RunFailed or TryAgain as it stopped.

    `read` tells where the run is, `warnings` what is worth a line besides.
    """
    before: RunStatus | None = None
    began = time.monotonic()
    while True:
        now = patiently(read, say, pause)
        if before and now.uid != before.uid:
            raise Cancelled(f"run {now.name} was deleted while it was followed, and another has its name; {_kept(before)}")
        lines = list(changes(before, now))
        for line in (*lines, *(w for w in warnings(now) if not any(line in w for line in lines))):
            say(line)
        if now.state in ENDS:
            return ended(now)
        if began and now.state == "pending" and not now.uri and time.monotonic() - began > UNSEEN_S:
            say("no operator has looked at the run yet; `ehrmind doctor` says what is missing")
            began = 0.0
        before = now
        pause(POLL_S)


def changes(before: RunStatus | None, now: RunStatus) -> Iterator[str]:
    """One line for each stage that has begun or ended, and one for a new message."""
    known = {a.stage: a for a in before.attempts} if before else {}
    for attempt in now.attempts:
        if before or not _failed(attempt):  # how an earlier try of a run that is continued ended is no news
            yield from _stage(known.get(attempt.stage), attempt)
    if now.message and (before is None or now.message != before.message):
        yield now.message


def ended(status: RunStatus) -> RunStatus:
    """The status of a run that succeeded; otherwise raises the error that its end stands for."""
    if status.state == "succeeded":
        return status
    if status.state == "cancelled":
        raise Cancelled(f"run {status.name} was cancelled; {_kept(status)}; the same submit continues it")
    text = f"run {status.name}: {status.message or 'failed'}"
    if any(_failed(a) and (a.exit_code in MENDABLE_CODES or a.reason in MENDABLE) for a in status.attempts):
        raise TryAgain(f"{text}; the same submit continues it with new tries")
    raise RunFailed(text)


def _stage(before: Attempt | None, now: Attempt) -> Iterator[str]:
    """What to say of a stage: that an attempt has begun, that it ended."""
    same = before is not None and before.attempt == now.attempt
    was = before.reason if before and same else ""
    if not now.attempt or was == now.reason:
        return
    if was not in BEGUN and now.reason == "running":
        yield f"{now.stage}: attempt {now.attempt} has begun" + (f" ({now.message})" if now.message else "")
    elif now.reason not in ("pending", "queued", "starting", "running"):
        yield f"{now.stage}: {now.reason}" + (f" after {now.seconds:.0f} s" if now.seconds else "")


def _failed(attempt: Attempt) -> bool:
    return attempt.reason not in ("pending", "queued", "starting", "running", "succeeded", "skipped")


def _kept(status: RunStatus) -> str:
    return f"what it stored stays at {status.uri}" if status.uri else "it had stored nothing"


def patiently(read: Callable[[], T], say: Callable[[str], None], pause: Callable[[float], None] = time.sleep) -> T:
    """An answer, waiting for a server that does not answer at the moment."""
    silent_since = 0.0
    while True:
        try:
            found = read()
        except Fenced:  # who asks is not to ask any more
            raise
        except TryAgain as error:
            if silent_since and time.monotonic() - silent_since > PATIENCE_S:
                raise
            if not silent_since:
                say(f"{error}; trying again, what runs goes on meanwhile")
                silent_since = time.monotonic()
            pause(POLL_S)
            continue
        if silent_since:
            say("there is an answer again")
        return found
