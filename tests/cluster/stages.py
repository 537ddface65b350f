"""Simulated pods of stages end as the processes in them would: with an exit code and a report. For the control plane without its pods' work."""

import json
import threading
from typing import Any

from ehrmind_k8s import crd, kubeapi
from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.controller.runtime.reflector import Reflector
from ehrmind_k8s.controller.runtime.store import Store
from ehrmind_k8s.spec import STAGES
from tests.cluster.harness import simulated

Object = dict[str, Any]
Outcome = tuple[int, str]  # exit code, and the reason of the report
# A profile whose pods go to the simulated nodes.
PROFILE = {
    "store": "s3://bucket/{namespace}",
    "node_selector": simulated.NODE_SELECTOR,
    "tolerations": [simulated.TOLERATION],
    "images": {"pull_policy": "Never"},
}


def profiles(namespace: str) -> Object:
    """The operator's ConfigMap with this profile alone."""
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ehrmind-profiles", "namespace": namespace}}
    return head | {"data": {"default": json.dumps(PROFILE)}}


class Stages:
    """Ends the pods of all stages in a namespace, well, unless `outcomes` says something else of a (stage, attempt)."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        self.held: set[str] = set()  # stages whose pods go on
        self.ended: list[str] = []
        self._store = Store(lambda pod: pod, lambda pod: [pod["status"].get("phase")])
        labels = f"{crd.LABEL_ROLE} in ({','.join(STAGES)})"
        self._reflector = Reflector(client, kinds.POD, self._store, lambda _: None, namespace=namespace, labels=labels)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._reflector.start()
        self._thread.start()

    def stop(self) -> None:
        """End no pod any more."""
        self._stop.set()
        self._thread.join(10)
        self._reflector.stop()

    def _run(self) -> None:
        done: set[str] = set()
        while not self._stop.wait(0.05):
            for pod in self._store.select("Running"):
                uid, stage = pod["metadata"]["uid"], pod["metadata"]["labels"][crd.LABEL_ROLE]
                if uid in done or stage in self.held or "deletionTimestamp" in pod["metadata"]:
                    continue
                try:
                    self._end(pod)
                    done.add(uid)
                except kubeapi.ApiError:
                    continue  # the server is away, or the pod is gone

    def _end(self, pod: Object) -> None:
        labels = pod["metadata"]["labels"]
        stage, attempt = labels[crd.LABEL_ROLE], int(labels[crd.LABEL_ATTEMPT])
        code, reason = self.outcomes.get((stage, attempt), (0, "ok"))
        score = 0.61 if stage == "evaluate" else None
        report = {"stage": stage, "attempt": attempt, "reason": reason, "exit_code": code, "score": score, "seconds": 1.0, "headline": {}}
        now = pod["status"]["startTime"]
        # torchrun ends with 1, whatever its child ended with.
        state = {"exitCode": 1 if code else 0, "reason": "Error" if code else "Completed", "message": json.dumps(report)}
        container = {"name": pod["spec"]["containers"][0]["name"], "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        ended = container | {"state": {"terminated": state | {"startedAt": now, "finishedAt": now}}}
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [ended]}
        path = kinds.POD.path(self.namespace, pod["metadata"]["name"], "status")
        self.client.request("patch", "PATCH", path, body={"status": status}, content_type="application/merge-patch+json")
        self.ended.append(pod["metadata"]["name"])
