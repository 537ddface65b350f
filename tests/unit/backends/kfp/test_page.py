"""Every command of docs/kubeflow.md, one after the other, as the page has it."""

import shlex
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.backends.kfp import kube_server
from tests.unit.backends.kfp.kfp_server import Kfp
from tests.unit.backends.kfp.kube_server import Kube

PAGE = (ROOT / "docs" / "kubeflow.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    ehrmind ")]


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) > 5


def test_every_command_of_the_page_works(kfp: Kfp, ehrmind, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    monkeypatch.delenv("EHRMIND_BACKEND")
    (tmp_path / "run.yaml").write_text("{task: medcalc, preset: tiny, name: nightly}\n")
    (tmp_path / "token").write_text("a-token")
    kfp.multi_user, kfp.token = True, "a-token"
    monkeypatch.setenv("EHRMIND_KFP_TOKEN_FILE", str(tmp_path / "token"))
    kube, over = Kube(kfp), threading.Event()

    def cluster() -> None:
        """Runs get on by themselves, each with a stage whose log is there."""
        after = {"PENDING": "RUNNING", "RUNNING": "SUCCEEDED", "CANCELING": "FAILED"}
        while not over.wait(0.02):
            with kfp.lock:
                for run in kfp.runs:
                    if run["state"] == "PENDING":
                        kube.stage("medcalc-tiny-a1", run["run_id"], "prepare", run["created_at"], "read 10 rows")
                    if run["state"] in after:
                        kfp.move(run, after[run["state"]])

    thread = threading.Thread(target=cluster)
    thread.start()
    try:
        with kube_server.serving(kube, tmp_path_factory.mktemp("kube")) as config:
            monkeypatch.setenv("KUBECONFIG", str(config))
            for line in COMMANDS:
                code, out, err = ehrmind(*shlex.split(line, comments=True)[1:])
                assert (line, code) == (line, 0), err
                assert out, line
    finally:
        over.set()
        thread.join()
