"""Whatever happens between an operator and a cluster, a run ends as it would have without it.

Operators die between any two writes, caches lag each in its own way, clocks are wrong, pods are killed, evicted, lost with their nodes, jobs are
deleted by hand, and people suspend, resume, scale and try again. `World` checks every write as it comes; what is left at the end is checked here.
EHRMIND_FAULTS=1 tries many more.
"""

import os
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from ehrmind_k8s import crd
from ehrmind_k8s.controller import observe
from ehrmind_k8s.controller.reconcile import reconcile
from ehrmind_k8s.controller.records import Child
from ehrmind_k8s.profile import Images, Profile
from ehrmind_k8s.spec import STAGES
from tests.unit.controller.world import JOBS, LAG_S, NAME, Object, Operator, World, an_object

EXAMPLES = 2000 if os.environ.get("EHRMIND_FAULTS") == "1" else 25
pytestmark = pytest.mark.timeout(7200)  # for the many
CHECKS = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])

Move = tuple[Any, ...]

DISTURBED = ("evict", "lose", "preempt")  # the cluster's doing, never counted
FAILED = ("kill", "oom", "unavailable", "vanish", "delete job", "delete pod")  # counted against policy.retries
PEOPLE = ("suspend", "resume", "resume", "scale up", "scale down", "edit profile")
WRONG_CLOCKS: tuple[Move, ...] = (("look", None, -90.0), ("look", None, 90.0))
CALM: tuple[Move, ...] = (
    *([("go", 1), ("go", 3), ("go", 6)] * 4),  # rounds in which nothing goes wrong, or no run would ever get far
    *([("look", None, 0.0)] * 6),
    *(("look", writes, 0.0) for writes in range(8)),
    *(("look", None, skew) for skew in (-2.0, 3.0)),
    *WRONG_CLOCKS,
    *(("see", kind) for kind in (crd.KIND, crd.KIND, "Pod", "Pod", "ConfigMap", "Deployment", *JOBS)),
    *(("tick", seconds) for seconds in (0.1, 1.0, 1.0, 1.0, 4.0, 15.0)),
    *([("restart",)] * 2),
)

SECOND: tuple[Move, ...] = (
    *([("second", "look", None, 0.0)] * 4),
    *(("second", "look", writes, 0.0) for writes in (0, 1, 2)),
    *(("second", "see", kind) for kind in (crd.KIND, "Pod", *JOBS)),
)


def moves(*others: str) -> st.SearchStrategy[list[Move]]:
    """What happens, in order: a third of it is somebody's or something's doing."""
    rare = [(name,) for name in (*PEOPLE, *others, *others) if name != "second"]
    rare += SECOND * ("second" in others)
    often = -(-len(rare) * 2 // len(CALM))
    return st.lists(st.sampled_from([*(CALM * often), *rare]), min_size=15, max_size=70)


def happen(world: World, operator: Operator, happenings: list[Move], lag_s: float = LAG_S) -> None:
    """Let it all happen, to one operator and to a second one beside it, whose caches are further behind."""
    second = Operator(world, lag_s)
    for what in happenings:
        name, *rest = what
        if name == "second":
            move(world, second, tuple(rest))
        else:
            move(world, operator, what)


def move(world: World, operator: Operator, what: Move) -> None:
    """Let one thing happen."""
    pod = world.stage_pod()
    match what:
        case ("look", writes, skew):
            operator.look(writes, skew)
        case ("see", kind):
            operator.see(kind)
        case ("go", rounds):
            for _ in range(rounds):
                operator.see()
                operator.look()
                world.tick(1.0)
        case ("tick", seconds):
            world.tick(seconds)
        case ("restart",):
            operator.restart()
        case ("suspend",):
            world.user(suspend=True)
        case ("resume",):
            world.user(suspend=False)
        case ("scale up",):
            world.user(rollout={"replicas": 3})
        case ("scale down",):
            world.user(rollout={"replicas": 1})
        case ("edit profile",):
            world.profile = world.profile.model_copy(update={"images": Images(rollout=f"rollout:{world.time}")})
        case ("cancel",):
            world.user(cancel=True)
        case ("follow",):
            world.renewed = world.time
        case ("again",):
            world.user(attempt=world.run["spec"].get("attempt", 1) + 1, cancel=False) if world.run else None
        case ("preempt",):
            world.preempt()
        case ("delete job",):
            world.delete_jobs()
        case ("evict",) if pod:
            world.end(pod, 143, "Terminated", disrupted=True)
        case ("lose",) if pod:
            world.lose_node(pod)
        case ("kill",) if pod:
            world.end(pod, 137)
        case ("oom",) if pod:
            world.end(pod, 137, how="OOMKilled")
        case ("unavailable",) if pod:
            world.end(pod, 75, "StoreUnavailable")
        case ("vanish",) if pod:
            world.end(pod, 0)
        case ("delete pod",) if pod:
            world.remove(("Pod", pod["metadata"]["name"]))


def settle(world: World, operator: Operator) -> None:
    """Nothing more happens but work, until the run has ended and nobody writes any more."""
    quiet = 0
    for _ in range(400):
        operator.see()
        before = world.writes
        decision = operator.look()
        idle = decision is not None and world.writes == before
        world.tick(max(5.0, min(decision.requeue_after_s or 60.0, 60.0)) if decision and idle else 5.0)
        ended = world.status.get("state") in (*crd.TERMINAL, crd.SUSPENDED)
        quiet = quiet + 1 if ended and idle else 0
        if quiet == 5 or decision is None:
            return
    raise AssertionError(f"not settled: {world.status.get('message')}")


def closed(schema: Object) -> Object:
    """The schema as the API server applies it: what it does not name is dropped, and would be written again for ever."""
    made = {k: v for k, v in schema.items() if not k.startswith("x-")}
    if "properties" in made:
        made["properties"] = {k: closed(v) for k, v in made["properties"].items()}
        made.setdefault("additionalProperties", False)
    if "items" in made:
        made["items"] = closed(made["items"])
    return made


SCHEMA = closed(crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"])
VALID = jsonschema.Draft7Validator(SCHEMA)


class Watcher:
    """Holds every status that is written against the one before."""

    def __init__(self, world: World, retries: int = 3) -> None:
        self.world, self.retries, self.last = world, retries, {}
        world.watchers.append(self)

    def __call__(self, status: Object) -> None:
        VALID.validate(status)
        assert len(str(status)) < 32 << 10
        stages, old = ({s["name"]: s for s in each.get("stages", [])} for each in (status, self.last))
        for name, stage in old.items():
            assert stages[name]["attempt"] >= stage["attempt"], "an attempt counts backwards"
            assert stage["state"] not in ("succeeded", "skipped") or stages[name]["state"] == stage["state"], "a success is taken back"
        assert all(s["retries"] <= self.retries for s in stages.values())
        if self.last.get("state") in crd.TERMINAL and status["attempt"] == self.last["attempt"]:
            assert status["state"] == self.last["state"], "an end is taken back"
        self.last = status


def check_suspended(world: World) -> None:
    alive = [p["metadata"]["name"] for p in world.of("Pod") if p["status"]["phase"] in ("Pending", "Running") and "lost" not in p["metadata"]]
    assert not alive and not world.of("Deployment"), f"a run that is {world.status['state']} has pods: {alive}"


CLUSTERS = {
    "pytorchjob": (Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",)), frozenset({"PyTorchJob"})),
    "trainjob": (Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",)), frozenset({"TrainJob"})),
    "queue": (Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",), queue="team"), frozenset({"PyTorchJob", "TrainJob", "Workload"})),
}


def a_world(cluster: str, **spec: Any) -> tuple[World, Operator, Watcher]:
    profile, served = CLUSTERS[cluster]
    world = World(spec={"policy": {"retries": 100}} | spec, profile=profile, served=served)
    return world, Operator(world), Watcher(world, 100)


@CHECKS
@given(st.sampled_from(sorted(CLUSTERS)), moves(*DISTURBED, *FAILED))
def test_a_disturbed_run_ends_as_an_undisturbed_one(cluster: str, happenings: list[Move]) -> None:
    world, operator, _ = a_world(cluster)
    happen(world, operator, happenings)
    world.user(suspend=False)
    settle(world, operator)
    status = world.status
    event(f"attempts: {min(20, sum(s['attempt'] for s in status['stages']))}")
    assert (status["state"], status["score"], status["message"]) == ("succeeded", 0.95, "Succeeded: accuracy 0.95 (rlvr)")
    assert [s["state"] for s in status["stages"]] == ["succeeded"] * len(STAGES)
    check_suspended(world)


@CHECKS
@given(st.sampled_from(sorted(CLUSTERS)), st.sampled_from(STAGES), moves(*DISTURBED))
def test_a_permanent_error_ends_the_run_at_its_stage(cluster: str, stage: str, happenings: list[Move]) -> None:
    world, operator, _ = a_world(cluster)
    world.ends_with = {stage: ("DataError", 10)}
    happen(world, operator, happenings)
    world.user(suspend=False)
    settle(world, operator)
    failed = next(s for s in world.status["stages"] if s["state"] == "failed")
    assert (world.status["state"], failed["name"], failed["reason"], failed["exitCode"]) == ("failed", stage, "DataError", 10)
    assert f"ehrmind logs {NAME} --of {stage}-a{failed['attempt']}" in world.status["message"]
    check_suspended(world)


@CHECKS
@given(st.integers(0, 3), moves(*DISTURBED))
def test_retries_are_paid_and_disturbances_are_not(retries: int, happenings: list[Move]) -> None:
    world, operator, watcher = a_world("pytorchjob", policy={"retries": retries})
    watcher.retries = retries
    world.ends_with = {"sft": ("StoreUnavailable", 75)}
    happen(world, operator, happenings)
    world.user(suspend=False)
    settle(world, operator)
    sft = next(s for s in world.status["stages"] if s["name"] == "sft")
    assert (world.status["state"], sft["retries"], sft["reason"]) == ("failed", retries, "StoreUnavailable")
    assert sft["attempt"] > retries


@CHECKS
@given(st.sampled_from(sorted(CLUSTERS)), moves(*DISTURBED, *FAILED, "cancel", "again", "follow"), st.booleans())
def test_ends_are_final_and_leave_no_pods(cluster: str, happenings: list[Move], suspend: bool) -> None:
    world, operator, watcher = a_world(cluster, policy={"retries": 1})
    watcher.retries = 1
    happen(world, operator, happenings)
    if suspend:
        world.user(suspend=True)
    settle(world, operator)
    event(world.status["state"])
    check_suspended(world)


@CHECKS
@given(moves(*DISTURBED, "second"), st.sampled_from([LAG_S, 60.0]))
def test_two_operators_at_once_do_no_harm(happenings: list[Move], lag_s: float) -> None:
    world, operator, _ = a_world("pytorchjob")
    happen(world, operator, happenings, lag_s)
    world.user(suspend=False)
    settle(world, operator)
    assert world.status["state"] == "succeeded"


# A second operator that sees the run anew, and its job as it was in the queue.
BEHIND: list[Move] = [
    *[("go", 1)] * 4,
    *[("go", 3)] * 4,
    ("go", 6),
    *[("look", None, 0.0)] * 4,
    ("second", "see", crd.KIND),
    ("second", "look", None, 0.0),
]


@CHECKS
@example("queue", BEHIND)
@given(st.sampled_from(sorted(CLUSTERS)), st.lists(st.sampled_from((*CALM, *SECOND)), min_size=15, max_size=70))
def test_crashes_and_late_caches_cost_no_attempt(cluster: str, happenings: list[Move]) -> None:
    world, operator, _ = a_world(cluster)
    happen(world, operator, [m for m in happenings if m not in WRONG_CLOCKS])
    settle(world, operator)
    assert [s["attempt"] for s in world.status["stages"]] == [1] * len(STAGES)
    assert len(world.made) == len(STAGES)


def json_values() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=5,
    )


def corrupted(data: st.DataObject, value: Any) -> Any:
    """A value with something else at one place in it."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 9)):
        key = data.draw(st.sampled_from(sorted(value)))
        return {**value, key: corrupted(data, value[key])}
    if isinstance(value, list) and value and data.draw(st.integers(0, 9)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], corrupted(data, value[at]), *value[at + 1 :]]
    return data.draw(json_values())


def an_odd_child(data: st.DataObject, child: Child) -> Child:
    """A child as a cluster might have it whose definitions were tampered with; labels and metadata have their shapes everywhere."""
    raw = dict(child.object)
    for part in data.draw(st.lists(st.sampled_from(["spec", "status", "data", "labels", "owner"]), max_size=2)):
        if part == "labels":
            odd = data.draw(st.sampled_from([{}, {crd.LABEL_ATTEMPT: "999999999"}, {crd.LABEL_ROLE: "sft"}, {crd.LABEL_ROLE: "?"}]))
            raw = {**raw, "metadata": {**raw["metadata"], "labels": {**raw["metadata"].get("labels", {}), **odd}}}
        elif part == "owner":
            raw = {**raw, "metadata": {**raw["metadata"], "ownerReferences": []}}
        else:
            raw = {**raw, part: corrupted(data, raw.get(part))}
    return observe.child(raw, an_object()["metadata"]["uid"])


def a_workload(uid: str) -> Object:
    condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "no quota"}
    return {"metadata": {"ownerReferences": [{"uid": uid}]}, "status": {"conditions": [condition]}}


@CHECKS
@given(st.data())
def test_any_object_gets_an_answer(data: st.DataObject) -> None:
    world, operator, _ = a_world(data.draw(st.sampled_from(sorted(CLUSTERS))))
    for _ in range(data.draw(st.integers(0, 12))):
        operator.see()
        operator.look()
        world.tick(5.0)
    run = world.run or an_object()
    for part in data.draw(st.lists(st.sampled_from(["spec", "status"]), min_size=1, max_size=4)):
        run = {**run, part: corrupted(data, run.get(part))}
    world.put(run)
    operator.see()
    operator.workloads = tuple(corrupted(data, a_workload(uid)) for uid in data.draw(st.lists(st.sampled_from(["uid-3", "uid-9"]), max_size=2)))
    snapshot = operator.snapshot()
    assert snapshot
    served = data.draw(st.sampled_from([world.served, frozenset(), frozenset({"TrainJob", "Workload"})]))
    snapshot = replace(snapshot, served=served, children=tuple(an_odd_child(data, child) for child in snapshot.children))
    decision = reconcile(snapshot, world.time)
    if decision.status is not None:
        VALID.validate(decision.status)


@pytest.mark.parametrize("cluster", sorted(CLUSTERS))
def test_an_idle_run_costs_nothing(cluster: str) -> None:
    world, operator, _ = a_world(cluster)
    settle(world, operator)
    writes, made = world.writes, len(world.events)
    for _ in range(20):
        operator.see()
        assert operator.look()
        world.tick(600.0)
    assert (world.writes, len(world.events)) == (writes, made)
    assert made <= 25
