"""Verdict and table -> reward: one function for all tasks. An infrastructure failure is not a verdict and has no reward."""

from ehrmind_k8s.records import Verdict
from ehrmind_k8s.spec import RewardSpec


def reward(verdict: Verdict, table: RewardSpec) -> float:
    """The scalar that RLVR optimises for one completion."""
    if verdict.outcome == "malformed":
        return table.malformed
    if verdict.outcome == "unparseable":
        return table.unparseable
    return table.correct if verdict.correct else table.wrong
