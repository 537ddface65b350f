"""The kinds of objects that the operator works with, and how much of each it keeps in memory.

A rule of RBAC in the chart stands for each: runs and children are listed and watched; Leases, Events and profiles in their own ways.
"""

from collections.abc import Callable
from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.controller.runtime.lease import LEASES
from ehrmind_k8s.kubeapi import Resource

Object = dict[str, Any]

RUN = Resource(crd.GROUP, crd.VERSION, crd.KIND, crd.PLURAL)
POD = Resource("", "v1", "Pod", "pods")
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps")
EVENT = Resource("events.k8s.io", "v1", "Event", "events")

# Renewed by whoever follows a run that is to end with it.
LEASE = LEASES

# Every cluster has these.
BUILT_IN = (
    CONFIG_MAP,
    Resource("", "v1", "Service", "services"),
    Resource("apps", "v1", "Deployment", "deployments"),
    Resource("batch", "v1", "Job", "jobs"),
    Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
)
# These belong to the training operator and to Trainer, and come and go with them.
OPTIONAL = (
    Resource("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs"),
    Resource("trainer.kubeflow.org", "v1alpha1", "TrainJob", "trainjobs"),
    Resource("trainer.kubeflow.org", "v1alpha1", "TrainingRuntime", "trainingruntimes"),
)
# Kueue's, which carry no label of ours; the version that is tried first has the same fields in what we read.
WORKLOADS = (
    Resource("kueue.x-k8s.io", "v1beta1", "Workload", "workloads"),
    Resource("kueue.x-k8s.io", "v1beta2", "Workload", "workloads"),
)
SERVED = frozenset({"PyTorchJob", "TrainJob", "Workload"})  # what `Snapshot.served` speaks of
BY_KIND = {r.kind: r for r in (RUN, POD, *BUILT_IN, *OPTIONAL)}

# What of a spec nobody reads again: templates of what is created once, and Kueue's copies of them.
_DROPPED = {
    "Job": ("template",),
    "PyTorchJob": ("pytorchReplicaSpecs",),
    "TrainJob": ("runtimePatches",),
    "TrainingRuntime": ("template", "mlPolicy"),
    "Workload": ("podSets",),
}
_STATUS_DROPPED = {"Workload": ("admission", "reclaimablePods", "resourceRequests")}


def keep(resource: Resource) -> Callable[[Object], Object]:
    """What of an object of this kind stays in memory. Items of a list come without their kind: it is put back."""

    def pruned(obj: Object) -> Object:
        meta = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
        body = {k: v for k, v in obj.items() if k not in ("metadata", "spec", "status")}
        spec, status = obj.get("spec"), obj.get("status")
        if resource.kind == "Pod":
            spec = {k: v for k, v in (spec or {}).items() if k == "nodeName"}
        elif spec:
            spec = {k: v for k, v in spec.items() if k not in _DROPPED.get(resource.kind, ())}
        if status:
            status = {k: v for k, v in status.items() if k not in _STATUS_DROPPED.get(resource.kind, ())}
        parts = {k: v for k, v in (("spec", spec), ("status", status)) if v is not None}
        return {**body, **parts, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}

    return pruned
