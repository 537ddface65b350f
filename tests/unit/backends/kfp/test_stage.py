"""From a step's parameters to the document of its stage and the name of its run."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s import crd, spec
from ehrmind_k8s.backends.kfp import stage
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.spec import STAGES

RUN = "6f1d2c9e-6e5b-4b0c-9a39-0f6a3d4f2f10"
URIS = {f"{s}_uri": f"s3://b/runs/a/{s}" for s in STAGES}


def test_empty_parameters_leave_everything_to_the_preset() -> None:
    empty = {"preset": "", "name": "", "data_uri": "", "rlvr_steps": 0, "rollout_replicas": 0.0, "overrides": {}, "variant": "", "run_id": RUN}
    assert stage.document({"task": "trec", **empty}) == {"task": "trec"}


def test_each_parameter_has_its_place_in_the_document() -> None:
    given = {"task": "trec", "preset": "small", "data_uri": "s3://b/d", "store_uri": "s3://b/runs", "model_uri": "s3://b/m", "sft_mode": "never"}
    found = stage.document({**given, "rlvr_steps": 30.0, "rollout_replicas": 2, "profile": "gpu", "overrides": '{"rlvr": {"kl": 0.1}}'})
    assert found == {
        "task": "trec",
        "preset": "small",
        "data": {"uri": "s3://b/d"},
        "store": "s3://b/runs",
        "model": {"uri": "s3://b/m"},
        "sft": {"mode": "never"},
        "rlvr": {"steps": 30, "kl": 0.1},
        "rollout": {"replicas": 2},
        "profile": "gpu",
    }
    assert isinstance(found["rlvr"]["steps"], int)  # Kubeflow hands numbers over as 30.0


def test_numbers_inside_an_object_are_whole_again() -> None:
    over = {"rlvr": {"steps": 3.0, "learning_rate": 0.5}, "sft": {"categories": ["a"]}, "data": {"shots": 8.0}}
    found = stage.document({"task": "trec", "overrides": over, "variant": {"model": {"context": 512.0}}})
    assert (found["rlvr"], found["data"], found["model"]) == ({"steps": 3, "learning_rate": 0.5}, {"shots": 8}, {"context": 512})
    assert all(isinstance(n, int) for n in (found["rlvr"]["steps"], found["data"]["shots"], found["model"]["context"]))


def test_a_variant_wins_over_all_else() -> None:
    found = stage.document({"task": "trec", "sft_mode": "never", "overrides": {"seed": 1}, "variant": {"sft": {"mode": "always"}, "seed": 2}})
    assert found == {"task": "trec", "sft": {"mode": "always"}, "seed": 2}


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "task: missing"),
        ({"task": "trec", "overrides": "{"}, "overrides: not JSON"),
        ({"task": "trec", "overrides": [1]}, "overrides: expected an object of run fields"),
        ({"task": "trec", "rlvr_steps": 3, "overrides": {"rlvr": {"steps": 4}}}, "overrides: rlvr.steps differs from what its own parameter says"),
        ({"task": "trec", "overrides": {"attempt": 2}}, "attempt: a step of a pipeline sets this itself"),
        ({"task": "trec", "variant": {"stages": ["sft"]}}, "stages: a step of a pipeline sets this itself"),
    ],
)
def test_what_cannot_be_is_named(parameters: dict[str, object], sentence: str) -> None:
    with pytest.raises(SpecError, match=re.escape(sentence)):
        stage.document(parameters)


@pytest.mark.parametrize("name", STAGES)
def test_a_step_runs_one_stage_and_reads_the_outputs_before_it(name: str) -> None:
    shared = stage.document({"task": "medcalc", "preset": "tiny"})
    before = {k: v for k, v in URIS.items() if STAGES.index(k.removesuffix("_uri")) < STAGES.index(name)}
    parameters = {"document": json.dumps(shared), "run_id": RUN, **before} if name != "prepare" else {"task": "medcalc", "preset": "tiny"}
    found = stage.of(name, parameters)
    assert found["stages"] == [name]
    assert found["inputs"] == {k.removesuffix("_uri"): v for k, v in before.items()}
    spec.load(found)  # it makes a run
    crd.to_object(found, "research")


def test_a_step_that_lacks_an_output_says_which() -> None:
    with pytest.raises(SpecError, match=r"sft_uri: missing; step rlvr reads the output of sft"):
        stage.of("rlvr", {"document": '{"task": "medcalc"}', "prepare_uri": "s3://b/p"})
    with pytest.raises(SpecError, match=r"stage 'rlrv' is unknown; did you mean 'rlvr'"):
        stage.of("rlrv", {})


@given(st.text(max_size=60), st.sampled_from(STAGES), st.text(max_size=40))
def test_every_name_is_one_that_a_run_may_have(name: str, of: str, run_id: str) -> None:
    found = stage.name(of, {"task": "medcalc", "name": name}, run_id)
    assert re.fullmatch(crd.names.NAME_PATTERN, found) and len(found) <= crd.NAME_LIMIT
    assert found == stage.name(of, {"name": name, "task": "medcalc"}, run_id)


def test_names_differ_between_runs_stages_and_documents() -> None:
    names = [stage.name(s, {"task": "medcalc", "seed": n}, run) for s in STAGES for n in (1, 2) for run in (RUN, "other")]
    assert len(set(names)) == len(names)
    assert names[0].startswith("medcalc-default-prepare-")
