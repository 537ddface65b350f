"""Logs of a pipeline's run: its stages are objects of the cluster with the run's id as a label, and their pods write."""

import time
from collections.abc import Callable, Iterator

from ehrmind_k8s import crd, kubeapi, plan
from ehrmind_k8s.backends.base import LogLine
from ehrmind_k8s.backends.kubernetes import access, sources
from ehrmind_k8s.backends.kubernetes.backend import KubernetesBackend
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.spec import STAGES

POLL_S = 2.0


def connect(namespace: str, context: str | None, kubeconfig: str | None, run: str, page: str) -> KubernetesBackend:
    """The cluster that the stages of `run` are in. Raises SpecError saying where else its logs are."""
    try:
        kubeapi.connect(kubeconfig, context)
    except SpecError as error:
        text = f"the logs of run {run} are in the cluster, and that needs a kubeconfig: {error}"
        raise SpecError(f"{text}; the tab Logs of a node at {page} shows them too") from None
    return KubernetesBackend(namespace, context, kubeconfig)


def read(cluster: KubernetesBackend, run_id: str, source: str | None, ended: Callable[[], bool] | None) -> Iterator[LogLine]:
    """Lines of the newest stage, or of what `source` means. With `ended`, which says whether the run has, on to the next stages.

    Raises SpecError where no such stage has begun.
    """
    if ended:
        return _following(cluster, run_id, source, ended)
    there = _objects(cluster, run_id, source)
    if not there:
        raise SpecError(
            f"{source or 'no stage'} of the run has no object in namespace {cluster.namespace} (none with {crd.LABEL_PIPELINE_RUN}={run_id});"
            " --follow waits for it, --namespace says where the run's pods are"
        )
    return cluster.logs(there[-1], source, False)


def _following(cluster: KubernetesBackend, run_id: str, source: str | None, ended: Callable[[], bool]) -> Iterator[LogLine]:
    """The logs of the newest object and of those after it, each to its end."""
    seen: set[str] = set()
    while True:
        over = ended()  # before the look, so that no object made in between is missed
        new = [name for name in _objects(cluster, run_id, source) if name not in seen]
        if not seen and source is None:
            seen |= set(new)
            new = new[-1:]
        for name in new:
            seen.add(name)
            yield from cluster.logs(name, source, True)
        if not new and over:
            return
        if not new:
            time.sleep(POLL_S)


def _objects(cluster: KubernetesBackend, run_id: str, source: str | None) -> list[str]:
    """Names of the run's objects that `source` means, oldest first."""
    with access.explained(cluster.client, cluster.namespace):
        found = cluster.client.objects(access.RUN, cluster.namespace, labels=f"{crd.LABEL_PIPELINE_RUN}={run_id}")
    found.sort(key=lambda obj: (obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]))
    if source is None:
        return [_name(obj) for obj in found]
    if of_pod := [_name(obj) for obj in found if source.startswith(f"{_name(obj)}-")]:
        return of_pod
    role = sources.parse(source, "/").role  # no run is called that, so no pod is meant
    return [_name(obj) for obj in found if _runs(obj, role)]


def _name(obj: kubeapi.Object) -> str:
    return str(obj["metadata"]["name"])


def _runs(obj: kubeapi.Object, role: str) -> bool:
    """Whether an object runs a stage; servers go with each that samples."""
    stages = (obj.get("spec") or {}).get("stages") or STAGES
    return role in stages or (role == sources.SERVERS and any(stage in plan.SAMPLES for stage in stages))
