"""A small client of the KFP API v2beta1: the calls that the command line needs, and what each refusal means for the person who typed a command.

Objects are plain dicts, with the names of the published API. Values of parameters may point to patients' data, so no message repeats one.
"""

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from ehrmind_k8s.backends.kfp.transport import HOST, Answer, Transport, Unavailable
from ehrmind_k8s.errors import EhrmindError, SpecError

Object = dict[str, Any]

ROOT = "/apis/v2beta1"
JSON = "application/json"
READ_S, UPLOAD_S = 30.0, 120.0
PAUSES_S = (0.5, 1.0, 2.0)  # before further tries of a call that may be done twice
TWICE = ("GET", "DELETE")
PAGE = 100
LONGEST = 600  # characters kept of a server's message
NEWEST = "created_at desc"


class Missing(SpecError):
    """404: the API knows no such object."""


class Conflict(SpecError):
    """409: the name is taken, or the object's state does not allow the call."""


class Api:
    """KFP as `namespace` sees it; "" where KFP has no users of its own. All methods raise SpecError, or Unavailable to try again."""

    def __init__(self, transport: Transport, namespace: str = "") -> None:
        self.transport, self.namespace = transport, namespace

    @property
    def host(self) -> str:
        """What names this KFP in a message."""
        return self.transport.host

    def page(self, path: str) -> str:
        """Address of a page for people."""
        return f"{self.transport.ui}/#{path}"

    def multi_user(self) -> bool:
        """Whether each user has a namespace; the answer shows that there is a KFP."""
        return bool(self.call("GET", "/healthz").get("multi_user"))

    def experiment(self, name: str) -> Object | None:
        """The experiment of a name, None where there is none."""
        query = {"namespace": self.namespace, "filter": equals("display_name", name)}
        return next(self._pages("/experiments", "experiments", query), None)

    def create_experiment(self, name: str) -> Object:
        """Make an experiment. Conflict when it is there."""
        body = {"display_name": name, "description": "Runs of ehrmind_k8s."} | self._owned()
        return self.call("POST", "/experiments", body=body)

    def experiments(self) -> Iterator[Object]:
        """All experiments of the namespace."""
        return self._pages("/experiments", "experiments", {"namespace": self.namespace})

    def runs(self, experiment_id: str, name: str = "") -> Iterator[Object]:
        """The runs of an experiment, or those of a name, newest first."""
        query = {"experiment_id": experiment_id, "sort_by": NEWEST} | ({"filter": equals("display_name", name)} if name else {})
        return self._pages("/runs", "runs", query)

    def run(self, run_id: str) -> Object:
        """One run, with its tasks. Missing when there is none."""
        return self.call("GET", f"/runs/{quote(run_id)}")

    def create_run(self, body: Mapping[str, Any]) -> Object:
        """Start a run."""
        return self.call("POST", "/runs", body=body)

    def retry_run(self, run_id: str) -> None:
        """Let a run that failed go on with its failed tasks."""
        self.call("POST", f"/runs/{quote(run_id)}:retry")

    def terminate_run(self, run_id: str) -> None:
        """Ask for the end of a run. SpecError when it has ended."""
        self.call("POST", f"/runs/{quote(run_id)}:terminate")

    def delete_run(self, run_id: str) -> None:
        """Forget a run."""
        self.call("DELETE", f"/runs/{quote(run_id)}")

    def pipeline(self, name: str) -> Object | None:
        """The pipeline of a name, None where there is none."""
        try:
            return self.call("GET", f"/pipelines/names/{quote(name, safe='')}", query={"namespace": self.namespace})
        except Missing:
            return None

    def create_pipeline(self, name: str, description: str) -> Object:
        """Make a pipeline without a version. Conflict when it is there."""
        return self.call("POST", "/pipelines", body={"name": name, "display_name": name, "description": description} | self._owned())

    def versions(self, pipeline_id: str) -> Iterator[Object]:
        """The versions of a pipeline, newest first."""
        return self._pages(f"/pipelines/{quote(pipeline_id)}/versions", "pipeline_versions", {"sort_by": NEWEST})

    def upload_version(self, pipeline_id: str, name: str, text: bytes) -> Object:
        """Add a compiled file as a version. Conflict when the name is there."""
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="uploadfile"; filename="pipeline.yaml"\r\nContent-Type: application/yaml\r\n\r\n'
        )
        body = head.encode() + text + f"\r\n--{boundary}--\r\n".encode()
        query = {"pipelineid": pipeline_id, "name": name, "display_name": name}
        kind = f"multipart/form-data; boundary={boundary}"
        return self.call("POST", "/pipelines/upload_version", query=query, data=body, content_type=kind, timeout_s=UPLOAD_S)

    def schedules(self, experiment_id: str) -> Iterator[Object]:
        """The recurring runs of an experiment, newest first."""
        return self._pages("/recurringruns", "recurringRuns", {"experiment_id": experiment_id, "sort_by": NEWEST})

    def create_schedule(self, body: Mapping[str, Any]) -> Object:
        """Make a recurring run."""
        return self.call("POST", "/recurringruns", body=body)

    def delete_schedule(self, schedule_id: str) -> None:
        """Delete a recurring run; runs that it has started go on."""
        self.call("DELETE", f"/recurringruns/{quote(schedule_id)}")

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        data: bytes | None = None,
        content_type: str = JSON,
        timeout_s: float = READ_S,
    ) -> Object:
        """One call and its JSON answer. What may be done twice is tried again while KFP does not answer."""
        sent = {key: value for key, value in (query or {}).items() if value}
        content = data if body is None else json.dumps(body).encode()
        pauses = list(PAUSES_S) if method in TWICE else []
        while True:
            try:
                answer = self.transport.send(method, ROOT + path, sent, content, content_type, timeout_s)
                return self._read(answer, body or {})
            except Unavailable as error:
                if not pauses:
                    again = "" if method in TWICE else "; whether it was done is not known, and the same command finds out"
                    raise Unavailable(f"{error}{again}") from None
                time.sleep(pauses.pop(0))

    def _pages(self, path: str, key: str, query: Mapping[str, str]) -> Iterator[Object]:
        """All objects of a list, page by page as they are asked for."""
        asked = {**query, "page_size": str(PAGE)}
        while True:
            found = self.call("GET", path, query=asked)
            yield from found.get(key) or ()
            if not (token := found.get("next_page_token")):
                return
            asked["page_token"] = token

    def _owned(self) -> dict[str, str]:
        return {"namespace": self.namespace} if self.namespace else {}

    def _read(self, answer: Answer, body: Mapping[str, Any]) -> Object:
        """The object of an answer; raises what any other answer means."""
        found = _parsed(answer.body)
        if 200 <= answer.status < 300 and found is not None:
            return found
        page = answer.body.lstrip()[:1] == b"<" or answer.content_type.startswith("text/html")
        if 300 <= answer.status < 400 or (page and answer.status < 300):
            raise SpecError(self._login(answer))
        if answer.status < 300:
            raise SpecError(self._stranger(answer.status))
        said = _without(body, str((found or {}).get("message") or (found or {}).get("error") or "" if not page else ""))
        raise self._refusal(answer.status, said, found is not None)

    def _login(self, answer: Answer) -> str:
        """What to do about a page instead of an answer: of a gateway that wants a login, or of another program at this address."""
        here, there = urlsplit(self.host), urlsplit(answer.location)
        if here.scheme == "http" and there.scheme == "https" and here.hostname == there.hostname:
            return f"{self.host} is answered at https:// only: {HOST}={self.host.replace('http', 'https', 1)}"
        return (
            f"{self.host} answers with a login page: {self.transport.advice()}."
            f" If no login is wanted, {HOST} is not KFP's address: behind Kubeflow's dashboard that ends in /pipeline"
        )

    def _stranger(self, status: int) -> str:
        return f"this is no KFP API (v2beta1) at {self.host} ({status}); {HOST} is its address without /apis, and KFP 2.15 or newer is wanted"

    def _refusal(self, status: int, said: str, ours: bool) -> EhrmindError:
        """The error for a status other than 2xx and 3xx. `ours`: the answer is JSON, as KFP's own are."""
        reason = f" ({said})" if said else ""
        if status == 401:
            return SpecError(f"{self.host} does not accept who we are (401){reason}: {self.transport.advice()}")
        if status == 403:
            names = (
                f"namespace {self.namespace} is not yours to use, or does not exist" if self.namespace else "--namespace names yours, if it has users"
            )
            return SpecError(f"{self.host} does not allow this (403){reason}: {names}; or {self.transport.advice()}")
        if status == 404 and ours and said and said != "Not Found":
            return Missing(f"{self.host}: {said}")
        if status in (404, 405, 501):
            return SpecError(self._stranger(status))
        if status == 409:
            return Conflict(f"{self.host}: {said or 'the name is taken'}")
        if status == 429 or status >= 500:
            return Unavailable(f"KFP at {self.host} cannot answer now ({status}){reason}")
        if "namespace" in said.lower() and not self.namespace:
            return SpecError(f"{self.host} has users of its own ({said}): --namespace names yours")
        return SpecError(f"{self.host} refuses the request ({status}): {said or 'it gives no reason'}")


def equals(key: str, value: str) -> str:
    """A filter of a list."""
    return json.dumps({"predicates": [{"key": key, "operation": "EQUALS", "string_value": value}]})


def _parsed(body: bytes) -> Object | None:
    """A JSON object, or None. An empty answer is an empty object."""
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _without(body: Mapping[str, Any], said: str) -> str:
    """A server's message in one line, without the values of the parameters that were sent."""
    text = " ".join(said.split())
    values = {str(v) for v in _leaves((body.get("runtime_config") or {}).get("parameters"))}
    for value in sorted(filter(None, values), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "…", text)
    return text[:LONGEST]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value
