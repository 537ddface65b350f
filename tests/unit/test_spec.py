"""The run document: where values come from, and how a wrong one is refused."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s import spec
from ehrmind_k8s.errors import SpecError

TINY: dict[str, Any] = {"task": "medcalc", "preset": "tiny"}


def refusal(document: dict[str, Any], *overrides: str) -> str:
    """What loading this document says."""
    with pytest.raises(SpecError) as error:
        spec.load(document, overrides)
    return str(error.value)


@pytest.mark.parametrize("preset", spec.PRESETS)
def test_every_preset_is_a_whole_document(preset: str) -> None:
    document = spec.load({"task": "medcalc", "preset": preset})
    assert document.name == f"medcalc-{preset}"
    assert spec.from_json(document.model_dump(mode="json")) == document


def test_an_option_wins_over_the_file_which_wins_over_the_preset_which_wins_over_the_default() -> None:
    assert spec.load({"task": "medcalc"}).rlvr.steps == 200
    assert spec.load(TINY).rlvr.steps == 30
    assert spec.load(TINY | {"rlvr": {"steps": 7}}).rlvr.steps == 7
    assert spec.load(TINY | {"rlvr": {"steps": 7}}, ["rlvr.steps=9"]).rlvr.steps == 9


def test_one_key_of_a_section_leaves_the_others_to_the_preset() -> None:
    assert spec.load(TINY, ["rlvr.steps=9"]).rlvr.learning_rate == spec.load(TINY).rlvr.learning_rate


def test_the_paper_recipe_restores_the_papers_choices_and_a_preset_of_sizes_stays() -> None:
    paper = spec.load(TINY | {"recipe": "paper"})
    assert (paper.rlvr.kl, paper.rlvr.temperature, paper.rlvr.top_p, paper.sft.loss_on, paper.data.note_overlap) == (0.001, 0.6, 0.95, "text", "keep")
    assert paper.rlvr.steps == spec.load(TINY).rlvr.steps


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("rlvr.step=3", "rlvr.step: unknown key; did you mean 'steps'?"),
        ("rlvrr.steps=3", "rlvrr: unknown key; did you mean 'rlvr'?"),
        ("rlvr.reward.wrng=0", "rlvr.reward.wrng: unknown key; did you mean 'wrong'?"),
        ("rlvr.steps=0", "rlvr.steps: found 0: Input should be greater than or equal to 1"),
        ("rlvr.steps=many", "rlvr.steps: found 'many'"),
        ("rlvr.temperature=.nan", "rlvr.temperature"),
        ("model.tuning=qlora", "model.tuning: found 'qlora'"),
        ("diagnose.threshold=2", "diagnose.threshold: found 2"),
        ("sft.traces=file", "sft: traces: file and traces_file go together"),
        ("sft.traces_file=a.jsonl", "sft: traces: file and traces_file go together"),
        ("sft.traces=teacher", "sft: traces: teacher needs teacher.url and teacher.model"),
        ("sft.teacher.url=http://user:key@host/v1", "sft.teacher.url: found"),
        ("sft.teacher.url=http://host:70000/v1", "sft.teacher.url: found"),
        ("sft.teacher.url=http://host:abc/v1", "sft.teacher.url: found"),
        ("sft.teacher.url=http://[host/v1", "sft.teacher.url: found"),
        ("stages=[]", "at least one stage is needed"),
        ("evaluate.policies=[]", "evaluate.policies: found []"),
        ("stages=[prepare,train]", "stages.1: found 'train'"),
        ("rollout.min_ready=2", "min_ready is 2 but there are only 1 replicas"),
        ("rlvr.micro_batch_size=12", "must be a multiple of rlvr.samples_per_prompt 8"),
        ("sft.micro_batch_size=48", "must be a multiple of sft.micro_batch_size 48"),
        ("data.max_prompt_tokens=8192", "over model.context 8192"),
        ("preset=tinny", "preset 'tinny' is unknown; did you mean 'tiny'?"),
        ("recipe=papr", "recipe: found 'papr'"),
        ("name=Has Spaces", "name: found 'Has Spaces'"),
        (f"name={'x' * 41}", "name: found"),
        ("profile=../other", "profile: found '../other'"),
        ("attempt=0", "attempt: found 0: Input should be greater than or equal to 1"),
        ("policy.ttl_s=5", "policy.ttl_s: found 5: Input should be greater than or equal to 60"),
        ("rlvr", "expected key=value"),
        ("=3", "expected key=value"),
        ("rlvr={steps: 3", "--set 'rlvr={steps: 3'"),
        ("seed.of=3", "seed"),
    ],
)
def test_a_wrong_value_is_refused_with_key_and_reason(override: str, sentence: str) -> None:
    assert sentence in refusal(TINY, override)


@pytest.mark.parametrize(("override", "what"), [("sft.mode=auto", "sft.mode auto"), ("sft.traces=own", "sft.traces own")])
def test_what_the_diagnosis_decides_needs_a_diagnosis(override: str, what: str) -> None:
    alone = ["stages=[prepare,sft]", override]
    assert f"{what} needs stage diagnose: add it to stages, or set inputs.diagnose" in refusal(TINY, *alone)
    assert spec.load(TINY, [*alone, "inputs.diagnose=s3://bucket/runs/other/diagnose"]).diagnosed
    assert not spec.load(TINY, [*alone, "sft.mode=never"]).diagnosed


def test_models_that_may_know_are_diagnosed_before_they_are_trained_and_the_toy_and_the_paper_always_warm_up() -> None:
    modes = {preset: spec.load({"task": "medcalc", "preset": preset}).sft.mode for preset in spec.PRESETS}
    assert modes == {"tiny": "always", "small": "auto", "default": "auto", "paper": "always"}


def test_all_problems_are_told_at_once() -> None:
    message = refusal(TINY, "rlvr.step=3", "sft.epoch=1")
    assert "rlvr.step" in message and "sft.epoch" in message


def test_a_value_in_place_of_a_section_is_refused_with_its_keys() -> None:
    with pytest.raises(SpecError, match=r"rlvr: found 5, expected a section of keys: steps, prompts_per_step, "):
        spec.load({"task": "medcalc", "rlvr": 5})


def test_a_section_and_a_key_in_it_cannot_both_be_set() -> None:
    assert "already set to a single value" in refusal(TINY, "rlvr=3", "rlvr.steps=4")


@pytest.mark.parametrize("text", ["a: [1", "- one\n- two", "42", "", "a: 2025-13-01"])
def test_a_file_that_is_no_document_is_named(text: str) -> None:
    with pytest.raises(SpecError, match=r"^run\.yaml: "):
        spec.parse_yaml(text, "run.yaml")


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("2.5E-4", 0.00025), ("0.1", 0.1)])
def test_scientific_notation_is_a_number(text: str, value: float) -> None:
    assert spec.load(TINY, [f"rlvr.learning_rate={text}"]).rlvr.learning_rate == value


def test_stages_are_put_in_order() -> None:
    assert spec.load(TINY, ["stages=[evaluate, prepare, diagnose, sft, rlvr]"]).stages == ("prepare", "diagnose", "sft", "rlvr", "evaluate")


EXECUTION = (
    *("rollout.replicas=4", "policy.retries=0", "store=s3://bucket/runs", "name=other", "rollout.wait_s=5"),
    *("profile=gpu", "suspend=true", "cancel=true", "attempt=2", "policy.ttl_s=60"),
)


@pytest.mark.parametrize("override", EXECUTION)
def test_execution_settings_are_no_part_of_the_recipe(override: str) -> None:
    before, after = spec.load(TINY), spec.load(TINY, [override])
    assert before.recipe_hash() == after.recipe_hash()
    assert spec.difference(before, after) == []


@pytest.mark.parametrize("override", ["seed=1", "rlvr.steps=31", "data.labels=recomputed", "rollout.engine=transformers", "rlvr.reward.correct=2"])
def test_what_is_computed_is_part_of_the_recipe(override: str) -> None:
    before, after = spec.load(TINY), spec.load(TINY, [override])
    key = override.split("=")[0]
    assert before.recipe_hash() != after.recipe_hash()
    assert [line.split(":")[0] for line in spec.difference(before, after)] == [key]


def test_a_document_read_back_has_the_same_recipe_hash() -> None:
    document = spec.load(TINY, ["rlvr.learning_rate=1e-7", "sft.categories=[b, a]"])
    assert spec.from_json(json.loads(json.dumps(document.model_dump(mode="json")))).recipe_hash() == document.recipe_hash()


@given(st.text(max_size=30))
def test_any_override_text_is_a_document_or_a_spec_error(text: str) -> None:
    with contextlib.suppress(SpecError):
        assert spec.load(TINY, [text]).task == "medcalc" or text.startswith("task")


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.none() | st.integers() | st.text(max_size=5) | st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
        max_size=4,
    )
)
def test_any_mapping_is_a_document_or_a_spec_error(document: dict[str, Any]) -> None:
    with contextlib.suppress(SpecError):
        spec.load(document)
