"""The operator as a process: which threads there are, from start to stop.

    reflectors ----> caches ----wake(key)----> queue ----> workers: snapshot -> reconcile -> execute
    progress reader ------------wake(key)------^                       (only while this process holds the Lease)

Caches are warm in a follower too, so that it can begin at once. Losing the Lease ends the process. A write that was on its way at that moment
may still arrive; it does no harm, because every decision writes the status first, against the version it was made from. A stop lets the
workers finish what they have in hand and gives the Lease back.
"""

import contextlib
import os
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ehrmind_k8s import crd, logs
from ehrmind_k8s.controller.announcer import Announcer
from ehrmind_k8s.controller.caches import Caches, Key
from ehrmind_k8s.controller.cluster import Cluster, NotLeading, leader_of
from ehrmind_k8s.controller.meters import Meters
from ehrmind_k8s.controller.progress_reader import ProgressReader
from ehrmind_k8s.controller.records import Decision, Snapshot
from ehrmind_k8s.controller.refusals import refusal
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.controller.runtime.lease import Lease
from ehrmind_k8s.controller.runtime.probes import Probes
from ehrmind_k8s.controller.runtime.queue import Queue
from ehrmind_k8s.kubeapi import ApiError, Conflict, Invalid, NotFound, Unavailable

LEASE = "ehrmind-operator"
DEAF_S = 300.0
STUCK_S = 600.0
WORK_S = 1.5  # what a stop waits for a worker
PATIENCE_S = 1.0  # least pause before the server is asked again for what it refused or could not do
REFUSED_S = 30.0  # time-outs of a run with a refused write are looked at no oftener than this, unless it is tried again earlier
UNREADABLE_S = 30.0  # until a run is thought of again whose namespace cannot be read; it is woken when that can


@dataclass(frozen=True, slots=True)
class Options:
    """Where the operator works. `namespaces`: those of the runs it takes care of; empty means all."""

    namespace: str
    namespaces: tuple[str, ...] = ()
    profiles: str = "ehrmind-profiles"
    port: int = 8080
    workers: int = 4
    writes_per_s: float = 20.0
    burst: int = 40
    progress_port: int = 9400


class Operator:
    """Everything that runs in one operator process. `decide` is `reconcile`."""

    def __init__(
        self, client: Client, options: Options, decide: Callable[[Snapshot, float], Decision], *, lost: Callable[[], None] = lambda: os._exit(1)
    ) -> None:
        """`lost` is called when the Lease is gone: nothing of this process may write any more."""
        self.options, self._decide = options, decide
        self.identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self.meters = Meters()
        client.told = self.meters.requests.add
        self.queue: Queue[Key] = Queue(waited=self.meters.queued.observe)
        self.caches = Caches(client, options.namespaces, (options.namespace, options.profiles), self.queue.add, self._changed)
        self.progress = ProgressReader(self.queue.add, port=options.progress_port)
        self.lease = Lease(client, options.namespace, LEASE, self.identity, won=self._lead, lost=lost)
        announcer = Announcer(client, self.identity)
        rate = (options.writes_per_s, options.burst)
        self.cluster = Cluster(
            client, self.caches, announcer, namespace=options.namespace, leading=self.lease.held, rate=rate, told=self.meters.writes.add
        )
        self.probes = Probes(options.port, self._dead, self.caches.unsynced, self.meters.text)
        self._workers = [threading.Thread(target=self._work, name=f"worker-{i}", daemon=True) for i in range(options.workers)]
        self._led = threading.Event()
        self._looked: dict[Key, Any] = {}  # what of a run's object a person may change, as it was at the last look
        self._gauges()

    def start(self) -> None:
        """Watch, answer probes, and take part in the election once the caches are whole."""
        self.probes.start()
        self.caches.start()
        threading.Thread(target=self._stand, name="candidate", daemon=True).start()

    def stop(self) -> None:
        """Finish what is in hand, give the Lease back, end all threads; within 3 s."""
        end = time.monotonic() + WORK_S
        self.queue.close()
        self.progress.stop()
        for worker in self._workers if self._led.is_set() else ():
            worker.join(max(0.0, end - time.monotonic()))
        self.lease.release()
        self.probes.stop()
        self.caches.stop()

    def _stand(self) -> None:
        """A follower that knows nothing yet must not become the leader."""
        while self.caches.unsynced():
            time.sleep(0.05)
        logs.event("synced", runs=len(self.caches.runs()), served=sorted(self.caches.served()))
        self.lease.start()

    def _lead(self) -> None:
        self._led.set()
        self.caches.wake_all()
        self.progress.start()
        for worker in self._workers:
            worker.start()

    def _work(self) -> None:
        while (key := self.queue.get()) is not None:
            began = time.monotonic()
            try:
                unreadable = key[0] in self.caches.unreadable()
                if (behind := UNREADABLE_S if unreadable else self.cluster.behind_s(key)) > 0:
                    self.queue.hold(key, behind)
                    continue
                self._look(key)
            except Exception as error:  # a bug in a decision about one run must not end the work on all others
                self._failed(key, error)
            self.meters.seconds.observe(time.monotonic() - began)

    def _changed(self, key: Key) -> None:
        """A run's own object has changed. Each try of a write that is refused writes the status first: that must not bring the next one forward."""
        run = self.caches.run(key)
        if not run or not self.queue.failing(key) or self._looked.get(key) != _asked(run):
            self.queue.add(key)

    def _look(self, key: Key) -> None:
        """One look at one run: what is there, what to do, do it."""
        snapshot = self.cluster.snapshot(key, self.progress.latest(key))
        if snapshot is None:
            self.cluster.forget(key)
            self._looked.pop(key, None)
            self.progress.follow(key, None)
            self.queue.done(key)
            return
        self.progress.follow(key, leader_of(snapshot.pods))
        self._looked[key] = _asked(snapshot.run)
        decision = self._decide(snapshot, time.time())
        refused = self.cluster.execute(key, snapshot, decision)
        self.meters.reconciles.add("refused" if refused else "ok")
        if refused:
            pause = self.queue.retry(key, PATIENCE_S if snapshot.refusals else 0.0)
            if decision.requeue_after_s is not None:  # a time-out goes on, whatever is refused
                self.queue.add_after(key, max(decision.requeue_after_s, min(pause, REFUSED_S)))
            return
        self.queue.done(key)
        if snapshot.refusals:
            self.queue.add(key)  # the status still speaks of what is no longer refused
        elif decision.requeue_after_s is not None:
            self.queue.add_after(key, decision.requeue_after_s)

    def _failed(self, key: Key, error: Exception) -> None:
        """A look that did not succeed is repeated later. What is not the API server's doing is a bug and is told with where it happened."""
        away = isinstance(error, Unavailable | NotLeading)
        retry_after_s = error.retry_after_s if isinstance(error, ApiError) else None
        pause = self.queue.retry(key, retry_after_s or (PATIENCE_S if away else 0.0))
        names: dict[type[Exception], str] = {Conflict: "conflict", NotFound: "conflict", Unavailable: "unavailable", NotLeading: "unavailable"}
        # A status that may not be written: nobody's bug, and its run cannot tell. One that is Invalid is ours.
        denied = isinstance(error, ApiError) and not isinstance(error, Invalid) and refusal(error, crd.KIND, key[1])
        result = names.get(type(error), "refused" if denied else "error")
        self.meters.reconciles.add(result)
        where = traceback.extract_tb(error.__traceback__)[-1]
        fields = {"namespace": key[0], "run": key[1], "error": type(error).__name__, "again_s": round(pause, 3)}
        if isinstance(error, ApiError):
            fields |= {"status": error.status, "reason": error.reason}
        if result == "error":
            self.meters.bugs.add()
            self.meters.errors.add(type(error).__name__)
            fields |= {"file": Path(where.filename).name, "line": where.lineno}
        if result != "conflict":
            logs.event("reconcile_failed", **fields)

    def _dead(self) -> list[str]:
        """What a restart may mend."""
        stuck = [f"a worker has had one run for more than {STUCK_S:.0f} s"] if self.queue.oldest_s() > STUCK_S else []
        ended = [t.name for t in self._workers if t.ident is not None and not t.is_alive()] if not self.queue.closed else []
        ended += [*self.caches.ended(), *(name for name, part in (("lease", self.lease), ("progress", self.progress)) if part.ended)]
        deaf = [f"nothing heard of {kind} for more than {DEAF_S:.0f} s" for kind in self.caches.deaf(DEAF_S)]
        return [*deaf, *stuck, *(f"thread {name} has ended" for name in ended)]

    def _gauges(self) -> None:
        gauge = self.meters.registry.gauge
        gauge("ehrmind_leader", "1 while this process leads.", lambda: {(): float(self.lease.held())})
        gauge("ehrmind_queue_depth", "Runs that are due and wait for a worker.", lambda: {(): self.queue.depth()})
        gauge("ehrmind_runs", "Runs by state.", lambda: {(s,): n for s, n in self.caches.states().items()}, ("state",))
        gauge("ehrmind_unreadable_namespaces", "Watched namespaces that are gone or whose Role is.", lambda: {(): len(self.caches.unreadable())})
        gauge("ehrmind_cached_objects", "Objects in memory.", lambda: {(k,): n for k, n in self.caches.sizes().items()}, ("kind",))
        gauge("ehrmind_lists", "Lists since the start; each beyond one a kind followed a watch that broke.", lambda: {(): self.caches.lists()})


def _asked(run: Mapping[str, Any]) -> Any:
    """What others say of a run, as opposed to its status."""
    meta = run["metadata"]
    return meta["uid"], meta.get("generation"), meta.get("deletionTimestamp"), meta.get("labels"), meta.get("annotations")


def serve(operator: Operator, stop: threading.Event) -> None:
    """Run until `stop` is set."""
    operator.start()
    with contextlib.suppress(KeyboardInterrupt):
        stop.wait()
    logs.event("stopping")
    operator.stop()
