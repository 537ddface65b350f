"""Which pods `ehrmind logs --of SOURCE` means: a stage, one attempt of it, the rollout servers, one of them, or a pod by its name. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.backends.base import RunStatus
from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.spec import STAGES

Pod = Mapping[str, Any]
SERVERS = "rollout"


@dataclass(frozen=True, slots=True)
class Source:
    """`role` is a stage or `rollout`, "" for any stage; `server` counts rollout pods from the oldest; `pod` is a pod's name."""

    role: str = ""
    attempt: int | None = None
    server: int | None = None
    pod: str = ""

    def among(self, pods: Sequence[Pod]) -> list[Pod]:
        """Those of `pods` (oldest first) that this source means, of all attempts that it allows."""
        if self.pod:
            return [pod for pod in pods if pod["metadata"]["name"] == self.pod]
        roles = (self.role,) if self.role else STAGES
        found = [p for p in pods if _role(p) in roles and self.attempt in (None, _attempt(p))]
        return found if self.server is None else found[self.server : self.server + 1]

    def newest(self, pods: Sequence[Pod]) -> list[Pod]:
        """Of those the ones of the newest attempt; of servers all."""
        found = self.among(pods)
        if self.role == SERVERS or self.pod or not found:
            return found
        last = found[-1]
        return [pod for pod in found if (_role(pod), _attempt(pod)) == (_role(last), _attempt(last))]

    def over(self, status: RunStatus, seen: bool) -> bool:
        """Whether no other pod of this source will come, though the run goes on. `seen`: one was there."""
        if self.pod or self.server is not None:
            return seen
        stage = next((a for a in status.attempts if a.stage == self.role), None)
        if stage is None:
            return False
        ended = stage.reason not in ("pending", "queued", "starting", "running")
        return ended or (self.attempt is not None and stage.attempt > self.attempt)


def parse(source: str | None, run: str) -> Source:
    """`rlvr`, `rlvr-a2`, `rollout`, `rollout-0`, or the name of a pod of `run`. Raises SpecError for anything else."""
    if source is None:
        return Source()
    if source in (*STAGES, SERVERS):
        return Source(source)
    if (match := re.fullmatch(r"([a-z]+)-a(\d+)", source)) and match[1] in STAGES:
        return Source(match[1], attempt=int(match[2]))
    if match := re.fullmatch(rf"{SERVERS}-(\d+)", source):
        return Source(SERVERS, server=int(match[1]))
    if source.startswith(f"{run}-"):
        return Source(pod=source)
    raise SpecError(
        f"--of {source!r}: expected a stage, one attempt of it (sft-a2), a server (rollout-0) or a pod; {nearest(source, [*STAGES, SERVERS])}"
    )


def _role(pod: Pod) -> str:
    return str(pod["metadata"]["labels"].get(crd.LABEL_ROLE, ""))


def _attempt(pod: Pod) -> int:
    text = str(pod["metadata"]["labels"].get(crd.LABEL_ATTEMPT, ""))
    return int(text) if text.isdecimal() else 0
