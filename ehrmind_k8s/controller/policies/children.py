"""Which objects a run has, and which must go. A function of where the run is, so that whatever a crash left undone is done in the next pass."""

from collections.abc import Iterable, Iterator

from ehrmind_k8s.controller.policies import attempts, placement, rollouts
from ehrmind_k8s.controller.policies.admission import Case
from ehrmind_k8s.controller.records import Child, Delete, Object, Snapshot, parts
from ehrmind_k8s.controller.resources import document, frozen, network, trainjob
from ehrmind_k8s.controller.resources.frozen import Frozen
from ehrmind_k8s.controller.state import Stage, State
from ehrmind_k8s.crd import KIND, SUSPENDED, Run
from ehrmind_k8s.plan import Step

KEPT_ATTEMPTS = 3  # newest attempts of a stage whose finished objects stay, for the logs of their pods


def applied(current: State, case: Case, snapshot: Snapshot) -> tuple[Object, ...]:
    """What is kept as we want it while the run goes on: network policies, rollout servers."""
    if current.ended or not case.run or not case.profile or case.refusal:
        return ()
    return (*network.render(case.run, case.profile, snapshot.operator_namespace or None), *rollouts.objects(current, case))


def free(objects: Iterable[Object], snapshot: Snapshot) -> tuple[Object, ...]:
    """Those whose names nobody else has."""
    taken = {(c.kind, c.name) for c in snapshot.children if not c.ours}
    return tuple(o for o in objects if (o["kind"], o["metadata"]["name"]) not in taken)


def created(before: State, current: State, case: Case) -> tuple[Object, ...]:
    """What is made once: the document, the profile, and the objects of an attempt whose start was written in this pass."""
    if current.ended or not case.run or not case.steps:
        return ()
    made: list[Object] = [] if case.frozen or case.refusal else [document.render(case.run)]
    if case.profile and not case.profile_frozen and not case.refusal:
        made.append(frozen.render(case.run, Frozen(case.profile, case.servers)))
    for step in case.steps:
        stage, old = current.stage(step.stage), before.stage(step.stage)
        if stage.active and not stage.uid and (stage.attempt, stage.started) != (old.attempt, old.started):
            made += _rendered(step, stage, case)
    return tuple(made)


def deleted(before: State, current: State, case: Case, snapshot: Snapshot, written: bool) -> tuple[Delete, ...]:
    """What must go: children of attempts that are over and still work, those that are past keeping, rollout servers that nobody needs.

    `written`: the status changes in this pass, so that the deletes happen only if the run is as it was seen.
    """
    if not case.steps and not current.ended and current.state != SUSPENDED:
        return ()  # nothing is known about what the run needs
    gone = [*_unseen(before, current, snapshot), *_working(current, snapshot, written), *_old(current, snapshot)]
    gone += _runtimes(gone, current, snapshot, written)
    return (*dict.fromkeys(gone), *rollouts.superfluous(current, case, snapshot))


def stranger(current: State, case: Case, snapshot: Snapshot) -> Child | None:
    """An object that is not this run's under a name that it needs now. Raises SpecError where names get too long."""
    others = {(c.kind, c.name): c for c in snapshot.children if not c.ours}
    if not others or not case.run or not case.profile:
        return None
    kept = frozen.render(case.run, Frozen(case.profile, case.servers))
    wanted: list[Object] = [document.render(case.run), kept, *applied(current, case, snapshot)]
    step = next((s for s in case.steps if not current.stage(s.stage).done), None)
    if step:
        stage = current.stage(step.stage)
        unseen = stage.active and not stage.uid
        number = stage.attempt if unseen else attempts.next_number(stage, snapshot)
        wanted += _rendered(step, Stage(step.stage, attempt=number), case) if unseen or not stage.active else []
    return next((others[key] for o in wanted if (key := (o["kind"], o["metadata"]["name"])) in others), None)


def leaving(child: Child, run: Run) -> bool:
    """Whether an object of somebody else will go by itself: it is being deleted, or is left of an earlier run of this name."""
    owners = parts(child.object, "metadata", "ownerReferences")
    return child.deleting or any((o.get("kind"), o.get("name")) == (KIND, run.name) for o in owners)


def _rendered(step: Step, stage: Stage, case: Case) -> list[Object]:
    """The objects of an attempt, in the order they are to be made: what the first refers to comes before it."""
    assert case.run and case.profile
    return list(reversed(placement.render(step, stage.attempt, case)))


def _unseen(before: State, current: State, snapshot: Snapshot) -> Iterator[Delete]:
    """Children that the caches do not show, of attempts that are taken for over: if one lives after all, it goes before the next is made."""
    there = {c.uid for c in snapshot.children}
    for old in before.stages:
        stage = current.stage(old.name)
        over = (old.active and not stage.active and not stage.done) or stage.attempt > old.attempt
        if over and old.uid and old.uid not in there:
            yield Delete(old.kind, old.child, old.uid)


def _working(current: State, snapshot: Snapshot, written: bool) -> Iterator[Delete]:
    """Children that still work though their attempt is not the one under way.

    One that is newer than the status may have been begun by a status that the caches do not show yet: it is not touched unless the status
    is written first, which fails then.
    """
    wanted = {(s.name, s.attempt, s.uid) for s in current.stages if s.active}
    for child in placement.primaries(snapshot):
        theirs = (child.stage, child.attempt, child.uid)
        unseen = (child.stage, child.attempt, "")
        known = written or child.attempt <= current.stage(child.stage).attempt
        if known and theirs not in wanted and unseen not in wanted and not child.deleting and placement.working(child, snapshot.pods):
            yield Delete(child.kind, child.name, child.uid)


def _old(current: State, snapshot: Snapshot) -> Iterator[Delete]:
    for child in placement.primaries(snapshot):
        if child.attempt <= current.stage(child.stage).attempt - KEPT_ATTEMPTS and not child.deleting:
            yield Delete(child.kind, child.name, child.uid)


def _runtimes(gone: Iterable[Delete], current: State, snapshot: Snapshot, written: bool) -> Iterator[Delete]:
    """Runtimes whose TrainJob goes in this pass, is gone or was never made. After it: some versions of Trainer let none go that is in use."""
    going = {delete.uid for delete in gone}
    used = {(s.name, s.attempt) for s in current.stages if s.active}
    used |= {(c.stage, c.attempt) for c in placement.primaries(snapshot) if c.kind == trainjob.KIND and c.uid not in going}
    for child in snapshot.children:
        known = written or child.attempt <= current.stage(child.stage).attempt
        if child.ours and child.kind == trainjob.RUNTIME and known and not child.deleting and (child.stage, child.attempt) not in used:
            yield Delete(child.kind, child.name, child.uid)
