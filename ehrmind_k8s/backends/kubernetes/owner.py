"""The Lease by which the operator sees that somebody still follows a run that is to end with its follower (`crd.ANNOTATION_FOLLOWED`).

One follower at a time: who comes later, such as the pod that replaces a lost one, takes the Lease over, and the one before stops at its next
renewal. The times in it are for people; the operator goes by the changes.
"""

import datetime as dt
import time
from collections.abc import Callable

from ehrmind_k8s import crd, kubeapi
from ehrmind_k8s.errors import Fenced
from ehrmind_k8s.kubeapi import Client, Object, Resource

LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases")
RENEW_S = 10.0  # a twelfth of the time after which the operator gives the follower up


class Owner:
    """The follower called `identity` of the run `run`. All methods raise `kubeapi.ApiError` where the server refuses or is away."""

    def __init__(self, client: Client, namespace: str, run: str, identity: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.client, self.namespace, self.run, self.identity = client, namespace, run, identity
        self._clock = clock
        self._uid = self._version = ""
        self._due = 0.0

    @property
    def taken(self) -> bool:
        """Whether it has become the follower."""
        return bool(self._version)

    def take(self, uid: str) -> None:
        """Become the follower of the run with this uid; whoever was it before stops."""
        self._uid = uid
        body = self._lease(uid)
        try:
            found = self.client.create(LEASE, body)
        except kubeapi.AlreadyExists:
            found = self.client.patch(LEASE, self.namespace, crd.owner_lease(self.run), {k: body[k] for k in ("metadata", "spec")})
        self._renewed(found)

    def renew(self, at_once: bool = False) -> None:
        """A sign of life, if one is due or wanted `at_once`. Raises Fenced when another has taken over."""
        if self._clock() < self._due and not at_once:
            return
        name, change = crd.owner_lease(self.run), {"metadata": {"resourceVersion": self._version}, "spec": {"renewTime": _now()}}
        try:
            self._renewed(self.client.patch(LEASE, self.namespace, name, change))
        except kubeapi.NotFound:  # somebody deleted it
            self.take(self._uid)
        except kubeapi.Conflict:
            found = self.client.get(LEASE, self.namespace, name)
            if (holder := found["spec"].get("holderIdentity")) != self.identity:
                raise Fenced(f"run {self.run} is followed by {holder} now; this one stops") from None
            self._version = found["metadata"]["resourceVersion"]  # somebody has edited it; the next call renews it

    def _renewed(self, lease: Object) -> None:
        self._version, self._due = lease["metadata"]["resourceVersion"], self._clock() + RENEW_S

    def _lease(self, uid: str) -> Object:
        run = {"apiVersion": crd.API_VERSION, "kind": crd.KIND, "name": self.run, "uid": uid}
        labels = {crd.LABEL_MANAGED_BY: crd.MANAGED_BY, crd.LABEL_INSTANCE: self.run}  # by which the operator finds it
        metadata = {"name": crd.owner_lease(self.run), "namespace": self.namespace, "labels": labels, "ownerReferences": [run]}
        spec = {"holderIdentity": self.identity, "leaseDurationSeconds": int(crd.FOLLOWED_S), "acquireTime": _now(), "renewTime": _now()}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
