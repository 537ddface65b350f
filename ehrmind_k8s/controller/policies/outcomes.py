"""How an attempt ended, and whether another one may mend it.

    report, exit code 0                           succeeded, or skipped, whatever became of its child: it is written when all is stored
    report, 1 2 10 11 20 30 31                    failed: a bug of ours, or something that its user must mend; 1 beside a pod that was put out or
                                                  OOM-killed may be what the leader made of that, and counts as that
    report, 75 143 ...                            again, counted against policy.retries
    OOM-killed, killed, gone, no report           again, counted; so is an eviction for going over its own limit, since that comes back
    preempted, evicted, drained, node lost        again, not counted: none of it is the run's doing (the pod has condition DisruptionTarget)
    report of a fenced attempt                    again, not counted: a higher number was claimed in the store, and the next may be higher still;
                                                  counted from number 20 on, when it is rather another run that works in this store

The report is what the leader left as its termination message. Its exit code counts, not the container's: torchrun exits 1 whatever its child
said, and a peer that is lost after the end fails the job.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ehrmind_k8s.controller.records import Phase, Pod, Report
from ehrmind_k8s.controller.state import Stage

BUG = 1
PERMANENT = (BUG, 2, 10, 11, 20, 30, 31)  # errors.py
PREEMPTED, NODE_LOST, FENCED, SUSPENDED = "Preempted", "NodeLost", "Fenced", "Suspended"
OOM_KILLED, EVICTED, KILLED, LOST, NO_REPORT = "OOMKilled", "Evicted", "Killed", "Lost", "ReportMissing"
UNCOUNTED = (PREEMPTED, NODE_LOST, FENCED, SUSPENDED)
FREE_FENCES = 20  # numbers that an earlier object of the run may have used up
LOST_S = 30.0  # a pod that is there so long after it was to be gone is on a node that does not answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt. `reason` is a code: of the report, or of the cluster."""

    verdict: Literal["succeeded", "skipped", "again", "failed"]
    reason: str
    exit_code: int | None = None
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The pods of one attempt of one stage. `disrupted`: the cluster has put one of them out."""

    stage: Stage
    pods: Sequence[Pod] = field(default_factory=tuple)

    @property
    def leader(self) -> Pod | None:
        """The newest pod that is rank 0, a reporting one before others."""
        return max((p for p in self.pods if p.leader), key=lambda p: (self.report_of(p) is not None, p.created), default=None)

    @property
    def disrupted(self) -> bool:
        """Remembered in the stage's reason, since a pod that is put out is soon gone."""
        return self.stage.reason == PREEMPTED or any(p.disrupted for p in self.pods)

    def report_of(self, pod: Pod) -> Report | None:
        """The report of a pod, if it speaks of this attempt."""
        found = pod.report
        return found if found and (found.stage, found.attempt) == (self.stage.name, self.stage.attempt) else None

    def lost(self, now: float) -> bool:
        """Whether a pod should be gone for long: its node does not answer, and never will as far as anybody knows."""
        return any(p.gone_by and now > p.gone_by + LOST_S and p.phase not in ("Succeeded", "Failed") for p in self.pods)


def counted(stage: Stage) -> bool:
    """Whether what ended the newest attempt of a stage is paid from policy.retries."""
    return stage.reason not in UNCOUNTED or (stage.reason == FENCED and stage.attempt > FREE_FENCES)


def judge(attempt: Attempt, phase: Phase) -> Outcome | None:
    """How an attempt ended whose child is in `phase`: succeeded or failed. None: the pods do not tell yet."""
    leader = attempt.leader
    report = attempt.report_of(leader) if leader else None
    if report and report.exit_code == 0:
        return Outcome("skipped" if report.reason == "skipped" else "succeeded", report.reason, 0, report)
    if report and report.exit_code in PERMANENT and report.exit_code != BUG:
        return Outcome("failed", report.reason, report.exit_code, report)
    code = report.exit_code if report else leader.exit_code if leader else None
    if attempt.disrupted:
        return Outcome("again", PREEMPTED, code, report)
    for reason in (OOM_KILLED, EVICTED):  # whatever its peers made of the loss: an error that nobody foresaw, perhaps
        if any(p.exit_reason == reason for p in attempt.pods):
            return Outcome("again", reason, 137, report)
    if report and report.exit_code == BUG:
        return Outcome("failed", report.reason, BUG, report)
    if report:
        return Outcome("again", report.reason, code, report)
    if phase == "failed" and code is not None:
        return Outcome("again", KILLED if code >= 128 else NO_REPORT, code)
    return None


def unknown(phase: Phase | None) -> Outcome:
    """How an attempt ended whose pods will not tell any more: its child is gone (None), or has ended without a report."""
    return Outcome("again", NO_REPORT if phase else LOST)
