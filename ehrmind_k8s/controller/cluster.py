"""Between the cluster and `reconcile`: what is there becomes a Snapshot, a Decision becomes calls.

A Decision is carried out in its order: status, deletes, network policies, creates, other applies, events. Every step may be the last one before
a crash, and every one may be done again. While a network policy is refused nothing is started that it is to fence in. What the server refuses
for a reason that a person can mend (quota, a webhook, rights, a taken name) is kept and shown to the next `reconcile` as `Snapshot.refusals`;
what time mends is raised, and tried again later.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ehrmind_k8s import crd, profile
from ehrmind_k8s.controller import kinds, observe
from ehrmind_k8s.controller.announcer import Announcer
from ehrmind_k8s.controller.caches import Caches, Key
from ehrmind_k8s.controller.difference import lacks, stamped
from ehrmind_k8s.controller.expectations import Expectations
from ehrmind_k8s.controller.records import Decision, Delete, Event, Pod, Progress, Snapshot
from ehrmind_k8s.controller.refusals import Name, Refusals, refusal
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.controller.runtime.rate import Bucket
from ehrmind_k8s.controller.runtime.store import number
from ehrmind_k8s.controller.state import ACTIVE
from ehrmind_k8s.errors import EhrmindError, SpecError
from ehrmind_k8s.kubeapi import AlreadyExists, ApiError, Conflict, NotFound, Resource, Unavailable
from ehrmind_k8s.spec import STAGES

Object = dict[str, Any]
POLICY = "NetworkPolicy"


class NotLeading(EhrmindError):
    """The Lease is not ours any more: nothing may be written."""


class Cluster:
    """Reads from caches, writes to the API. Different runs may be worked on at the same time; one run by one thread."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        announcer: Announcer,
        *,
        namespace: str,
        leading: Callable[[], bool],
        rate: tuple[float, int],
        told: Callable[[str, str], None],
    ) -> None:
        """`namespace`: the operator's. `rate`: writes a second and at once, the same again for status. `told` hears of writes: verb and kind."""
        self._namespace = namespace
        self._client, self._caches, self._announcer, self._leading, self._told = client, caches, announcer, leading, told
        self._status_budget, self._budget = Bucket(*rate), Bucket(*rate)
        self._expectations = Expectations(caches)
        self._refusals = Refusals()
        self._made: dict[Key, list[Object]] = {}
        self._applied: dict[Key, dict[Name, tuple[str, Any]]] = {}
        self._profiles: tuple[str, dict[str, profile.Profile | str]] = ("", {})
        self._lock = threading.Lock()

    def behind_s(self, key: Key) -> float:
        """How long at most to wait until the caches show what was last written for this run; 0 when they do."""
        return self._expectations.behind_s(key)

    def snapshot(self, key: Key, progress: Progress | None = None) -> Snapshot | None:
        """Everything there is about a run; None when the run is gone. `progress` is what its leader said last."""
        run = self._caches.run(key)
        if run is None:
            return None
        uid = run["metadata"]["uid"]
        known = (*self._refusals.strangers(key), *self._just_made(key), *self._caches.children(key))
        objects = {(o["kind"], o["metadata"]["name"]): o for o in known}
        children = [observe.child(o, uid) for o in objects.values()]
        pods = [observe.pod(p) for p in self._caches.pods(key) if p["metadata"]["labels"].get(crd.LABEL_RUN_UID) == uid]
        found = self._profile((run.get("spec") or {}).get("profile") or "default")
        uids = [c.uid for c in children if c.ours] + [p.uid for p in pods]
        return Snapshot(
            run=run,
            profile=None if isinstance(found, str) else found,
            profile_error=found if isinstance(found, str) else "",
            served=self._caches.served(),
            children=tuple(children),
            pods=tuple(pods),
            progress=progress,
            workloads=tuple(self._caches.workloads(key[0], uids)),
            refusals=self._refusals.of(key),
            silent_s=self._caches.owners.silent_s(key, uid) if observe.followed(run) else None,
            operator_namespace=self._namespace,
        )

    def forget(self, key: Key) -> None:
        """The run is gone: remember nothing of it."""
        self._expectations.forget(key)
        self._refusals.forget(key)
        self._caches.owners.forget(key)
        self._made.pop(key, None)
        self._applied.pop(key, None)

    def execute(self, key: Key, snapshot: Snapshot, decision: Decision) -> bool:
        """Carry out a decision; True while the server refuses something that the run needs.

        Raises Conflict when the run has changed meanwhile, Unavailable, and NotLeading.
        """
        self._expectations.forget(key)
        self._write_status(key, snapshot.run, decision.status)
        self._made[key] = [made for made in self._made.get(key, ()) if not self._passed(made)]  # of the others only the status knows the uids
        tried: dict[Name, str] = {}
        for delete in decision.deletes:
            self._try(tried, (delete.kind, delete.name), self._delete, key, delete)
        uid = snapshot.run["metadata"]["uid"]
        policies = [a for a in decision.applies if a["kind"] == POLICY]
        rest = [*((c, self._create) for c in decision.creates), *((a, self._apply) for a in decision.applies if a["kind"] != POLICY)]
        for wanted, method in [*((p, self._apply) for p in policies), *rest]:
            assert wanted["metadata"].get("namespace") == key[0], "a child in another namespace"
            if wanted["kind"] == POLICY or not any(tried.get(_name(p)) for p in policies):
                self._try(tried, _name(wanted), method, key, uid, wanted)
        self._post(snapshot.run, decision.events)
        held = {_name(wanted) for wanted, _ in rest}
        return self._refusals.remember(key, tried, held | _counted_on(decision.status or snapshot.run.get("status") or {}))

    def _try(self, tried: dict[Name, str], name: Name, method: Callable[..., None], *arguments: Any) -> None:
        """Do it; what a person must mend is noted, and the rest of the decision goes on."""
        try:
            method(*arguments)
            tried[name] = ""
        except ApiError as error:
            tried[name] = refusal(error, *name)
            if not tried[name]:
                raise

    def _write_status(self, key: Key, run: Mapping[str, Any], status: Mapping[str, Any] | None) -> None:
        if status is None or status == run.get("status"):
            return
        version = run["metadata"]["resourceVersion"]
        written = self._call(self._status_budget, "patch_status", crd.KIND, self._client.patch_status, kinds.RUN, *key, version, status)
        self._expectations.written(key, written)

    def _delete(self, key: Key, delete: Delete) -> None:
        store = self._caches.store(delete.kind, key[0])
        known = store.entry(key[0], delete.name) if store else None
        if known and known.uid == delete.uid and known.deleting:
            return
        try:
            self._call(self._budget, "delete", delete.kind, self._client.delete, _resource(delete.kind), key[0], delete.name, delete.uid)
        except (NotFound, Conflict):
            return  # gone already, or another object has its name: that one is not meant
        self._expectations.deleted(key, delete)

    def _create(self, key: Key, uid: str, wanted: Mapping[str, Any]) -> None:
        resource, name = _resource(wanted["kind"]), wanted["metadata"]["name"]
        store = self._caches.store(resource.kind, key[0])
        known = store.get(key[0], name) if store else None
        if known and observe.owned(known, uid):
            return
        try:
            made = self._call(self._budget, "create", resource.kind, self._client.create, resource, wanted)
        except AlreadyExists:
            made = self._mine(key, uid, resource, name)
        self._expectations.written(key, made)
        self._made.setdefault(key, []).append(kinds.keep(resource)(made))

    def _apply(self, key: Key, uid: str, wanted: Mapping[str, Any]) -> None:
        resource, name = _resource(wanted["kind"]), wanted["metadata"]["name"]
        wanted = stamped(wanted)
        store = self._caches.store(resource.kind, key[0])
        live = store.get(key[0], name) if store else None
        if live is None or not observe.owned(live, uid):
            try:
                live = self._mine(key, uid, resource, name)
            except NotFound:
                live = None
        applied = self._applied.setdefault(key, {})
        digest = wanted["metadata"]["annotations"][crd.ANNOTATION_PLAN]
        if live and (applied.get(_name(wanted)) == (digest, _edition(live)) or not lacks(live, wanted)):
            return
        made = self._call(self._budget, "apply", resource.kind, self._client.apply, resource, wanted, crd.FIELD_MANAGER)
        applied[_name(wanted)] = (digest, _edition(made))
        self._expectations.written(key, made)

    def _mine(self, key: Key, uid: str, resource: Resource, name: str) -> Object:
        """The object that has a name we want, which the caches do not show as ours. Raises AlreadyExists when it belongs to somebody else."""
        found = self._client.get(resource, key[0], name) | {"apiVersion": resource.api_version, "kind": resource.kind}
        if not observe.owned(found, uid):
            self._refusals.stranger(key, kinds.keep(resource)(found))
            raise AlreadyExists(409, "NameTaken", f"{resource.kind} {name} is there and does not belong to this run")
        return found

    def _just_made(self, key: Key) -> list[Object]:
        """What the last decision created. A decision must see the uid of each once: a child that somebody deleted before the caches showed it
        would else look as if it had never been made, and be made again under its name."""
        found = []
        for made in self._made.get(key, ()):
            meta = made["metadata"]
            gone = self._passed(made)  # unless the cache has it, which then counts
            found.append(made | {"metadata": meta | ({"deletionTimestamp": meta["creationTimestamp"]} if gone else {})})
        return found

    def _passed(self, made: Object) -> bool:
        """Whether the cache of an object's kind is newer than the object."""
        store = self._caches.store(made["kind"], made["metadata"]["namespace"])
        return store is None or store.version >= number(made["metadata"]["resourceVersion"])

    def _post(self, run: Mapping[str, Any], events: tuple[Event, ...]) -> None:
        if events and self._leading():
            for _ in range(self._announcer.post(run, events)):
                self._told("create", "Event")

    def _call(self, budget: Bucket, verb: str, kind: str, method: Callable[..., Object], *arguments: Any) -> Object:
        """One write, within the rate and only while we lead."""
        budget.wait()
        if not self._leading():
            raise NotLeading("not the leader any more")
        try:
            answer = method(*arguments)
        except Unavailable as error:
            if error.retry_after_s:
                for each in (self._budget, self._status_budget):
                    each.pause(error.retry_after_s)
            raise
        self._told(verb, kind)
        return answer

    def _profile(self, name: str) -> profile.Profile | str:
        """A profile, or the sentence that says why there is none."""
        found = self._caches.profiles()
        if found is None:
            return "the operator's profiles are missing: their ConfigMap is not in the operator's namespace; install the chart again"
        version, entries = found
        with self._lock:
            if self._profiles[0] != version:
                self._profiles = (version, {})
            known = self._profiles[1]
            if name not in known:
                try:
                    known[name] = profile.find(name, entries)
                except SpecError as error:
                    return str(error)
            return known[name]


def leader_of(pods: tuple[Pod, ...]) -> Pod | None:
    """The pod to ask for progress: the leader of the newest attempt, while it runs."""
    able = [p for p in pods if p.leader and p.role in STAGES and p.phase == "Running" and p.ip and not p.deleting]
    return max(able, key=lambda p: (p.created, p.attempt), default=None)


def _resource(kind: str) -> Resource:
    assert kind in kinds.BY_KIND, f"no rule for {kind}"
    return kinds.BY_KIND[kind]


def _name(obj: Mapping[str, Any]) -> Name:
    return obj["kind"], obj["metadata"]["name"]


def _counted_on(status: Mapping[str, Any]) -> set[Name]:
    """Children of attempts under way that nobody has seen yet."""
    stages = [s for s in status.get("stages") or () if isinstance(s, Mapping) and s.get("state") in ACTIVE]
    children = [s["child"] for s in stages if isinstance(s.get("child"), Mapping)]
    return {(str(c.get("kind")), str(c.get("name"))) for c in children if not c.get("uid")}


def _edition(obj: Mapping[str, Any]) -> Any:
    """What changes when somebody changes what we apply: the generation where there is one, so that a status does not count."""
    return obj["metadata"].get("generation") or obj["metadata"]["resourceVersion"]
