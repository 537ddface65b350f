"""What the operator watches, and how it finds what belongs to a run.

One reflector for each kind (and namespace, when the operator is limited to some). A child or pod is found by the run that its labels name,
and by its own uid; a Workload of Kueue by the uid of what it queues. Kinds of other projects come and go while we run: what the server has
is asked every 30 s, and at once when a watch says that its kind is gone. So do namespaces, when the operator is limited to some: one that is
deleted takes our Role along. Its runs are left alone until it can be read again, and all others go on.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from ehrmind_k8s import crd, logs
from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.owners import Owners
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.controller.runtime.reflector import SILENCE_S, Reflector
from ehrmind_k8s.controller.runtime.store import Store
from ehrmind_k8s.crd.names import STATES
from ehrmind_k8s.kubeapi import ApiError, NotFound, Refused, Resource

Object = dict[str, Any]
Key = tuple[str, str]  # namespace and name of a run

OURS = f"{crd.LABEL_MANAGED_BY}={crd.MANAGED_BY}"
DISCOVER_S = 30.0
NOTICE_S = 1.0
QUEUED_KINDS = ("Job", "PyTorchJob", "TrainJob", "Pod")


class Caches:
    """Reflectors of all kinds. `wake` hears the key of every run that something happened to, and `changed` of one whose own object changed."""

    def __init__(self, client: Client, namespaces: Sequence[str], profiles: Key, wake: Callable[[Key], None], changed: Callable[[Key], None]) -> None:
        """`namespaces`: empty means all. `profiles`: namespace and name of the ConfigMap with the profiles."""
        self._client, self._wake, self._run_changed = client, wake, changed
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._profiles = profiles
        self.owners = Owners(self.renewed, self._deaf_to_leases)
        self._lock = threading.Lock()
        self._reflectors: dict[str, list[Reflector]] = {}
        self._stop = threading.Event()
        self._discovered = threading.Event()
        self._thread = threading.Thread(target=self._discover, name="discovery", daemon=True)
        self._own = Reflector(
            *(client, kinds.CONFIG_MAP, Store(kinds.keep(kinds.CONFIG_MAP), lambda _: (), lambda _: ""), lambda _: self.wake_all()),
            namespace=profiles[0],
            fields=f"metadata.name={profiles[1]}",
        )

    def start(self) -> None:
        """Begin to watch."""
        for resource in (kinds.RUN, kinds.POD, kinds.LEASE, *kinds.BUILT_IN):
            self._watch(resource)
        self._own.start()
        self._thread.start()

    def stop(self) -> None:
        """End all watches."""
        self._stop.set()
        for reflector in self._all():
            reflector.stop()
        if self._thread.is_alive():
            self._thread.join(2)

    def run(self, key: Key) -> Object | None:
        """The object of a run."""
        store = self.store(crd.KIND, key[0])
        return store.get(*key) if store else None

    def runs(self) -> list[Key]:
        """All runs."""
        return [n for r in self._of(crd.KIND) for n in r.store.names()]

    def states(self) -> dict[str, int]:
        """How many runs there are in each state, in none of them too: an alert sees a number grow, but not one that appears. Empty until all
        runs were listed, so that an operator that starts does not look like one to whose runs all that just happened."""
        away = self.unreadable()
        listed = [r.synced.is_set() for r in self._of(crd.KIND) if r.namespace not in away]
        if not listed or not all(listed):
            return {}
        found = sum((r.store.count() for r in self._of(crd.KIND)), Counter())
        return {**dict.fromkeys(STATES, 0), **found}

    def sizes(self) -> dict[str, int]:
        """How many objects of each kind are in memory."""
        return {kind: sum(len(r.store.names()) for r in self._of(kind)) for kind in list(self._reflectors)}

    def children(self, key: Key) -> list[Object]:
        """What the operator made for a run of this name, but its pods."""
        kinds_ = [k for k in list(self._reflectors) if k not in (crd.KIND, "Pod", "Workload", "Lease")]
        return [o for kind in sorted(kinds_) for o in self._select(kind, key[0], key)]

    def pods(self, key: Key) -> list[Object]:
        """Pods that carry the labels of a run of this name."""
        return self._select("Pod", key[0], key)

    def renewed(self, key: Key) -> str:
        """When the follower of a run of this name renewed its Lease, in its own words; "" without one."""
        store = self.store("Lease", key[0])
        lease = store.get(key[0], crd.owner_lease(key[1])) if store else None
        return str((lease.get("spec") or {}).get("renewTime") or "") if lease else ""

    def _deaf_to_leases(self, key: Key) -> bool:
        """Whether a renewal in this namespace might not have been heard."""
        found = [r for r in self._of("Lease") if r.namespace in (None, key[0])]
        return not found or any(r.failure is not None or not r.synced.is_set() or r.silent_s > SILENCE_S for r in found)

    def workloads(self, namespace: str, uids: Iterable[str]) -> list[Object]:
        """Kueue's Workloads of the objects with these uids."""
        return [o for uid in uids for o in self._select("Workload", namespace, uid)]

    def profiles(self) -> tuple[str, dict[str, str]] | None:
        """Resource version and entries of the profiles' ConfigMap; None while it is not there."""
        found = self._own.store.get(*self._profiles)
        return (found["metadata"]["resourceVersion"], found.get("data") or {}) if found else None

    def served(self) -> frozenset[str]:
        """Kinds of other projects that the server has and we can see."""
        away = self.unreadable()
        seen = {k: [r for r in self._of(k) if r.namespace not in away] for k in list(self._reflectors) if k in kinds.SERVED}
        return frozenset(k for k, rs in seen.items() if rs and all(r.synced.is_set() and not _absent(r) for r in rs))

    def store(self, kind: str, namespace: str) -> Store | None:
        """Where objects of this kind and namespace are kept; None when they are not watched."""
        return next((r.store for r in self._of(kind) if r.namespace in (None, namespace)), None)

    def unsynced(self) -> list[str]:
        """Kinds whose list is still to come: until then nobody may decide anything. Not Workload, which only explains: Kueue may be broken.
        Not what is in a namespace that cannot be read, unless that is all of them."""
        away = self.unreadable()
        away = away if len(away) < len(self._namespaces) else frozenset()
        needed = (r for r in self._all() if r.namespace not in away and r.resource not in kinds.WORKLOADS)
        missing = [r.resource.kind for r in needed if not r.synced.is_set() and not (_optional(r) and _absent(r))]
        return sorted(set(missing)) if self._discovered.is_set() else sorted({*missing, "discovery"})

    def deaf(self, longest_s: float) -> list[str]:
        """Kinds of which nothing, not even a bookmark, was heard for `longest_s`."""
        away = self.unreadable()
        silent = (r for r in self._all() if r.silent_s > longest_s and r.namespace not in away)
        return sorted({r.resource.kind for r in silent if not (_optional(r) and r.failure)})

    def unreadable(self) -> frozenset[str]:
        """Those of our namespaces in which we may not see everything that a decision needs: they are gone, or their Role is."""
        needed = (r for r in self._all() if r is not self._own and not _optional(r))
        return frozenset(r.namespace for r in needed if r.namespace and r.denied)

    def ended(self) -> list[str]:
        """Threads that have ended without having been told to."""
        found = [f"reflect-{r.resource.plural}" for r in self._all() if r.ended]
        stopped = self._stop.is_set() or self._thread.ident is None or self._thread.is_alive()
        return sorted(set(found)) if stopped else sorted({*found, self._thread.name})

    def lists(self) -> int:
        """How often anything was listed."""
        return sum(r.lists for r in self._all())

    def wake_all(self) -> None:
        """Look at every run again."""
        for key in self.runs():
            self._wake(key)

    def _all(self) -> list[Reflector]:
        return [self._own, *(r for rs in list(self._reflectors.values()) for r in rs)]

    def _of(self, kind: str) -> list[Reflector]:
        return self._reflectors.get(kind, [])

    def _select(self, kind: str, namespace: str, key: Hashable) -> list[Object]:
        store = self.store(kind, namespace)
        return store.select(key) if store else []

    def _watch(self, resource: Resource) -> None:
        if resource.kind == crd.KIND:
            index, tag, labels = _named, _state, ""
        elif resource.kind == "Workload":
            index, tag, labels = _queued, _nothing, ""
        else:
            index, tag, labels = _labelled, _nothing, OURS
        hears = {"Workload": self._changed_workloads, crd.KIND: self._changed_runs, "Lease": self.owners.heard}
        changed = hears.get(resource.kind, self._changed)
        stores = [(n, Store(kinds.keep(resource), index, tag)) for n in self._namespaces]
        reflectors = [Reflector(self._client, resource, store, changed, namespace=n, labels=labels) for n, store in stores]
        with self._lock:
            if self._stop.is_set():
                return
            self._reflectors[resource.kind] = reflectors
        for reflector in reflectors:
            reflector.start()

    def _changed(self, keys: frozenset[Hashable]) -> None:
        for key in keys:
            if isinstance(key, tuple):
                self._wake((key[0], key[1]))

    def _changed_runs(self, keys: frozenset[Hashable]) -> None:
        for key in keys:
            if isinstance(key, tuple):
                self._run_changed((key[0], key[1]))

    def _changed_workloads(self, uids: frozenset[Hashable]) -> None:
        owners = [r.store for kind in QUEUED_KINDS for r in self._of(kind)]
        for uid in uids:
            for owner in (o for store in owners for o in store.select(uid)):
                self._changed(frozenset(_labelled(owner)))

    def _discover(self) -> None:
        """Start and stop the reflectors of optional kinds as the server gains and loses them."""
        asked, served, away = float("-inf"), self.served(), self.unreadable()
        while not self._stop.is_set():
            gone = any(_optional(r) and isinstance(r.failure, NotFound) for r in self._all())
            if gone or time.monotonic() - asked >= DISCOVER_S:
                asked = time.monotonic()
                try:
                    self._refresh()
                    self._discovered.set()
                except Exception as error:  # the thread must live: kinds that come later are found by nobody else
                    status = error.status if isinstance(error, ApiError) else 0
                    logs.event("discovery_failed", status=status, reason=error.reason if isinstance(error, ApiError) else type(error).__name__)
                    asked += NOTICE_S * 5 - DISCOVER_S  # try again soon
            before, away = away, self.unreadable()
            for namespace in sorted(away ^ before):
                logs.event("namespace_unreadable" if namespace in away else "namespace_readable", namespace=namespace)
            if self.served() != served or before - away:
                served = self.served()
                self.wake_all()  # a run may have waited for this kind, or hold children of it that went with it
            self._stop.wait(NOTICE_S)

    def _refresh(self) -> None:
        there = {v: self._client.served(v) for v in {r.api_version for r in (*kinds.OPTIONAL, *kinds.WORKLOADS)}}
        wanted = {r.kind: r for r in (*kinds.OPTIONAL, *reversed(kinds.WORKLOADS)) if r.kind in there[r.api_version]}
        for kind in [k for k, rs in list(self._reflectors.items()) if _optional(rs[0]) and wanted.get(k) != rs[0].resource]:
            logs.event("kind_gone", kind=kind)
            with self._lock:
                old = self._reflectors.pop(kind)
            for reflector in old:
                reflector.stop()
        for kind, resource in wanted.items():
            if kind not in self._reflectors:
                logs.event("kind_found", kind=kind, version=resource.api_version)
                self._watch(resource)


def _optional(reflector: Reflector) -> bool:
    return reflector.resource in kinds.OPTIONAL or reflector.resource in kinds.WORKLOADS


def _absent(reflector: Reflector) -> bool:
    return isinstance(reflector.failure, NotFound | Refused)


def _named(obj: Object) -> list[Hashable]:
    return [(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])]


def _labelled(obj: Object) -> list[Hashable]:
    """The run that an object's labels name, and the object's own uid."""
    meta = obj["metadata"]
    run = (meta.get("labels") or {}).get(crd.LABEL_INSTANCE)
    return [(meta.get("namespace", ""), run), meta.get("uid", "")] if run else []


def _queued(obj: Object) -> list[Hashable]:
    """The uids of what a Workload queues."""
    return [o["uid"] for o in obj["metadata"].get("ownerReferences") or () if o.get("kind") in QUEUED_KINDS]


def _state(obj: Object) -> str:
    return str((obj.get("status") or {}).get("state") or crd.PENDING)


def _nothing(obj: Object) -> str:
    return ""
