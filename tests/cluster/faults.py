"""What may happen to a run on a cluster: each fault is a function that injects it into a run that is training, waits until training goes on,
and returns what was seen and how long it took.

Every one begins while the run trains, so they can follow one another in one run, in any order. While a server starts, which takes as long as
dozens of steps on an idle machine, the trainer is held still once it has shown that it goes on: else the run would end before the faults do.
"""

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ehrmind_k8s import artifacts
from tests.cluster import release
from tests.cluster.harness.client import Object
from tests.cluster.observer import Event, Observer

ROLLOUT, TRAINER = "vllm", "pytorch"  # containers
FEWER = r"step .*([01]/2|[0-2]/3) rollouts"
BEGIN, END = "<!-- faults on a cluster: begin -->", "<!-- faults on a cluster: end -->"


# Joins a control group, asks to be spared, and takes memory for as long as it lives.
GREEDY = """
import sys, time
from pathlib import Path
Path(sys.argv[1]).write_text("0")
taken = []
while True:
    taken.append(bytearray(4 << 20))
    time.sleep(0.02 if len(taken) < 512 else 60)
"""


@dataclass(frozen=True)
class Row:
    """One fault: the line that the user saw, what happened, and figures."""

    fault: str
    line: str
    happened: str
    figures: str


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown."""
    head = ["| fault | what you see | what happens | measured |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *(f"| {r.fault} | `{r.line}` | {r.happened} | {r.figures} |" for r in rows)])


def insert(text: str, page: Path) -> None:
    """Put a table into its place in a page of the documentation."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


# elasticity


def scaled_up(run: Observer) -> Row:
    """`kubectl scale` from 2 to 3."""
    began = _scale(run, 3)
    run.logs("progress", began)
    _await_rollouts(run, 3)
    admitted = run.logs("rollout.admitted", began, true=lambda e: e["ready"] == 3)
    seen = run.says("3/3 rollouts", began)
    step = run.logs("progress", admitted["time"])
    figures = f"admitted {admitted['time'] - began:.0f} s after the command, of which its start is most"
    return Row("scaled from 2 to 3 rollouts", seen.message, f"the third joins in the middle; step {step['done']} samples from all three", figures)


def scaled_down(run: Observer) -> Row:
    """To 1 and back to 2."""
    began = _scale(run, 1)
    seen = run.says("1/1 rollouts", began)
    step = run.logs("progress", seen.time)
    run.until("one rollout pod", lambda: len(run.pods("rollout")) == 1)
    gone = time.time()
    back = _scale(run, 2)
    run.logs("progress", back)
    _await_rollouts(run, 2)
    admitted = run.logs("rollout.admitted", back, true=lambda e: e["ready"] == 2)
    happened = f"what was in flight goes to the one that stays; step {step['done']} is its alone"
    figures = f"pods gone after {gone - began:.0f} s; back to 2: admitted after {admitted['time'] - back:.0f} s"
    return Row("scaled from 3 to 1 and back to 2", seen.message, happened, figures)


def _scale(run: Observer, replicas: int) -> float:
    now = time.time()
    run.cluster.kubectl("scale", f"ehr/{run.name}", f"--replicas={replicas}", namespace=run.namespace)
    return now


# rollout servers


def rollout_killed_generating(run: Observer) -> Row:
    """SIGKILL to everything in a server's container while it holds groups of a step."""
    pod, pids = _a_server(run)
    step = _next_issue(run)
    began = _kill(pids, signal.SIGKILL)
    benched = run.logs("rollout.benched", began, true=_of(pod))
    done = run.logs("progress", began, true=lambda e: e["done"] >= step)
    seen = run.says(FEWER, began)
    happened = f"its groups of step {step} are sampled again elsewhere, none is lost"
    figures = f"re-routed after {benched['time'] - began:.1f} s; the step was trained {done['time'] - began:.0f} s after the kill"
    return Row("a rollout pod is killed while it generates", seen.message, happened, figures)


def rollout_killed_syncing(run: Observer) -> Row:
    """SIGKILL to a server that has been told to fetch a policy and has not finished: it is held still in the middle, so that this is certain."""
    for _ in range(20):
        pod, pids = _a_server(run)
        version = _next_policy(run)
        held = _kill(pids, signal.SIGSTOP)
        time.sleep(2)
        if not any(e["event"] == "rollout.admitted" and e["policy"] == version and _of(pod)(e) for e in run.events):
            break
        _kill(pids, signal.SIGCONT)  # it was faster: with the next version, then
    began = _kill(pids, signal.SIGKILL)
    benched = run.logs("rollout.benched", began, true=_of(pod))
    assert not any(e["event"] == "rollout.admitted" and e["policy"] == version and _of(pod)(e) and e["time"] < began for e in run.events)
    done = run.logs("progress", held)
    seen = run.says(FEWER, began)
    happened = f"the others go on with policy `{version}`; it gets no work before it has the current one and passes its canary"
    figures = f"noticed after {benched['time'] - began:.1f} s; the next step was trained after {done['time'] - began:.0f} s"
    return Row("a rollout pod is killed while it syncs", seen.message, happened, figures)


def all_rollouts_killed(run: Observer) -> Row:
    """All rollout pods are deleted at once, without a grace."""
    _await_rollouts(run, 2)
    step = run.logs("progress", time.time())["done"]
    began = time.time()
    names = [p["metadata"]["name"] for p in run.pods("rollout")]
    run.cluster.kubectl("delete", "pods", *names, "--grace-period=0", "--force", "--wait=false", namespace=run.namespace)
    seen = run.says(r"0/2 rollouts|0 of 2 ready", began)
    admitted = run.logs("rollout.admitted", began + 5)
    done = run.logs("progress", admitted["time"])
    assert not any(name in [p["metadata"]["name"] for p in run.pods("rollout")] for name in names)
    happened = f"after step {step} the trainer waits, at most `rollout.wait_s`; no step is lost"
    figures = f"a new server is admitted after {admitted['time'] - began:.0f} s, step {done['done']} trained after {done['time'] - began:.0f} s"
    return Row("all rollout pods at once", seen.message, happened, figures)


def _a_server(run: Observer) -> tuple[Object, list[int]]:
    """A ready server that the trainer has admitted while another one is, too, and its processes."""
    _await_rollouts(run, 2)
    run.until("two admitted rollouts", lambda: (e := _newest(run, "rollout.admitted")) and e["ready"] >= 2 and len(_ready(run)) >= 2)
    pod = _ready(run)[0]
    return pod, run.cluster.pids(pod["metadata"]["name"], namespace=run.namespace, container=ROLLOUT)


def _await_rollouts(run: Observer, count: int) -> None:
    """Returns when so many servers are ready. The trainer is held still meanwhile, and then goes on as if no time had passed."""
    if len(_ready(run)) >= count:
        return
    pids = run.cluster.pids(_trainer(run)[0], namespace=run.namespace, container=TRAINER)
    _kill(pids, signal.SIGSTOP)
    try:
        run.until(f"{count} ready rollouts", lambda: len(_ready(run)) >= count)
    finally:
        _kill(pids, signal.SIGCONT)


def _ready(run: Observer) -> list[Object]:
    def ready(pod: Object) -> bool:
        conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
        return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]

    return [p for p in run.pods("rollout") if ready(p)]


def _newest(run: Observer, event: str) -> Event | None:
    return next((e for e in reversed(run.events) if e["event"] == event), None)


def _of(pod: Object) -> Callable[[Event], bool]:
    return lambda e: f"//{pod['status']['podIP']}:" in e["server"]


def _kill(pids: list[int], number: int) -> float:
    now = time.time()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return now


def _next_issue(run: Observer) -> int:
    """Returns as soon as the prompts of a next step have gone out; the step."""
    store, attempt = run.store("rlvr"), run.last.stage("rlvr")["attempt"]
    step = int(run.logs("progress", time.time(), true=lambda e: e["attempt"] == attempt)["done"]) + 1
    run.until(f"issue of step {step}", lambda: store.head(artifacts.ledger_key(step, attempt)))
    return step


def _next_policy(run: Observer) -> str:
    """Returns as soon as the next version is published, which is when the servers are told; its name."""
    store, attempt = run.store("rlvr"), run.last.stage("rlvr")["attempt"]
    step = int(run.logs("progress", time.time(), true=lambda e: e["attempt"] == attempt)["done"])
    name = f"v{step}-a{attempt}"
    run.until(f"policy {name}", lambda: store.head(f"{artifacts.policy_key(name)}/{artifacts.MANIFEST}"))
    return name


# the trainer


def trainer_killed(run: Observer) -> Row:
    """SIGKILL to everything in its container."""
    pod, before = _trainer(run)
    began = time.time()
    run.cluster.kill_pod_processes(pod, namespace=run.namespace, container=TRAINER)
    seen = run.says("the trainer was killed; retry", began)
    return Row("the trainer is killed (SIGKILL)", seen.message, *_again(run, before, began, "Killed"))


def trainer_out_of_memory(run: Observer) -> Row:
    """Something else in its container takes what its memory limit leaves, and the kernel ends the largest process."""
    pod, before = _trainer(run)
    groups = run.cluster.cgroups(pod, namespace=run.namespace, container=TRAINER)
    memory = next(g for g in groups if (g / "memory.limit_in_bytes").exists() or (g / "memory.max").exists())
    limit, usage = ("memory.max", "memory.current") if (memory / "memory.max").exists() else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    began = time.time()
    for process in (memory / "cgroup.procs").read_text().split():  # they are to be ended, not what we add
        Path(f"/proc/{process}/oom_score_adj").write_text("1000")
    (memory / limit).write_text(str(int((memory / usage).read_text()) + (32 << 20)))
    with subprocess.Popen([sys.executable, "-c", GREEDY, str(memory / "cgroup.procs")]) as greedy:
        try:
            seen = run.says("the trainer was OOM-killed; retry", began)
        finally:
            greedy.kill()
    return Row("the trainer is out of memory", seen.message, *_again(run, before, seen.time, "OOMKilled"))


def trainer_evicted(run: Observer) -> Row:
    """Through the eviction API, as a drain of its node does."""
    pod, before = _trainer(run)
    began = time.time()
    review = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": run.namespace}}
    path = f"/api/v1/namespaces/{run.namespace}/pods/{pod}/eviction"
    run.cluster.kubectl("create", "--raw", path, "--filename=-", given=json.dumps(review))
    seen = run.says("the trainer was preempted or evicted", began)
    return Row("the trainer's pod is evicted", seen.message, *_again(run, before, began, "Preempted", saved=True))


def trainer_deleted(run: Observer) -> Row:
    """`kubectl delete pod`."""
    pod, before = _trainer(run)
    began = time.time()
    run.cluster.delete("pod", pod, namespace=run.namespace)
    seen = run.says(r"RLVR attempt \d+ in", began)
    return Row("the trainer's pod is deleted", seen.message, *_again(run, before, began, "", saved=True))


def _trainer(run: Observer) -> tuple[str, Object]:
    """Name of the pod that trains, and its stage as the status has it. A checkpoint is behind it, and a step of its own."""
    before = run.until("a running trainer", lambda: (s := run.last.stage("rlvr")).get("state") == "running" and s)
    run.logs("progress", time.time() - 120, true=lambda e: e["attempt"] == before["attempt"])
    return f"{run.name}-rlvr-{before['attempt']}-master-0", before


def _again(run: Observer, before: Object, began: float, reason: str, *, saved: bool = False) -> tuple[str, str]:
    """Waits until the next attempt has trained a step. `saved`: the one before was told to end, so not even its last step is lost."""
    attempt = run.logs("rlvr.start", began, true=lambda e: e["attempt"] > before["attempt"])
    step = run.logs("progress", attempt["time"], true=lambda e: e["attempt"] == attempt["attempt"])
    last = max(e["done"] for e in run.events if e["event"] == "progress" and e["attempt"] == before["attempt"])
    lost = last - attempt["from_step"]
    assert lost <= 0 if saved else lost >= 0, f"continued at {attempt['from_step']} after {last}"
    after = run.until(
        "the status of its successor", lambda: (s := run.last.stage("rlvr")).get("state") == "running" and s["attempt"] == attempt["attempt"] and s
    )
    reasons = {s.stage("rlvr").get("reason") for s in [*run.seen] if s.time >= began and s.stage("rlvr").get("state") == "pending"}
    assert not reason or reason in reasons, reasons
    assert after["retries"] - before["retries"] >= (reason not in ("Preempted", "NodeLost", "Suspended", "")), (before, after)
    started = _started(run, attempt["attempt"])
    kept = (
        "no step is lost"
        if not lost
        else f"{lost} step{'s' * (lost > 1)} after its last checkpoint {'are' if lost > 1 else 'is'} voided and done again"
    )
    happened = f"attempt {attempt['attempt']} goes on from step {attempt['from_step']}; {kept}; retries {before['retries']} -> {after['retries']}"
    figures = f"its pod started after {started - began:.0f} s, and had trained a step {step['time'] - started:.0f} s later"
    return happened, figures


def _started(run: Observer, attempt: int) -> float:
    """When the container of an attempt started (Unix seconds)."""
    pod = run.cluster.get("pod", f"{run.name}-rlvr-{attempt}-master-0", namespace=run.namespace)
    state = pod["status"]["containerStatuses"][0]["state"]
    return dt.datetime.fromisoformat((state.get("running") or state["terminated"])["startedAt"]).timestamp()


# the operator, the store


def operator_killed(run: Observer) -> Row:
    """SIGKILL, and its pod is deleted; another takes over once the Lease has run out."""
    _, before = _trainer(run)
    run.says(r"RLVR step", time.time() - 60)
    began = time.time()
    names = [p["metadata"]["name"] for p in run.cluster.items("pods", namespace=release.SYSTEM)]
    for name in names:  # so that it does not give its Lease back
        run.cluster.kill_pod_processes(name, namespace=release.SYSTEM)
    run.cluster.kubectl("delete", "pods", *names, "--grace-period=0", "--force", "--wait=false", namespace=release.SYSTEM)
    seen = run.says(r"RLVR step", began + 1)
    after = run.last.stage("rlvr")
    assert (after["attempt"], after["child"]) == (before["attempt"], before["child"])
    steps = sum(e["event"] == "progress" and began < e["time"] < seen.time for e in run.events)
    return Row(
        "the operator is killed",
        seen.message,
        f"training does not notice ({steps} steps meanwhile)",
        f"status written again after {seen.time - began:.0f} s",
    )


def store_stopped(run: Observer, seconds: float) -> Row:
    """S3 is away for a while, from the middle of a step on. (Between a new policy and its sync, the trainer waits for its servers instead.)"""
    _, before = _trainer(run)
    _next_issue(run)
    began = time.time()
    run.cluster.stop("s3")
    seen = run.says("the object store did not answer or refused", began)
    time.sleep(max(0.0, began + seconds - time.time()))
    run.cluster.start_again("s3")
    back = time.time()
    happened, figures = _again(run, before, began, "StoreUnavailable")
    return Row(f"S3 is stopped for {back - began:.0f} s", seen.message, happened, figures)


# everything


def suspended(run: Observer) -> Row:
    """`ehrmind suspend`, then `ehrmind resume`."""
    _, before = _trainer(run)
    began, gone, seen = _suspend(run)
    resumed = time.time()
    run.ehrmind("resume", run.name)
    happened, figures = _again(run, before, resumed, "", saved=True)
    assert run.last.stage("rlvr")["retries"] == before["retries"]
    return Row("suspended, then resumed", seen, happened, f"all pods gone {gone - began:.0f} s after the command; resumed: {figures}")


def node_lost(run: Observer, stays: str, goes: str) -> Row:
    """Trainer and rollouts are on a node that is lost from one moment to the next."""
    _suspend(run)
    run.cluster.kubectl("cordon", stays)
    resumed = time.time()
    run.ehrmind("resume", run.name)
    run.logs("progress", resumed)
    _, before = _trainer(run)
    assert {p["spec"]["nodeName"] for p in run.pods() if p["status"]["phase"] == "Running"} == {goes}
    began = time.time()
    run.cluster.lose_node(goes)
    run.cluster.kubectl("uncordon", stays)
    # Kubernetes evicts the pods of a node that is away; whether the job or the pod says so first decides which of the two words is used.
    seen = run.says("its node does not answer|was preempted or evicted", began, timeout_s=600)
    reason = "NodeLost" if "does not answer" in seen.message else "Preempted"
    return Row("the node of trainer and rollouts is lost", seen.message, *_again(run, before, began, reason))


def _suspend(run: Observer) -> tuple[float, float, str]:
    """When it was asked for, when all pods were gone, and the line."""
    began = time.time()
    done = run.ehrmind("suspend", run.name)
    assert done.returncode == 0, done.stderr
    active = lambda: [p for p in run.pods() if p["status"]["phase"] not in ("Succeeded", "Failed")]  # noqa: E731
    run.until("end of all pods", lambda: not active(), timeout_s=180)
    gone = time.time()
    seen = run.says("^Suspended at RLVR", began)
    assert run.last.status["state"] == "suspended"
    assert not run.cluster.items("deployment", namespace=run.namespace)
    return began, gone, seen.message
