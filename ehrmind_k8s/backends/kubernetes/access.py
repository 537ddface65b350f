"""The kinds that the command line reads and writes, and what a refusal of the API server means for the person who typed a command."""

import contextlib
from collections.abc import Iterator

from ehrmind_k8s import crd, kubeapi
from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.kubeapi import Client, Resource

RUN = Resource(crd.GROUP, crd.VERSION, crd.KIND, crd.PLURAL)
POD = Resource("", "v1", "Pod", "pods")
EVENT = Resource("", "v1", "Event", "events")
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps")

INSTALL = "install the operator: helm install ehrmind helm/ehrmind --namespace ehrmind-system --create-namespace"
LOCALLY = "--backend local (or EHRMIND_BACKEND=local) runs on this machine instead"


def connect(kubeconfig: str | None, context: str | None) -> Client:
    """A connection to the cluster. Raises SpecError saying how to name one, or how to do without."""
    try:
        return kubeapi.connect(kubeconfig, context)
    except SpecError as error:
        raise SpecError(f"{error}; {LOCALLY}") from None


@contextlib.contextmanager
def explained(client: Client, namespace: str, run: str = "") -> Iterator[None]:
    """Calls about runs: what the server refuses is raised again as what to do about it."""
    try:
        yield
    except kubeapi.Refused as error:
        if error.status == 401:
            raise SpecError(f"the API server {client.host} does not accept these credentials: log in again, or give another --context") from None
        raise SpecError(f"{error.message}; who administers the cluster grants it with the ClusterRole `edit`, or `view` to look only") from None
    except kubeapi.Invalid as error:
        if not error.causes:
            raise
        lines = "\n".join(f"  {field}: {sentence}" for field, sentence in error.causes)
        raise SpecError(f"the API server refuses the run:\n{lines}") from None
    except kubeapi.NotFound as error:
        raise SpecError(_missing(client, namespace, run, error)) from None


def _missing(client: Client, namespace: str, run: str, error: kubeapi.NotFound) -> str:
    """Why something is not there: the operator's kind, the namespace, or the run."""
    served = client.served(crd.API_VERSION)
    if crd.KIND not in served:
        return f"the cluster at {client.host} does not know {crd.KIND} ({crd.API_VERSION}); {INSTALL}"
    if not run:
        return f"{error.message}; create the namespace, or name another with --namespace"
    try:
        known = [obj["metadata"]["name"] for obj in client.objects(RUN, namespace)]
    except kubeapi.Refused:  # a node of a pipeline may not list
        known = []
    hint = nearest(run, known) if known else "it has no run at all; `ehrmind runs --all-namespaces` lists those of the cluster"
    return f"there is no run {run} in namespace {namespace} of {client.host}; {hint}; --backend local looks on this machine"
