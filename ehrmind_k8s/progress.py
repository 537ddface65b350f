"""What a stage tells of itself without a right on the cluster or a key of the store: how far it is, and how it ended.

While it runs, its first process answers on EHRMIND_PROGRESS_PORT:

    GET /progress   {"stage": "rlvr", "attempt": 2, "done": 12, "total": 30, "unit": "step", "figures": {"reward": 0.61},
                     "waiting": "", "rollouts": {"ready": 2, "wanted": 2}}
    GET /metrics    the same numbers for Prometheus

At its end it leaves one JSON object at EHRMIND_TERMINATION_LOG, which a kubelet puts into the pod's status. Both hold numbers, codes and
names that this package chose; no text of an event gets in, so no text of a record can.
"""

import json
import math
import os
import socket
import socketserver
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ehrmind_k8s import logs

# The figures that are shown, wherever an event or `logs.figures` names them. Others stay in the log.
FIGURES: tuple[str, ...] = (
    *("loss", "reward", "reward_std", "accuracy", "validation_accuracy", "kl", "entropy", "clip_ratio", "grad_norm", "learning_rate"),
    *("completion_tokens", "tokens_per_s", "step_s", "dropped", "retries"),
)
ROLLOUTS = "rollouts"  # what a stage may wait for
TERMINATED = "Terminated"  # the reason of a stage that a signal ended
REPORT_BYTES = 4096  # what a kubelet keeps of a termination message
REQUEST_S = 5.0  # a client that says nothing holds a thread no longer
MIB = 1 << 20


class Board:
    """How far a stage is, as its events tell. Safe to use from several threads."""

    def __init__(self, stage: str, attempt: int) -> None:
        self.stage, self.attempt = stage, attempt
        self.done, self.total, self.unit, self.waiting = 0, 0, "", ""
        self.figures: dict[str, float] = {}
        self.ready = self.wanted = self._needed = 0
        self._begun = False
        self._lock = threading.Lock()

    def hear(self, name: str, fields: Mapping[str, Any]) -> None:
        """Take what an event says (`logs.listen`)."""
        with self._lock:
            match name:
                case "progress":
                    self._begun, self.waiting = True, ""
                    self.done, self.total, self.unit = fields["done"], fields["total"], fields["unit"]
                    self._add(fields)
                case "figures":
                    self._add(fields)
                case "fetch" if not self._begun:  # the work itself has not begun: a model on its way is all there is to see
                    self.done, self.total, self.unit = fields["done_bytes"] // MIB, fields["total_bytes"] // MIB, "MiB"
                case "rollout.waiting":
                    self.waiting, self._needed = ROLLOUTS, fields["needed"]
                    self._count(fields)
                case "rollout.joined" | "rollout.left" | "rollout.admitted" | "rollout.benched":
                    self._count(fields)

    def document(self) -> dict[str, Any]:
        """What /progress answers."""
        with self._lock:
            return {
                "stage": self.stage,
                "attempt": self.attempt,
                "done": self.done,
                "total": self.total,
                "unit": self.unit,
                "figures": dict(self.figures),
                "waiting": self.waiting,
                "rollouts": {"ready": self.ready, "wanted": self.wanted},
            }

    def metrics(self) -> str:
        """What /metrics answers: Prometheus text, every sample labelled with stage and attempt."""
        found = self.document()
        values: dict[str, float] = {"done": found["done"], "total": found["total"], "waiting_for_rollouts": int(found["waiting"] == ROLLOUTS)}
        values |= {f"rollouts_{name}": value for name, value in found["rollouts"].items()}
        values |= found["figures"]
        labels = f'{{stage="{self.stage}",attempt="{self.attempt}"}}'
        return "".join(f"# TYPE ehrmind_stage_{name} gauge\nehrmind_stage_{name}{labels} {value!r}\n" for name, value in values.items())

    def _add(self, fields: Mapping[str, Any]) -> None:
        self.figures |= _numbers({name: fields[name] for name in FIGURES if name in fields})

    def _count(self, fields: Mapping[str, Any]) -> None:
        self.ready, self.wanted = fields["ready"], max(fields["servers"], self._needed)
        if self.ready >= self._needed:
            self.waiting = ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def __init__(self, port: int, board: Board) -> None:
        self.board = board
        super().__init__(("", port), _Handler)  # a pod: the operator and a scraper come from outside, by IPv4 or IPv6

    def server_bind(self) -> None:
        """As the base class, which then asks a name server for the name of this address: in a closed network that takes half a minute."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One event: a client that hangs up in the middle is worth no traceback."""
        logs.event("progress.failed", reason=getattr(sys.exc_info()[0], "__name__", ""))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_S
    server_version, sys_version = "ehrmind", ""

    def do_GET(self) -> None:
        """The two documents; every other method is refused by the base class."""
        match self.path.partition("?")[0]:
            case "/progress":
                self._answer("application/json", json.dumps(self.server.board.document()))
            case "/metrics":
                self._answer("text/plain; version=0.0.4; charset=utf-8", self.server.board.metrics())
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """None: standard output carries events."""


def start(stage: str, attempt: int) -> None:
    """Serve the progress of this process where EHRMIND_PROGRESS_PORT says so. Only the first rank does; a port that is taken stops nobody."""
    port = os.environ.get("EHRMIND_PROGRESS_PORT")
    if not port or not _first():
        return
    board = Board(stage, attempt)
    logs.listen(board.hear)
    try:
        serve(board, int(port))
    except (OSError, OverflowError, ValueError) as error:
        logs.event("progress.unavailable", port=port, reason=type(error).__name__)


def serve(board: Board, port: int) -> ThreadingHTTPServer:
    """Answer with `board` from a daemon thread; port 0 takes any free one. Raises OSError where the port is taken."""
    server = _Server(port, board)
    threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
    return server


def write_report(
    stage: str, attempt: int, reason: str, exit_code: int, *, seconds: float, score: float | None = None, headline: Mapping[str, float] = {}
) -> None:
    """Leave how a stage ended at EHRMIND_TERMINATION_LOG, where that is set; the first rank alone does.

    `reason` is `ok`, `skipped`, `Terminated` or the name of an error's class; `headline` a few figures by name. In one write and at most
    4096 bytes: what a kubelet cut off would be no JSON. A report that cannot be written stops nobody.
    """
    path = os.environ.get("EHRMIND_TERMINATION_LOG")
    if not path or not _first():
        return
    told = _numbers(headline)
    while len(body := _report(stage, attempt, reason, exit_code, score, seconds, told)) > REPORT_BYTES:
        told.popitem()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)  # in place: a kubelet has mounted this very file
        try:
            os.write(descriptor, body)
        finally:
            os.close(descriptor)
    except OSError as error:
        logs.event("report.unavailable", reason=type(error).__name__)


def _report(stage: str, attempt: int, reason: str, exit_code: int, score: float | None, seconds: float, headline: Mapping[str, float]) -> bytes:
    score = score if score is not None and math.isfinite(score) else None
    report = {"stage": stage, "attempt": attempt, "reason": reason[:100], "exit_code": exit_code, "score": score, "seconds": round(seconds, 3)}
    return json.dumps(report | {"headline": headline}).encode()


def _numbers(fields: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of `fields`: JSON has no others, and text does not belong here."""
    numbers = {name: value for name, value in fields.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"
