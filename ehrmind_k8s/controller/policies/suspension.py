"""Suspend and resume: a suspended run has no pods, and so holds no GPU.

The child of the stage under way is deleted; SIGTERM makes its pods save a checkpoint. Resuming is the next attempt, which begins there. It
costs none of `policy.retries`.
"""

from dataclasses import replace

from ehrmind_k8s import crd
from ehrmind_k8s.controller.policies import outcomes
from ehrmind_k8s.controller.state import State


def suspend(current: State, now: float) -> State:
    """The run with nothing under way."""
    stage = current.current
    if stage and stage.active:
        current = current.having(replace(stage, state="pending", reason=outcomes.SUSPENDED, ended=now))
    return replace(current, state=crd.SUSPENDED)
