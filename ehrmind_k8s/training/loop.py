"""What both stages do at a step boundary: keep the learning curve, commit checkpoints beside training, and stop in order on SIGTERM."""

import json
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback

from ehrmind_k8s import artifacts
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.errors import RolloutUnavailable
from ehrmind_k8s.training import checkpoint, ranks
from ehrmind_k8s.training.checkpoint import Checkpoint, Uploader
from ehrmind_k8s.training.stopping import Abandoned, Stop


class Curve:
    """`metrics.jsonl`: one line per step. It travels in every checkpoint, so a resumed run has the whole curve."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / artifacts.METRICS

    def restore(self, folder: Path) -> None:
        """Take over the curve of a checkpoint."""
        shutil.copy(folder / artifacts.METRICS, self.path)

    def add(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class StepBoundary(TrainerCallback):
    """Saves every `every` steps and when a stop is asked for. `describe(step)` says what a checkpoint is of, `beside(folder)` puts more into it."""

    def __init__(
        self,
        claim: Claim,
        curve: Curve,
        every: int,
        keep: int,
        describe: Callable[[int], Checkpoint],
        stop: Stop | None = None,
        beside: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        self.claim, self.curve, self.every, self.keep, self.describe, self.beside = claim, curve, every, keep, describe, beside
        self.uploader = Uploader()
        self.stop = stop or Stop()
        self.whole = self.saved = 0  # the last step that is over, and the last one that was saved

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.whole = self.saved = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.whole = state.global_step
        self.uploader.check()
        stop = any(ranks.gather(self.stop.asked))
        if stop or state.global_step % self.every == 0:
            control.should_save = True
        if stop:
            self.stop.asked = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = state.global_step
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        checkpoint.share_rng(folder)
        if ranks.rank() == 0:
            shutil.copy(self.curve.path, folder)
            self.beside(folder)
            self.uploader.start(partial(self._commit, self.describe(state.global_step), folder))
        else:
            shutil.rmtree(folder)

    def save(self, trainer: Trainer) -> None:
        """Commit the last step, unless it is already. To be called where training stopped while it waited for samples, before any work of the next.

        Nothing is saved where it was the check on validation rows that waited: the learning curve lacks that step still.
        """
        if trainer.state.global_step == self.whole != self.saved:
            trainer._save_checkpoint(trainer.model_wrapped, None)
            self.on_save(trainer.args, trainer.state, trainer.control)

    def _commit(self, made: Checkpoint, folder: Path) -> None:
        checkpoint.publish(self.claim, made, folder)
        checkpoint.retain(self.claim, self.keep)
        shutil.rmtree(folder)


def train(trainer: Trainer, boundary: StepBoundary, restored: Path | None) -> None:
    """Train from the start or from a restored checkpoint folder to the last step.

    Raises SystemExit(143) after a checkpoint when SIGTERM arrived, RolloutUnavailable after one too, and whatever an upload raised.
    """
    trainer.remove_callback(PrinterCallback)  # prints to standard output, which carries events
    trainer.add_callback(boundary)
    previous = signal.signal(signal.SIGTERM, boundary.stop)
    try:
        try:
            trainer.train(resume_from_checkpoint=str(restored) if restored else None)
        except (Abandoned, RolloutUnavailable):
            if ranks.size() == 1:  # saving takes all of several, and not all of them may be here
                boundary.save(trainer)
                boundary.uploader.wait()
            if not boundary.stop.asked:
                raise
        boundary.uploader.wait()
    finally:
        signal.signal(signal.SIGTERM, previous)
        boundary.uploader.close()
    if boundary.stop.asked:
        raise SystemExit(143)
