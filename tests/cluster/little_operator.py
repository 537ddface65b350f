"""An operator that does very little for each run: one ConfigMap, one Service, a status. For tests of the runtime, which is the real one.

python -m tests.cluster.little_operator KUBECONFIG NAMESPACE        events as JSON lines; ends on SIGTERM
"""

import dataclasses
import os
import signal
import sys
import threading
from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.controller.operator import Operator, Options, serve
from ehrmind_k8s.controller.records import Decision, Event, Snapshot
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.kubeapi import connect


def child(run: Any, kind: str, api_version: str, name: str, **body: Any) -> dict[str, Any]:
    """A child of a run with the labels and the owner that every child has."""
    meta = run["metadata"]
    labels = {crd.LABEL_MANAGED_BY: crd.MANAGED_BY, crd.LABEL_INSTANCE: meta["name"], crd.LABEL_RUN_UID: meta["uid"], crd.LABEL_ROLE: "rollout"}
    owner = {
        "apiVersion": crd.API_VERSION,
        "kind": crd.KIND,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    head = {"name": name, "namespace": meta["namespace"], "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": api_version, "kind": kind, "metadata": head, **body}


def decide(snapshot: Snapshot, now: float) -> Decision:
    """Once there is a status, a ConfigMap that is made and a Service that is applied; the message lists what is there and what was refused."""
    run = snapshot.run
    name = run["metadata"]["name"]
    there = sorted(f"{c.kind}/{c.name}{'' if c.ours else ' (not ours)'}" for c in snapshot.children)
    status = {"state": "running", "observedGeneration": run["metadata"]["generation"], "message": "; ".join([*there, *snapshot.refusals])[:1024]}
    service = {"clusterIP": "None", "ports": [{"name": "http", "port": 8000}], "selector": {crd.LABEL_RUN_UID: run["metadata"]["uid"]}}
    return Decision(
        status=None if status == run.get("status") else status,
        creates=(child(run, "ConfigMap", "v1", f"{name}-spec", data={"spec.json": "{}"}, immutable=True),),
        applies=(child(run, "Service", "v1", f"{name}-rollout", spec=service),),
        events=() if run.get("status") else (Event("Normal", "Accepted", "the run is accepted"),),
    )


def options(namespace: str, **more: Any) -> Options:
    """Any free port; the rest as in production."""
    return dataclasses.replace(Options(namespace, port=0), **more)


if __name__ == "__main__":
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    serve(Operator(connect(sys.argv[1], make=Client), options(sys.argv[2]), decide), stop)
    sys.stdout.flush()
    os._exit(0)
