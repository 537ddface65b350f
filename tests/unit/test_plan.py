"""What follows what, and with which argument line. The golden table holds every place to run to the same lines."""

from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import plan, spec
from ehrmind_k8s.errors import SpecError
from tests.conftest import ROOT

RUN = "s3://bucket/runs/demo"
CASES: dict[str, list[str]] = {
    "servers": [],
    "inside the trainer": ["rollout.engine=transformers"],
    "without rlvr": ["stages=[prepare,sft,evaluate]", "evaluate.policies=[base,sft]"],
    "without a diagnosis": ["stages=[prepare,sft]"],
    "a diagnosis from another run": ["stages=[prepare,sft]", "sft.mode=auto", "inputs={diagnose: s3://bucket/runs/other/diagnose}"],
    "from another run": ["stages=[rlvr,evaluate]", "inputs={prepare: s3://bucket/runs/other/prepare, sft: s3://bucket/runs/other/sft}"],
    "only data": ["stages=[prepare]"],
}


def steps(overrides: list[str]) -> tuple[plan.Step, ...]:
    return plan.build(spec.load({"task": "medcalc", "preset": "tiny", "name": "demo"}, overrides), RUN)


def table() -> str:
    """One line per step of every case."""
    lines = []
    for case, overrides in CASES.items():
        lines.append(f"{case}: {' '.join(overrides) or '-'}")
        for s in steps(overrides):
            lines.append(f"  {s.stage} image={s.image} servers={'yes' if s.wants_rollout else 'no'}")
            lines.append(f"    python {' '.join(s.argv(RUN, 2))}")
            lines += [f"    reads {uri}" for uri in s.reads] + [f"    writes {s.writes}"]
    return "\n".join(lines) + "\n"


def test_steps_and_argument_lines_are_those_of_the_golden_table() -> None:
    assert table() == (ROOT / "tests" / "golden" / "plan" / "steps.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_a_step_reads_only_what_was_written_before_or_comes_from_outside(overrides: list[str]) -> None:
    written: set[str] = set()
    outside = set(spec.load({"task": "medcalc"}, [o for o in overrides if o.startswith("inputs")]).inputs.values())
    for step in steps(overrides):
        assert set(step.reads) <= written | outside
        written.add(step.writes)


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        ([], "diagnose"),  # not beside prepare, which makes the model that servers load
        (["stages=[prepare,sft,rlvr,evaluate]"], "sft"),
        (["stages=[rlvr,evaluate]", "inputs={prepare: s3://b/p, sft: s3://b/s}"], "rlvr"),
        (["stages=[prepare,evaluate]", "inputs={sft: s3://b/s, rlvr: s3://b/r}"], "evaluate"),
    ],
)
def test_servers_start_one_stage_ahead_of_need_but_not_before_their_model_is_there(overrides: list[str], first: str) -> None:
    built = steps(overrides)
    begun = plan.serving_from(built)
    assert begun is not None and built[begun].stage == first


def test_a_run_without_servers_never_starts_any() -> None:
    assert plan.serving_from(steps(["rollout.engine=transformers"])) is None


def test_the_first_stage_that_holds_torch_publishes_the_start_model() -> None:
    assert plan.base_stage(spec.load({"task": "medcalc"})) == "diagnose"
    assert plan.base_stage(spec.load({"task": "medcalc", "preset": "tiny", "stages": ["prepare", "sft"]})) == "sft"


def test_a_left_out_stage_needs_an_input() -> None:
    with pytest.raises(SpecError, match=r"rlvr reads the output of prepare.*set inputs\.prepare"):
        steps(["stages=[rlvr]"])


def test_an_input_of_another_run_is_not_written_to() -> None:
    inputs: dict[str, Any] = {"sft": "s3://bucket/runs/other/sft"}
    built = plan.build(spec.load({"task": "medcalc", "stages": ["prepare", "rlvr"], "inputs": inputs}), RUN)
    assert inputs["sft"] not in [s.writes for s in built]
    assert inputs["sft"] in built[-1].reads


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_each_example_document_can_be_planned(example: Path) -> None:
    document = spec.load(spec.parse_yaml(example.read_text(encoding="utf-8"), example.name))
    assert [step.stage for step in plan.build(document, "file:///runs/x")] == list(document.stages)
