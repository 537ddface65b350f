"""Events that people see in `kubectl describe`: few, each once, never in the way of the work itself."""

import datetime as dt
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from ehrmind_k8s import crd, logs
from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.records import Event
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.controller.runtime.rate import Bucket
from ehrmind_k8s.kubeapi import ApiError

REPORTER = f"{crd.GROUP}/operator"
AGAIN_S = 600.0  # the same event about the same run is not written again before this
REMEMBERED = 4096
NOTE_BYTES = 1024  # the API's bound, of UTF-8
BURST_OF_A_RUN, PER_SECOND_OF_A_RUN = 25, 1 / 60


class Announcer:
    """Writes events of the group events.k8s.io. Called by several threads; one that fails or is one too many is dropped."""

    def __init__(self, client: Client, instance: str, per_s: float = 10, burst: int = 50) -> None:
        self._client, self._instance = client, instance
        self._bucket = Bucket(per_s, burst)
        self._lock = threading.Lock()
        self._last: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._runs: OrderedDict[str, Bucket] = OrderedDict()
        self.dropped = 0

    def post(self, run: Mapping[str, Any], events: Iterable[Event]) -> int:
        """Write events about a run; returns how many were written."""
        return sum(self._post(run, event) for event in events)

    def _post(self, run: Mapping[str, Any], event: Event) -> bool:
        if not self._may(run["metadata"]["uid"], event):
            return False
        try:
            self._client.create(kinds.EVENT, self._body(run, event))
        except ApiError as error:
            self.dropped += 1
            logs.event("event_failed", reason=error.reason, status=error.status)
            return False
        return True

    def _may(self, uid: str, event: Event) -> bool:
        now, key = time.monotonic(), (uid, event.type, event.reason, event.message)
        with self._lock:
            if now - self._last.get(key, float("-inf")) < AGAIN_S:
                return False
            own = self._runs.setdefault(uid, Bucket(PER_SECOND_OF_A_RUN, BURST_OF_A_RUN))
            if not own.allow() or not self._bucket.allow():
                self.dropped += 1
                return False
            self._last[key] = now
            while len(self._last) > REMEMBERED:
                self._last.popitem(last=False)
            while len(self._runs) > REMEMBERED:
                self._runs.popitem(last=False)
            return True

    def _body(self, run: Mapping[str, Any], event: Event) -> dict[str, Any]:
        meta = run["metadata"]
        regarding = {"apiVersion": crd.API_VERSION, "kind": crd.KIND, "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
        return {
            "apiVersion": kinds.EVENT.api_version,
            "kind": kinds.EVENT.kind,
            "metadata": {"name": f"{meta['name']}.{time.time_ns():x}", "namespace": meta["namespace"]},
            "eventTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": REPORTER,
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "type": event.type,
            "reason": event.reason,
            "note": event.message.encode()[:NOTE_BYTES].decode(errors="ignore"),
            "regarding": regarding,
        }
