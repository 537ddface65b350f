"""One token per run, whoever asks first."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts, settings, storage
from ehrmind_k8s.backends.local.backend import LocalBackend
from ehrmind_k8s.errors import IntegrityError
from ehrmind_k8s.rollout import token
from ehrmind_k8s.storage import ObjectStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr(token, "SETTLE_S", 0)
    return storage.open(str(tmp_path / "run"))


def test_all_who_ask_at_once_get_the_same(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: token.of(store, settings.load()), range(8)))
    assert found == {store.get_bytes("rollout/token").decode()}
    assert len(found.pop()) >= 43  # 32 random bytes


def test_two_runs_have_two(tmp_path: Path, store: ObjectStore) -> None:
    assert token.of(store, settings.load()) != token.of(storage.open(str(tmp_path / "other")), settings.load())


def test_the_environment_wins_and_leaves_nothing_in_the_store(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EHRMIND_RUN_TOKEN", "of this submit")
    assert token.of(store, settings.load()) == "of this submit"
    assert list(store.list()) == []


@pytest.mark.parametrize("body", [b"", b"short", b"with\nnewline-and-more-of-it", "é".encode() * 20])
def test_what_is_no_token_is_refused_without_being_quoted(store: ObjectStore, body: bytes) -> None:
    store.put_bytes(artifacts.TOKEN, body)
    with pytest.raises(IntegrityError, match="not a token") as caught:
        token.of(store, settings.load())
    assert not body or body.decode() not in str(caught.value)


def test_nothing_of_it_is_logged(store: ObjectStore, capfd: pytest.CaptureFixture[str]) -> None:
    found = token.of(store, settings.load())
    assert found not in "".join(capfd.readouterr())


def test_it_goes_with_the_run(store: ObjectStore) -> None:
    token.of(store, settings.load())
    LocalBackend(settings.load()).delete(store.uri)
    assert list(store.list()) == []
