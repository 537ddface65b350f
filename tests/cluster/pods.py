"""Pods of the harness' own tests: restricted as the operator makes them, but by hand, so that these tests say something about the cluster alone."""

from collections.abc import Mapping
from typing import Any

from tests.cluster.harness.image import SOURCE, USER

__all__ = ["SOURCE", "Object", "job", "pod", "pytorch_job", "template"]

Object = dict[str, Any]


def template(
    *command: str,
    image: str = "ehrmind:test",
    container: str = "main",
    env: Mapping[str, str] | None = None,
    node_selector: Mapping[str, str] | None = None,
) -> Object:
    """A pod template under Pod Security `restricted` with a read-only root and emptyDirs over /tmp and /work."""
    limits = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    return {
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "nodeSelector": dict(node_selector or {}),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "command": list(command),
                    "env": [{"name": name, "value": value} for name, value in {"OMP_NUM_THREADS": "1", **(env or {})}.items()],
                    "securityContext": limits,
                    "volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        }
    }


def pod(name: str, *command: str, **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, **template(*command, **more)}


def job(name: str, *command: str, **more: Any) -> Object:
    spec = {"backoffLimit": 0, "template": template(*command, **more)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def pytorch_job(name: str, workers: int, *command: str, spread: bool = False) -> Object:
    """Elastic workers only, as several training nodes are run; `spread` over nodes."""
    made = template(*command, image="ehrmind-trainer:test", container="pytorch")
    made["metadata"] = {"labels": {"app": name}}
    if spread:
        over = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
        made["spec"]["topologySpreadConstraints"] = [{**over, "labelSelector": {"matchLabels": {"app": name}}}]
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name},
        "spec": {
            "nprocPerNode": "1",
            "elasticPolicy": {"minReplicas": workers, "maxReplicas": workers, "rdzvBackend": "c10d", "maxRestarts": 0},
            "runPolicy": {"cleanPodPolicy": "Running"},
            "pytorchReplicaSpecs": {"Worker": {"replicas": workers, "restartPolicy": "Never", "template": made}},
        },
    }
