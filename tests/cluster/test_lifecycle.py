"""What people do to runs, and what they forget: cancel, delete and make again, a missing Secret, wrong keys, too large a request.

Real pods and the operator as the chart installs it. A status that says what is missing is half of each test; that the run goes on by itself,
or after one command, once it is there, is the other.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ehrmind_k8s import artifacts
from tests.cluster import release
from tests.cluster.harness.client import Object
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.s3 import S3Access
from tests.cluster.observer import Observer
from tests.cluster.test_other_operators import queue
from tests.integration import small_twin

FULL = os.environ.get("EHRMIND_FAULTS") == "1"
long = pytest.mark.skipif(not FULL, reason="it takes long: make test-faults runs it")
ENDS = ("succeeded", "failed", "cancelled")
PREPARE = {"stages": '["prepare"]'}
# Enough of SFT that something can happen in its middle.
TRAIN: dict[str, Any] = {"stages": '["prepare", "sft"]', "sft.epochs": 3, "sft.checkpoint_every": 10}
PROFILES: dict[str, dict[str, Any]] = {
    "huge": {"resources": {"prepare": {"requests": {"cpu": "1000"}}}},
    "no-image": {"images": {"ehrmind": "registry.invalid/ehrmind:none"}},
    "two": {"trainer": {"nodes": 2}},
    "trainjob": {"trainer": {"kind": "trainjob"}},
    "queued": {"queue": "queue"},
}
# A whole run, of every stage as much as shows that it works.
SHORT: dict[str, Any] = {
    "sft.epochs": 1, "rlvr.steps": 3, "rlvr.checkpoint_every": 2, "rlvr.max_completion_tokens": 64, "rlvr.validate_every": 0,
    "evaluate.limit": 20, "evaluate.samples": 0,
}  # fmt: skip


@pytest.fixture
def installed(own_cluster: OwnCluster, cluster_s3: S3Access) -> OwnCluster:
    """The chart, with more profiles than `default`."""
    release.install(own_cluster, cluster_s3)
    default = yaml.safe_load(own_cluster.get("configmap", "ehrmind-profiles", namespace=release.SYSTEM)["data"]["default"])
    data = {name: json.dumps(merged(default, more)) for name, more in PROFILES.items()}
    own_cluster.kubectl("patch", "configmap", "ehrmind-profiles", "--patch", json.dumps({"data": data}), namespace=release.SYSTEM)
    return own_cluster


@pytest.fixture
def run(installed: OwnCluster, namespace: str, cluster_s3: S3Access) -> Iterator[Observer]:
    """A run called x, watched, that is not submitted yet."""
    with Observer(installed, cluster_s3, namespace, "x") as found:
        yield found


def merged(profile: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A profile, changed in some entries of some sections."""
    return profile | {key: profile.get(key, {}) | section if isinstance(section, dict) else section for key, section in more.items()}


def submit(run: Observer, settings: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    """Submit the twin with these settings."""
    given = [f"--set={key}={value}" for key, value in settings.items()]
    return run.ehrmind("submit", "--task", "medcalc", "--preset", "tiny", *given, "--name", run.name, *more)


def reaches(run: Observer, *states: str, timeout_s: float = 600) -> Object:
    """The status once the run is in one of these states; the first end that is another one is a failure."""
    until = lambda o: (o.get("status") or {}).get("state") in (*states, *ENDS)  # noqa: E731
    found = run.cluster.wait("ehrmindrun", run.name, until, namespace=run.namespace, timeout_s=timeout_s)["status"]
    assert found["state"] in states, found["message"]
    return dict(found)


def admit(run: Observer) -> None:
    release.admit(run.cluster, run.namespace, run.s3)


def no_pods(run: Observer) -> bool:
    return not [p for p in run.pods() if p["status"]["phase"] not in ("Succeeded", "Failed")]


def in_sft(run: Observer) -> None:
    """SFT trains, people see how far it is, and a checkpoint is behind it."""
    store = run.store("sft")
    run.until("a checkpoint", lambda: any(store.head(f"{artifacts.checkpoint_key(*c)}/{artifacts.MANIFEST}") for c in artifacts.checkpoints(store)))
    run.says("^SFT step", 0.0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_cancelled_run_frees_its_pods_and_the_same_submit_continues_it(run: Observer, training_operator: None) -> None:
    admit(run)
    given = [f"--set={key}={value}" for key, value in TRAIN.items()]
    with subprocess.Popen(
        run.command("submit", "--task", "medcalc", "--preset", "tiny", *given, "--name", "x", "--follow"), env=run.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as follower:  # fmt: skip
        in_sft(run)
        assert run.ehrmind("cancel", "x").returncode == 0
        assert no_pods(run)
        said = follower.communicate(timeout=60)[1]
    assert follower.returncode == 31, said
    assert "Cancelled at SFT step" in run.last.message
    assert submit(run, TRAIN).returncode == 0
    found = run.cluster.wait("ehrmindrun", "x", lambda o: o["status"]["state"] in ("succeeded", "failed"), namespace=run.namespace, timeout_s=600)
    assert (found["status"]["state"], found["status"]["attempt"]) == ("succeeded", 2)
    assert begun_at(run, 2) >= TRAIN["sft.checkpoint_every"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_deleted_run_takes_everything_with_it_but_the_store_and_its_name_continues_there(run: Observer, training_operator: None) -> None:
    admit(run)
    assert submit(run, TRAIN).returncode == 0
    in_sft(run)
    run.cluster.delete("ehrmindrun", "x", namespace=run.namespace)
    kinds = "ehrmindruns,pods,jobs,pytorchjobs,deployments,services,networkpolicies,poddisruptionbudgets"
    left = lambda: run.cluster.get(f"{kinds},configmaps", namespace=run.namespace, selector="app.kubernetes.io/instance=x")["items"]  # noqa: E731
    end = time.monotonic() + 180
    while left():
        assert time.monotonic() < end, [f"{o['kind']}/{o['metadata']['name']}" for o in left()]
    assert artifacts.load(run.store("prepare"))
    assert submit(run, TRAIN).returncode == 0
    found = reaches(run, "succeeded")
    sft = next(s for s in found["stages"] if s["name"] == "sft")
    assert (sft["attempt"], sft["retries"]) == (2, 0), "attempt 1 is claimed in the store"
    assert begun_at(run, 2) >= TRAIN["sft.checkpoint_every"]


def begun_at(run: Observer, attempt: int) -> int:
    """The step that an attempt of SFT began after."""
    events = [json.loads(line) for line in run.ehrmind("logs", "x", "--of", f"sft-a{attempt}", "-o", "json").stdout.splitlines()]
    return int(next(e["from_step"] for e in events if e["event"] == "sft.start"))


@pytest.mark.slow
def test_a_run_whose_data_was_bad_goes_on_once_it_is_mended_and_tried_again(run: Observer, tmp_path: Path) -> None:
    admit(run)
    small = small_twin.write(tmp_path, train=30, test=4)
    data = run.store("data")
    for name in ("train.csv", "test.csv"):
        data.put_bytes(name, (small / name).read_bytes())
    data.put_bytes("train.csv", (small / "train.csv").read_bytes().replace(b"Lower Limit", b"Lowest", 1))
    assert submit(run, {**PREPARE, "data.uri": data.uri}).returncode == 0
    failed = reaches(run, "failed")
    assert "DataError (exit code 10)" in failed["message"] and "ehrmind logs x --of prepare-a1" in failed["message"]
    assert "Lower Limit" in run.ehrmind("logs", "x", "--of", "prepare-a1").stdout
    data.put_bytes("train.csv", (small / "train.csv").read_bytes())
    run.cluster.kubectl("patch", "ehr", "x", "--type=merge", "--patch", '{"spec": {"attempt": 2}}', namespace=run.namespace)
    found = run.cluster.wait("ehrmindrun", "x", lambda o: o["status"]["state"] == "succeeded", namespace=run.namespace)
    assert found["status"]["stages"][0]["attempt"] == 2


@pytest.mark.slow
def test_wrong_keys_of_the_store_are_said_and_right_ones_mend_it(run: Observer) -> None:
    secret = {**run.s3.secret, "secret-access-key": "not-the-one"}
    run.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": release.SECRET}, "stringData": secret}, namespace=run.namespace)
    assert submit(run, PREPARE).returncode == 0
    message = reaches(run, "failed")["message"]
    assert "the object store refuses" in message and "Secret" in message and "not-the-one" not in message
    admit(run)
    assert submit(run, PREPARE).returncode == 0
    run.cluster.wait("ehrmindrun", "x", lambda o: o["status"]["state"] == "succeeded", namespace=run.namespace)


@pytest.mark.slow
def test_a_missing_secret_is_named_and_the_run_goes_on_when_it_is_there(run: Observer) -> None:
    assert submit(run, PREPARE).returncode == 0
    seen = run.says('secret "ehrmind-s3" not found in namespace', 0.0)
    assert seen.message.endswith("create it, the pod then starts by itself")
    admit(run)
    reaches(run, "succeeded")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("huge", r"no node can take pod x-prepare-1-\w+: .*Insufficient cpu.*; add nodes, or ask for less in profile 'huge'"),
        ("no-image", r"image registry.invalid/ehrmind:none cannot be pulled \(\w+\); check images and pull secrets of profile 'no-image'"),
    ],
)
def test_what_keeps_a_pod_from_starting_is_said(run: Observer, profile: str, said: str) -> None:
    admit(run)
    assert submit(run, {**PREPARE, "profile": profile}).returncode == 0
    run.says(said, 0.0)
    assert run.ehrmind("cancel", "x").returncode == 0
    assert no_pods(run)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_a_training_operator_the_run_says_what_to_install_and_goes_on_when_it_is(run: Observer) -> None:
    admit(run)
    run.cluster.uninstall_training_operator()
    try:
        assert submit(run, {**TRAIN, "sft.epochs": 1}).returncode == 0
        run.says("^Waiting: .*training operator", 0.0)
    finally:
        run.cluster.install_training_operator()
    reaches(run, "succeeded")


@long
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_trainer_nodes_carry_a_run_to_its_report(run: Observer, training_operator: None) -> None:
    admit(run)
    assert submit(run, {**SHORT, "profile": "two"}).returncode == 0
    reaches(run, "succeeded", timeout_s=3000)
    for job in run.cluster.items("pytorchjob", namespace=run.namespace):
        assert list(job["spec"]["pytorchReplicaSpecs"]) == ["Worker"] and job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 2
    assert policies(run) == {"base", "sft", "rlvr"}


@long
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_train_jobs_carry_a_run_to_its_report(run: Observer, trainjob: OwnCluster) -> None:
    admit(run)
    assert submit(run, {**SHORT, "profile": "trainjob", "rollout.replicas": 2}).returncode == 0
    reaches(run, "succeeded", timeout_s=3000)
    roles = [job["metadata"]["labels"]["ehrmind.dev/role"] for job in run.cluster.items("trainjob", namespace=run.namespace)]
    assert sorted(roles) == ["rlvr", "sft"]
    assert policies(run) == {"base", "sft", "rlvr"}


@long
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_runs_in_a_queue_with_quota_for_one_both_end(run: Observer, trainjob: OwnCluster, kueue: OwnCluster) -> None:
    """Trainer and servers are admitted together: were each admitted alone, both runs could hold half of the quota and wait for ever."""
    admit(run)
    kueue.apply(*queue(run.namespace, run.namespace, "250m"))
    with Observer(run.cluster, run.s3, run.namespace, "y") as other:
        both = (run, other)
        for each in both:
            assert submit(each, {**SHORT, "profile": "queued"}).returncode == 0
        for each in both:
            reaches(each, "succeeded", timeout_s=3000)
            assert policies(each) == {"base", "sft", "rlvr"}
        waited = [each.name for each in both for seen in each.seen if "queue queue: " in seen.message and "insufficient unused quota" in seen.message]
        assert waited, "nobody had to wait: the quota was not for one"


def policies(run: Observer) -> set[str]:
    """What the run's report compares."""
    return set(json.loads(run.ehrmind("report", run.name, "--json").stdout)["policies"])
