"""The one line that people read, the state of the run as a whole, and its conditions: made anew in every pass from where the run is.

The line is the same in `kubectl get ehr`, `ehrmind status` and the events. It has no running clock in it, or it would have to be written all
the time.
"""

from collections.abc import Mapping
from dataclasses import replace

from ehrmind_k8s import crd
from ehrmind_k8s.controller.policies import attempts, outcomes, placement, rollouts, words
from ehrmind_k8s.controller.policies.admission import Case
from ehrmind_k8s.controller.policies.explain import Problem
from ehrmind_k8s.controller.policies.rollouts import Servers
from ehrmind_k8s.controller.state import Condition, Stage, State

Told = tuple[bool, str, str]  # whether it holds, reason, message
ORDER = ("Accepted", "Admitted", "Progressing", "RolloutsReady", "Suspended", "Complete", "Failed")


def describe(current: State, case: Case, servers: Servers, problem: Problem | None, generation: int, now: float) -> State:
    """The state with its line, rollouts and conditions."""
    if not current.ended:
        standing = current.state if current.state == crd.SUSPENDED else _standing(current)
        current = replace(current, state=standing, message=_line(current, case, servers, problem))
    current = replace(current, generation=generation, rollout=rollouts.status(current, case, servers) if case.steps else current.rollout)
    told = {"Accepted": _accepted(current, case), "Progressing": _progressing(current, case, problem), **_ends(current)}
    if case.steps:
        told |= _aspects(current, case, servers, problem)
    found = {**current.conditions, **{kind: _kept(current.conditions.get(kind), what, generation, now) for kind, what in told.items()}}
    return replace(current, conditions={kind: found[kind] for kind in ORDER if kind in found})


def _standing(current: State) -> str:
    """pending until a container of the run has run."""
    stage = current.current
    if stage and stage.state == "queued":
        return crd.QUEUED
    begun = any(s.done or s.state == "running" or s.attempt > 1 for s in current.stages)
    return crd.RUNNING if begun else crd.PENDING


def _line(current: State, case: Case, servers: Servers, problem: Problem | None) -> str:
    """What is going on."""
    stage = current.current
    if not current.accepted or not stage:
        return f"Waiting: {case.refusal.message}" if case.refusal else f"Waiting: {current.note}"
    if current.state == crd.SUSPENDED:
        return f"Suspended at {words.position(stage, current.progress)}; spec.suspend: false continues"
    if problem:
        return f"{words.title(stage.name)}: {problem.text}"
    if current.note:
        return f"{words.title(stage.name)}: {current.note}"
    if stage.active:
        return _running(current, stage, case, servers) if stage.state == "running" else f"{words.title(stage.name)}: {_starting(stage)}"
    return f"{words.title(stage.name)}: {case.refusal.message}" if case.refusal else _again(stage, case)


def _running(current: State, stage: Stage, case: Case, servers: Servers) -> str:
    step = next((s for s in case.steps if s.stage == stage.name), None)
    parts = [words.position(stage, current.progress), words.figures(stage, current.progress)]
    parts.append(str(servers) if step and step.wants_rollout and servers.wanted else "")
    return ", ".join(p for p in parts if p)


def _starting(stage: Stage) -> str:
    return "waiting for its pod to start" + (f" (attempt {stage.attempt})" if stage.attempt > 1 else "")


def _again(stage: Stage, case: Case) -> str:
    """`RLVR attempt 2 in 20 s: the trainer was OOM-killed; retry 1 of 3`."""
    title = words.title(stage.name)
    if not stage.attempt or not stage.reason or stage.reason == outcomes.SUSPENDED:
        return f"{title}: about to begin"
    retry = f"; retry {stage.retries} of {case.run.spec.policy.retries}" if case.run and outcomes.counted(stage) else ""
    return f"{title} attempt {stage.attempt + 1} in {attempts.pause_s(stage):.0f} s: {words.cause(stage)}{retry}"


def _aspects(current: State, case: Case, servers: Servers, problem: Problem | None) -> Mapping[str, Told]:
    """The conditions that not every run has."""
    told: dict[str, Told] = {}
    stage = current.current
    if placement.queue(case) and stage and stage.active and not current.ended:
        waiting = stage.state == "queued"
        told["Admitted"] = (not waiting, "Queued" if waiting else "Admitted", problem.text if waiting and problem else f"{stage.name} is admitted")
    elif "Admitted" in current.conditions:
        told["Admitted"] = (False, "NothingToAdmit", "no job of the run is in a queue")
    if servers.wanted:
        ready = servers.ready >= servers.wanted
        text = f"{servers.ready} of {servers.wanted} rollout servers are ready" + (f": {servers.held}" if servers.held else "")
        told["RolloutsReady"] = (ready, "AllReady" if ready else "NotAllReady", text)
    elif "RolloutsReady" in current.conditions:
        told["RolloutsReady"] = (False, "NotNeeded", "no stage needs rollout servers now")
    if current.state == crd.SUSPENDED:
        told["Suspended"] = (True, "Suspended", "spec.suspend is true")
    elif "Suspended" in current.conditions:
        told["Suspended"] = (False, "Resumed", "spec.suspend is false")
    return told


def _ends(current: State) -> Mapping[str, Told]:
    """A cancelled run counts as failed to whoever waits for a condition."""
    told: dict[str, Told] = {}
    for kind, states in (("Complete", (crd.SUCCEEDED,)), ("Failed", (crd.FAILED, crd.CANCELLED))):
        if current.state in states:
            told[kind] = (True, current.reason or "Ended", current.message)
        elif kind in current.conditions:
            told[kind] = (False, "Continued", "spec.attempt was raised")
    return told


def _accepted(current: State, case: Case) -> Told:
    if current.accepted:
        return True, "Accepted", f"{' > '.join(s.name for s in current.stages)} with profile {current.resolved.get('profile', '')}"
    if case.refusal:
        return False, case.refusal.reason, case.refusal.message
    return False, current.reason or "Waiting", current.message


def _progressing(current: State, case: Case, problem: Problem | None) -> Told:
    stage = current.current
    if current.ended:
        return False, current.reason or "Ended", f"the run has ended: {current.state}"
    if current.state == crd.SUSPENDED:
        return False, "Suspended", "spec.suspend is true"
    if problem:
        return False, problem.reason, problem.text
    if case.refusal and not (stage and stage.active):
        return False, case.refusal.reason, case.refusal.message
    if not stage or not stage.attempt:
        return True, "Beginning", "the first attempt is about to begin"
    return True, "Working" if stage.active else "Between", f"{stage.name}, attempt {stage.attempt}{'' if stage.active else ' has ended'}"


def _kept(old: Condition | None, told: Told, generation: int, now: float) -> Condition:
    """A condition as it is now; `since` stays while its status does."""
    status = "True" if told[0] else "False"
    since = old.since if old and old.status == status and old.since else now
    return Condition(status, told[1], told[2], since, generation)
