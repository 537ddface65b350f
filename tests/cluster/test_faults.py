"""One run with two vLLM pods, into which one fault after the other is injected. It ends as it would have ended without them, its ledger exact.

    make test-faults        all faults, and the table of docs/operations.md

Not compared are the final weights: which of two servers samples a group depends on timing, and two servers need not agree in the last bit
of a log-prob. What is the same whatever happens: which prompts are trained, each once, in which step, and how many steps there are. That
weights are the same bit for bit where the sampler is, `tests/integration/test_training_resume.py` shows.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ehrmind_k8s import examples
from ehrmind_k8s.training import ledger, order
from tests.cluster import faults, release
from tests.cluster.faults import Row
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.s3 import S3Access
from tests.cluster.observer import Observer

FULL = os.environ.get("EHRMIND_FAULTS") == "1"
pytestmark = pytest.mark.skipif(not FULL, reason="it takes long: make test-faults runs it")
TABLE = os.environ.get("EHRMIND_FAULTS_TABLE")
STEPS, PROMPTS, SEED = 160, 4, 3
SETTINGS = {
    "seed": SEED,
    "rollout.replicas": 2,
    "sft.epochs": 1,
    "sft.percent": 10,
    "rlvr.steps": STEPS,
    "rlvr.prompts_per_step": PROMPTS,
    "rlvr.checkpoint_every": 3,
    "rlvr.max_completion_tokens": 64,
    "rlvr.validate_every": 0,
    "evaluate.limit": 20,
    "evaluate.samples": 0,
    "policy.retries": 12,
}
SOON = [
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}
    for taint in ("not-ready", "unreachable")
]
UNCOUNTED = ("Preempted", "NodeLost", "Suspended", "Fenced")


def in_turn(cluster: OwnCluster) -> list[Callable[[Observer], Row]]:
    """The faults. Retries that count make the pause before the next attempt longer: what needs several comes early."""
    return [
        faults.scaled_up,
        faults.rollout_killed_generating,
        faults.rollout_killed_syncing,
        faults.scaled_down,
        faults.all_rollouts_killed,
        partial(faults.store_stopped, seconds=60),
        faults.trainer_killed,
        faults.trainer_out_of_memory,
        faults.trainer_evicted,
        faults.operator_killed,
        faults.suspended,
        faults.trainer_deleted,
        partial(faults.node_lost, stays="n1", goes=cluster.add_node()),
    ]


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_run_ends_as_it_would_have_without_all_this(
    own_cluster: OwnCluster, namespace: str, cluster_s3: S3Access, training_operator: None, capsys: pytest.CaptureFixture[str]
) -> None:
    release.install(own_cluster, cluster_s3, tolerations=SOON)
    release.admit(own_cluster, namespace, cluster_s3)
    rows: list[Row] = []
    with Observer(own_cluster, cluster_s3, namespace, "x") as run:
        settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
        submitted = run.ehrmind("submit", "--task", "medcalc", "--preset", "tiny", *settings, "--name", "x")
        assert submitted.returncode == 0, submitted.stderr
        run.until("RLVR", lambda: run.last.stage("rlvr").get("state") == "running")
        run.read_logs("rlvr")
        run.logs("progress", 0.0)
        for fault in in_turn(own_cluster):
            rows.append(fault(run))
            with capsys.disabled():
                print(f"\n{faults.table(rows[-1:]).splitlines()[-1]}", flush=True)
        own_cluster.wait("ehrmindrun", "x", lambda o: o["status"].get("state") in ("succeeded", "failed"), namespace=namespace, timeout_s=1800)

        check_end(run)
        check_ledger(run)
        check_attempts(run)
    if TABLE:
        faults.insert(faults.table(rows), Path(TABLE))


def check_end(run: Observer) -> None:
    """Succeeded, with a report on all policies, and nothing left that works."""
    found = run.cluster.get("ehrmindrun", run.name, namespace=run.namespace)["status"]
    assert found["state"] == "succeeded", found["message"]
    report = json.loads(run.ehrmind("report", run.name, "--json").stdout)
    assert set(report["policies"]) == {"base", "sft", "rlvr"}
    assert not run.cluster.items("deployment", namespace=run.namespace)


def check_ledger(run: Observer) -> None:
    """Every prompt of the order is trained once in the lineage that survived, in its step, and the sums agree to the last issue."""
    store = run.store("rlvr")
    entries, begins = ledger.read(store)
    sums = ledger.audit(store)
    assert json.loads(store.get_bytes("ledger.json")) == sums
    assert sums["issued"] == sums["trained"] + sums["voided"] + sums["failed"]
    assert (sums["open"], sums["dropped"], sums["trained"]) == (0, 0, STEPS * PROMPTS)
    lineage = sorted((e.step, e.epoch, e.prompt_id) for e in entries if e.state == "trained" and ledger.is_live(e.step, e.attempt, begins))
    wanted = order.positions(SEED, len(rows := train_rows(run)), STEPS * PROMPTS)
    assert lineage == sorted((i // PROMPTS + 1, epoch, rows[row]) for i, (epoch, row) in enumerate(wanted))
    curve = [json.loads(line) for line in store.get_bytes("metrics.jsonl").splitlines()]
    assert [line["step"] for line in curve] == list(range(1, STEPS + 1))
    assert sum(line["retries"] for line in curve) > 0, "groups of killed servers were sampled again"


def train_rows(run: Observer) -> list[str]:
    """Ids of the training rows, in their order."""
    path = run.cluster.folder / "train.parquet"
    run.store("prepare").get_file("train.parquet", path)
    return [e.id for e in examples.read_split(path)]


def check_attempts(run: Observer) -> None:
    """Attempts only grow, each ended for one reason, and those that count were counted; events stay few."""
    ends: dict[int, str] = {}
    for seen in run.seen:
        stage = seen.stage("rlvr")
        if stage.get("state") == "pending" and stage.get("attempt"):
            ends[stage["attempt"]] = stage.get("reason", "")
    final = run.last.stage("rlvr")
    assert sorted(ends) == list(range(1, final["attempt"])), ends
    assert final["retries"] == sum(reason not in UNCOUNTED for reason in ends.values()), ends
    events = run.cluster.get("events", namespace=run.namespace)["items"]
    mine = [e for e in events if e["involvedObject"].get("kind") == "EHRMindRun"]
    assert len(mine) < 25 + 6 * final["attempt"], [e["message"] for e in mine]
