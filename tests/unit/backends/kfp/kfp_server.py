"""A stand-in for the API server of Kubeflow Pipelines: it keeps objects, and refuses what the published API (v2beta1, 2.17) does not have.

No KFP can be had here, so the requests of the client are held against the API's own words: paths, query names, field names and JSON types, a
filter's form, the parameters that a pipeline declares. As the real server it answers an unknown field with 400, in the JSON of its gateway.
What a pipeline does is left to the test, which moves runs from state to state.
"""

import contextlib
import email
import email.policy
import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

Object = dict[str, Any]
EPOCH = "1970-01-01T00:00:00Z"  # what the API writes for a time that is not yet
STAGES = ("prepare", "diagnose", "sft", "rlvr", "evaluate")

# Types of fields: text, number (32 bits), int64 (a string in JSON), flag, time, any (a free object), =A|B (one of), *X (list of X), X (a shape).
RUN_STATE = "=PENDING|RUNNING|SUCCEEDED|SKIPPED|FAILED|CANCELING|CANCELED|PAUSED"
SHAPES: dict[str, dict[str, str]] = {
    "Error": {"code": "number", "message": "text", "details": "*any"},
    "Experiment": {
        **dict.fromkeys(("experiment_id", "display_name", "description", "namespace"), "text"),
        **dict.fromkeys(("created_at", "last_run_created_at"), "time"),
        "storage_state": "=AVAILABLE|ARCHIVED",
    },
    "Pipeline": {
        **dict.fromkeys(("pipeline_id", "display_name", "name", "description", "namespace"), "text"),
        "created_at": "time",
        "error": "Error",
        "tags": "any",
    },
    "Config": {"parameters": "any", "pipeline_root": "text"},
    "Reference": {"pipeline_id": "text", "pipeline_version_id": "text"},
    "Change": {"update_time": "time", "state": RUN_STATE, "error": "Error"},
    "Run": {
        **dict.fromkeys(("experiment_id", "run_id", "display_name", "description", "pipeline_version_id", "service_account"), "text"),
        **dict.fromkeys(("created_at", "scheduled_at", "finished_at"), "time"),
        **dict.fromkeys(("pipeline_spec", "run_details", "plugins_input", "plugins_output"), "any"),
        "recurring_run_id": "text",
        "storage_state": "=AVAILABLE|ARCHIVED",
        "pipeline_version_reference": "Reference",
        "runtime_config": "Config",
        "state": RUN_STATE,
        "error": "Error",
        "state_history": "*Change",
    },
    "Cron": {"start_time": "time", "end_time": "time", "cron": "text"},
    "Periodic": {"start_time": "time", "end_time": "time", "interval_second": "int64"},
    "Trigger": {"cron_schedule": "Cron", "periodic_schedule": "Periodic"},
    "RecurringRun": {
        **dict.fromkeys(("recurring_run_id", "display_name", "description", "pipeline_version_id", "service_account", "experiment_id"), "text"),
        **dict.fromkeys(("created_at", "updated_at"), "time"),
        **dict.fromkeys(("pipeline_spec", "plugins_input"), "any"),
        "pipeline_version_reference": "Reference",
        "runtime_config": "Config",
        "max_concurrency": "int64",
        "trigger": "Trigger",
        "mode": "=ENABLE|DISABLE",
        "status": "=ENABLED|DISABLED",
        "error": "Error",
        "no_catchup": "flag",
        "namespace": "text",
    },
    "Predicate": {
        "operation": "=EQUALS|NOT_EQUALS|GREATER_THAN|GREATER_THAN_EQUALS|LESS_THAN|LESS_THAN_EQUALS|IN|IS_SUBSTRING",
        "key": "text",
        "int_value": "number",
        "long_value": "int64",
        "string_value": "text",
        "timestamp_value": "time",
        **dict.fromkeys(("int_values", "long_values", "string_values"), "any"),
    },
    "Filter": {"predicates": "*Predicate"},
}
LIST = ("page_token", "page_size", "sort_by", "filter")
# What lists may be filtered and sorted by.
KEYS = {
    "experiments": ("experiment_id", "display_name", "created_at", "last_run_created_at", "description", "namespace", "storage_state"),
    "runs": ("run_id", "display_name", "created_at", "finished_at", "scheduled_at", "storage_state", "namespace", "experiment_id", "state"),
    "recurring_runs": ("recurring_run_id", "display_name", "created_at", "updated_at", "description"),
    "versions": ("pipeline_version_id", "name", "display_name", "created_at", "status", "description"),
}
# (method, path, handler, query names, shape of the body; "" for none, "file" for a form with a file)
ROUTES: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    ("GET", "/healthz", "health", (), ""),
    ("GET", "/experiments", "list_experiments", (*LIST, "namespace"), ""),
    ("POST", "/experiments", "create_experiment", (), "Experiment"),
    ("GET", "/runs", "list_runs", (*LIST, "namespace", "experiment_id"), ""),
    ("POST", "/runs", "create_run", ("experiment_id",), "Run"),
    ("GET", "/runs/{id}", "get_run", ("experiment_id",), ""),
    ("DELETE", "/runs/{id}", "delete_run", ("experiment_id",), ""),
    ("POST", "/runs/{id}:retry", "retry_run", ("experiment_id",), ""),
    ("POST", "/runs/{id}:terminate", "terminate_run", ("experiment_id",), ""),
    ("GET", "/pipelines/names/{id}", "pipeline_by_name", ("namespace",), ""),
    ("POST", "/pipelines", "create_pipeline", (), "Pipeline"),
    ("POST", "/pipelines/upload_version", "upload_version", ("name", "display_name", "pipelineid", "description", "tags", "code_source_url"), "file"),
    ("GET", "/pipelines/{id}/versions", "list_versions", LIST, ""),
    ("GET", "/recurringruns", "list_schedules", (*LIST, "namespace", "experiment_id"), ""),
    ("POST", "/recurringruns", "create_schedule", (), "RecurringRun"),
    ("DELETE", "/recurringruns/{id}", "delete_schedule", ("propagation_policy",), ""),
)
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")


class Refusal(Exception):
    """An answer other than 200: HTTP status, gRPC code, sentence."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": message, "code": code, "message": message, "details": []}


def invalid(message: str) -> Refusal:
    return Refusal(400, 3, message)


@dataclass
class Call:
    """A request that came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Object


@dataclass
class Fault:
    """What happens to the next `times` requests whose `METHOD path` holds `where`, instead of an answer or after it."""

    act: Callable[["Handler"], bool]  # whether the request is answered after all
    times: int = 1
    where: str = ""


@dataclass
class Kfp:
    """The objects, and what the server is like."""

    multi_user: bool = False
    token: str = ""  # the one that is accepted; none: nobody is asked
    page_limit: int = 200
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    experiments: list[Object] = field(default_factory=list)
    runs: list[Object] = field(default_factory=list)
    pipelines: list[Object] = field(default_factory=list)
    versions: list[Object] = field(default_factory=list)
    schedules: list[Object] = field(default_factory=list)
    address: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fail(self, act: Callable[["Handler"], bool], times: int = 1, where: str = "") -> None:
        self.faults.append(Fault(act, times, where))

    def answer(self, call: Call, path: str, raw: bytes) -> Object:
        """The object for a request of `/apis/v2beta1`. Raises Refusal."""
        for method, pattern, handler, names, shape in ROUTES:
            match = re.fullmatch(re.escape(pattern).replace(r"\{id\}", "([^/:]+)"), path)
            if match and method == call.method:
                if unknown := set(call.query) - set(names):
                    raise invalid(f"no such query parameter: {sorted(unknown)}")
                call.body = self._body(call, shape, raw)
                return getattr(self, handler)(call, *match.groups())
        raise Refusal(404, 5, "Not Found")

    def _body(self, call: Call, shape: str, raw: bytes) -> Object:
        if not shape:
            if raw not in (b"", b"{}"):
                raise invalid("a body where none is expected")
            return {}
        kind = call.headers.get("content-type", "")
        if shape == "file":
            return {"file": _file(kind, raw)}
        if kind != "application/json":
            raise invalid(f"content type {kind!r}")
        found = json.loads(raw)
        checked(found, shape, "")
        return found

    # What the API does, one method for each route.

    def health(self, call: Call) -> Object:
        return {"multi_user": self.multi_user}

    def list_experiments(self, call: Call) -> Object:
        namespace = self._namespace(call.query.get("namespace", ""))
        return self._page(call, "experiments", [e for e in self.experiments if e["namespace"] == namespace])

    def create_experiment(self, call: Call) -> Object:
        name, namespace = call.body.get("display_name", ""), self._namespace(call.body.get("namespace", ""))
        if any(e["display_name"] == name and e["namespace"] == namespace for e in self.experiments):
            raise Refusal(409, 6, f"Already exist error: Experiment {name}")
        made = {**call.body, "experiment_id": new_id(), "namespace": namespace, "created_at": now(), "storage_state": "AVAILABLE"}
        self.experiments.append(made)
        return made

    def list_runs(self, call: Call) -> Object:
        return self._page(call, "runs", self._of_experiment(call, self.runs))

    def create_run(self, call: Call) -> Object:
        if not call.body.get("display_name"):
            raise invalid("The run name is empty. Please specify a valid name")
        self._check_source(call.body)
        made = {**call.body, "run_id": new_id(), "state": "PENDING", "created_at": now(), "finished_at": EPOCH, "storage_state": "AVAILABLE"}
        made["state_history"] = [{"update_time": now(), "state": "PENDING"}]
        self.runs.append(made)
        return made

    def get_run(self, call: Call, run_id: str) -> Object:
        if found := next((r for r in self.runs if r["run_id"] == run_id), None):
            return found
        raise Refusal(404, 5, f"Failed to get a run: Run {run_id} not found.")

    def delete_run(self, call: Call, run_id: str) -> Object:
        self.runs.remove(self.get_run(call, run_id))
        return {}

    def retry_run(self, call: Call, run_id: str) -> Object:
        run = self.get_run(call, run_id)
        if run["state"] not in ("FAILED", "CANCELED"):
            raise Refusal(409, 10, f"Cannot claim run {run_id} for retry: not in a terminal state")
        self.move(run, "RUNNING")
        run["finished_at"] = EPOCH
        return {}

    def terminate_run(self, call: Call, run_id: str) -> Object:
        run = self.get_run(call, run_id)
        if run["state"] not in ("PENDING", "RUNNING", "PAUSED"):
            raise invalid(f"Failed to terminate a run {run_id}. Row not found")
        self.move(run, "CANCELING")
        return {}

    def pipeline_by_name(self, call: Call, name: str) -> Object:
        namespace = self._shared(call.query.get("namespace", ""))
        if found := next((p for p in self.pipelines if p["name"] == name and p["namespace"] == namespace), None):
            return found
        raise Refusal(404, 5, f"Failed to get a pipeline by name: Pipeline {name} not found.")

    def create_pipeline(self, call: Call) -> Object:
        name, namespace = call.body.get("name") or call.body.get("display_name", ""), self._shared(call.body.get("namespace", ""))
        if any(p["name"] == name and p["namespace"] == namespace for p in self.pipelines):
            raise Refusal(409, 6, f"Already exist error: Pipeline {name}")
        made = {**call.body, "name": name, "pipeline_id": new_id(), "namespace": namespace, "created_at": now()}
        self.pipelines.append(made)
        return made

    def upload_version(self, call: Call) -> Object:
        pipeline_id, name = call.query.get("pipelineid", ""), call.query.get("name", "")
        if not any(p["pipeline_id"] == pipeline_id for p in self.pipelines):
            raise invalid("Failed to create a pipeline version")
        if any(v["pipeline_id"] == pipeline_id and v["name"] == name for v in self.versions):
            raise Refusal(409, 6, "Failed to create a pipeline version")
        documents = list(yaml.safe_load_all(call.body["file"]))
        made = {"pipeline_id": pipeline_id, "pipeline_version_id": new_id(), "name": name, "display_name": call.query.get("display_name") or name}
        made |= {"created_at": now(), "pipeline_spec": {"pipeline_spec": documents[0], "platform_spec": documents[1]}}
        self.versions.append(made)
        return made

    def list_versions(self, call: Call, pipeline_id: str) -> Object:
        found = self._page(call, "versions", [v for v in self.versions if v["pipeline_id"] == pipeline_id])
        found["pipeline_versions"] = found.pop("versions", [])
        return found

    def list_schedules(self, call: Call) -> Object:
        found = self._page(call, "recurring_runs", self._of_experiment(call, self.schedules))
        found["recurringRuns"] = found.pop("recurring_runs", [])
        return found

    def create_schedule(self, call: Call) -> Object:
        body = call.body
        if not 1 <= int(body.get("max_concurrency", "0")) <= 10:
            raise invalid("Max concurrency of a recurring run must be at least 1 and at most 10.")
        cron = (body.get("trigger", {}).get("cron_schedule") or {}).get("cron")
        if cron and not cron.startswith("@") and len(cron.split()) != 6:
            raise invalid("Schedule cron is not a supported format")
        self._check_source(body)
        made = {**body, "recurring_run_id": new_id(), "created_at": now(), "status": "ENABLED" if body.get("mode") == "ENABLE" else "DISABLED"}
        self.schedules.append(made)
        return made

    def delete_schedule(self, call: Call, schedule_id: str) -> Object:
        found = next((s for s in self.schedules if s["recurring_run_id"] == schedule_id), None)
        if found is None:
            raise Refusal(404, 5, f"Job {schedule_id} not found.")
        self.schedules.remove(found)
        return {}

    # What a cluster would do.

    def move(self, run: Object, state: str, message: str = "") -> None:
        """A run changes its state."""
        run["state"] = state
        run["state_history"].append({"update_time": now(), "state": state})
        if state in ENDED:
            run["finished_at"] = now()
        if message:
            run["error"] = {"code": 13, "message": message}

    def node(self, run: Object, name: str, state: str, message: str = "") -> None:
        """A node of a run changes its state, and with it its executor and driver, which are nodes too."""
        details = run.setdefault("run_details", {}).setdefault("task_details", [])
        for display in (f"{name}-driver", name, "executor"):
            task = next((t for t in details if t["display_name"] == display and (display != "executor" or t["pod_name"] == name)), None)
            if task is None:
                task = {
                    "run_id": run["run_id"],
                    "task_id": new_id(),
                    "display_name": display,
                    "pod_name": name,
                    "create_time": now(),
                    "state_history": [],
                }
                details.append(task | {"start_time": EPOCH, "end_time": EPOCH})
                task = details[-1]
            task["state"] = state
            change: Object = {"update_time": now(), "state": state}
            task["state_history"].append(change | ({"error": {"message": message}} if message else {}))
            if state == "RUNNING":
                task["start_time"] = now()
            if state in ENDED:
                task["end_time"] = now()

    def _page(self, call: Call, key: str, found: list[Object]) -> Object:
        """A page of a list, filtered and sorted as the query says."""
        query = call.query
        if text := query.get("filter"):
            predicates = json.loads(text)
            checked(predicates, "Filter", "filter")
            for predicate in predicates["predicates"]:
                if predicate["key"] not in KEYS[key] or predicate["operation"] != "EQUALS":
                    raise invalid(f"no filter by {predicate['key']}")
                found = [o for o in found if o.get(predicate["key"]) == predicate["string_value"]]
        name, _, order = query.get("sort_by", "created_at").partition(" ")
        if name not in KEYS[key] or order not in ("", "asc", "desc"):
            raise invalid(f"Cannot sort on field {name}.")
        ordered = sorted(enumerate(found), key=lambda pair: (pair[1][name], pair[0]), reverse=order == "desc")
        size = min(int(query.get("page_size", "20")), self.page_limit)
        begin = int(query.get("page_token") or 0)
        page = [o for _, o in ordered][begin : begin + size]
        more = {"next_page_token": str(begin + size)} if begin + size < len(found) else {}
        return ({key: page} if page else {}) | {"total_size": len(found)} | more

    def _of_experiment(self, call: Call, found: list[Object]) -> list[Object]:
        wanted = call.query.get("experiment_id")
        if wanted and not any(e["experiment_id"] == wanted for e in self.experiments):
            raise Refusal(404, 5, f"Experiment {wanted} not found.")
        self._namespace(call.query.get("namespace", "") or ("x" if wanted else ""))
        return [o for o in found if not wanted or o["experiment_id"] == wanted]

    def _namespace(self, namespace: str) -> str:
        """With users each object is somebody's; without, namespaces are passed over."""
        if self.multi_user and not namespace:
            raise invalid("An experiment cannot have an empty namespace in multi-user mode")
        if namespace == "forbidden":
            raise Refusal(403, 7, "Failed to authorize with API: User 'me' is not authorized with reason: RBAC")
        return namespace if self.multi_user else ""

    def _shared(self, namespace: str) -> str:
        """A pipeline may be everybody's."""
        return namespace if self.multi_user else ""

    def _check_source(self, body: Object) -> None:
        """The pipeline and its parameters: what the server's template does with them."""
        if not any(e["experiment_id"] == body.get("experiment_id") for e in self.experiments):
            raise Refusal(404, 5, f"Experiment {body.get('experiment_id')} not found.")
        source = body.get("pipeline_spec") or {}
        spec = source.get("pipeline_spec", source)
        if set(source) - {"pipeline_spec", "platform_spec"} and spec is not source:
            raise invalid("unknown part of a pipeline")
        if "root" not in spec or "schemaVersion" not in spec:
            raise invalid("Failed to parse the pipeline source")
        declared = spec["root"]["inputDefinitions"]["parameters"]
        for name, value in (body.get("runtime_config", {}).get("parameters") or {}).items():
            if name not in declared:
                raise invalid(f"parameter {name} is not found in the pipeline job input definitions")
            kind = {"STRING": str, "NUMBER_INTEGER": int, "STRUCT": dict}[declared[name]["parameterType"]]
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise invalid(f"input parameter {name} requires type {kind.__name__}, but the parameter value is {value!r}")
            if value not in (declared[name].get("literals") or [value]):
                raise invalid(f'input parameter {name} has value "{value}" that is none of its literals')


def checked(value: Any, kind: str, where: str) -> None:
    """Raises Refusal where a value is not of the type that the API publishes."""
    right = {"text": str, "time": str, "int64": str, "number": int, "flag": bool, "any": dict}
    if kind.startswith("*"):
        if not isinstance(value, list):
            raise invalid(f"{where}: expected a list")
        for inner in value:
            checked(inner, kind[1:], where)
    elif kind.startswith("="):
        if value not in kind[1:].split("|"):
            raise invalid(f"invalid value for enum field {where}")
    elif kind in right:
        if not isinstance(value, right[kind]) or (kind == "int64" and not value.isdigit()):
            raise invalid(f"invalid value for {kind} field {where}")
    else:
        if not isinstance(value, dict):
            raise invalid(f"{where}: expected an object")
        for name, inner in value.items():
            if name not in SHAPES[kind]:
                raise invalid(f'proto: (line 1:2): unknown field "{name}"')
            checked(inner, SHAPES[kind][name], f"{where}.{name}".lstrip("."))


def _file(kind: str, raw: bytes) -> str:
    """The file of a form."""
    message = email.message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + raw, policy=email.policy.HTTP)
    if message.get_content_type() != "multipart/form-data":
        raise invalid(f"content type {kind!r}")
    part = next((p for p in message.iter_parts() if p.get_param("name", header="content-disposition") == "uploadfile"), None)
    if part is None or not (part.get_filename() or "").endswith((".yaml", ".yml", ".zip", ".tar.gz")):
        raise invalid("Failed to read pipeline from file")
    return str(part.get_payload(decode=True).decode())


class Handler(BaseHTTPRequestHandler):
    """HTTP in front of `kfp`."""

    kfp: Kfp
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.meet()

    def do_POST(self) -> None:
        self.meet()

    def do_DELETE(self) -> None:
        self.meet()

    def meet(self) -> None:
        """Answer a request, or do to it what a fault says."""
        kfp, parts = self.kfp, urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        call = Call(self.command, parts.path, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query))), _lower(self.headers), {})
        with kfp.lock:
            kfp.calls.append(call)
            fault = next((f for f in kfp.faults if f.times and f.where in f"{self.command} {parts.path}"), None)
            if fault:
                fault.times -= 1
        if fault and not fault.act(self):
            return
        if kfp.token and call.headers.get("authorization") != f"Bearer {kfp.token}":
            self.say(401, {"code": 16, "message": "Request header error: there is no user identity header.", "details": []})
            return
        try:
            with kfp.lock:
                root, _, path = parts.path.partition("/apis/v2beta1")
                if root:
                    raise Refusal(404, 5, "Not Found")
                found = kfp.answer(call, path, raw)
        except Refusal as refusal:
            self.say(refusal.status, refusal.body)
        else:
            self.say(200, found)

    def say(self, status: int, body: Object | str, **headers: str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8" if isinstance(body, str) else "application/json")
        self.send_header("content-length", str(len(text.encode())))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


# Faults: what `Kfp.fail` takes.


def says(status: int, body: Object | str = "", **headers: str) -> Callable[[Handler], bool]:
    def act(handler: Handler) -> bool:
        handler.say(status, body, **headers)
        return False

    return act


def cut(handler: Handler) -> bool:
    """The connection ends without an answer."""
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(2)
    return False


def slow(seconds: float) -> Callable[[Handler], bool]:
    def act(handler: Handler) -> bool:
        time.sleep(seconds)
        return cut(handler)

    return act


LOGIN = "<!DOCTYPE html><html><body><form action='/dex/auth'>Log in</form></body></html>"


def new_id() -> str:
    return str(uuid.uuid4())


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextlib.contextmanager
def serving(kfp: Kfp, tls: ssl.SSLContext | None = None) -> Iterator[Kfp]:
    """Serve `kfp` at `kfp.address`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"kfp": kfp}))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    kfp.address = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    try:
        yield kfp
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
