"""Which pods `ehrmind logs --of` means."""

import pytest

from ehrmind_k8s.backends.base import Attempt, RunStatus
from ehrmind_k8s.backends.kubernetes import sources
from ehrmind_k8s.errors import SpecError
from tests.unit.backends.objects import pod

# oldest first, as the server is asked for them
PODS = [pod("prepare", 1), pod("sft", 1), pod("rollout", 0, 0), pod("sft", 2, 0), pod("sft", 2, 1), pod("rollout", 0, 1)]


def newest(source: str | None) -> list[str]:
    return [p["metadata"]["name"] for p in sources.parse(source, "demo").newest(PODS)]


@pytest.mark.parametrize(
    ("source", "pods"),
    [
        (None, ["demo-sft-2-0", "demo-sft-2-1"]),
        ("sft", ["demo-sft-2-0", "demo-sft-2-1"]),
        ("sft-a1", ["demo-sft-1-0"]),
        ("prepare", ["demo-prepare-1-0"]),
        ("rollout", ["demo-rollout-0-0", "demo-rollout-0-1"]),
        ("rollout-1", ["demo-rollout-0-1"]),
        ("demo-sft-1-0", ["demo-sft-1-0"]),
        ("rlvr", []),
        ("rollout-7", []),
    ],
)
def test_a_source_names_the_pods_of_its_newest_attempt(source: str | None, pods: list[str]) -> None:
    assert newest(source) == pods


def test_an_unknown_source_suggests_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'rlvr'"):
        sources.parse("rvlr", "demo")


@pytest.mark.parametrize(
    ("source", "attempt", "over"),
    [
        ("sft", Attempt("sft", 2, "running"), False),
        ("sft", Attempt("sft", 2, "pending"), False),
        ("sft", Attempt("sft", 2, "succeeded"), True),
        ("sft-a1", Attempt("sft", 1, "running"), False),
        ("sft-a1", Attempt("sft", 2, "running"), True),
        (None, Attempt("sft", 2, "succeeded"), False),
        ("rollout-0", Attempt("sft", 2, "running"), True),
        ("rollout", Attempt("rlvr", 2, "running"), False),
    ],
)
def test_following_ends_when_no_other_pod_of_the_source_can_come(source: str | None, attempt: Attempt, over: bool) -> None:
    status = RunStatus("demo", "", "medcalc", "running", attempts=(attempt,))
    assert sources.parse(source, "demo").over(status, seen=True) is over


def test_a_server_that_has_not_come_yet_is_waited_for() -> None:
    assert not sources.parse("rollout-0", "demo").over(RunStatus("demo", "", "medcalc", "running"), seen=False)
