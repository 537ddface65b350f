"""What the supervisor gives a stage, and makes of how it ended."""

import os
from pathlib import Path

import pytest

from ehrmind_k8s import plan, spec
from ehrmind_k8s.backends.local import supervisor
from ehrmind_k8s.errors import DataError, EhrmindError, TryAgain


@pytest.mark.parametrize(("code", "raised"), [(75, TryAgain), (137, TryAgain), (255, EhrmindError), (10, DataError), (3, EhrmindError)])
def test_every_exit_code_is_an_error_of_its_class(code: int, raised: type[EhrmindError]) -> None:
    assert type(supervisor._error("sft", code, supervisor._reason(code, {}), Path("log"))) is raised


@pytest.mark.parametrize(
    ("engine", "cores", "threads"),
    [
        ("vllm", 8, {"prepare": 8, "diagnose": 4, "sft": 8, "rlvr": 4, "evaluate": 4}),
        ("vllm", 1, {"prepare": 1, "diagnose": 1, "sft": 1, "rlvr": 1, "evaluate": 1}),
        ("transformers", 8, {"prepare": 8, "diagnose": 8, "sft": 8, "rlvr": 8, "evaluate": 8}),
    ],
)
def test_only_stages_that_servers_sample_for_leave_them_half_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, engine: str, cores: int, threads: dict[str, int]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    steps = plan.build(spec.load({"task": "medcalc", "preset": "tiny", "rollout": {"engine": engine}}), "run")
    assert {step.stage: supervisor._threads(step) for step in steps} == threads
