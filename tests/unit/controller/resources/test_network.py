"""Who may talk to whom, asked of the policies as a network plug-in reads them."""

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest

from ehrmind_k8s.controller.resources import network, rollout
from ehrmind_k8s.controller.resources.metadata import labels
from tests.unit.controller.resources.cases import NAMESPACE, Object, a_profile, run

Peer = str | Mapping[str, Any]  # an address, or {labels, namespace}

PODS: dict[str, Peer] = {
    role: {"labels": labels(run(), role, 1), "namespace": NAMESPACE} for role in ("prepare", "diagnose", "sft", "rlvr", "evaluate", "rollout")
}
PODS |= {
    "operator": {"labels": {"app.kubernetes.io/name": "ehrmind-operator"}, "namespace": "ehrmind-system"},
    "a pod called operator": {"labels": {"app.kubernetes.io/name": "ehrmind-operator"}, "namespace": NAMESPACE},
    "another run's trainer": {"labels": {**labels(run(), "rlvr", 1), "ehrmind.dev/run-uid": "other"}, "namespace": NAMESPACE},
    "a stranger": {"labels": {"app": "x"}, "namespace": NAMESPACE},
    "DNS": {"labels": {"k8s-app": "kube-dns"}, "namespace": "kube-system"},
    "the store": {"labels": {"app": "minio"}, "namespace": "storage"},
}


def selects(selector: Object, found: Mapping[str, str]) -> bool:
    """Whether a label selector matches; all four of its operators are not needed here."""
    expressions = all(found.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", ()) if e["operator"] == "In")
    return expressions and selector.get("matchLabels", {}).items() <= found.items()


def is_peer(rule: Object, peer: Peer) -> bool:
    """Whether one entry of `to` or `from` means this peer; rules without a namespaceSelector mean the policy's own namespace."""
    if isinstance(peer, str) or "ipBlock" in rule:
        return isinstance(peer, str) and "ipBlock" in rule and ipaddress.ip_address(peer) in ipaddress.ip_network(rule["ipBlock"]["cidr"])
    namespace = {"kubernetes.io/metadata.name": peer["namespace"]}
    there = selects(rule["namespaceSelector"], namespace) if "namespaceSelector" in rule else peer["namespace"] == NAMESPACE
    return there and selects(rule.get("podSelector", {}), peer["labels"])


def direction(policies: list[Object], pod: Peer, peer: Peer, port: int, which: str, other: str) -> bool:
    """Whether a pod may talk in one direction: yes where no policy speaks of it."""
    if isinstance(pod, str):
        return True
    mine = [p["spec"] for p in policies if pod["namespace"] == NAMESPACE and selects(p["spec"]["podSelector"], pod["labels"])]
    mine = [s for s in mine if which.capitalize() in s["policyTypes"]]
    rules = [rule for s in mine for rule in s.get(which, ())]
    return not mine or any(
        (other not in rule or any(is_peer(entry, peer) for entry in rule[other]))
        and ("ports" not in rule or any(p["port"] == port and p["protocol"] == "TCP" for p in rule["ports"]))
        for rule in rules
    )


def may(policies: list[Object], source: str, target: str, port: int) -> bool:
    """Whether a connection is let through at both ends."""
    one, two = PODS.get(source, source), PODS.get(target, target)
    return direction(policies, one, two, port, "egress", "to") and direction(policies, two, one, port, "ingress", "from")


POLICIES = network.render(run(), a_profile(), "ehrmind-system")


@pytest.mark.parametrize(
    ("source", "target", "port", "open_"),
    [
        ("rlvr", "rollout", 8000, True),
        ("evaluate", "rollout", 8000, True),
        ("diagnose", "rollout", 8000, True),
        ("diagnose", "rlvr", 29500, False),
        ("diagnose", "10.20.0.1", 8000, False),
        ("rlvr", "rollout", 22, False),
        ("sft", "rollout", 8000, False),
        ("another run's trainer", "rollout", 8000, False),
        ("a stranger", "rollout", 8000, False),
        ("operator", "rollout", 8000, False),
        ("rollout", "rlvr", 8000, False),
        ("rollout", "rollout", 8000, False),
        ("rlvr", "rlvr", 29500, True),
        ("rlvr", "rlvr", 41234, True),
        ("rlvr", "another run's trainer", 29500, False),
        ("operator", "rlvr", 9400, True),
        ("operator", "prepare", 9400, True),
        ("operator", "rlvr", 29500, False),
        ("a pod called operator", "rlvr", 9400, False),
        ("a stranger", "rlvr", 9400, False),
        ("rlvr", "DNS", 53, True),
        ("rollout", "DNS", 53, True),
        ("rlvr", "169.254.20.10", 53, True),
        ("prepare", "10.123.0.1", 7070, True),
        ("rollout", "10.123.0.1", 7070, True),
        ("prepare", "10.123.0.1", 443, False),
        ("prepare", "10.123.0.2", 7070, False),
        ("prepare", "203.0.113.7", 443, False),
        ("rlvr", "operator", 8080, False),
    ],
)
def test_who_may_talk_to_whom(source: str, target: str, port: int, open_: bool) -> None:
    assert may(POLICIES, source, target, port) == open_


@pytest.mark.parametrize(
    ("endpoint", "target", "port", "open_"),
    [
        (None, "203.0.113.7", 443, True),
        (None, "203.0.113.7", 80, False),
        ("https://s3.hospital.example", "203.0.113.7", 443, True),
        ("http://s3.hospital.example:9000", "203.0.113.7", 9000, True),
        ("http://s3.hospital.example:9000", "203.0.113.7", 443, False),
        ("https://192.0.2.7", "192.0.2.7", 443, True),
        ("https://192.0.2.7", "192.0.2.8", 443, False),
        ("http://[2001:db8::7]:9000", "2001:db8::7", 9000, True),
        ("http://minio.storage.svc:80", "the store", 9000, True),
        ("http://minio.storage.svc.cluster.local.:80", "the store", 9000, True),
        ("http://minio.storage.svc:80", "203.0.113.7", 80, False),
        ("http://minio.other.svc:80", "the store", 80, False),
        ("http://minio:9000", "a stranger", 9000, True),
        ("http://minio:9000", "203.0.113.7", 9000, False),
    ],
)
def test_the_way_to_the_store_is_no_wider_than_its_name_allows(endpoint: str | None, target: str, port: int, open_: bool) -> None:
    policies = network.render(run(), a_profile(s3={"endpoint_url": endpoint}), "ehrmind-system")
    assert may(policies, "prepare", target, port) == open_


@pytest.mark.parametrize(
    ("url", "target", "port", "open_"),
    [
        ("http://teacher.storage.svc:8000/v1", "the store", 8000, True),
        ("http://teacher.models.svc:8000/v1", "the store", 8000, False),
        ("http://169.254.169.254/v1", "169.254.169.254", 80, False),
        ("http://127.0.0.1:9000/v1", "127.0.0.1", 9000, False),
        ("http://10.20.0.1:8000/v1", "10.20.0.1", 8000, True),
        ("http://10.20.0.1:8000/v1", "10.20.0.2", 8000, False),
        ("https://llm.hospital.example/v1", "10.20.0.1", 443, True),
        ("https://llm.hospital.example/v1", "10.20.0.1", 80, False),
        ("https://llm.hospital.example/v1", "8.8.8.8", 443, False),
        ("https://8.8.8.8/v1", "8.8.8.8", 443, False),
    ],
)
def test_the_way_to_a_teacher_is_open_to_the_stage_that_asks_it_and_never_to_public_addresses(url: str, target: str, port: int, open_: bool) -> None:
    asking = run("sft.traces=teacher", f"sft.teacher.url={url}", "sft.teacher.model=m", "sft.teacher.external=true")
    policies = network.render(asking, a_profile(), "ehrmind-system")
    assert may(policies, "diagnose", target, port) == open_
    assert not may(policies, "rlvr", target, port)
    outside = network.render(asking, a_profile(egress=["8.8.8.8/32"]), "ehrmind-system")
    assert may(outside, "diagnose", "8.8.8.8", 443), "a public teacher is for the cluster's owners to open"


def test_a_profile_opens_further_addresses_and_nothing_else() -> None:
    policies = network.render(run(), a_profile(egress=["10.8.0.0/16"]), "ehrmind-system")
    assert may(policies, "prepare", "10.8.3.4", 3128)
    assert not may(policies, "prepare", "10.9.0.1", 3128)


def test_without_an_operator_nobody_reads_progress() -> None:
    policies = network.render(run(), a_profile(), operator=False)
    assert not may(policies, "operator", "rlvr", 9400)
    assert may(network.render(run(), a_profile()), "operator", "rlvr", 9400)


def test_names_do_not_meet_those_of_other_objects_of_the_kind() -> None:
    names = [p["metadata"]["name"] for p in POLICIES]
    assert len(names) == len(set(names))
    assert rollout.name(run()) in names, "a NetworkPolicy may have the name of a Service: they are of different kinds"
