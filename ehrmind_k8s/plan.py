"""A run document becomes an ordered list of steps. Pure; the only place that knows what follows what.

    prepare > diagnose > sft > rlvr > evaluate

`sft` is always there: where no warm-up is wanted it publishes the start model as its output (`skipped`), so every later stage reads one place.
`diagnose` may be left out; whichever of the two comes first publishes the start model as policy `base`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ehrmind_k8s import artifacts
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.spec import STAGES, RunSpec

READS: dict[str, tuple[str, ...]] = {
    "prepare": (),
    "diagnose": ("prepare",),
    "sft": ("prepare", "diagnose"),
    "rlvr": ("prepare", "sft"),
    "evaluate": ("prepare", "diagnose", "sft", "rlvr"),
}
SAMPLES: tuple[str, ...] = ("diagnose", "rlvr", "evaluate")
TRAINING: tuple[str, ...] = ("sft", "rlvr")  # started by torchrun, on all GPUs
TORCH: tuple[str, ...] = ("diagnose", *TRAINING)  # hold the model: diagnose publishes it with its canary


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
    """The stages whose output `stage` reads: a diagnosis where there is one; evaluate leaves out rlvr when it is not among the policies compared."""
    skip = {"rlvr"} if stage == "evaluate" and "rlvr" not in spec.evaluate.policies else set()
    skip |= set() if spec.diagnosed else {"diagnose"}
    return tuple(s for s in READS[stage] if s not in skip)


def base_stage(spec: RunSpec) -> str:
    """The stage that publishes policy `base`: the first that holds torch."""
    return "diagnose" if spec.diagnosed else "sft"


def serving_from(steps: Sequence["Step"]) -> int | None:
    """Index of the step from which on rollout servers run, None where no step wants any.

    One ahead of the first that wants them, since vLLM takes minutes to start; but not before prepare is done, whose model they load.
    """
    first = next((i for i, step in enumerate(steps) if step.wants_rollout), None)
    if first is None:
        return None
    begun = 1 if steps[0].stage == "prepare" else 0
    return min(first, max(first - 1, begun))


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
