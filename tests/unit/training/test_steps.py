"""The learning curve of RLVR, one line a step."""

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'ehrmind_k8s[train]'")

from ehrmind_k8s.rollout.base import Stats
from ehrmind_k8s.training.loop import Curve
from ehrmind_k8s.training.rollouts import Step
from ehrmind_k8s.training.steps import Steps


def test_the_mean_length_is_over_the_completions_that_were_scored(tmp_path: Path) -> None:
    policies = SimpleNamespace(take_seconds=lambda: (0.0, 0.0))
    steps = Steps(SimpleNamespace(generator=SimpleNamespace(stats=Stats()), policies=policies), [], Curve(tmp_path), attempt=1)  # type: ignore[arg-type]
    steps._step = Step(scored=[2, 0], lost=2, completion_tokens=10)
    line = steps._line(1, {"completions/mean_length": 2.5})  # TRL counts what was lost as completions of no token
    assert (line["completion_tokens"], line["dropped"]) == (5.0, 2)
