"""Checkpoints that can be trusted: one artifact, its manifest last, and a resume that reads nothing else.

Trainer writes weights or adapter, optimizer, scheduler, RNG of every rank and its own state to a local folder; the stage adds its learning
curves. All of it becomes one artifact, uploaded beside training. What counts as a checkpoint is decided by the manifest alone: Trainer itself
would take the highest folder number, and go on with a fresh optimizer where its file is missing, without a word.
Left out: `training_args.bin` (a pickle of code, rebuilt from spec.json) and the generated README.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ehrmind_k8s import artifacts, logs
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.errors import IntegrityError
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.training import ranks
from ehrmind_k8s.training.ledger import Begin, is_live

LEFT_OUT = ("training_args.bin", "README.md")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything before step `step` + 1. `position` counts rows read (the data position and the ledger's), `policy` names the weights sampled
    from, `score` is the validation accuracy where it was measured at this very step.
    """

    step: int
    attempt: int
    position: int
    policy: str = ""
    score: float | None = None
    world_size: int = 1

    @property
    def key(self) -> str:
        return artifacts.checkpoint_key(self.step, self.attempt)


def publish(claim: Claim, checkpoint: Checkpoint, folder: Path) -> None:
    """Upload a checkpoint folder. Raises Fenced when a newer attempt owns the stage."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name not in LEFT_OUT)
    artifacts.publish(claim.store, checkpoint.key, folder, "checkpoint", asdict(checkpoint), names, claim)
    logs.event("checkpoint", step=checkpoint.step, name=checkpoint.key)


def begun(store: ObjectStore) -> dict[str, Checkpoint | None]:
    """Every checkpoint of the stage by key, oldest step first; None for one without a readable manifest, which is torn."""
    found: dict[str, Checkpoint | None] = {}
    for step, attempt in artifacts.checkpoints(store):
        key = artifacts.checkpoint_key(step, attempt)
        try:
            manifest = artifacts.load(store, key)
        except IntegrityError:
            manifest = None
        found[key] = Checkpoint(**manifest.meta) if manifest else None
    return found


def restore(store: ObjectStore, folder: Path, begins: Sequence[Begin] = ()) -> Checkpoint | None:
    """Fetch the newest whole checkpoint of the surviving lineage into `folder`; None where there is none.

    One that is torn or fails its checksums is named in an event, and the one before it is taken.
    """
    for key, checkpoint in reversed(begun(store).items()):
        if checkpoint is None:
            logs.event("checkpoint.torn", name=key)
            continue
        if not is_live(checkpoint.step, checkpoint.attempt, begins):
            continue
        try:
            artifacts.fetch(store, checkpoint.key, folder)
        except IntegrityError as error:
            logs.event("checkpoint.refused", name=checkpoint.key, message=str(error))
            continue
        logs.event("checkpoint.restored", name=checkpoint.key, step=checkpoint.step)
        return checkpoint
    return None


def restore_everywhere(store: ObjectStore, folder: Path, begins: Sequence[Begin] = ()) -> Checkpoint | None:
    """`restore` on rank 0, then the same checkpoint on every other rank, whose `folder` is its own."""
    chosen = ranks.on_first(lambda: restore(store, folder, begins))
    if chosen and ranks.rank() != 0:
        artifacts.fetch(store, chosen.key, folder)
    return chosen


def surplus(checkpoints: Sequence[Checkpoint], keep: int) -> list[Checkpoint]:
    """What retention deletes: all but the `keep` newest and the best by validation (the later one of two that are equal).

    A later attempt's are newer at any step: what an earlier one left ahead of where it went on from is not in its lineage.
    """
    ordered = sorted(checkpoints, key=lambda c: (c.attempt, c.step))
    scored = [c for c in ordered if c.score is not None]
    best = max(scored, key=lambda c: (c.score, c.step), default=None)
    return [c for c in ordered[: -keep or None] if c != best]


def retain(claim: Claim, keep: int) -> None:
    """Delete surplus checkpoints of the stage, and what older attempts left torn."""
    found = begun(claim.store)
    torn = [key for key, c in found.items() if c is None and not key.endswith(f"-a{claim.attempt}")]
    for key in [*torn, *(c.key for c in surplus([c for c in found.values() if c], keep))]:
        claim.check()
        artifacts.remove(claim.store, key)


class Uploader:
    """At most one upload in flight, beside training. Its failure surfaces at the next call."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def start(self, action: Callable[[], None]) -> None:
        """Wait for the upload before, then run `action` in the background."""
        self.wait()
        self._pending = self._thread.submit(action)

    def check(self) -> None:
        """Raise what a finished upload raised; return at once while one is running."""
        if self._pending and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Block until nothing is in flight; raise what it raised."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def close(self) -> None:
        """Let the upload in flight end; its failure no longer matters."""
        self._thread.shutdown(wait=True)


def share_rng(folder: Path) -> None:
    """Bring every rank's RNG file to rank 0's folder, and hold all ranks until they are there: rank 0 saves before the others have."""
    mine = {p.name: p.read_bytes() for p in folder.glob("rng_state*.pth")} if folder.is_dir() else {}
    for files in ranks.gather(mine):
        for name, data in files.items():
            if not (folder / name).exists():
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
