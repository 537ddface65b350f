"""What a stage gets and what it leaves: the two records between `stages.run_stage` and the code of a stage."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.spec import RunSpec
from ehrmind_k8s.storage import ObjectStore


@dataclass(frozen=True)
class Context:
    """What a stage gets. `out` is the stage's own prefix, `inputs` the prefixes of the stages it reads, `work` a scratch folder."""

    spec: RunSpec
    run_uri: str
    uid: str
    stage: str
    attempt: int
    claim: Claim
    out: ObjectStore
    inputs: dict[str, ObjectStore]
    work: Path


@dataclass(frozen=True)
class Output:
    """What a stage leaves: files to publish as its output, `meta` for the manifest, its primary score if it has one, and a few figures by name."""

    folder: Path
    meta: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    reason: str = "ok"
    message: str = ""
    headline: dict[str, float] = field(default_factory=dict)
