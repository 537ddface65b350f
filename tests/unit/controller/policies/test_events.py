"""What is worth an event, and what it is called."""

import pytest

from ehrmind_k8s.controller.policies import events, outcomes
from ehrmind_k8s.controller.state import Stage, State
from tests.unit.controller.runs import a_run


def test_servers_that_somebody_asks_for_are_no_loss() -> None:
    run = a_run().until("rlvr")
    run.world.store["rlvr"].done = -50  # a long one
    run.world.user(rollout={"replicas": 3})
    run.go(4)
    assert run.condition("RolloutsReady") == ("True", "AllReady")
    assert "RolloutDegraded" not in run.events
    run.world.remove(("Pod", run.world.pods("rollout")[0]["metadata"]["name"]))
    run.look()
    assert run.events[-1] == "RolloutDegraded"


@pytest.mark.parametrize("reason", [outcomes.PREEMPTED, outcomes.NODE_LOST, outcomes.FENCED])
def test_an_attempt_that_costs_nothing_is_told_by_its_reason(reason: str) -> None:
    before, after = (State(stages=(Stage("sft", state, 1, reason=why),)) for state, why in (("running", ""), ("pending", reason)))
    (told,) = events.between(before, after)
    assert (told.type, told.reason) == ("Warning", reason)
    assert told.message.endswith("does not count as a retry")
