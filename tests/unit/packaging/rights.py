"""What the operator's code does with each kind of object, and what the chart lets it do: the same rights, as single ones."""

from ehrmind_k8s.controller import kinds
from tests.unit.packaging import rendered

Right = tuple[str, str, str]  # group, resource, verb

# Which object is written how: controller/records.py, Decision.
ONCE = {"Job", "PyTorchJob", "TrainJob", "TrainingRuntime", "ConfigMap"}
APPLIED = {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"}
# What goes before the run does: policies/children.py, policies/rollouts.py. The rest is the garbage collector's.
DELETED = {"Job", "PyTorchJob", "TrainJob", "TrainingRuntime", "Deployment", "Service", "PodDisruptionBudget"}

WATCHED = {
    (r.group, r.plural, verb)
    for r in (kinds.RUN, kinds.POD, kinds.LEASE, *kinds.BUILT_IN, *kinds.OPTIONAL, *kinds.WORKLOADS)
    for verb in ("list", "watch")
}
# cluster._create and cluster._apply, and cluster._mine when the name is taken. An apply that makes its object asks for create as well.
WRITTEN = {(r.group, r.plural, verb) for r in (*kinds.BUILT_IN, *kinds.OPTIONAL) for verb in ("get", "create")}
REMOVED = {(r.group, r.plural, "delete") for r in (*kinds.BUILT_IN, *kinds.OPTIONAL) if r.kind in DELETED}
PATCHED = {(r.group, r.plural, "patch") for r in kinds.BUILT_IN if r.kind in APPLIED}
OWN: set[Right] = {
    (kinds.RUN.group, "ehrmindruns/status", "patch"),  # cluster._write_status
    (kinds.RUN.group, "ehrmindruns", "delete"),  # cluster._delete, for policy.ttl_s
    (kinds.RUN.group, "ehrmindruns/finalizers", "update"),  # no call: admission asks for it when a child's owner reference blocks deletion
    (kinds.EVENT.group, kinds.EVENT.plural, "create"),  # announcer
}
USED = WATCHED | WRITTEN | REMOVED | PATCHED | OWN


def granted(kind: str, name: str) -> set[Right]:
    """What a role of the chart grants, in single rights."""
    rules = rendered.pick(rendered.objects(), kind, name)["rules"]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
