"""How far the running stage is, as often as a person would see a difference.

A pod says something new every few seconds; the status follows after 10 s where it is at least one in a hundred, and after a minute otherwise.
"""

from dataclasses import replace

from ehrmind_k8s.controller.records import Progress, Snapshot
from ehrmind_k8s.controller.state import Advance, State, left_s

LEAST_S, MOST_S = 10.0, 60.0
SHARE = 0.01


def heard(current: State, snapshot: Snapshot) -> Progress | None:
    """What the leader of the current attempt said last; nothing of any other."""
    said, stage = snapshot.progress, current.current
    if not said or not stage or (said.stage, said.attempt) != (stage.name, stage.attempt):
        return None
    return said if any(p.uid == said.pod_uid for p in snapshot.pods) else None


def show(current: State, snapshot: Snapshot, now: float) -> State:
    """The state with the newest progress, if it is time for it."""
    said, old, stage = heard(current, snapshot), current.progress, current.current
    if not said or not stage or stage.state != "running":
        return current
    figures = {name: float(f"{value:.4g}") for name, value in sorted(said.figures.items())}
    new = Advance(said.done, said.total, said.unit, figures, now)
    if old:
        if replace(old, updated=now) == new:
            return current
        visible = (old.total, old.unit) != (new.total, new.unit) or abs(new.done - old.done) >= SHARE * new.total
        if (left := left_s(old.updated, LEAST_S if visible else MOST_S, now)) > 0:
            return current.waking(left)
    return replace(current, progress=new)
