"""The operator's port to the API server: what `kubeapi.Client` can, and the verbs that only an operator needs.

No call is retried here; a failed reconcile is, and a reflector begins anew.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3

from ehrmind_k8s import kubeapi
from ehrmind_k8s.kubeapi import CALL_TIMEOUT_S, Object, Resource, Unavailable
from ehrmind_k8s.kubeapi.client import lines
from ehrmind_k8s.kubeapi.errors import from_status


class Watch:
    """An open watch: iterate over (type, object); `stop` from another thread ends the iteration."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        """Raises the error of an ERROR event (Gone among them), and Unavailable when the line goes dead or breaks off within an event."""
        for line in lines(self._response):
            try:
                event = json.loads(line)
                kind, obj = event["type"], event["object"]
            except (ValueError, KeyError, TypeError) as error:
                raise Unavailable(0, type(error).__name__, "the watch said something that is no event") from None
            if kind == "ERROR":
                raise from_status(obj)
            yield kind, obj

    def stop(self) -> None:
        """End the watch. Safe at any time, also after it ended."""
        try:
            self._response.shutdown()
        except (ValueError, OSError, AttributeError):
            return  # not connected any more

    def close(self) -> None:
        """Give the connection back; for the thread that iterated."""
        self._response.close()


class Client(kubeapi.Client):
    """A connection to one API server; all methods may be called from any thread. They raise `kubeapi.ApiError` and its kinds."""

    def watch(
        self,
        resource: Resource,
        namespace: str | None,
        resource_version: str,
        *,
        labels: str = "",
        fields: str = "",
        timeout_s: int = 270,
        read_timeout_s: float = 90,
    ) -> Watch:
        """What happens from `resource_version` on, for `timeout_s`. Bookmarks come about once a minute: silence of 90 s is a dead line."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_s),
            "labelSelector": labels,
            "fieldSelector": fields,
        }
        return Watch(self.open("watch", "GET", resource.path(namespace), query, None, "", read_timeout_s))

    def replace(self, resource: Resource, body: Mapping[str, Any], *, timeout_s: float = CALL_TIMEOUT_S) -> Object:
        """Write a whole object back; Conflict when its resource version is not the newest."""
        meta = body["metadata"]
        return self.request("update", "PUT", resource.path(meta.get("namespace"), meta["name"]), body=body, timeout_s=timeout_s)

    def apply(self, resource: Resource, body: Mapping[str, Any], manager: str) -> Object:
        """Server-side apply as `manager`, by force: the fields in `body` are ours, all others are left to whoever owns them."""
        meta = body["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"])
        query = {"fieldManager": manager, "force": "true"}
        return self.request("apply", "PATCH", path, query=query, body=body, content_type="application/apply-patch+yaml")

    def patch_status(self, resource: Resource, namespace: str | None, name: str, version: str, status: Mapping[str, Any]) -> Object:
        """Make `status` the whole status of an object that is still at resource version `version`; Conflict when it is not."""
        body = [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}, {"op": "add", "path": "/status", "value": status}]
        path = resource.path(namespace, name, "status")
        return self.request("patch_status", "PATCH", path, body=body, content_type="application/json-patch+json")
