"""A run document as parameters, and what a second submit finds different."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import ehrmind_k8s
from ehrmind_k8s import spec
from ehrmind_k8s.backends.kfp import document, stage
from ehrmind_k8s.errors import SpecError
from tests.conftest import ROOT
from tests.unit.backends.kfp.conftest import COMPILED


def parameters(**written: Any) -> dict[str, Any]:
    written = {"task": "medcalc", "preset": "tiny", **written}
    return document.parameters(spec.load(written), written)


def test_a_bare_document_names_task_preset_and_run_and_leaves_the_rest_to_the_preset() -> None:
    assert parameters() == {
        "a_task": "medcalc",
        "a_preset": "tiny",
        "a_name": "medcalc-tiny",
        "b_data_uri": "",
        "b_store_uri": "",
        "c_model_uri": "",
        "d_sft_mode": "",
        "e_rlvr_steps": 0,
        "e_rollout_replicas": 0,
        "g_namespace": "",
        "g_profile": "default",
        "h_overrides": {},
    }


def test_what_has_a_parameter_is_there_and_the_rest_is_nested_in_the_overrides() -> None:
    found = parameters(
        name="demo",
        store="s3://runs",
        profile="gpu",
        seed=7,
        model={"uri": "s3://models/qwen", "tuning": "lora"},
        data={"uri": "s3://data/medcalc", "labels": "recomputed"},
        sft={"mode": "auto"},
        rlvr={"steps": 50, "reward": {"correct": 2}},
        rollout={"replicas": 2},
    )
    assert found == {
        "a_task": "medcalc",
        "a_preset": "tiny",
        "a_name": "demo",
        "b_data_uri": "s3://data/medcalc",
        "b_store_uri": "s3://runs",
        "c_model_uri": "s3://models/qwen",
        "d_sft_mode": "auto",
        "e_rlvr_steps": 50,
        "e_rollout_replicas": 2,
        "g_namespace": "",
        "g_profile": "gpu",
        "h_overrides": {"seed": 7, "model": {"tuning": "lora"}, "data": {"labels": "recomputed"}, "rlvr": {"reward": {"correct": 2}}},
    }


DOCUMENTS = (
    {},
    {"name": "demo", "store": "s3://runs", "profile": "gpu", "seed": 7},
    {"preset": "small", "model": {"uri": "s3://m", "tuning": "full"}, "data": {"uri": "s3://d", "labels": "recomputed", "shots": None}},
    {"preset": "paper", "recipe": "paper", "data": {"uri": "s3://d"}, "sft": {"mode": "never"}, "rlvr": {"steps": 5, "reward": {"correct": 2.0}}},
    {"rollout": {"replicas": 2, "min_ready": 2}, "evaluate": {"policies": ["base", "sft"]}, "policy": {"retries": 0}},
)


@pytest.mark.parametrize("written", DOCUMENTS, ids=str)
def test_the_first_step_makes_the_same_run_of_the_parameters(written: dict[str, Any]) -> None:
    written = {"task": "medcalc", "preset": "tiny", **written}
    sent = json.loads(json.dumps(parameters(**written)), parse_int=float)  # Kubeflow hands numbers over as 5.0
    made = stage.document({name.partition("_")[2]: value for name, value in sent.items()})
    assert spec.load(made) == spec.load(written)


def test_the_compiled_pipeline_has_every_parameter() -> None:
    document.fitting(document.read(ROOT / document.FILE), parameters())


def test_a_number_that_was_written_as_text_is_a_number() -> None:
    assert parameters(rlvr={"steps": "50"})["e_rlvr_steps"] == 50


def test_there_are_at_most_twelve_parameters_in_the_order_of_a_run() -> None:
    names = list(parameters())
    assert len(names) <= 12 and [name[0] for name in names] == sorted(name[0] for name in names)


def test_the_written_document_is_left_as_it_is() -> None:
    written = {"task": "medcalc", "preset": "tiny", "rlvr": {"steps": 5}}
    document.parameters(spec.load(written), written)
    assert written == {"task": "medcalc", "preset": "tiny", "rlvr": {"steps": 5}}


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"stages": ["prepare"]}, "stages: a pipeline always runs all stages"),
        ({"inputs": {"prepare": "s3://a/prepare"}}, "inputs: each stage of a pipeline reads the one before"),
        ({"attempt": 2}, "attempt: submit the same document again"),
        ({"suspend": True}, "suspend: a pipeline's run cannot be suspended"),
        ({"cancel": True}, "cancel: `ehrmind cancel` ends"),
    ],
)
def test_keys_of_a_single_object_are_refused_with_a_sentence(written: dict[str, Any], sentence: str) -> None:
    whole = spec.load({"task": "medcalc", "preset": "tiny"})
    with pytest.raises(SpecError, match=sentence):
        document.parameters(whole, {"task": "medcalc", "preset": "tiny", **written})


def test_keys_of_a_single_object_that_say_nothing_are_passed_over() -> None:
    assert parameters(stages=list(spec.STAGES), inputs={}, attempt=1, suspend=False, cancel=False) == parameters()


def test_differences_are_in_the_words_of_the_document_and_name_no_place() -> None:
    old = parameters(data={"uri": "s3://ward-7/patients"}, seed=1)
    new = parameters(data={"uri": "s3://ward-8/patients"}, seed=2, rlvr={"steps": 5})
    assert document.differences(old, new) == ["data.uri: another one", "rlvr.steps: None -> 5", "seed: 1 -> 2"]
    assert document.differences(old, old | {"e_rlvr_steps": 0.0}) == []


def test_a_run_that_was_started_in_the_form_has_the_defaults_of_the_pipeline() -> None:
    compiled = document.read(COMPILED)
    assert document.differences(compiled.defaults | {"a_name": "medcalc-tiny"}, parameters()) == []


def test_a_compiled_file_has_two_documents_of_which_the_api_takes_both() -> None:
    source = document.read(COMPILED).source
    assert source["pipeline_spec"]["pipelineInfo"]["name"] == "ehrmind"
    assert "kubernetes" in source["platform_spec"]["platforms"]


def test_without_a_compiled_file_it_is_said_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(document, "PLACES", (tmp_path / "none.yaml",))
    with pytest.raises(SpecError, match="make pipelines"):
        document.compiled()


def test_the_packages_own_file_comes_before_that_of_a_checkout() -> None:
    package, checkout = document.PLACES
    assert package.parts[-3:] == ("ehrmind_k8s", "pipelines", "ehrmind.yaml") and checkout.parent.parent == package.parents[2]


@pytest.mark.parametrize(
    ("text", "sentence"), [("a: [", "not valid YAML"), ("a: 1", "no compiled pipeline"), ("", "no compiled pipeline"), ("- 1", "no compiled")]
)
def test_a_file_that_is_no_compiled_pipeline_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=sentence):
        document.read(path)


def test_a_pipeline_of_another_version_is_not_run_with_parameters_it_does_not_have() -> None:
    compiled = document.read(COMPILED)
    with pytest.raises(SpecError, match="no parameter i_new: it was compiled by another version"):
        document.fitting(compiled, {"i_new": 1})


def test_the_file_for_a_registry_differs_in_its_image_and_in_nothing_else() -> None:
    found = document.compiled()
    text = document.adapted(found, "registry.example:5000/team/ehrmind:0.1.0", lists=False)
    pipeline, platform = yaml.safe_load_all(text)
    images = {e["container"].pop("image") for e in pipeline["deploymentSpec"]["executors"].values()}
    assert images == {"registry.example:5000/team/ehrmind:0.1.0"}
    same, _ = yaml.safe_load_all(document.adapted(found, None, lists=False))
    assert {e["container"].pop("image") for e in same["deploymentSpec"]["executors"].values()} == {f"ehrmind:{ehrmind_k8s.__version__}"}
    assert (pipeline, platform) == (same, found.platform)


def test_lists_are_what_the_document_takes() -> None:
    pipeline, _ = yaml.safe_load_all(document.adapted(document.compiled(), None, lists=True))
    declared = pipeline["root"]["inputDefinitions"]["parameters"]
    assert declared["a_preset"]["literals"] == list(spec.PRESETS)
    for mode in declared["d_sft_mode"]["literals"]:
        spec.load(stage.document({"task": "medcalc", "preset": "tiny", "sft_mode": mode}))


@pytest.mark.parametrize("image", ["ehrmind", "ehrmind:latest", "UPPER/ehrmind:1", "ehrmind:1 x", "ehrmind@sha256:12"])
def test_an_image_without_a_version_is_refused(image: str) -> None:
    with pytest.raises(SpecError, match="expected an image with a version tag or a digest"):
        document.adapted(document.compiled(), image, lists=False)
