"""KFP through the API server of a kubeconfig, and the logs of a run's stages in the cluster."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from ehrmind_k8s.backends.kfp import logs
from ehrmind_k8s.backends.kubernetes import logs as cluster_logs
from tests.unit.backends.kfp import kube_server
from tests.unit.backends.kfp.kfp_server import Kfp, now
from tests.unit.backends.kfp.kube_server import Kube

SUBMIT = ("submit", "--task", "medcalc", "--preset", "tiny")


@pytest.fixture
def kube(kfp: Kfp, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kube]:
    """A cluster of the kubeconfig, with KFP behind its proxy."""
    monkeypatch.setattr(logs, "POLL_S", 0.01)
    monkeypatch.setattr(cluster_logs, "POLL_S", 0.01)
    kube = Kube(kfp)
    with kube_server.serving(kube, tmp_path_factory.mktemp("kube")) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        yield kube


@pytest.fixture
def through(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> Kube:
    """No address is set: the API server is the way."""
    monkeypatch.delenv("EHRMIND_KFP_HOST")
    return kube


def test_without_an_address_the_service_is_reached_through_the_api_server(kfp: Kfp, through: Kube, ehrmind) -> None:
    code, _, err = ehrmind(*SUBMIT)
    assert code == 0 and kfp.runs[0]["display_name"] == "medcalc-tiny"
    assert all(path.startswith(kube_server.PROXY) for path in through.paths)
    assert "created in experiment ehrmind of service ml-pipeline in namespace kubeflow of http://127.0.0.1" in err
    page = f"http://localhost:8080/#/runs/details/{kfp.runs[0]['run_id']}"
    assert f"{page}  (while this runs: kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80)" in err
    assert ehrmind("pipeline", "upload")[0] == 0
    assert ehrmind("status", "medcalc-tiny")[0] == 0


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, 2, "does not accept these credentials"),
        (403, 2, "services is forbidden; who administers the cluster grants get and create on services/proxy, or set EHRMIND_KFP_HOST"),
        (404, 2, "there is no service ml-pipeline in namespace kubeflow of"),
        (503, 75, "service ml-pipeline in namespace kubeflow of"),
    ],
)
def test_what_the_api_server_says_itself_is_not_taken_for_kfps_word(through: Kube, ehrmind, status: int, code: int, sentence: str) -> None:
    through.refuse = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": "X", "message": "services is forbidden"}
    found, _, err = ehrmind(*SUBMIT)
    assert found == code and sentence in err


def test_kfps_own_errors_are_read_behind_the_proxy_too(kfp: Kfp, through: Kube, ehrmind) -> None:
    code, _, err = ehrmind("status", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
    assert code == 2 and "Run 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0 not found" in err


def test_a_kfp_with_users_wants_its_gateway(kfp: Kfp, through: Kube, ehrmind) -> None:
    kfp.token = "x"
    code, _, err = ehrmind(*SUBMIT)
    assert code == 2 and "through the API server it sees none: set EHRMIND_KFP_HOST to its gateway" in err


@pytest.fixture
def run(kfp: Kfp, kube: Kube, ehrmind) -> dict[str, Any]:
    """A run whose first two stages are done."""
    ehrmind(*SUBMIT)
    run = kfp.runs[0]
    kube.stage("medcalc-tiny-a1", run["run_id"], "prepare", "2026-11-24T10:00:00Z", "read 10 rows")
    kube.stage("medcalc-tiny-b2", run["run_id"], "sft", "2026-11-24T10:05:00Z", "loss 1.0\nloss 0.5")
    kube.stage("another", "another-run", "rlvr", "2026-11-24T10:09:00Z", "not mine")
    return run


def test_logs_are_those_of_the_newest_stage(run: dict[str, Any], ehrmind) -> None:
    assert ehrmind("logs", "medcalc-tiny") == (0, "loss 1.0\nloss 0.5\n", "")


@pytest.mark.parametrize("source", ["prepare", "prepare-a1", "medcalc-tiny-a1-prepare-1-x"])
def test_logs_of_a_stage_an_attempt_or_a_pod_are_found_by_the_runs_label(run: dict[str, Any], ehrmind, source: str) -> None:
    assert ehrmind("logs", "medcalc-tiny", "--of", source)[:2] == (0, "read 10 rows\n")


def test_logs_of_a_stage_that_has_not_begun_say_so(run: dict[str, Any], ehrmind) -> None:
    code, _, err = ehrmind("logs", "medcalc-tiny", "--of", "rlvr")
    assert code == 2 and "rlvr of the run has no object in namespace kubeflow" in err and run["run_id"] in err
    code, _, err = ehrmind("logs", "medcalc-tiny", "--of", "rlrv")
    assert code == 2 and "did you mean 'rlvr'?" in err


def test_followed_logs_go_on_to_the_next_stages_and_end_with_the_run(kfp: Kfp, kube: Kube, run: dict[str, Any], ehrmind) -> None:
    kfp.move(run, "RUNNING")
    looked = 0

    def next_stage(handler) -> bool:
        nonlocal looked
        looked += 1
        if looked == 3:
            kube.stage("medcalc-tiny-c3", run["run_id"], "evaluate", now(), "accuracy 1.0")
        if looked == 6:
            kfp.move(run, "SUCCEEDED")
        return True

    kfp.fail(next_stage, times=99, where="GET /apis/v2beta1/runs/")
    assert ehrmind("logs", "medcalc-tiny", "--follow") == (0, "loss 1.0\nloss 0.5\naccuracy 1.0\n", "")
    assert looked >= 6


def test_logs_are_read_in_the_namespace_of_the_user(kfp: Kfp, kube: Kube, run: dict[str, Any], ehrmind) -> None:
    kube.paths.clear()
    ehrmind("logs", "medcalc-tiny", "--namespace", "research")
    assert kube.paths[0].startswith("/apis/ehrmind.dev/v1alpha1/namespaces/research/ehrmindruns?")
    kube.paths.clear()
    run["runtime_config"]["parameters"]["g_namespace"] = "ward"  # what a run was started with counts over the options
    ehrmind("logs", "medcalc-tiny")
    assert kube.paths[0].startswith("/apis/ehrmind.dev/v1alpha1/namespaces/ward/ehrmindruns?")


def test_an_address_and_a_kubeconfig_by_option_go_together(run: dict[str, Any], ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    config = os.environ["KUBECONFIG"]
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    assert ehrmind("logs", "medcalc-tiny", "--kubeconfig", config)[1] == "loss 1.0\nloss 0.5\n"
