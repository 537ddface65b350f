"""Which place a command means, and what it says before any server is asked."""

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ehrmind_k8s.cli.options import Place
from tests.unit.cli.test_main import make_run


@pytest.fixture
def dead_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig whose API server does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    contexts = [{"name": n, "context": {"cluster": "c", "user": "u", "namespace": f"ns-{n}"}} for n in ("here", "there")]
    clusters, users = [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}"}}], [{"name": "u", "user": {"token": "t"}}]
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({"clusters": clusters, "users": users, "contexts": contexts, "current-context": "here"}))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def test_without_a_cluster_a_run_of_this_machine_is_found_and_that_is_said(ehrmind, tmp_path: Path) -> None:
    make_run(tmp_path)
    code, out, err = ehrmind("status", "demo")
    assert code == 0 and out.startswith("demo: unfinished")
    assert "no cluster is configured here" in err


def test_without_a_cluster_submit_says_how_to_name_one_or_do_without(ehrmind) -> None:
    code, out, err = ehrmind("submit", "--task", "medcalc", "--preset", "tiny")
    assert (code, out) == (2, "")
    assert "set KUBECONFIG" in err and "--backend local" in err


def test_with_a_cluster_a_name_is_a_run_of_the_cluster(ehrmind, tmp_path: Path, dead_cluster: Path) -> None:
    make_run(tmp_path)
    code, _, err = ehrmind("status", "demo")
    assert code == 75
    assert "no answer from the API server" in err and "/namespaces/ns-here/ehrmindruns/demo" in err


@pytest.mark.parametrize("argv", [["demo", "--backend", "local"], ["runs/demo"], ["demo", "--store", "runs"]])
def test_a_uri_a_store_or_the_option_lead_past_the_cluster(ehrmind, tmp_path: Path, dead_cluster: Path, argv: list[str]) -> None:
    make_run(tmp_path)
    code, out, err = ehrmind("status", *argv)
    assert (code, err) == (0, "") and out.startswith("demo: unfinished")


def test_the_environment_chooses_the_backend(dead_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Place().kind("demo") == "kubernetes"
    monkeypatch.setenv("EHRMIND_BACKEND", "local")
    assert Place().kind("demo") == "local"
    assert Place(backend="kubernetes").kind("demo") == "kubernetes"


def test_namespace_and_context_are_those_of_kubectl(ehrmind, dead_cluster: Path) -> None:
    assert "/namespaces/ns-there/" in ehrmind("status", "demo", "--context", "there")[2]
    assert "/namespaces/mine/" in ehrmind("status", "demo", "-n", "mine", "--context", "there")[2]
    code, _, err = ehrmind("status", "demo", "--context", "ther")
    assert code == 2 and "did you mean 'there'?" in err


def test_an_option_of_kubectl_is_not_ignored_where_runs_execute_here(ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EHRMIND_BACKEND", "local")
    for argv in (["status", "demo"], ["submit", "--task", "medcalc", "--preset", "tiny"]):
        code, _, err = ehrmind(*argv, "-n", "research")
        assert code == 2 and "are about a cluster" in err


def test_a_kubeconfig_that_is_not_there_is_named(ehrmind, tmp_path: Path) -> None:
    code, _, err = ehrmind("runs", "--kubeconfig", str(tmp_path / "none"))
    assert code == 2 and str(tmp_path / "none") in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data", "notes.csv"], "data.uri: 'notes.csv' is a place on this machine, which pods cannot reach; bring it to a store: ehrmind data put"),
        (["--store", "./runs"], "store: './runs' is a place on this machine"),
        (["--set", "model.uri=/models/qwen"], "ehrmind model put /models/qwen"),
        (["--set", "inputs.sft=file:///runs/x/sft"], "inputs.sft: 'file:///runs/x/sft' is a place"),
        (["--name", "7demo"], "metadata.name: found '7demo': a run's name starts with a letter"),
        (["--set", "rlvr.step=3"], "rlvr.step: unknown key; did you mean 'steps'?"),
        (["--set", "stages=[rlvr]"], "rlvr reads the output of prepare"),
    ],
)
def test_what_no_cluster_could_run_is_refused_before_it_is_asked(ehrmind, dead_cluster: Path, argv: list[str], message: str) -> None:
    code, out, err = ehrmind("submit", "--task", "medcalc", "--preset", "tiny", *argv)
    assert (code, out) == (2, "")
    assert message in err


def test_a_store_of_the_environment_that_is_a_folder_is_not_for_pods(ehrmind, dead_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EHRMIND_STORE", "./runs")
    code, _, err = ehrmind("submit", "--task", "medcalc", "--preset", "tiny")
    assert code == 75 and "EHRMIND_STORE=./runs is a folder of this machine" in err


@pytest.mark.parametrize("command", ["suspend", "resume"])
def test_a_run_of_this_machine_is_not_suspended(ehrmind, tmp_path: Path, command: str) -> None:
    make_run(tmp_path)
    code, _, err = ehrmind(command, "demo", "--backend", "local")
    assert code == 2 and "only a run in a cluster is" in err


@pytest.mark.parametrize("form", [["-o", "json"], ["--json"], ["--output", "json"]])
def test_json_is_asked_for_as_with_kubectl(ehrmind, tmp_path: Path, form: list[str]) -> None:
    make_run(tmp_path)
    assert json.loads(ehrmind("status", "demo", *form)[1])["name"] == "demo"


def test_doctor_ends_at_an_api_server_that_does_not_answer(ehrmind, dead_cluster: Path) -> None:
    began = time.monotonic()
    code, out, _ = ehrmind("doctor")
    assert code == 2 and time.monotonic() - began < 10
    assert "fail api server" in out and "permissions" not in out


def test_doctor_looks_at_this_machine_when_runs_execute_here(ehrmind) -> None:
    out = ehrmind("doctor", "--backend", "local")[1]
    assert "cores" in out and "api server" not in out and re.search("^ok   backend +local$", out, re.MULTILINE)


@pytest.mark.parametrize("argv", [["submit", "--help"], ["status", "demo"], ["runs"], ["submit", "--task", "medcalc", "--preset", "tinny"]])
def test_what_asks_no_cluster_does_not_load_the_kubernetes_client(tmp_path: Path, argv: list[str]) -> None:
    make_run(tmp_path)
    script = (
        f"import sys\nfrom ehrmind_k8s import cli\nsys.argv = ['ehrmind', *{argv!r}]\ntry: cli.main()\nfinally: print('kubernetes' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False"
