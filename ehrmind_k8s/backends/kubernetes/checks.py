"""What a run in a cluster needs, for `ehrmind doctor`: one line each, with the fix.

A part that this user may not look at is a warning that says so.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ehrmind_k8s import __version__, crd, kubeapi
from ehrmind_k8s.backends.base import Check
from ehrmind_k8s.backends.kubernetes import access
from ehrmind_k8s.errors import EhrmindError
from ehrmind_k8s.kubeapi import Client, Resource

OPERATOR = "app.kubernetes.io/name=ehrmind-operator"  # of the Deployment that the chart installs
DEPLOYMENT = Resource("apps", "v1", "Deployment", "deployments")
NODE = Resource("", "v1", "Node", "nodes")
DEFINITION = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
QUEUES = (Resource("kueue.x-k8s.io", "v1beta2", "LocalQueue", "localqueues"), Resource("kueue.x-k8s.io", "v1beta1", "LocalQueue", "localqueues"))
TRAINERS = (("PyTorchJob", "kubeflow.org/v1"), ("TrainJob", "trainer.kubeflow.org/v1alpha1"))
TRAINER_FIX = (
    'kubectl apply --server-side -k "github.com/kubeflow/training-operator.git/manifests/overlays/standalone?ref=v1.9.4";'
    " a run is taken on once there is one"
)
# (verb, group, resource, subresource, what does not work without)
WANTED = (
    *((verb, crd.GROUP, crd.PLURAL, "", "submit") for verb in ("create", "patch")),
    *((verb, crd.GROUP, crd.PLURAL, "", "status") for verb in ("get", "list")),
    ("delete", crd.GROUP, crd.PLURAL, "", "runs delete"),
    ("list", "", "pods", "", "logs"),
    ("get", "", "pods", "", "logs"),
    ("get", "", "pods", "log", "logs"),
    ("list", "", "events", "", "submit --follow"),
    ("get", "", "configmaps", "", "submit of a run that exists"),
)


def run(namespace: str | None, context: str | None, kubeconfig: str | None) -> Iterator[Check]:
    """All checks in order; without an API server only the first."""
    try:
        client = access.connect(kubeconfig, context)
        yield _server(client)
    except EhrmindError as error:
        yield Check("api server", "fail", str(error), "check the kubeconfig and the network; kubectl version tries the same")
        return
    namespace = namespace or client.namespace
    parts: tuple[tuple[str, Callable[[Client, str], Check]], ...] = (
        ("namespace", _namespace),
        ("EHRMindRun", _definition),
        ("operator", _operator),
        ("training operator", _trainer),
        ("queues", _queues),
        ("gpu nodes", _gpus),
        ("permissions", _permissions),
    )
    for name, part in parts:
        try:
            yield part(client, namespace)
        except kubeapi.Refused as error:
            yield Check(name, "warn", f"cannot be seen with your rights ({error.message})", "ask who administers the cluster")
        except kubeapi.Unavailable as error:
            yield Check(name, "fail", str(error), "try again; the API server did not answer this one")


def _server(client: Client) -> Check:
    began = time.monotonic()
    version = client.request("get", "GET", "/version")["gitVersion"]
    took = time.monotonic() - began
    return Check("api server", "ok", f"{version} at {client.host}, {took * 1000:.0f} ms")


def _namespace(client: Client, namespace: str) -> Check:
    try:
        client.get(Resource("", "v1", "Namespace", "namespaces"), None, namespace)
    except kubeapi.NotFound:
        return Check("namespace", "fail", f"{namespace} does not exist", f"kubectl create namespace {namespace}, or --namespace names another")
    return Check("namespace", "ok", namespace)


def _definition(client: Client, namespace: str) -> Check:
    """Is the kind served, and does it know every key that this version can write?"""
    if crd.KIND not in client.served(crd.API_VERSION):
        return Check("EHRMindRun", "fail", f"{crd.API_VERSION} is not served", access.INSTALL)
    try:
        found = client.get(DEFINITION, None, f"{crd.PLURAL}.{crd.GROUP}")
    except kubeapi.Refused:
        return Check("EHRMindRun", "ok", f"{crd.API_VERSION} is served")
    missing = sorted(_keys(crd.definition()) - _keys(found))
    if missing:
        fix = f"helm upgrade to the chart of {__version__}, or use a command line of the cluster's version"
        return Check("EHRMindRun", "warn", f"{crd.API_VERSION} is served, without {', '.join(missing)}", fix)
    return Check("EHRMindRun", "ok", f"{crd.API_VERSION} is served, with all fields of {__version__}")


def _keys(definition: Mapping[str, Any]) -> set[str]:
    """Dotted names of all fields of `spec` in the version that we speak."""
    version = next((v for v in definition["spec"]["versions"] if v["name"] == crd.VERSION), None)
    return set(_names(version["schema"]["openAPIV3Schema"]["properties"]["spec"], "")) if version else set()


def _names(schema: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, inner in (schema.get("properties") or {}).items():
        yield prefix + name
        yield from _names(inner, f"{prefix}{name}.")


def _operator(client: Client, namespace: str) -> Check:
    found = client.objects(DEPLOYMENT, labels=OPERATOR)
    if not found:
        return Check("operator", "fail", "no Deployment of it in any namespace", access.INSTALL)
    deployment = found[0]
    meta, status = deployment["metadata"], deployment.get("status") or {}
    ready, wanted = status.get("readyReplicas") or 0, (deployment.get("spec") or {}).get("replicas", 1)
    version = (meta.get("labels") or {}).get("app.kubernetes.io/version", "unknown")
    text = f"{meta['namespace']}/{meta['name']} {version}, {ready} of {wanted} ready"
    if not ready:
        return Check("operator", "fail", text, f"kubectl -n {meta['namespace']} describe pods -l {OPERATOR}")
    if version not in ("unknown", __version__):
        return Check("operator", "warn", text, f"this command line is {__version__}; presets and checks may differ")
    return Check("operator", "ok", text)


def _trainer(client: Client, namespace: str) -> Check:
    there = [f"{kind} ({version})" for kind, version in TRAINERS if kind in client.served(version)]
    return Check("training operator", "ok" if there else "fail", " and ".join(there) or "none", "" if there else TRAINER_FIX)


def _queues(client: Client, namespace: str) -> Check:
    queue = next((q for q in QUEUES if q.kind in client.served(q.api_version)), None)
    if queue is None:
        return Check("queues", "ok", "no Kueue: runs start as soon as there is room")
    names = [q["metadata"]["name"] for q in client.objects(queue, namespace)]
    fix = "" if names else f"a profile or run that names a queue waits until namespace {namespace} has one"
    return Check("queues", "ok" if names else "warn", f"Kueue; LocalQueues in {namespace}: {', '.join(names) or 'none'}", fix)


def _gpus(client: Client, namespace: str) -> Check:
    total: dict[str, int] = {}
    nodes = 0
    for node in client.objects(NODE):
        gpus = {k: int(v) for k, v in ((node.get("status") or {}).get("allocatable") or {}).items() if "gpu" in k and str(v).isdigit() and int(v)}
        nodes += bool(gpus)
        for kind, count in gpus.items():
            total[kind] = total.get(kind, 0) + count
    if not total:
        return Check("gpu nodes", "warn", "none", "preset tiny runs on CPUs; the others need GPUs (and their device plugin)")
    return Check("gpu nodes", "ok", ", ".join(f"{count} {kind}" for kind, count in total.items()) + f" on {nodes} nodes")


def _permissions(client: Client, namespace: str) -> Check:
    """What this user may do, asked of the API server itself."""
    denied: dict[str, list[str]] = {}
    for verb, group, resource, part, use in WANTED:
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": part}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
        answer = client.request("create", "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
        if not (answer.get("status") or {}).get("allowed"):
            denied.setdefault(use, []).append(f"{verb} {resource}{'/' + part if part else ''}")
    if not denied:
        return Check("permissions", "ok", f"all that the command line uses in {namespace}")
    lost = "; ".join(f"{use}: {', '.join(what)}" for use, what in denied.items())
    fix = f"kubectl create rolebinding ehrmind --clusterrole=edit --user=YOU -n {namespace} (`view` to look only)"
    return Check("permissions", "fail" if "status" in denied else "warn", f"not allowed in {namespace}: {lost}", fix)
