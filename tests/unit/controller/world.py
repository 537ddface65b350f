"""A cluster as far as `reconcile` can tell it from a real one: objects with uids and versions, caches that lag, pods that live and die.

`World` holds what is true: the API server's objects, the jobs' controllers, pods, and the store that stages write to. `Operator` sees it
through one cache for each kind, each an older consistent view, and carries decisions out in their order, as far as its next crash.
"""

import datetime as dt
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.controller import observe
from ehrmind_k8s.controller.difference import lacks
from ehrmind_k8s.controller.reconcile import reconcile
from ehrmind_k8s.controller.records import Decision, Event, Progress, Snapshot
from ehrmind_k8s.profile import Profile
from ehrmind_k8s.spec import STAGES

Object = dict[str, Any]
Key = tuple[str, str]

EPOCH = 1_764_000_000.0
NAMESPACE, NAME = "team-a", "demo"
LAG_S = 4.0  # the longest that a cache is behind
WORK = 3  # steps of a stage
JOBS = ("Job", "PyTorchJob", "TrainJob")


class Conflict(Exception):
    """The object has changed meanwhile."""


class Crash(Exception):
    """The operator dies."""


def rfc3339(time: float) -> str:
    return dt.datetime.fromtimestamp(time, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def an_object(spec: Mapping[str, Any] | None = None, name: str = NAME) -> Object:
    """A run as the API server has it."""
    body = crd.to_object({"task": "medcalc", "preset": "tiny", "name": name}, NAMESPACE)
    body["spec"] |= {"rollout": {"replicas": 2}, **(spec or {})}
    meta = {"uid": "0b8e9a0e-6a2f-4c9f-8d53-0c7f5b6b0f01", "generation": 1, "resourceVersion": "1", "creationTimestamp": rfc3339(EPOCH)}
    body["metadata"] |= meta
    return body


@dataclass
class Stored:
    """What the object store holds of a stage."""

    claimed: int = 0
    done: int = 0
    complete: bool = False


@dataclass
class World:
    """What is true."""

    spec: Mapping[str, Any] = field(default_factory=dict)
    profile: Profile = field(default_factory=lambda: Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",)))
    served: frozenset[str] = frozenset({"PyTorchJob"})
    ends_with: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # stage -> reason and exit code of every attempt
    time: float = EPOCH
    objects: dict[Key, Object] = field(default_factory=dict)
    store: dict[str, Stored] = field(default_factory=lambda: {s: Stored() for s in STAGES})
    made: dict[Key, str] = field(default_factory=dict)  # children ever created
    unseen: set[Key] = field(default_factory=set)  # deleted by hand before their uid was recorded
    events: list[Event] = field(default_factory=list)
    writes: int = 0
    renewed: float | None = None  # last sign of life of who follows a run that is to end with its follower
    watchers: list[Callable[[Object], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._version = itertools.count(2)
        self._uid = itertools.count(1)
        self.history: dict[str, list[tuple[float, dict[str, Object]]]] = {}
        run = an_object(self.spec)
        self.objects[crd.KIND, NAME] = run
        self._remember(crd.KIND)

    # The API server

    @property
    def run(self) -> Object | None:
        return self.objects.get((crd.KIND, NAME))

    @property
    def status(self) -> Object:
        return (self.run or {}).get("status") or {}

    def of(self, *kinds: str) -> list[Object]:
        return [o for (kind, _), o in self.objects.items() if kind in kinds]

    def pods(self, role: str = "") -> list[Object]:
        return [p for p in self.of("Pod") if role in ("", p["metadata"]["labels"][crd.LABEL_ROLE])]

    def put(self, obj: Object) -> Object:
        """Write an object, whatever was there."""
        kind, name = obj["kind"], obj["metadata"]["name"]
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(next(self._version))}}
        self.objects[kind, name] = obj
        self._remember(kind)
        return obj

    def edit(self, obj: Object, **parts: Any) -> Object:
        return self.put({**obj, **parts})

    def add(self, obj: Object) -> Object:
        meta = {**obj["metadata"], "uid": f"uid-{next(self._uid)}", "creationTimestamp": rfc3339(self.time)}
        return self.put({**obj, "metadata": meta})

    def remove(self, key: Key) -> None:
        if key in self.objects:
            del self.objects[key]
            self._remember(key[0])

    def user(self, **changes: Any) -> None:
        """A person edits the run's spec."""
        run = self.run
        if run:
            spec = {**run["spec"], **changes}
            self.put({**run, "spec": spec, "metadata": {**run["metadata"], "generation": run["metadata"]["generation"] + 1}})

    def write_status(self, version: str, status: Object) -> None:
        run = self.run
        if run is None or run["metadata"]["resourceVersion"] != version:
            raise Conflict
        for watcher in self.watchers:
            watcher(status)
        self.edit(run, status=json.loads(json.dumps(status)))

    def create(self, obj: Object) -> str:
        """Create it; "" or a refusal."""
        key = obj["kind"], obj["metadata"]["name"]
        run = self.run
        if key in self.objects:
            return "" if observe.owned(self.objects[key], _uid(run)) else f"NameTaken {key[0]}/{key[1]}: it does not belong to this run"
        made = json.loads(json.dumps(obj))
        if made["kind"] in JOBS:
            stage = made["metadata"]["labels"][crd.LABEL_ROLE]
            assert key not in self.made or key in self.unseen, f"{key} is created twice"
            assert not [j for j in self.working() if j["metadata"]["labels"][crd.LABEL_ROLE] == stage], f"{key} is created beside another one"
            self.made[key] = stage
            if "kueue.x-k8s.io/queue-name" in made["metadata"]["labels"]:
                made = _suspended(made, True)
        self.add(made)
        return ""

    def apply(self, obj: Object) -> bool:
        """Apply it; whether that was a write."""
        there = self.objects.get((obj["kind"], obj["metadata"]["name"]))
        if there and not lacks(there, obj):
            return False
        self.add(json.loads(json.dumps(obj))) if there is None else self.edit(there, spec=json.loads(json.dumps(obj["spec"])))
        return True

    def delete(self, kind: str, name: str, uid: str) -> None:
        there = self.objects.get((kind, name))
        if there and there["metadata"]["uid"] == uid:
            self.remove((kind, name))
            self._collect()

    def delete_jobs(self) -> None:
        """A person deletes what works. What no pass has recorded yet is made again under its name: its process finds its number claimed."""
        recorded = {s.get("child", {}).get("uid") for s in self.status.get("stages", [])}
        for job in self.working():
            if job["metadata"]["uid"] not in recorded:
                self.unseen.add((job["kind"], job["metadata"]["name"]))
            self.delete(job["kind"], job["metadata"]["name"], job["metadata"]["uid"])

    def working(self) -> list[Object]:
        """Children that have not ended."""
        return [o for o in self.of(*JOBS) if not _ended(o)]

    # What lives in it

    def tick(self, seconds: float) -> None:
        """Let time pass: controllers act, pods work one step."""
        self.time += seconds
        self._collect()
        for pod in self.of("Pod"):
            self._live(pod)
        for job in self.working():
            self._control(job)
        self._serve()

    def stage_pod(self) -> Object | None:
        """The newest pod of a stage that has not ended."""
        alive = [p for p in self.of("Pod") if p["metadata"]["labels"][crd.LABEL_ROLE] in STAGES and p["status"]["phase"] in ("Pending", "Running")]
        reachable = [p for p in alive if "lost" not in p["metadata"]]
        return reachable[-1] if reachable else None

    def end(self, pod: Object, code: int, reason: str = "", how: str = "Error", disrupted: bool = False) -> None:
        """A pod's container ends, with a report when there is a `reason`."""
        labels, stage = pod["metadata"]["labels"], pod["metadata"]["labels"][crd.LABEL_ROLE]
        report = {"stage": stage, "attempt": int(labels[crd.LABEL_ATTEMPT]), "reason": reason, "exit_code": code, "seconds": 3.0}
        if stage == "evaluate" and code == 0:
            report |= {"score": 0.95, "headline": {"accuracy@base": 0.4, "accuracy@rlvr": 0.95}}
        end = {"exitCode": code, "reason": "Completed" if code == 0 else how} | ({"message": json.dumps(report)} if reason else {})
        conditions = [{"type": "DisruptionTarget", "status": "True"}] if disrupted else []
        status = {"phase": "Failed" if code else "Succeeded", "conditions": conditions, "containerStatuses": [{"state": {"terminated": end}}]}
        self.edit(pod, status=status)

    def lose_node(self, pod: Object) -> None:
        """The node of a pod does not answer: it is deleted, and stays."""
        meta = {**pod["metadata"], "deletionTimestamp": rfc3339(self.time + 30), "lost": True}
        status = {**pod["status"], "conditions": [{"type": "DisruptionTarget", "status": "True"}]}
        self.edit(pod, metadata=meta, status=status)

    def preempt(self) -> None:
        """A queue takes the running job's quota back."""
        for job in self.working():
            if "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"] and not _is_suspended(job):
                self.put(_suspended(job, True))
                for pod in self.of("Pod"):
                    if pod["metadata"]["owner"] == job["metadata"]["uid"]:
                        self._terminate(pod)

    def _remember(self, kind: str) -> None:
        self.history.setdefault(kind, [(EPOCH, {})]).append((self.time, {n: o for (k, n), o in self.objects.items() if k == kind}))

    def _collect(self) -> None:
        """Garbage collection: what has lost its owner goes."""
        uids = {o["metadata"]["uid"] for o in self.objects.values()}
        for key, obj in list(self.objects.items()):
            owners = [o["uid"] for o in obj["metadata"].get("ownerReferences") or ()]
            if obj["kind"] == "Pod" and obj["metadata"]["owner"] not in uids:
                self._terminate(obj)
            elif owners and not any(o in uids for o in owners):
                self.remove(key)

    def _terminate(self, pod: Object) -> None:
        """SIGTERM: a stage saves what it has."""
        if "deletionTimestamp" in pod["metadata"]:
            return
        pod = self.edit(pod, metadata={**pod["metadata"], "deletionTimestamp": rfc3339(self.time + 120)})
        if pod["status"]["phase"] == "Running" and pod["metadata"]["labels"][crd.LABEL_ROLE] in STAGES:
            self.end(pod, 143, "Terminated")

    def _live(self, pod: Object) -> None:
        meta, stage = pod["metadata"], pod["metadata"]["labels"][crd.LABEL_ROLE]
        if meta.get("lost"):
            return
        if "deletionTimestamp" in meta:
            self.remove(("Pod", meta["name"]))
        elif pod["status"]["phase"] == "Pending":
            running = {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"state": {"running": {"startedAt": rfc3339(self.time)}}}]}
            ready = [{"type": "Ready", "status": "True"}] if stage == "rollout" else []
            self.edit(pod, status=running | {"conditions": ready})
        elif pod["status"]["phase"] == "Running" and stage in STAGES:
            self._work(pod, self.store[stage], int(meta["labels"][crd.LABEL_ATTEMPT]))

    def _work(self, pod: Object, stored: Stored, attempt: int) -> None:
        """One step of a stage's process. A complete stage returns from its manifest, and a fenced one stops."""
        stage, begun = pod["metadata"]["labels"][crd.LABEL_ROLE], pod["metadata"].get("begun")
        if stored.complete:
            self.end(pod, 0, "ok")
        elif stored.claimed > attempt or (stored.claimed == attempt and not begun):
            self.end(pod, 75, "Fenced")
        elif stage in self.ends_with:
            self.end(pod, self.ends_with[stage][1], self.ends_with[stage][0])
        else:
            stored.claimed, stored.done = attempt, stored.done + 1
            pod = self.edit(pod, metadata={**pod["metadata"], "begun": True})
            if stored.done >= WORK:
                stored.complete = True
                self.end(pod, 0, "ok")

    def _control(self, job: Object) -> None:
        """A job's controller: one pod, whose end is the job's. A training operator replaces a pod that is gone; a Job fails."""
        if _is_suspended(job):
            if not any(p["metadata"]["owner"] == job["metadata"]["uid"] for p in self.of("Pod")):
                self.put(_suspended(job, False))
            return
        mine = [p for p in self.of("Pod") if p["metadata"]["owner"] == job["metadata"]["uid"]]
        ended = [p for p in mine if p["status"]["phase"] in ("Succeeded", "Failed") and "lost" not in p["metadata"]]
        if ended:
            self._conclude(job, ended[-1]["status"]["phase"] == "Succeeded")
        elif not mine and job["kind"] == "Job" and job["metadata"].get("begun"):
            self._conclude(job, False)
        elif not mine:
            self.edit(job, metadata={**job["metadata"], "begun": True})
            self._make_pod(job["metadata"], job["metadata"]["labels"])

    def _conclude(self, job: Object, good: bool) -> None:
        kind = ("Succeeded" if job["kind"] == "PyTorchJob" else "Complete") if good else "Failed"
        self.edit(job, status={"conditions": [{"type": kind, "status": "True", "reason": ""}]})

    def _make_pod(self, owner: Object, labels: Mapping[str, str]) -> None:
        name = f"{owner['name']}-{next(self._uid)}"
        meta = {"name": name, "namespace": NAMESPACE, "labels": dict(labels), "owner": owner["uid"]}
        self.add({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {"phase": "Pending"}})

    def _serve(self) -> None:
        """The Deployment's controller."""
        for deployment in self.of("Deployment"):
            mine = [p for p in self.pods("rollout") if "deletionTimestamp" not in p["metadata"]]
            wanted = deployment["spec"]["replicas"]
            for _ in range(wanted - len(mine)):
                self._make_pod(deployment["metadata"], deployment["metadata"]["labels"])
            for pod in mine[wanted:]:
                self._terminate(pod)


class Operator:
    """One operator process: caches of its own, and the decisions it carries out."""

    def __init__(self, world: World, lag_s: float = LAG_S) -> None:
        self.world, self.lag_s = world, lag_s
        self.seen: dict[str, int] = {}
        self.strangers: dict[Key, Object] = {}
        self.refusals: tuple[str, ...] = ()
        self.workloads: tuple[Object, ...] = ()
        self.waiting, self.changed = "", 0.0  # what a stage says at /progress, and since when: 0 is just now
        self.deaf = False
        self.restart()

    def restart(self) -> None:
        """A new process lists everything anew, and knows nothing else."""
        self.seen = {kind: len(versions) - 1 for kind, versions in self.world.history.items()}
        self.refusals, self.strangers = (), {}

    def see(self, kind: str | None = None) -> None:
        """A watch catches up; of all kinds without a name."""
        for each in [kind] if kind else list(self.world.history):
            self.seen[each] = len(self.world.history.get(each, [()])) - 1

    def view(self, kind: str) -> dict[str, Object]:
        """A kind as this process sees it: not older than its lag."""
        versions = self.world.history.get(kind)
        if not versions:
            return {}
        at = self.seen.get(kind, 0)
        while at + 1 < len(versions) and versions[at + 1][0] <= self.world.time - self.lag_s:
            at += 1
        self.seen[kind] = at
        return versions[at][1]

    def snapshot(self) -> Snapshot | None:
        run = self.view(crd.KIND).get(NAME)
        if run is None:
            return None
        uid = run["metadata"]["uid"]
        kinds = [k for k in self.world.history if k not in (crd.KIND, "Pod") and (k in self.world.served or k not in ("PyTorchJob", "TrainJob"))]
        objects = {**self.strangers, **{(k, n): o for k in kinds for n, o in self.view(k).items()}}
        pods = tuple(observe.pod(p) for p in self.view("Pod").values() if p["metadata"]["labels"][crd.LABEL_RUN_UID] == uid)
        profile = self.world.profile
        children = tuple(observe.child(o, uid) for o in objects.values())
        error = "" if profile else "profile 'default' is unknown"
        silent_s = None if self.world.renewed is None else self.world.time - self.world.renewed
        rest = {"progress": self._progress(pods), "workloads": self.workloads, "refusals": self.refusals, "silent_s": silent_s}
        return Snapshot(run, profile, error, self.world.served, children, pods, **rest)

    def look(self, writes: int | None = None, skew_s: float = 0.0) -> Decision | None:
        """One pass; the process dies before its write number `writes`. None: the run is gone."""
        snapshot = self.snapshot()
        if snapshot is None:
            return None
        decision = reconcile(snapshot, self.world.time + skew_s)
        left = iter(range(writes)) if writes is not None else itertools.count()
        try:
            self._execute(snapshot, decision, lambda: next(left, None))
        except Conflict:
            pass
        except Crash:
            self.restart()
        return decision

    def _execute(self, snapshot: Snapshot, decision: Decision, alive: Callable[[], int | None]) -> None:
        world, refused = self.world, []

        def write() -> None:
            if alive() is None:
                raise Crash
            world.writes += 1

        def apply(objects: list[Any]) -> None:
            for wanted in objects:
                if alive() is None:
                    raise Crash
                world.writes += world.apply(dict(wanted))

        if decision.status is not None and decision.status != snapshot.run.get("status"):
            write()
            world.write_status(snapshot.run["metadata"]["resourceVersion"], dict(decision.status))
        for delete in decision.deletes:
            write()
            world.delete(delete.kind, delete.name, delete.uid)
        apply([a for a in decision.applies if a["kind"] == "NetworkPolicy"])
        for wanted in decision.creates:
            write()
            if text := world.create(dict(wanted)):
                refused.append(text)
                key = wanted["kind"], wanted["metadata"]["name"]
                self.strangers[key] = world.objects[key]
        apply([a for a in decision.applies if a["kind"] != "NetworkPolicy"])
        world.events += decision.events
        self.refusals = tuple(refused)

    def _progress(self, pods: tuple[Any, ...]) -> Progress | None:
        leader = next((p for p in pods if p.leader and p.phase == "Running" and not p.deleting), None)
        if leader is None or self.deaf:
            return None
        done = self.world.store[leader.role].done
        figures = {"loss": 3.2, "reward": 0.61}
        return Progress(
            leader.uid, leader.role, leader.attempt, done, WORK, "step", figures, self.waiting, self.world.time, self.changed or self.world.time
        )


def _uid(run: Object | None) -> str:
    return run["metadata"]["uid"] if run else ""


def _ended(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] in ("Complete", "Succeeded", "Failed") for c in conditions)


def _is_suspended(job: Object) -> bool:
    spec = job["spec"].get("runPolicy", {}) if job["kind"] == "PyTorchJob" else job["spec"]
    return bool(spec.get("suspend"))


def _suspended(job: Object, value: bool) -> Object:
    if job["kind"] == "PyTorchJob":
        return {**job, "spec": {**job["spec"], "runPolicy": {**job["spec"].get("runPolicy", {}), "suspend": value}}}
    return {**job, "spec": {**job["spec"], "suspend": value}}
