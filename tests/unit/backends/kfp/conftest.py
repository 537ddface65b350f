"""The command line against a stand-in for Kubeflow Pipelines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ehrmind_k8s.backends import follow
from ehrmind_k8s.backends.kfp import backend, document, rest
from tests.unit.backends.kfp.kfp_server import Kfp, serving
from tests.unit.cli.conftest import ehrmind as ehrmind  # the command line in an empty folder

COMPILED = Path(__file__).with_name("compiled.yaml")


@pytest.fixture
def kfp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kfp]:
    """A KFP that the environment names, and a compiled pipeline for it."""
    monkeypatch.setattr(document, "PLACES", (COMPILED,))
    monkeypatch.setattr(rest, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(backend, "POLL_S", 0.01)
    monkeypatch.setattr(follow, "POLL_S", 0.01)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(Kfp()) as server:
        monkeypatch.setenv("EHRMIND_KFP_HOST", server.address)
        monkeypatch.setenv("EHRMIND_BACKEND", "kfp")
        yield server
