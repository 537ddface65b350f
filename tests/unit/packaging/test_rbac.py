"""The operator has every right that its code uses, and none besides. tests/cluster/test_chart.py holds the same to a real API server."""

from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.operator import LEASE
from ehrmind_k8s.controller.runtime.lease import LEASES
from tests.unit.packaging import rendered

Right = tuple[str, str, str]  # group, resource, verb

# Which object is written how: controller/records.py, Decision.
ONCE = {"Job", "PyTorchJob", "TrainJob", "TrainingRuntime", "ConfigMap"}
APPLIED = {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"}

WATCHED = {
    (r.group, r.plural, verb) for r in (kinds.RUN, kinds.POD, *kinds.BUILT_IN, *kinds.OPTIONAL, *kinds.WORKLOADS) for verb in ("list", "watch")
}
# cluster._create and cluster._apply, and cluster._mine when the name is taken. An apply that makes its object asks for create as well.
WRITTEN = {(r.group, r.plural, verb) for r in (*kinds.BUILT_IN, *kinds.OPTIONAL) for verb in ("get", "create", "delete")}
PATCHED = {(r.group, r.plural, "patch") for r in kinds.BUILT_IN if r.kind in APPLIED}
OWN: set[Right] = {
    (kinds.RUN.group, "ehrmindruns/status", "patch"),  # cluster._write_status
    (kinds.RUN.group, "ehrmindruns", "delete"),  # cluster._delete, for policy.ttl_s
    (kinds.RUN.group, "ehrmindruns/finalizers", "update"),  # no call: admission asks for it when a child's owner reference blocks deletion
    (kinds.EVENT.group, kinds.EVENT.plural, "create"),  # announcer
}


def rights(kind: str, name: str) -> set[Right]:
    """What a role of the chart grants, in single rights."""
    rules = rendered.pick(rendered.objects(), kind, name)["rules"]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def test_every_kind_the_operator_writes_is_in_one_of_the_two_ways() -> None:
    assert {r.kind for r in (*kinds.BUILT_IN, *kinds.OPTIONAL)} == ONCE | APPLIED
    assert not ONCE & APPLIED


def test_in_namespaces_with_runs_the_operator_may_do_what_it_does_and_nothing_else() -> None:
    granted, used = rights("ClusterRole", "ehrmind-operator-runs"), WATCHED | WRITTEN | PATCHED | OWN
    assert (used - granted, granted - used) == (set(), set())


def test_in_its_own_namespace_it_may_lead_and_read_profiles_and_only_by_name() -> None:
    rules = rendered.pick(rendered.objects(), "Role", "ehrmind-operator")["rules"]
    named = {(rule["resources"][0], *rule["resourceNames"], v) for rule in rules if "resourceNames" in rule for v in rule["verbs"]}
    assert named == {(LEASES.plural, LEASE, v) for v in ("get", "update")} | {("configmaps", "ehrmind-profiles", v) for v in ("list", "watch")}
    assert [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in rules if "resourceNames" not in rule] == [
        ([LEASES.group], [LEASES.plural], ["create"])
    ]
