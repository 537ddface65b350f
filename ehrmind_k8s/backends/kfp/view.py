"""A run of the KFP API as the status that people and scripts see, the same as of a run anywhere else. Pure."""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from ehrmind_k8s.backends.base import Attempt, RunState, RunStatus
from ehrmind_k8s.spec import STAGES

STATES: dict[str, RunState] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "CANCELING": "running",
    "PAUSED": "suspended",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "cancelled",
}
# The state of a stage's node in the words of an attempt.
REASONS = {"PENDING": "pending", "RUNNING": "running", "CANCELING": "running", "PAUSED": "pending", "CANCELED": "cancelled"}
UNBEGUN = ("", "PENDING", "RUNTIME_STATE_UNSPECIFIED")


def status(run: Mapping[str, Any], page: str, namespace: str) -> RunStatus:
    """Where a run is. `page` is its address for people, which stands for the place of a run that only its pods know."""
    attempts = tuple(_attempts((run.get("run_details") or {}).get("task_details") or ()))
    state = ended_as(run)
    begun = [a for a in attempts if a.attempt]
    current = next((a for a in reversed(begun) if a.reason == "running"), begun[-1] if begun else None)
    times = [run.get("finished_at"), *(c.get("update_time") for c in run.get("state_history") or ()), run.get("created_at")]
    return RunStatus(
        name=run.get("display_name") or run["run_id"],
        uri=page,
        task=str(parameters(run).get("a_task") or ""),
        state=STATES.get(state, "pending"),
        stage=current.stage if current else "",
        message=_message(run, state, attempts),
        attempts=attempts,
        started=seconds(run.get("created_at")),
        updated=max(map(seconds, times)),
        namespace=namespace,
        uid=run["run_id"],
    )


def ended_as(run: Mapping[str, Any]) -> str:
    """The state of a run. KFP shows one that was terminated as FAILED, since that is what becomes of its workflow; its history tells."""
    state, history = run.get("state") or "", [c.get("state") for c in run.get("state_history") or ()]
    again = max((i for i, s in enumerate(history) if s in ("PENDING", "RUNNING")), default=-1)
    return "CANCELED" if state == "FAILED" and "CANCELING" in history[again + 1 :] else state


def parameters(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run was started with."""
    return (run.get("runtime_config") or {}).get("parameters") or {}


def archived(obj: Mapping[str, Any]) -> bool:
    """Whether a person has put it away."""
    return obj.get("storage_state") == "ARCHIVED"


def seconds(time: str | None) -> float:
    """A time of the API in Unix seconds; 0 when there is none, which the API itself writes as 1970."""
    return dt.datetime.fromisoformat(time).timestamp() if time else 0.0


def _message(run: Mapping[str, Any], state: str, attempts: Iterable[Attempt]) -> str:
    """One line about what is going on, or what ended the run."""
    if state == "CANCELING":
        return "being cancelled"
    error = _error(run)
    if state != "FAILED":
        return error
    failed = next((a for a in attempts if a.reason == "failed"), None)
    where = f"stage {failed.stage}" if failed else ""
    what = error or (failed.message if failed else "")
    return ": ".join(part for part in ("Failed", where, what) if part)


def _attempts(tasks: Iterable[Mapping[str, Any]]) -> Iterable[Attempt]:
    """One attempt for each stage that the run has a node of, the newest of each. Drivers and executors are nodes too, under names of their own."""
    newest: dict[str, Mapping[str, Any]] = {}
    for task in sorted(tasks, key=lambda t: (seconds(t.get("create_time")), seconds(t.get("start_time")))):
        newest[task.get("display_name") or ""] = task
    return [_attempt(stage, newest[stage]) for stage in STAGES if stage in newest]


def _attempt(stage: str, task: Mapping[str, Any]) -> Attempt:
    state = task.get("state") or ""
    if state in UNBEGUN:
        return Attempt(stage, 0, "pending")
    began, ended = seconds(task.get("start_time")), seconds(task.get("end_time"))
    # A node that is retried keeps its name; its history says how often it has run.
    number = [change.get("state") for change in task.get("state_history") or ()].count("RUNNING")
    failed = state == "FAILED"
    took = ended - began if began and ended > began else 0.0
    return Attempt(stage, max(1, number), REASONS.get(state, state.lower()), _error(task) if failed else "", took)


def _error(obj: Mapping[str, Any]) -> str:
    """The error of a run or a node, in one line: its own, else that of its last change."""
    found = (obj.get("error") or {}).get("message") or ""
    for change in obj.get("state_history") or ():
        found = (change.get("error") or {}).get("message") or found
    return " ".join(str(found).split())
