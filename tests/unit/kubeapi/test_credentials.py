"""Credentials as kubectl finds them."""

import json
from pathlib import Path

import pytest

from ehrmind_k8s import kubeapi
from ehrmind_k8s.errors import SpecError


def write(path: Path, name: str, server: str, namespace: str | None = None) -> Path:
    context = {"cluster": name, "user": name} | ({"namespace": namespace} if namespace else {})
    entries = {"clusters": {"cluster": {"server": server}}, "users": {"user": {"token": name}}, "contexts": {"context": context}}
    path.write_text(json.dumps({"current-context": name} | {part: [{"name": name, **entry}] for part, entry in entries.items()}))
    return path


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def test_an_option_wins_over_the_environment_and_that_over_the_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", "default", "https://default")
    assert kubeapi.connect().host == "https://default"
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path / "b", "b", "https://environment")))
    assert kubeapi.connect().host == "https://environment"
    assert kubeapi.connect(str(write(tmp_path / "c", "c", "https://option"))).host == "https://option"


def test_several_files_are_one_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path / "a", "a", "https://a", "team-a"), write(tmp_path / "b", "b", "https://b")
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, files)))
    first, second = kubeapi.connect(), kubeapi.connect(context="b")
    assert (first.host, first.namespace, second.host, second.namespace) == ("https://a", "team-a", "https://b", "default")


def test_nothing_to_connect_with_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kubeapi.configured()
    with pytest.raises(SpecError, match="no cluster is configured here"):
        kubeapi.connect()
    monkeypatch.setenv("KUBECONFIG", "/dev/null")
    assert not kubeapi.configured()
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path / "a", "a", "https://a")))
    assert kubeapi.configured()


def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("{clusters: [")
    with pytest.raises(SpecError, match=str(tmp_path / "bad")):
        kubeapi.connect(str(tmp_path / "bad"))
