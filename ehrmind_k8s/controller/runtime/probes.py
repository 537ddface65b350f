"""The operator's HTTP server: /livez and /healthz, /readyz, /metrics. Plain HTTP, no state, nothing of a run in it."""

import socket
import socketserver
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Problems = Callable[[], Sequence[str]]


class _Server(ThreadingHTTPServer):
    """Listens on IPv6 and IPv4 alike, and asks no name server who it is, which may take longer than a probe waits."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "ehrmind-operator", self.server_address[1]


class Probes:
    """Serves until `stop`. `live` and `ready` name what is wrong (codes and kinds); nothing is 200 `ok`."""

    def __init__(self, port: int, live: Problems, ready: Problems, metrics: Callable[[], str], host: str = "") -> None:
        """Port 0 takes a free one (`port`)."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._send(200, metrics(), "text/plain; version=0.0.4; charset=utf-8")
                elif path in ("/livez", "/healthz", "/readyz"):
                    wrong = (ready if path == "/readyz" else live)()
                    self._send(503 if wrong else 200, "\n".join(wrong or ["ok"]) + "\n", "text/plain; charset=utf-8")
                else:
                    self._send(404, "known: /livez /healthz /readyz /metrics\n", "text/plain; charset=utf-8")

            def _send(self, status: int, text: str, kind: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """A probe every few seconds is no news."""

        self._server = _Server((host, port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="probes", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2)
