"""Who of a run may talk to whom. Everything else is closed, where the cluster's network plug-in enforces NetworkPolicies.

    all pods                     ->  DNS, the S3 endpoint, the profile's `egress`
    stages that sample           ->  rollout servers, port 8000
    diagnose                     ->  a teacher on the cluster's networks (sft.teacher)
    training pods of one run    <->  each other: rendezvous and collectives choose their ports
    the operator                 ->  stages, port 9400

A NetworkPolicy names addresses and pods, not hosts. So an endpoint that is an address, or a Service of the cluster, is opened as such; one
with a public name opens its port to every address. A teacher is sent records, so its port is opened to private addresses alone: whether they
may go to a public one is for the cluster's owners to say, too, with `egress`.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from ehrmind_k8s import crd, plan
from ehrmind_k8s.controller.difference import stamped
from ehrmind_k8s.controller.resources.metadata import SHARED, Object, metadata, selector
from ehrmind_k8s.controller.resources.pod import PROGRESS_PORT, ROLLOUT_PORT
from ehrmind_k8s.crd import Run
from ehrmind_k8s.profile import Profile
from ehrmind_k8s.spec import STAGES

OPERATOR = {"app.kubernetes.io/name": "ehrmind-operator"}
NAMESPACE = "kubernetes.io/metadata.name"  # a label that the API server puts on every namespace
# DNS in any namespace, and node-local caches. OpenShift's listens on 5353.
DNS_PEERS = [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "169.254.0.0/16"}}]
DNS_PORTS = (53, 5353)
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")  # RFC 1918, 6598, 4193


def render(run: Run, profile: Profile, operator_namespace: str | None = None, operator: bool = True) -> list[Object]:
    """The NetworkPolicies of a run. Without `operator_namespace` a pod of any namespace that has the operator's label may read progress."""
    stages, samplers, trainers = _roles(run, *STAGES), _roles(run, *plan.SAMPLES), _roles(run, *plan.TRAINING)
    rollouts = {"matchLabels": selector(run, "rollout")}
    asker = {"podSelector": {"matchLabels": OPERATOR}, "namespaceSelector": _namespace(operator_namespace)}
    policies = [
        _policy(run, "closed", {"matchLabels": selector(run)}, ingress=[], egress=[_dns(), *_store(profile), *_further(profile)]),
        _policy(
            run,
            "rollout",
            rollouts,
            ingress=[{"from": [{"podSelector": samplers}], "ports": [_tcp(ROLLOUT_PORT)]}],
        ),
        _policy(run, "sampling", samplers, egress=[{"to": [{"podSelector": rollouts}], "ports": [_tcp(ROLLOUT_PORT)]}]),
        _policy(run, "training", trainers, ingress=[{"from": [{"podSelector": trainers}]}], egress=[{"to": [{"podSelector": trainers}]}]),
    ]
    if run.spec.sft.traces == "teacher":
        policies.append(_policy(run, "teacher", _roles(run, "diagnose"), egress=_host(run.spec.sft.teacher.url or "", PRIVATE)))
    if operator:
        policies.append(_policy(run, "progress", stages, ingress=[{"from": [asker], "ports": [_tcp(PROGRESS_PORT)]}]))
    return policies


def _policy(run: Run, name: str, pods: Object, **rules: list[Any]) -> Object:
    """One policy. A direction that it has rules for, or an empty list, is closed but for these."""
    spec = {"podSelector": pods, "policyTypes": [direction.capitalize() for direction in rules], **{k: v for k, v in rules.items() if v}}
    return stamped(
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(run, f"{run.name}-{name}", SHARED), "spec": spec}
    )


def _roles(run: Run, *roles: str) -> Object:
    """Selects the pods of a run in one of these roles."""
    return {"matchLabels": selector(run), "matchExpressions": [{"key": crd.LABEL_ROLE, "operator": "In", "values": list(roles)}]}


def _namespace(name: str | None) -> Object:
    return {"matchLabels": {NAMESPACE: name}} if name else {}


def _tcp(port: int) -> Object:
    return {"protocol": "TCP", "port": port}


def _dns() -> Object:
    return {"to": DNS_PEERS, "ports": [{"protocol": protocol, "port": port} for port in DNS_PORTS for protocol in ("UDP", "TCP")]}


def _further(profile: Profile) -> list[Object]:
    return [{"to": [{"ipBlock": {"cidr": cidr}} for cidr in profile.egress]}] if profile.egress else []


def _store(profile: Profile) -> list[Object]:
    """The way to the S3 endpoint."""
    return _host(profile.s3.endpoint_url or "https://")


def _host(uri: str, named: Sequence[str] = ()) -> list[Object]:
    """The way to the host of a URL. A name that is no Service may have any address, or one in the networks `named`."""
    try:
        url = urlsplit(uri)
        host, port = url.hostname or "", url.port or (80 if url.scheme == "http" else 443)
    except ValueError:  # no address, so there is no way to it
        return []
    try:
        address = ipaddress.ip_address(host)
        if named and (address.is_global or address.is_link_local or address.is_loopback):  # a node's own services and its cloud's
            return []
        return [{"to": [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}], "ports": [_tcp(port)]}]
    except ValueError:
        pass
    # A Service: policies see the port of the pod behind it, which may be another than the Service's, so none is named.
    labels = host.rstrip(".").split(".")
    if len(labels) >= 3 and labels[2] == "svc":
        return [{"to": [{"namespaceSelector": _namespace(labels[1])}]}]
    if host and len(labels) == 1:
        return [{"to": [{"podSelector": {}}]}]
    return [{**({"to": [{"ipBlock": {"cidr": cidr}} for cidr in named]} if named else {}), "ports": [_tcp(port)]}]
