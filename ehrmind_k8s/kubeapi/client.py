"""Calls to one API server on plain dicts. No call is retried here; who called knows whether trying again makes sense."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import urllib3

from ehrmind_k8s.kubeapi.errors import NotFound, Unavailable, from_response

Object = dict[str, Any]

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 15.0
PAGE = 500  # objects a page of a list
CONNECTIONS = 64  # kept open, one for each watch and each worker
# How a call ends that got no answer: besides urllib3's own, sockets and files (a token that is just replaced), and half of a JSON text.
SILENCES = (urllib3.exceptions.HTTPError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API addresses it. The core group is ""."""

    group: str
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        """`apps/v1`, or `v1` in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", part: str = "") -> str:
        """Path below the server's address. Without a namespace: the kind in all namespaces, or one that has none."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return "/".join(p for p in (root, f"namespaces/{namespace}" if namespace else "", self.plural, name, part) if p)


class Client:
    """A connection to one API server; all methods may be called from any thread. They raise `errors.ApiError` and its kinds.

    `namespace` is the one that the kubeconfig's context, or the pod's account, stands in; `host` the server's address.
    """

    def __init__(
        self,
        configuration: Any,
        namespace: str = "default",
        *,
        agent: str = "ehrmind",
        told: Callable[[str, str], None] = lambda verb, code: None,
    ) -> None:
        """`configuration` is the official client's. `told` hears of every call: its verb and status code (`-` without an answer)."""
        from kubernetes.client.rest import RESTClientObject

        configuration.connection_pool_maxsize = CONNECTIONS
        if not configuration.verify_ssl:  # the kubeconfig says so; kubectl does not warn at every call either
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.namespace, self.agent, self.told = namespace, agent, told
        self.host = configuration.host.rstrip("/")
        self._configuration = configuration
        self._pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager

    def get(self, resource: Resource, namespace: str | None, name: str, *, part: str = "", timeout_s: float = CALL_TIMEOUT_S) -> Object:
        """One object, or a `part` of it (`status`, `scale`)."""
        return self.request("get", "GET", resource.path(namespace, name, part), timeout_s=timeout_s)

    def pages(self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = "") -> Iterator[tuple[list[Object], str]]:
        """All objects of a kind, up to 500 a page, each page with the list's resource version. Raises Gone when it took too long."""
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        while True:
            found = self.request("list", "GET", resource.path(namespace), query=query, timeout_s=60)
            yield found.get("items") or [], found["metadata"]["resourceVersion"]
            query["continue"] = found["metadata"].get("continue") or ""
            if not query["continue"]:
                return

    def objects(self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = "") -> list[Object]:
        """All objects of a kind, of all pages."""
        return [item for items, _ in self.pages(resource, namespace, labels=labels, fields=fields) for item in items]

    def create(self, resource: Resource, body: Mapping[str, Any], *, dry_run: bool = False, timeout_s: float = CALL_TIMEOUT_S) -> Object:
        """Make an object; AlreadyExists when its name is taken. A key that its schema does not know is Invalid, not dropped in silence."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self.request("create", "POST", resource.path(body["metadata"].get("namespace")), query=query, body=body, timeout_s=timeout_s)

    def patch(self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Merge `body` into an object: null removes a field."""
        query = {"dryRun": "All"} if dry_run else {}
        return self.request("patch", "PATCH", resource.path(namespace, name), query=query, body=body, content_type="application/merge-patch+json")

    def delete(self, resource: Resource, namespace: str | None, name: str, uid: str = "", *, grace_s: int | None = None) -> Object:
        """Delete an object, and in the background what it owns. With `uid`: only that one, Conflict when another has the name."""
        options: Object = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return self.request("delete", "DELETE", resource.path(namespace, name), body=options)

    def served(self, api_version: str) -> frozenset[str]:
        """Kinds that the server has under a group and version; none when it does not know them."""
        try:
            found = self.request("discover", "GET", f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}")
        except NotFound:
            return frozenset()
        return frozenset(r["kind"] for r in found.get("resources") or () if "/" not in r["name"])

    def request(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        content_type: str = "application/json",
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Object:
        """One call and its JSON answer. `verb` is what `told` hears."""
        response = self.open(verb, method, path, query or {}, body, content_type, timeout_s)
        try:
            answer: Object = json.loads(response.data or b"{}")
        except SILENCES as error:
            raise self._silent(error, method, path) from None
        return answer

    def lines(self, path: str, query: Mapping[str, str], *, read_timeout_s: float) -> Iterator[bytes]:
        """Lines of a text answer as they come, such as a pod's log. Raises Unavailable after `read_timeout_s` of silence."""
        response = self.open("stream", "GET", path, query, None, "", read_timeout_s)
        try:
            yield from lines(response)
        finally:
            response.close()

    def open(
        self, verb: str, method: str, path: str, query: Mapping[str, str], body: Any, content_type: str, read_timeout_s: float
    ) -> urllib3.BaseHTTPResponse:
        """The answer to one call, its body not read yet. Raises the error of any answer but 2xx."""
        response = self.send(verb, method, path, query, None if body is None else json.dumps(body).encode(), content_type, read_timeout_s)
        if 200 <= response.status < 300:
            return response
        try:
            text = response.data
        except SILENCES as error:
            raise self._silent(error, method, path) from None
        raise from_response(response.status, text, response.headers.get("retry-after"))

    def send(
        self, verb: str, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str, read_timeout_s: float
    ) -> urllib3.BaseHTTPResponse:
        """The answer to one call whatever its status, its body not read yet: of a service behind the server's proxy, whose errors are its own."""
        sent = {k: v for k, v in query.items() if v}
        try:
            response = self._pool.request(
                method,
                self.host + path + ("?" + urlencode(sent) if sent else ""),
                body=body,
                headers=self._headers(content_type if body is not None else ""),
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, read_timeout_s), read=read_timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except SILENCES as error:
            self.told(verb, "-")
            raise self._silent(error, method, path) from None
        self.told(verb, str(response.status))
        return response

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"accept": "application/json, */*", "user-agent": self.agent} | ({"content-type": content_type} if content_type else {})
        if bearer := self._configuration.auth_settings().get("BearerToken", {}).get("value"):  # reads a token that rotates from its file
            headers["authorization"] = bearer
        return headers

    def _silent(self, error: Exception, method: str, path: str) -> Unavailable:
        return Unavailable(0, type(error).__name__, f"no answer from the API server {self.host} to {method} {path} ({type(error).__name__})")


def lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Whole lines of a stream, without their ends. Raises Unavailable when the line goes dead."""
    pending = bytearray()
    try:
        for chunk in response.stream(1 << 16):
            pending += chunk
            if b"\n" in chunk:
                *whole, rest = bytes(pending).split(b"\n")
                pending = bytearray(rest)
                yield from (line for line in whole if line)
    except SILENCES as error:
        raise Unavailable(0, type(error).__name__, "the stream broke off") from None
    if pending:
        yield bytes(pending)
