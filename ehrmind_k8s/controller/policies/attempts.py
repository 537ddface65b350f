"""The attempts of a stage: what has become of the newest, and when the next one begins.

Numbers only grow, and each is written to the status before its child is created. An attempt that ended gets no second child: a process that
finds its number claimed in the store stops. So after suspending, preemption, a lost pod or a retry comes the next number.

Caches lag. What they do not show is believed gone only after `SETTLE_S`, and then the child is deleted by its uid before the next one is
created, so that no two children of one stage live beside each other.
"""

from collections.abc import Sequence
from dataclasses import replace

from ehrmind_k8s import crd
from ehrmind_k8s.controller.policies import outcomes, placement
from ehrmind_k8s.controller.policies.admission import Case
from ehrmind_k8s.controller.policies.outcomes import Attempt, Outcome
from ehrmind_k8s.controller.records import Child, Phase, Pod, Snapshot
from ehrmind_k8s.controller.state import FROZEN_PROFILE, Stage, State, left_s
from ehrmind_k8s.plan import Step

MANY = 100_000  # no run has as many attempts: whoever may make pods may write any number on one
SETTLE_S = 10.0  # for caches to show how an attempt ended
LAG_S = 120.0  # the same while its pods still seem to work: a watch that is dead may go unnoticed for 90 s (runtime/reflector.py)
GONE_S = 60.0  # for a kind of object to be served again, before all of it is taken for lost
REFUSED_S = 1.0  # before a child that the API server refused is created again: the least by which a status differs from the one before
UNSEEN_S = 5.0  # for a created child to appear, before it is created again: the operator may have died in between
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
DRAIN_S = 150.0  # for the pods of the last attempt to stop: they save a checkpoint for up to 120 s


def renew(current: State, wanted: int, now: float) -> State:
    """A raised `spec.attempt`: a new budget of retries, and the way out of an end, with the profile as it is then."""
    if wanted <= current.attempt:
        return current
    if current.state == crd.SUCCEEDED:
        return replace(current, attempt=wanted)
    if not current.revived(wanted):
        return replace(current, attempt=wanted, stages=tuple(replace(s, retries=0) for s in current.stages))
    resolved = {key: text for key, text in current.resolved.items() if key != FROZEN_PROFILE}
    stages = tuple(s if s.done else replace(s, state="pending", retries=0, reason="") for s in current.stages)
    return replace(current, state=crd.PENDING, attempt=wanted, stages=stages, started=now, completed=0.0, resolved=resolved)


def look(current: State, case: Case, snapshot: Snapshot, now: float) -> State:
    """Bring the stages up to what their children say, in order, as far as the first that is not done."""
    for step in case.steps:
        stage = current.stage(step.stage)
        if not stage.done:
            current = _looked(current, _newest(stage, snapshot, now), case, snapshot, now)
            if not current.stage(step.stage).done:
                break
    return current


def start(current: State, step: Step, case: Case, snapshot: Snapshot, now: float) -> State:
    """Begin the next attempt of a stage once nothing stands in its way; make a child again that was never seen. Raises SpecError."""
    stage = current.stage(step.stage)
    if stage.active:
        return _made_again(current, stage, step, case, snapshot, now)
    unseen = 0.0 if stage.uid else left_s(stage.started, UNSEEN_S, now)
    pause = max(unseen, left_s(stage.ended, pause_s(stage), now))
    if pause > 0:
        return current.waking(pause)
    if leaving := draining(stage, snapshot, now):
        text = f"waiting for {len(leaving)} pod{'s' * (len(leaving) > 1)} of attempt {stage.attempt} to stop"
        return replace(current, note=text).waking(left_s(stage.ended, DRAIN_S, now))
    number = next_number(stage, snapshot)
    child = placement.render(step, number, case)[0]
    fresh = Stage(stage.name, "starting", number, stage.retries, child["kind"], child["metadata"]["name"], started=now)
    return replace(current.having(fresh), progress=None).waking(UNSEEN_S)


def pause_s(stage: Stage) -> float:
    """Seconds between an attempt's end and the next: 10, 20, 40 ... 300 for counted retries; none after a suspend."""
    if stage.reason in ("", outcomes.SUSPENDED):
        return 0.0
    doublings = max(0, stage.retries - 1) if outcomes.counted(stage) else 0
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(doublings, 10)))


def next_number(stage: Stage, snapshot: Snapshot) -> int:
    """A number that no child and no pod ever had, even when the status was lost."""
    children = [c.attempt for c in snapshot.children if c.ours and c.stage == stage.name]
    pods = (p.attempt for p in snapshot.pods if p.role == stage.name and p.attempt < MANY)
    return max([stage.attempt, *children, *pods]) + 1


def draining(stage: Stage, snapshot: Snapshot, now: float) -> list[Pod]:
    """Pods of earlier attempts that still work or save; none when they have had their time, or are on a lost node."""
    if left_s(stage.ended, DRAIN_S, now) <= 0:
        return []
    pods = [p for p in snapshot.pods if p.role == stage.name and p.phase not in ("Succeeded", "Failed")]
    return [p for p in pods if not Attempt(stage, [p]).lost(now)]


def pods_of(stage: Stage, snapshot: Snapshot) -> Attempt:
    """The pods of a stage's newest attempt."""
    return Attempt(stage, [p for p in snapshot.pods if p.role == stage.name and p.attempt == stage.attempt])


def child_of(stage: Stage, snapshot: Snapshot) -> Child | None:
    """The child of a stage's newest attempt, if it is the one that was seen."""
    for child in placement.primaries(snapshot, stage.name):
        if (child.kind, child.name) == (stage.kind, stage.child) and child.attempt == stage.attempt and stage.uid in ("", child.uid):
            return child
    return None


def _newest(stage: Stage, snapshot: Snapshot, now: float) -> Stage:
    """The stage, at the attempt of its newest child: the status is behind it when it was lost."""
    newest = max(placement.primaries(snapshot, stage.name), key=lambda c: c.attempt, default=None)
    if newest is None or newest.attempt <= stage.attempt:
        return stage
    return Stage(stage.name, "starting", newest.attempt, stage.retries, newest.kind, newest.name, newest.uid, newest.created or now)


def _looked(current: State, stage: Stage, case: Case, snapshot: Snapshot, now: float) -> State:
    """The state with this stage brought up to date."""
    current = current.having(stage)
    if not stage.active:
        return current
    child = child_of(stage, snapshot)
    attempt = pods_of(stage, snapshot)
    if child is None:
        return _settling(current, attempt, None, case, snapshot, now) if stage.uid else current
    stage = replace(stage, uid=child.uid, reason=outcomes.PREEMPTED if attempt.disrupted else stage.reason)
    attempt, phase = replace(attempt, stage=stage), placement.observe(child, snapshot.pods)
    if phase in ("succeeded", "failed"):
        outcome = outcomes.judge(attempt, phase)
        return _concluded(current, stage, outcome, case, now) if outcome else _settling(current, attempt, phase, case, snapshot, now)
    if child.deleting:
        return _settling(current, attempt, None, case, snapshot, now)
    if phase == "queued" and stage.state == "running":  # or this cache of the job is older than the status: the two need not be of one time
        since = stage.ended or now
        if (left := left_s(since, SETTLE_S, now)) > 0:
            return current.having(replace(stage, ended=since)).waking(left)
        return _concluded(current, stage, Outcome("again", outcomes.PREEMPTED), case, now)
    if attempt.lost(now):
        return _concluded(current, stage, Outcome("again", outcomes.NODE_LOST), case, now)
    state = "running" if stage.state == "running" else phase
    return current.having(replace(stage, state=state, ended=0.0))


def _settling(current: State, attempt: Attempt, phase: Phase | None, case: Case, snapshot: Snapshot, now: float) -> State:
    """An attempt has ended and the caches do not show how: give them time, then take it for lost."""
    stage = attempt.stage
    since, wait_s = stage.ended or now, SETTLE_S if stage.kind in placement.visible(snapshot) else GONE_S
    if any(p.phase in ("Pending", "Running") and not p.deleting for p in attempt.pods):
        wait_s = LAG_S
    if (left := left_s(since, wait_s, now)) > 0:
        return current.having(replace(stage, ended=since)).waking(left)
    outcome = outcomes.judge(attempt, "failed") if phase is None else None
    return _concluded(current, stage, outcome or outcomes.unknown(phase), case, now)


def _concluded(current: State, stage: Stage, outcome: Outcome, case: Case, now: float) -> State:
    """The state after a stage's attempt ended."""
    assert case.run
    report = outcome.report
    ended = replace(stage, ended=now, reason=outcome.reason, exit_code=outcome.exit_code, score=None, seconds=report.seconds if report else None)
    if outcome.verdict in ("succeeded", "skipped"):
        done = replace(ended, state=outcome.verdict, score=report.score if report else None)
        progress = replace(current.progress, done=current.progress.total) if current.progress else None
        return replace(current.having(done), progress=progress, headline=report.headline if report else {})
    counted = outcomes.counted(ended)
    if outcome.verdict == "failed" or (counted and stage.retries >= case.run.spec.policy.retries):
        return current.having(replace(ended, state="failed"))
    return current.having(replace(ended, state="pending", retries=stage.retries + counted))


def _made_again(current: State, stage: Stage, step: Step, case: Case, snapshot: Snapshot, now: float) -> State:
    """A counted attempt whose child was never seen: create it again, and say so in the status first. Raises SpecError.

    A status that did not change would not be written, and a decision without a write could come from an old copy of the run.
    """
    if stage.uid or child_of(stage, snapshot):
        return current
    refused = _refused(stage, snapshot.refusals)
    left = left_s(stage.started, REFUSED_S if refused else UNSEEN_S, now)
    if left > 0:
        return current.waking(left)
    current = current.having(replace(stage, kind=placement.render(step, stage.attempt, case)[0]["kind"], started=now))
    return current.waking(None if refused else UNSEEN_S)  # what is refused again is tried ever more slowly, whoever waits for it


def _refused(stage: Stage, refusals: Sequence[str]) -> bool:
    return any(f"/{stage.child}:" in text for text in refusals)
