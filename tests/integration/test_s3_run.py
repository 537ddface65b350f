"""A run whose store is a real S3 server that goes away and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts
from ehrmind_k8s.storage.s3 import S3Store
from tests.integration.s3_server import ACCESS, BUCKET, SECRET, S3Server
from tests.integration.terminal import PATIENCE_S, Terminal

pytestmark = pytest.mark.s3

STORE = f"s3://{BUCKET}/runs"


@pytest.fixture
def terminal(tmp_path: Path, own_s3_server: S3Server) -> Iterator[Terminal]:
    # The whole twin: prepare takes seconds, so the server is gone before it has published.
    settings = ("stages=[prepare]", "policy.retries=0", "rlvr.max_completion_tokens=64")
    there = Terminal(tmp_path, *(argument for setting in settings for argument in ("--set", setting)))
    there.environment |= {
        "EHRMIND_STORE": STORE,
        "EHRMIND_S3_ENDPOINT_URL": f"http://127.0.0.1:{own_s3_server.port}",
        "EHRMIND_S3_ACCESS_KEY_ID": ACCESS,
        "EHRMIND_S3_SECRET_ACCESS_KEY": SECRET,
    }
    yield there
    there.close()


def test_a_run_whose_server_goes_down_ends_with_try_again_and_the_same_command_continues(terminal: Terminal, own_s3_server: S3Server) -> None:
    process = terminal.start()
    own_s3_server.kill()
    assert process.wait(PATIENCE_S) == 75
    said = (terminal.folder / "terminal.log").read_text().splitlines()[-1]
    assert f"no answer from http://127.0.0.1:{own_s3_server.port}" in said
    assert SECRET not in said
    own_s3_server.start()
    store = S3Store(f"{STORE}/demo/prepare", own_s3_server.settings)
    assert artifacts.load(store) is None
    assert terminal.submit().returncode == 0
    assert artifacts.load(store) is not None
    assert terminal.reasons() == ["StoreUnavailable", "ok"]
