"""The seam that all backends share: `run_stage` turns input URIs into one output URI.

A stage is a module with `run(context) -> Output`. It reads complete inputs, works in `context.work`, and returns a folder;
`run_stage` publishes that folder with the manifest last. A complete stage run again returns its result at once from its manifest.

Under torchrun every rank runs the stage, and the first one alone writes.
"""

import importlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from ehrmind_k8s import artifacts, logs, plan, settings, storage, versions
from ehrmind_k8s.artifacts import Claim, RunDocument
from ehrmind_k8s.context import Context, Output
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.records import StageResult
from ehrmind_k8s.storage import disk

__all__ = ["Context", "Output", "run_stage"]

T = TypeVar("T")


def run_stage(stage: str, run_uri: str, attempt: int) -> StageResult:
    """Run one stage of the run at `run_uri` as attempt K, or return the result of a complete one."""
    configured, first = settings.load(), os.environ.get("RANK", "0") == "0"
    document = RunDocument.settle(run_uri, configured.spec_file, update=first)
    spec = document.spec
    out = storage.open(artifacts.stage_uri(spec, run_uri, stage))
    done = artifacts.load(out)
    if done:
        return StageResult(**done.meta["result"])
    _check_size(configured.world_size)
    claim = Claim(out, attempt)
    with _peers():
        _on_first(claim.take)
        if first:
            logs.event("stage.start")
        started = time.monotonic()
        inputs = {name: storage.open(artifacts.stage_uri(spec, run_uri, name)) for name in plan.reads(spec, stage)}
        module = importlib.import_module(f"ehrmind_k8s.stages.{stage}")
        with tempfile.TemporaryDirectory(prefix=f"ehrmind-{stage}-", dir=configured.work_dir) as work, disk.full(Path(work)):
            output: Output = module.run(Context(spec, run_uri, document.uid, stage, attempt, claim, out, inputs, Path(work)))
            seconds = round(time.monotonic() - started, 3)
            result = StageResult(stage, out.uri, output.reason, output.message, output.score, seconds, headline=output.headline)
            meta = {**output.meta, "versions": versions.installed(), "result": asdict(result)}
            # The others wait for it: with elastic workers the training operator takes the first one that ends for the end of the job.
            _on_first(lambda: artifacts.publish(out, "", output.folder, stage, meta, claim=claim))
    return result


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _check_size(expected: int | None) -> None:
    """Raises SpecError where the launcher has started another number of processes than the cluster was asked for: each pod would train alone."""
    if expected is not None and expected != _world():
        raise SpecError(
            f"expected {expected} training processes (EHRMIND_WORLD_SIZE), the launcher started {_world()}:"
            " the training operator did not set the rendezvous"
        )


def _on_first(action: Callable[[], T]) -> T:
    """`action` on the first rank, its result or failure on all. torch is loaded only where there are several."""
    if _world() == 1:
        return action()
    from ehrmind_k8s.training import ranks

    ranks.join()
    return ranks.on_first(action)


def _peers() -> AbstractContextManager[None]:
    """Where there are several ranks: the loss of another one is an error that another attempt may mend."""
    if _world() == 1:
        return nullcontext()
    from ehrmind_k8s.training import ranks

    return ranks.peers()
