"""A stand-in for a Kubernetes API server in front of KFP: it passes calls to the service ml-pipeline on, and keeps a few objects and logs.

Of Kubernetes no more than that: what our objects do there is tested on a real one (tests/cluster).
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ehrmind_k8s import crd
from tests.unit.backends.kfp.kfp_server import Handler, Kfp

Object = dict[str, Any]
PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:8888/proxy"


@dataclass
class Kube:
    """Objects of one namespace, logs by pod, and the KFP behind the proxy, if any."""

    kfp: Kfp | None = None
    runs: list[Object] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    refuse: Object | None = None  # Status that answers calls of the proxy
    paths: list[str] = field(default_factory=list)

    def stage(self, name: str, pipeline_run: str, stage: str, created: str, log: str, state: str = "succeeded") -> None:
        """A one-stage run with one pod, as a node of a pipeline makes it."""
        obj = crd.to_object({"task": "medcalc", "preset": "tiny", "name": name, "stages": [stage]}, "kubeflow")
        labels = {crd.LABEL_PIPELINE_RUN: pipeline_run}
        obj["metadata"] |= {"uid": f"uid-{name}", "creationTimestamp": created, "labels": labels, "resourceVersion": "1"}
        done = {"name": stage, "state": "succeeded" if state == "succeeded" else "running", "attempt": 1}
        obj["status"] = {"state": state, "stages": [done], "attempt": 1}
        self.runs.append(obj)
        pod = f"{name}-{stage}-1-x"
        labels = {crd.LABEL_ROLE: stage, crd.LABEL_ATTEMPT: "1", crd.LABEL_RUN_UID: f"uid-{name}"}
        meta = {"name": pod, "namespace": "kubeflow", "uid": pod, "creationTimestamp": created, "labels": labels}
        self.pods.append({"metadata": meta, "spec": {"containers": [{"name": "stage"}]}, "status": {"phase": "Succeeded"}})
        self.logs[pod] = log

    def answer(self, path: str, query: dict[str, list[str]]) -> Object | str:
        parts = path.split("/")
        wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", [""])[0].split(",") if "=" in pair)
        if path.endswith("/log"):
            return "".join(f"2026-11-24T10:00:{n:02}.0Z {line}\n" for n, line in enumerate(self.logs[parts[-2]].splitlines()))
        kind = self.runs if f"/{crd.PLURAL}" in path else self.pods
        if parts[-1] in (crd.PLURAL, "pods"):
            found = [o for o in kind if wanted.items() <= o["metadata"]["labels"].items()]
            return {"items": found, "metadata": {"resourceVersion": "1"}}
        return next(o for o in kind if o["metadata"]["name"] == parts[-1])


@contextlib.contextmanager
def serving(kube: Kube, folder: Path) -> Iterator[Path]:
    """Serve `kube`; gives a kubeconfig for it."""

    class Bound(Handler):
        kfp = kube.kfp or Kfp()

        def meet(self) -> None:
            kube.paths.append(self.path)
            parts = urlsplit(self.path)
            if parts.path.startswith(PROXY) and kube.kfp and kube.refuse is None:
                self.path = self.path.removeprefix(PROXY)
                super().meet()
            elif "/proxy" in parts.path:
                self.say(kube.refuse["code"], kube.refuse) if kube.refuse else self.say(404, {"kind": "Status", "code": 404, "message": "none"})
            else:
                found = kube.answer(parts.path, parse_qs(parts.query))
                BaseHTTPRequestHandler.send_response(self, 200)
                text = (found if isinstance(found, str) else json.dumps(found)).encode()
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "research"}}
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
    config = {"clusters": [cluster], "users": [{"name": "u", "user": {"token": "kube-token"}}], "contexts": [context], "current-context": "c"}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
