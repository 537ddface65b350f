"""The operator has every right that its code uses, and none besides. tests/cluster/test_rights.py holds the same to a real API server."""

from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.operator import LEASE
from ehrmind_k8s.controller.runtime.lease import LEASES
from tests.unit.packaging import rendered
from tests.unit.packaging.rights import APPLIED, ONCE, USED, granted


def test_every_kind_the_operator_writes_is_in_one_of_the_two_ways() -> None:
    assert {r.kind for r in (*kinds.BUILT_IN, *kinds.OPTIONAL)} == ONCE | APPLIED
    assert not ONCE & APPLIED


def test_in_namespaces_with_runs_the_operator_may_do_what_it_does_and_nothing_else() -> None:
    given = granted("ClusterRole", "ehrmind-operator-runs")
    assert (USED - given, given - USED) == (set(), set())


def test_in_its_own_namespace_it_may_lead_and_read_profiles_and_only_by_name() -> None:
    rules = rendered.pick(rendered.objects(), "Role", "ehrmind-operator")["rules"]
    named = {(rule["resources"][0], *rule["resourceNames"], v) for rule in rules if "resourceNames" in rule for v in rule["verbs"]}
    assert named == {(LEASES.plural, LEASE, v) for v in ("get", "update")} | {("configmaps", "ehrmind-profiles", v) for v in ("list", "watch")}
    assert [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in rules if "resourceNames" not in rule] == [
        ([LEASES.group], [LEASES.plural], ["create"])
    ]
