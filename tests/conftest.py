"""What all tests share: where parts of the machine are, one honest way to say that one is missing, and an environment of their own."""

import importlib.util
import os
import shutil
import signal
from pathlib import Path

# Before numpy or torch are loaded: tests run in two processes on two cores, and libraries that take both cores each only fight.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# How long one example takes depends on what else the machine does: a deadline would be a timed assertion.
hypothesis.settings.register_profile("ehrmind", deadline=None)
hypothesis.settings.load_profile("ehrmind")

pytest_plugins = ["tests.integration.s3_server", "tests.integration.rollout_servers"]

# A shell starts what goes to the background with Ctrl-C ignored, and so would every program be that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
# Nothing that CI can be expected to have (`on request`: it would take CI too long to build): everything else must be there when CI=true.
NOT_ON_CI = {"gpu", "data", "on request"}


def needs(part: str, how: str, *, there: bool = False, kind: str = "") -> None:
    """Skip the test because `part` is missing, in one line that says how to get it; return when it is `there`.

    With CI=true that is a failure, but for what CI cannot have (`kind` is one of NOT_ON_CI).
    """
    if there:
        return
    message = f"{part} is missing; to get it: {how}"
    if os.environ.get("CI") == "true" and kind not in NOT_ON_CI:
        pytest.fail(f"CI must have everything: {message}", pytrace=False)
    pytest.skip(message)


def needs_module(module: str, how: str) -> None:
    """`needs` for an importable module."""
    needs(module, how, there=importlib.util.find_spec(module) is not None)


def needs_program(program: str, how: str) -> str:
    """`needs` for a program on the PATH; returns its path."""
    path = shutil.which(program)
    needs(program, how, there=path is not None)
    assert path is not None
    return path


def shared_data(*parts: str) -> Path:
    """A file or folder of the public data beside the repository, or a skip."""
    folder = Path(os.environ.get("EHRMIND_SHARED_DATA") or ROOT.parent / "shared" / "data").joinpath(*parts)
    needs(f"public data {'/'.join(parts)}", "put it under ../shared/data, or point EHRMIND_SHARED_DATA at it", there=folder.exists(), kind="data")
    return folder


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start vLLM run one after the other (`--dist loadgroup`): each server wants 3 GiB and both cores.

    So do tests on the cluster, whether or not vLLM runs there: there is one cluster.
    """
    for item in items:
        group = next((name for name in ("cluster", "vllm") if item.get_closest_marker(name)), None)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the developer's store, credentials or state; what a test leaves is in its temporary folder."""
    for name in [n for n in os.environ if n.startswith(("EHRMIND_", "AWS_")) and n != "EHRMIND_SHARED_DATA"]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("EHRMIND_STATE_DIR", str(home / "state"))
    monkeypatch.setenv("KUBECONFIG", os.devnull)  # no cluster, unless the test is about one
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
