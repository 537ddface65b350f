"""A node of a pipeline against a real API server: it may be killed and started again at any moment, and there is one run, trained once.

The tests write a run's status as the operator does, but where the operator itself is what is tested.
"""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import crd
from ehrmind_k8s.backends.kfp import stage
from ehrmind_k8s.backends.kubernetes.access import RUN
from ehrmind_k8s.backends.kubernetes.owner import LEASE
from ehrmind_k8s.controller.operator import Operator
from ehrmind_k8s.controller.policies import deadlines
from ehrmind_k8s.controller.reconcile import reconcile
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.kubeapi import AlreadyExists, NotFound, Resource
from tests.cluster.api_server import NAMESPACES, ApiServer, api_server
from tests.cluster.little_operator import options
from tests.unit.packaging import rendered

CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps")
ACCOUNT = Resource("", "v1", "ServiceAccount", "serviceaccounts")
ROLE = Resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles")
BINDING = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
PARAMETERS = {"task": "medcalc", "preset": "tiny", "store_uri": "s3://bucket/runs", "run_id": "6f1d2c9e-6e5b-4b0c-9a39-0f6a3d4f2f10"}
NAME = stage.of("prepare", PARAMETERS)["name"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("api-server")) as found:
        yield found


class Node:
    """The node `prepare` of one run of a pipeline, in a namespace of its own, with the rights that the chart gives it and no more."""

    def __init__(self, server: ApiServer, namespace: str, folder: Path) -> None:
        self.api, self.namespace, self.folder = server.client(), namespace, folder
        self.kubeconfig = _account(self.api, server, namespace, folder / "kubeconfig")
        self.file = folder / "out.json"

    @contextmanager
    def started(self, **parameters: Any) -> Iterator[subprocess.Popen[str]]:
        """The process of the node."""
        asked = {"parameters": {"prepare_uri": {"outputFile": str(self.folder / "uri")}}, "outputFile": str(self.file)}
        text = json.dumps({"inputs": {"parameterValues": {**PARAMETERS, "namespace": self.namespace, **parameters}}, "outputs": asked})
        command = [sys.executable, "-m", "ehrmind_k8s", "pipeline", "step", "prepare", "--executor-input", text]
        with subprocess.Popen(command, env={**os.environ, "KUBECONFIG": str(self.kubeconfig)}, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self) -> dict[str, Any]:
        return self.api.get(RUN, self.namespace, NAME)

    def lease(self) -> dict[str, Any]:
        return self.api.get(LEASE, self.namespace, crd.owner_lease(NAME))

    def followed_by(self, another: str = "") -> str:
        """Who follows the run, once somebody (other than `another`) does."""
        return str(until(lambda: found if (found := _holder(self)) != another else None))

    def progress(self, **status: Any) -> None:
        """Write the run's status as the operator would."""
        there = self.run()
        body = {"attempt": there["spec"]["attempt"], "uri": f"s3://bucket/runs/{NAME}", **status}
        self.api.patch_status(RUN, self.namespace, NAME, there["metadata"]["resourceVersion"], body)


@pytest.fixture
def node(server: ApiServer, tmp_path: Path) -> Node:
    made = server.client().create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}})
    return Node(server, made["metadata"]["name"], tmp_path)


def _account(api: Client, server: ApiServer, namespace: str, path: Path) -> Path:
    """A ServiceAccount `pipeline-runner` with the chart's role for steps, and a kubeconfig with a token of it."""
    head = {"name": "pipeline-runner", "namespace": namespace}
    api.create(ACCOUNT, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": head})
    role = rendered.pick(rendered.objects("--set", "kubeflow.mode=standalone"), "ClusterRole", "ehrmind-operator-pipeline-step")
    with suppress(AlreadyExists):
        api.create(ROLE, role)
    to = {"apiGroup": ROLE.group, "kind": "ClusterRole", "name": role["metadata"]["name"]}
    bound = {"apiVersion": BINDING.api_version, "kind": "RoleBinding", "metadata": head, "roleRef": to}
    api.create(BINDING, {**bound, "subjects": [{"kind": "ServiceAccount", **head}]})
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["https://test"], "expirationSeconds": 3600}}
    answer = api.request("create", "POST", f"{ACCOUNT.path(namespace, head['name'])}/token", body=asked)
    body = json.loads(server.kubeconfig.read_text())
    body["users"][0]["user"] = {"token": answer["status"]["token"]}
    path.write_text(json.dumps(body))
    return path


def _holder(node: Node) -> str:
    try:
        return str(node.lease()["spec"]["holderIdentity"])
    except NotFound:
        return ""


def until(true: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


def test_a_step_begins_its_run_follows_it_and_leaves_its_outputs(node: Node) -> None:
    with node.started() as process:
        node.followed_by()
        run = node.run()
        assert run["spec"]["stages"] == ["prepare"] and run["metadata"]["annotations"] == {crd.ANNOTATION_FOLLOWED: "true"}
        assert run["metadata"]["labels"] == {crd.LABEL_PIPELINE_RUN: PARAMETERS["run_id"]}
        assert node.lease()["metadata"]["ownerReferences"][0]["uid"] == run["metadata"]["uid"]
        node.progress(state="running", stage="prepare", message="Preparing data")
        until(lambda: node.run()["status"]["state"] == "running")
        node.progress(state="succeeded", message="Succeeded")
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert json.loads(node.file.read_text())["parameterValues"] == {"prepare_uri": f"s3://bucket/runs/{NAME}/prepare"}
    assert f"run {NAME} is created" in err and "Succeeded" in err


def test_a_step_that_is_killed_whenever_and_started_again_finds_its_run(node: Node) -> None:
    draw = random.Random(7)
    for _ in range(4):
        with node.started() as process:
            time.sleep(draw.uniform(0.2, 1.5))  # at times before there is a run, at times after
            process.send_signal(signal.SIGKILL)
    with node.started() as process:
        node.followed_by()
        uid = node.run()["metadata"]["uid"]
    before = node.followed_by()
    with node.started() as process:
        assert node.followed_by(before) != before
        assert node.run()["metadata"]["uid"] == uid and node.run()["spec"]["attempt"] == 1 and node.run()["spec"]["cancel"] is False
        node.progress(state="succeeded", message="Succeeded")
        assert process.wait(30) == 0


def test_sigterm_cancels_the_run_and_a_step_after_it_continues_it(node: Node) -> None:
    with node.started() as process:
        node.followed_by()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    assert node.run()["spec"]["cancel"] is True
    before = node.followed_by()
    with node.started() as process:  # while the pods of the run still save
        node.followed_by(before)
        node.progress(state="cancelled", message="Cancelled")
        until(lambda: node.run()["spec"] == {**node.run()["spec"], "attempt": 2, "cancel": False})
        node.progress(state="succeeded", message="Succeeded")
        assert process.wait(30) == 0


def test_who_cancels_the_run_by_hand_ends_the_step(node: Node) -> None:
    with node.started() as process:
        node.followed_by()
        node.progress(state="cancelled", message="Cancelled")
        assert process.wait(30) == 31
    assert not node.file.exists()


def test_a_stage_that_failed_is_tried_anew_by_retry(node: Node) -> None:
    stages = [{"name": "prepare", "state": "failed", "attempt": 1, "reason": "DataError"}]
    failed = {"state": "failed", "message": "Failed: a bad row", "stages": stages}
    with node.started() as process:
        node.followed_by()
        node.progress(**failed)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 30 and "Failed: a bad row" in err
    with node.started() as process:
        until(lambda: node.run()["spec"]["attempt"] == 2)
        node.progress(state="succeeded", message="Succeeded")
        assert process.wait(30) == 0


def test_a_newer_step_takes_over_and_the_older_one_stops(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    with node.started() as older:
        first = node.followed_by()
        with node.started() as newer:
            node.followed_by(first)
            _, err = older.communicate(timeout=30)  # at its next renewal
            assert older.returncode == 75 and "is followed by" in err
            assert node.run()["spec"]["cancel"] is False
            node.progress(state="succeeded", message="Succeeded")
            assert newer.wait(30) == 0


def test_a_step_that_is_followed_by_a_newer_one_cancels_nothing(node: Node) -> None:
    with node.started() as older:
        first = node.followed_by()
        with node.started() as newer:
            node.followed_by(first)
            older.send_signal(signal.SIGTERM)
            assert older.wait(10) == 143
            assert node.run()["spec"]["cancel"] is False
            node.progress(state="succeeded", message="Succeeded")
            assert newer.wait(30) == 0


def test_a_step_waits_for_an_api_server_that_is_away_from_its_first_call_on(server: ApiServer, node: Node) -> None:
    server.stop()
    try:
        with node.started() as process:
            assert process.stderr and "trying again" in process.stderr.readline()
            server.start()
            node.followed_by()
            node.progress(state="succeeded", message="Succeeded")
            assert process.wait(30) == 0
    finally:
        if "kube-apiserver" not in server._running:
            server.start()


def test_a_parameter_that_is_wrong_makes_no_run(node: Node) -> None:
    with node.started(preset="tinyy") as process:
        _, err = process.communicate(timeout=30)
        assert process.returncode == 2 and "did you mean 'tiny'" in err
    assert node.api.objects(RUN, node.namespace) == []


def test_the_operator_ends_a_run_whose_step_never_comes_back(server: ApiServer, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "FOLLOWED_S", 12.0)  # a little more than the time between two renewals
    profile = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ehrmind-profiles", "namespace": node.namespace}}
    server.client().create(CONFIG_MAP, profile | {"data": {"default": "store: s3://bucket/runs\n"}})
    started = Operator(server.client(), dataclasses.replace(options(node.namespace), namespaces=(node.namespace,)), reconcile)
    started.start()
    try:
        with node.started() as process:
            node.followed_by()
            time.sleep(16)  # longer than it may be silent: renewals keep the run alive
            assert node.run()["status"]["state"] != "cancelled"
            process.send_signal(signal.SIGKILL)
        until(lambda: node.run()["status"]["state"] == "cancelled", 60)
        assert "nobody has followed it" in node.run()["status"]["message"]
    finally:
        started.stop()
