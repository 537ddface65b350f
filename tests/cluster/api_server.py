"""Only etcd and a kube-apiserver, as processes on loopback: real watches, conflicts, compaction and outages, in 3 s and without root.

For tests of what talks to the API and needs no pods. Whoever uses it may stop the server, change what etcd holds meanwhile, and compact it.
"""

import base64
import http.client
import json
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ehrmind_k8s import crd
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.kubeapi import Resource, connect
from tests.conftest import needs
from tests.tools import build

PROGRAMS = ("etcd", "kube-apiserver")
START_S = 60
DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
NAMESPACES = Resource("", "v1", "Namespace", "namespaces")


@dataclass
class ApiServer:
    """One that runs, or is stopped for a while. `folder` holds its data and logs."""

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.etcd_url = f"http://127.0.0.1:{_free_port()}"
        self.port = _free_port()
        self.kubeconfig = self.folder / "kubeconfig"

    def start(self) -> None:
        """Bring both up, or the API server alone when etcd still runs; returns when it serves."""
        if "etcd" not in self._running:
            (self.folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
            subprocess.run(["openssl", "genrsa", "-out", self.folder / "key", "2048"], check=True, capture_output=True)
            urls = [f"--listen-client-urls={self.etcd_url}", f"--advertise-client-urls={self.etcd_url}", "--listen-peer-urls=http://127.0.0.1:0"]
            self._spawn("etcd", "--unsafe-no-fsync", f"--data-dir={self.folder / 'etcd'}", "--log-level=error", *urls)
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers={self.etcd_url}",
            f"--cert-dir={self.folder / 'certificates'}",
            *("--bind-address=127.0.0.1", f"--secure-port={self.port}", "--endpoint-reconciler-type=none"),
            *("--authorization-mode=RBAC", f"--token-auth-file={self.folder / 'tokens.csv'}", "--service-cluster-ip-range=10.96.0.0/16"),
            *("--service-account-issuer=https://test", f"--service-account-key-file={self.folder / 'key'}"),
            f"--service-account-signing-key-file={self.folder / 'key'}",
            "--disable-admission-plugins=ServiceAccount",  # there is no controller that would make the accounts
        )
        deadline = time.monotonic() + START_S
        while not self._ready():
            if self._running["kube-apiserver"].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("kube-apiserver did not start:\n" + (self.folder / "kube-apiserver.log").read_text()[-3000:])
            time.sleep(0.05)
        self._write_kubeconfig()

    def stop(self) -> None:
        """Kill the API server as a crash does; etcd keeps what it has."""
        self._end("kube-apiserver")

    def close(self) -> None:
        """End both."""
        self._end("kube-apiserver")
        self._end("etcd")

    def client(self) -> Client:
        """A client with every right."""
        return connect(str(self.kubeconfig), make=Client)

    def compact(self) -> None:
        """Forget all history in etcd: whoever watches from an older version must list again."""
        revision = self._etcd("kv/range", {"key": _b64("a")})["header"]["revision"]
        self._etcd("kv/compaction", {"revision": revision, "physical": True})

    def remove_behind_its_back(self, key: str) -> None:
        """Delete an object in etcd, where no watch of a stopped API server sees it. `key` is like `configmaps/ns/name`."""
        self._etcd("kv/deleterange", {"key": _b64(f"/registry/{key}")})

    def _etcd(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = httpx.post(f"{self.etcd_url}/v3/{path}", json=body, timeout=10)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _ready(self) -> bool:
        # Not httpx: a handshake that fails leaves its socket to the garbage collector there, which warns, and a warning fails a test.
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=2, context=ssl._create_unverified_context())
        try:
            connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {self.token}"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _spawn(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("ab") as log:
            self._running[program] = subprocess.Popen([build.path(program), *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _end(self, program: str) -> None:
        if process := self._running.pop(program, None):
            process.kill()
            process.wait()

    def _write_kubeconfig(self) -> None:
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.folder / "certificates" / "apiserver.crt")}
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(json.dumps(body))


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """A running one that knows EHRMindRun; ended with the block."""
    for program in PROGRAMS:
        needs(program, build.GET_GO, there=build.path(program).exists())
    server = ApiServer(folder)
    try:
        server.start()
        client = server.client()
        client.create(DEFINITIONS, crd.definition())
        while crd.KIND not in client.served(crd.API_VERSION):
            time.sleep(0.05)
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
