"""One leader at a time, by a Lease object: duration 15 s, renewed every 2 s, given up after 10 s without success.

Nobody's wall clock counts: a follower measures with its own monotonic clock how long the Lease has not changed, and the leader how long ago
its last successful write *began*. So the leader stops at 10 s, 5 s before anyone else may begin. A call never takes longer than the time
between two tries. On SIGTERM the Lease is handed back and the next one starts within one try.
"""

import datetime as dt
import threading
import time
from collections.abc import Callable
from typing import Any

from ehrmind_k8s import logs
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.kubeapi import AlreadyExists, ApiError, Conflict, NotFound, Resource

LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
DURATION_S, DEADLINE_S, RETRY_S = 15, 10.0, 2.0


class Lease:
    """This process's part in the election. `won` and `lost` are called once each, from its thread."""

    def __init__(self, client: Client, namespace: str, name: str, identity: str, *, won: Callable[[], None], lost: Callable[[], None]) -> None:
        self._client, self._namespace, self._name, self.identity = client, namespace, name, identity
        self._won, self._lost = won, lost
        self._seen: tuple[Any, ...] = ()  # holder, renewal and count as last read, and when that changed here
        self._seen_at = 0.0
        self._renewed = float("-inf")  # when the last successful write began
        self._stop = threading.Event()
        self.leading = False
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Take part, in a thread of its own."""
        self._thread.start()

    def held(self) -> bool:
        """Whether writing is safe now: also false in a process that slept through its deadline and has not noticed yet."""
        return self.leading and time.monotonic() - self._renewed < DEADLINE_S

    @property
    def ended(self) -> bool:
        """Whether its thread has ended without having been told to."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stop.is_set()

    def release(self) -> None:
        """Stop taking part, and hand the Lease back when it is ours. Takes 2 s at most."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(RETRY_S)
        held, self.leading = self.held(), False
        if held:
            try:
                found = self._client.get(LEASES, self._namespace, self._name, timeout_s=1)
                if (found.get("spec") or {}).get("holderIdentity") == self.identity:
                    found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                    self._client.replace(LEASES, found, timeout_s=1)
            except ApiError as error:
                logs.event("lease_not_released", status=error.status, reason=error.reason)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            held: bool | None = None  # None: not known, and what was known still counts
            try:
                held = self._try(began)
            except (AlreadyExists, Conflict, NotFound):
                pass  # somebody wrote it at the same moment: the next try reads who
            except ApiError as error:
                logs.event("lease_failed", status=error.status, reason=error.reason)
            except Exception as error:  # a thread that ended here would leave a process that looks well and never leads again
                logs.event("lease_failed", status=0, reason=type(error).__name__)
            if held:
                self._renewed = began
            if held and not self.leading:
                self.leading = True
                logs.event("leading", identity=self.identity)
                self._won()
            late = time.monotonic() - self._renewed >= DEADLINE_S
            if self.leading and (held is False or late) and not self._stop.is_set():
                self.leading = False
                logs.event("lease_lost", identity=self.identity)
                self._lost()
                return
            self._stop.wait(max(0.1, RETRY_S - (time.monotonic() - began)))

    def _try(self, now: float) -> bool:
        """Take or renew the Lease; False when another holds it."""
        try:
            found = self._client.get(LEASES, self._namespace, self._name, timeout_s=RETRY_S / 2)
        except NotFound:
            body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": self._name, "namespace": self._namespace}}
            self._client.create(LEASES, body | {"spec": self._spec({})}, timeout_s=RETRY_S / 2)
            return True
        spec = found.get("spec") or {}
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self.identity) and now - self._seen_at < float(spec.get("leaseDurationSeconds") or DURATION_S):
            return False
        found["spec"] = self._spec(spec)
        self._client.replace(LEASES, found, timeout_s=RETRY_S / 2)
        return True

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        ours = before.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION_S,
            "acquireTime": before.get("acquireTime") if ours else _now(),
            "renewTime": _now(),
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if ours else 1),
        }


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
