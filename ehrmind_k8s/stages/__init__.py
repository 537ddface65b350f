"""The seam that all backends share: `run_stage` turns input URIs into one output URI.

A stage is a module with `run(context) -> Output`. It reads complete inputs, works in `context.work`, and returns a folder;
`run_stage` publishes that folder with the manifest last. A complete stage run again returns its result at once from its manifest.
"""

import importlib
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from ehrmind_k8s import artifacts, logs, plan, settings, storage, versions
from ehrmind_k8s.artifacts import Claim, RunDocument
from ehrmind_k8s.context import Context, Output
from ehrmind_k8s.records import StageResult
from ehrmind_k8s.storage import disk

__all__ = ["Context", "Output", "run_stage"]


def run_stage(stage: str, run_uri: str, attempt: int) -> StageResult:
    """Run one stage of the run at `run_uri` as attempt K, or return the result of a complete one."""
    document = RunDocument.at(run_uri)
    spec = document.spec
    out = storage.open(artifacts.stage_uri(spec, run_uri, stage))
    done = artifacts.load(out)
    if done:
        return StageResult(**done.meta["result"])
    claim = Claim(out, attempt)
    first = os.environ.get("RANK", "0") == "0"  # under torchrun every rank runs the stage, and the first one alone writes
    if first:
        claim.take()
        logs.event("stage.start")
    started = time.monotonic()
    inputs = {name: storage.open(artifacts.stage_uri(spec, run_uri, name)) for name in plan.reads(spec, stage)}
    module = importlib.import_module(f"ehrmind_k8s.stages.{stage}")
    with tempfile.TemporaryDirectory(prefix=f"ehrmind-{stage}-", dir=settings.load().work_dir) as work, disk.full(Path(work)):
        output: Output = module.run(Context(spec, run_uri, document.uid, stage, attempt, claim, out, inputs, Path(work)))
        seconds = round(time.monotonic() - started, 3)
        result = StageResult(stage, out.uri, output.reason, output.message, output.score, seconds)
        meta = {**output.meta, "versions": versions.installed(), "result": asdict(result)}
        if first:
            artifacts.publish(out, "", output.folder, stage, meta, claim=claim)
    return result
