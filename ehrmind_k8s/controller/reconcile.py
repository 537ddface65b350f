"""What to do about a run: from everything there is to see to everything there is to do, in one pure function.

    reconcile(snapshot, now) -> Decision

It asks nobody, has no clock, and never raises. Level-triggered: it looks at what is, not at what happened, so that a pass that a crash cut
short is simply done again. First it finds where the run is (`state.State`, which `memory` keeps in `.status`), then which objects that calls for.

The status is written before anything else. A decision that creates the child of an attempt always changes it, so that one made from an old
copy of the run is refused by the API server before it does anything.
"""

import math
from dataclasses import replace

from ehrmind_k8s import crd
from ehrmind_k8s.controller import memory
from ehrmind_k8s.controller.policies import admission, attempts, children, deadlines, endings, events, explain, progress, rollouts, status, suspension
from ehrmind_k8s.controller.policies.admission import Case
from ehrmind_k8s.controller.records import Decision, Delete, Snapshot
from ehrmind_k8s.controller.state import State
from ehrmind_k8s.crd import Run
from ehrmind_k8s.errors import SpecError

LEFTOVERS_S = 5.0


def reconcile(snapshot: Snapshot, now: float) -> Decision:
    """What to do about a run now (`now` in Unix seconds)."""
    now = float(math.floor(now))
    if snapshot.run["metadata"].get("deletionTimestamp"):
        return Decision()  # what the run owns goes with it
    before = memory.read(snapshot.run)
    case = admission.admit(snapshot, before)
    after = _described(_next(before, case, snapshot, now), case, snapshot, now)
    return _decided(before, after, case, snapshot, now)


def _next(before: State, case: Case, snapshot: Snapshot, now: float) -> State:
    """Where the run is now, and which attempt begins."""
    if case.run is None:
        return _refused(before, case, now)
    current = attempts.renew(before, case.run.spec.attempt, now)
    if current.ended:
        return current

    # Taken on once. Until then there is nothing but the reason why not.
    alone = deadlines.alone_s(current, snapshot.silent_s, now)
    if not current.accepted:
        if stopped := _stopped(replace(current, attempt=case.run.spec.attempt), case.run, alone, now):
            return stopped
        if case.refusal:
            return _refused(current, case, now).waking(alone)
        current = admission.accept(current, case, now)
    elif not case.steps:
        return _held(current, case.run, alone, now)
    current = attempts.look(admission.aligned(current, case), case, snapshot, now)

    # Ends, the strongest first: what is done is done.
    stage = current.current
    if stage is None:
        return endings.succeed(current, now)
    if stopped := _stopped(current, case.run, alone, now):
        return stopped
    if stage.state == "failed":
        return endings.fail(current, stage, case, now)
    if late := deadlines.ended(current, case.run, now):
        return late
    current = current.waking(deadlines.left_s(current, case.run, now)).waking(alone)

    if case.run.spec.suspend:
        return suspension.suspend(current, now)
    if current.state == crd.SUSPENDED:
        current = replace(current, state=crd.PENDING)

    # Go on, unless somebody else's object or something missing is in the way.
    current = progress.show(current, snapshot, now)
    try:
        if stranger := children.stranger(current, case, snapshot):
            if not children.leaving(stranger, case.run):
                return endings.clash(current, stranger, now)
            return replace(current, note=f"waiting for {stranger.kind} {stranger.name} of an earlier run to go").waking(LEFTOVERS_S)
        if case.refusal:
            return current.waking(admission.RECHECK_S)
        step = next(s for s in case.steps if s.stage == stage.name)
        return attempts.start(current, step, case, snapshot, now)
    except SpecError as error:
        return endings.refuse(current, "InvalidSpec", str(error), now)


def _stopped(current: State, run: Run, alone_s: float | None, now: float) -> State | None:
    """The end that somebody asked for, or that comes because nobody is there any more; None while neither is so."""
    if run.spec.cancel:
        return endings.cancel(current, now)
    return endings.alone(current, now) if alone_s == 0 else None


def _held(current: State, run: Run, alone_s: float | None, now: float) -> State:
    """A run whose plan cannot be read any more: it may still be ended, and what it holds freed."""
    if stopped := _stopped(current, run, alone_s, now) or deadlines.ended(current, run, now):
        return stopped
    held = suspension.suspend(current, now) if run.spec.suspend else current
    return held.waking(admission.RECHECK_S).waking(alone_s).waking(deadlines.left_s(current, run, now))


def _refused(current: State, case: Case, now: float) -> State:
    """The run cannot be taken on, or its document cannot be read any more."""
    assert case.refusal
    if current.ended:
        return current
    if current.accepted:
        return current.waking(admission.RECHECK_S)
    attempt = case.run.spec.attempt if case.run else current.attempt or 1
    if case.refusal.final:
        return endings.refuse(replace(current, attempt=attempt), case.refusal.reason, case.refusal.message, now)
    return replace(current, attempt=attempt).waking(admission.RECHECK_S)


def _described(current: State, case: Case, snapshot: Snapshot, now: float) -> State:
    """The state with all that people read. An end keeps the words it was written with."""
    generation = snapshot.run["metadata"].get("generation") or 1
    if current.ended and current.conditions and not current.reason:
        return replace(current, generation=generation)
    servers = rollouts.count(current, case, snapshot)
    servers = explain.held(servers, case.run, snapshot, now) if case.run else servers
    found = explain.why(current, case, snapshot, servers, now)
    return status.describe(current.waking(found.again_s), case, servers, found.problem, generation, now)


def _decided(before: State, after: State, case: Case, snapshot: Snapshot, now: float) -> Decision:
    """What leads from what is there to where the run is now."""
    written = memory.render(after)
    changed = written != snapshot.run.get("status")
    deletes = children.deleted(before, after, case, snapshot, changed)
    wake_s = after.wake_s
    if after.ended and case.run:
        kept_s = deadlines.kept_s(after, case.run, now)
        wake_s = kept_s or None
        if kept_s == 0:
            deletes = (Delete(crd.KIND, case.run.name, case.run.uid),)
    return Decision(
        status=written if changed else None,
        deletes=deletes,
        creates=children.free(children.created(before, after, case), snapshot),
        applies=children.free(children.applied(after, case, snapshot), snapshot),
        events=events.between(before, after) if changed else (),
        requeue_after_s=wake_s,
    )
