"""Why a run does not get on, and what to do about it: one sentence, from what the API server, the scheduler, a kubelet or a queue said.

What is looked for, in this order: writes that the API server refused; a queue; the pods of the stage; the rollout servers it waits for; no
progress for long. Nothing here changes what the operator does: it kills nothing that may still come to life.
"""

import re
from dataclasses import dataclass, replace

from ehrmind_k8s.controller.policies import attempts, placement, progress, rollouts, words
from ehrmind_k8s.controller.policies.admission import Case
from ehrmind_k8s.controller.policies.rollouts import Servers
from ehrmind_k8s.controller.records import Pod, Snapshot, parts
from ehrmind_k8s.controller.state import Stage, State
from ehrmind_k8s.crd import Run

UNSCHEDULABLE_S = 15.0  # autoscalers and pods that are just leaving need a moment
NO_PODS_S = 30.0
SLOW_START_S = 180.0
NO_ROLLOUTS_S = 120.0
NO_PROGRESS_S = 1800.0
PULLS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")

_IMAGE = re.compile(r'image "([^"\s]{1,200})"')
_MISSING = re.compile(
    r'((?:secret|configmap) "[^"\s]{1,200}" not found)'
    r"|couldn't find key (\S{1,100}) in (Secret|ConfigMap) (?:[-a-z0-9]{1,63}/)?([-.a-z0-9]{1,200})"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why it does not get on, as a code and as a sentence."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """A problem, if there is one, and when to look again at what only time makes a problem."""

    problem: Problem | None = None
    again_s: float | None = None


def why(current: State, case: Case, snapshot: Snapshot, servers: Servers, now: float) -> Found:
    """What keeps a run that goes on from going on."""
    stage = current.current
    if current.ended or not stage:
        return Found()
    if not case.run or not case.steps:
        return Found(Problem(case.refusal.reason, case.refusal.message) if case.refusal else None)
    if snapshot.refusals:
        return Found(_refused(snapshot.refusals[0], case.run))
    if not stage.active or current.note:
        return Found()
    if stage.kind not in placement.visible(snapshot):
        return Found(Problem("BackendUnavailable", f"{stage.kind} is not served by the cluster any more; install its operator again"))
    if stage.state == "queued":
        return Found(_not_admitted(stage, case, snapshot))
    return _pods(stage, case.run, snapshot, now) if stage.state == "starting" else _work(current, stage, case.run, snapshot, servers, now)


def _pods(stage: Stage, run: Run, snapshot: Snapshot, now: float) -> Found:
    """Why no container of the stage runs."""
    pods = attempts.pods_of(stage, snapshot).pods
    since = stage.started
    if not pods:
        text = f"no pod was made in {NO_PODS_S:.0f} s; see: kubectl describe {stage.kind.lower()} {stage.child} -n {run.namespace}"
        return _later(Problem("NoPods", text), since, NO_PODS_S, now)
    for pod in sorted(pods, key=lambda p: not p.leader):
        if found := _pod(pod, run, now):
            return Found(found)
    if any(p.unschedulable for p in pods):
        return Found(again_s=UNSCHEDULABLE_S)
    text = f"no container has started in {SLOW_START_S:.0f} s; see: kubectl describe pod {pods[0].name} -n {run.namespace}"
    return _later(Problem("SlowStart", text), min(p.created for p in pods) or since, SLOW_START_S, now)


def _work(current: State, stage: Stage, run: Run, snapshot: Snapshot, servers: Servers, now: float) -> Found:
    """Why a stage that runs does not get on."""
    said = progress.heard(current, snapshot)
    since = said.changed if said else stage.started
    for pod in attempts.pods_of(stage, snapshot).pods:
        if pod.phase == "Pending" and (held := _pod(pod, run, now)):
            return Found(held)  # one of several nodes
    if said and said.waiting == rollouts.ROLE + "s":
        found = _servers(run, snapshot, now)
        text = f"waiting for rollout servers, {servers.ready} of {servers.wanted} ready; see: kubectl get pods -n {run.namespace}"
        if servers.ready:  # their pods are well; only the trainer knows why it gives them no work, such as a store that does not answer them
            reasons = f"ehrmind logs {run.name} --of {stage.name}-a{stage.attempt}"
            text = f"waiting for rollout servers, of which {servers.ready} of {servers.wanted} are ready but do not take the policy; see: {reasons}"
        if found:
            return Found(Problem(found.reason, f"rollouts: {found.text}"))
        return _later(Problem("WaitingForRollouts", text), since, NO_ROLLOUTS_S, now)
    at = words.position(stage, current.progress)
    if said is None:
        since = max(since, current.progress.updated if current.progress else 0.0)
        text = f"nothing heard of its progress for {NO_PROGRESS_S / 60:.0f} minutes; see: ehrmind logs {run.name} --of {stage.name}-a{stage.attempt}"
        return _later(Problem("NoAnswer", text), since, NO_PROGRESS_S, now)
    text = f"no progress for {NO_PROGRESS_S / 60:.0f} minutes at {at}; see: ehrmind logs {run.name} --of {stage.name}-a{stage.attempt}"
    return _later(Problem("NoProgress", text), since, NO_PROGRESS_S, now)


def held(servers: Servers, run: Run, snapshot: Snapshot, now: float) -> Servers:
    """The servers with what holds those that are not ready: it is worth knowing before a stage waits for them."""
    found = _servers(run, snapshot, now) if servers.ready < servers.wanted else None
    return replace(servers, held=found.text) if found else servers


def _servers(run: Run, snapshot: Snapshot, now: float) -> Problem | None:
    """What keeps rollout servers from being ready."""
    for pod in rollouts.pods(snapshot):
        if not pod.ready and (found := _pod(pod, run, now)):
            return found
    made = (c for c in snapshot.children if c.ours and c.kind == "Deployment")
    failed = next(
        (c for child in made for c in parts(child.object, "status", "conditions") if c.get("type") == "ReplicaFailure" and c.get("status") == "True"),
        None,
    )
    if failed:
        return Problem("RolloutsRefused", f"pods are refused: {_cut(failed.get('message'))}")
    return None


def _pod(pod: Pod, run: Run, now: float) -> Problem | None:
    """What keeps one pod from running."""
    code, namespace = pod.waiting, run.namespace
    if code in PULLS:
        image = _IMAGE.search(pod.waiting_message)
        what = f"image {image[1]}" if image else "its image"
        return Problem("ImagePull", f"{what} cannot be pulled ({code}); check images and pull secrets of profile {run.spec.profile!r}")
    if code == "CreateContainerConfigError":
        return Problem("MissingConfig", f"{_missing(pod.waiting_message)} in namespace {namespace}; create it, the pod then starts by itself")
    if code == "CrashLoopBackOff":
        text = f"pod {pod.name} crashes at its start, {pod.restarts} times so far; see: kubectl logs {pod.name} -n {namespace} --previous"
        return Problem("CrashLoop", text)
    if code.endswith("Error"):
        return Problem("PodError", f"pod {pod.name} cannot start ({code}); see: kubectl describe pod {pod.name} -n {namespace}")
    if pod.unschedulable and not 0 <= now - pod.created < UNSCHEDULABLE_S:
        told = _cut(pod.unschedulable).rstrip(".")
        return Problem("Unschedulable", f"no node can take pod {pod.name}: {told}; add nodes, or ask for less in profile {run.spec.profile!r}")
    return None


def _missing(told: str) -> str:
    found = _MISSING.search(told)
    if not found:
        return "a Secret or ConfigMap of the pod is missing"
    return found[1] or f"{found[3]} {found[4]} has no key {found[2]}"


def _not_admitted(stage: Stage, case: Case, snapshot: Snapshot) -> Problem:
    """Why a queue holds the stage."""
    name = placement.queue(case)
    for workload in snapshot.workloads:
        if any(o.get("uid") == stage.uid for o in parts(workload, "metadata", "ownerReferences")):
            for condition in parts(workload, "status", "conditions"):
                if condition.get("type") == "QuotaReserved" and condition.get("status") == "False":
                    stuck = condition.get("reason") == "Inadmissible"
                    return Problem("QueueInadmissible" if stuck else "Queued", f"queue {name}: {_cut(condition.get('message'))}")
    if name and "Workload" not in snapshot.served:
        return Problem("QueueMissing", f"queue {name} is asked for, but the cluster has no Kueue; install it, or take the queue out of the profile")
    return Problem("Queued", f"waiting for queue {name}" if name else "its job is suspended by somebody else")


def _refused(refusal: str, run: Run) -> Problem:
    """A write that the API server refused: `Code Kind/name: sentence`."""
    code, _, rest = refusal.partition(" ")
    what, _, told = rest.partition(": ")
    hints = {
        "QuotaExceeded": f"free some quota of namespace {run.namespace}, or ask for less in the profile",
        "Forbidden": "give the operator the chart's role in this namespace",
        "NamespaceTerminating": "the namespace is being deleted",
        "NotServed": "install the operator that brings this kind",
    }
    hint = hints.get(code, "it is tried again until it is taken")
    return Problem(code if code.isalnum() else "Refused", f"the API server refused {what}: {_cut(told)}; {hint}")


def _cut(text: object) -> str:
    return " ".join(str(text or "").split())[:240]


def _later(problem: Problem, since: float, wait_s: float, now: float) -> Found:
    """A problem once it has lasted."""
    left = since + wait_s - now
    return Found(problem) if left <= 0 else Found(again_s=min(left, wait_s))
