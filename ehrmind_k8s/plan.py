"""A run document becomes an ordered list of steps. Pure; the only place that knows what follows what.

    prepare > sft > rlvr > evaluate

`sft` is always there: with `sft.mode: never` it publishes the start model as its output (`skipped`), so every later stage reads one place.
"""

from dataclasses import dataclass

from ehrmind_k8s import artifacts
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.spec import STAGES, RunSpec

READS: dict[str, tuple[str, ...]] = {
    "prepare": (),
    "sft": ("prepare",),
    "rlvr": ("prepare", "sft"),
    "evaluate": ("prepare", "sft", "rlvr"),  # the base policy is published by sft, the first stage that holds torch
}
SAMPLES: tuple[str, ...] = ("rlvr", "evaluate")
TORCH: tuple[str, ...] = ("sft", "rlvr")


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of one run: which complete stage outputs it reads, the one it writes, and what it needs to run."""

    stage: str
    reads: tuple[str, ...]
    writes: str
    wants_rollout: bool
    image: str

    def argv(self, run_uri: str, attempt: int) -> list[str]:
        """The argument line that every place to run starts this step with."""
        return ["-m", "ehrmind_k8s.stages", self.stage, "--run", run_uri, "--attempt", str(attempt)]


def reads(spec: RunSpec, stage: str) -> tuple[str, ...]:
    """The stages whose output `stage` reads: evaluate leaves out rlvr when it is not among the policies compared."""
    skip = {"rlvr"} if stage == "evaluate" and "rlvr" not in spec.evaluate.policies else set()
    return tuple(s for s in READS[stage] if s not in skip)


def build(spec: RunSpec, run_uri: str) -> tuple[Step, ...]:
    """The steps of `spec` in order. Raises SpecError when a left-out stage has no input URI."""
    steps = []
    for stage in spec.stages:
        inputs = []
        for needed in reads(spec, stage):
            if needed not in spec.stages and needed not in spec.inputs:
                raise SpecError(
                    f"stages: {stage} reads the output of {needed}, which is neither in stages ({', '.join(spec.stages)}) nor in inputs;"
                    f" add it, or set inputs.{needed} to the URI of that output"
                )
            inputs.append(artifacts.stage_uri(spec, run_uri, needed))
        served = spec.rollout.engine == "vllm" and stage in SAMPLES
        inside = spec.rollout.engine == "transformers" and stage in SAMPLES
        image = "ehrmind-trainer" if stage in TORCH or inside else "ehrmind"
        steps.append(Step(stage, tuple(inputs), artifacts.stage_uri(spec, run_uri, stage), served, image))
    return tuple(steps)


assert set(READS) == set(STAGES)
