"""The run document as a Kubernetes object: both spellings, the schema that is made from the model, and the sentences of its rules."""

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celpy
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ehrmind_k8s import crd, plan, spec
from ehrmind_k8s.crd import rules
from ehrmind_k8s.crd.convert import camel, camel_text, section
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.spec import RunSpec
from tests.conftest import ROOT
from tests.objects import CHANGES, FIXED, REFUSED, Object, an_object

SCHEMA: Object = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC: Object = SCHEMA["properties"]["spec"]
EXAMPLES = sorted((ROOT / "manifests" / "runs").glob("*.yaml"))


# Both spellings


def documents(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Any part of a run document: values are carried, not judged."""
    values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3)) | st.dictionaries(st.text(), st.text())
    fields = {k: documents(inner) if (inner := section(f.annotation)) else values for k, f in model.model_fields.items() if k != "name"}
    return st.fixed_dictionaries({}, optional=fields)


@given(documents(RunSpec), st.text(max_size=50))
def test_a_document_survives_the_way_to_the_object_and_back(written: dict[str, Any], name: str) -> None:
    written |= {"task": "medcalc", "name": name or "demo"}
    obj = crd.to_object(written, "ns")
    assert crd.document(obj) == written
    assert crd.to_object(crd.document(obj), "ns") == obj


def test_keys_are_camel_case_in_the_object_and_the_name_is_metadata() -> None:
    written = {"name": "demo", "task": "medcalc", "rollout": {"kv_cache_gib": 2}, "policy": {"ttl_s": 60}}
    assert crd.to_object(written, "research") == {
        "apiVersion": "ehrmind.dev/v1alpha1",
        "kind": "EHRMindRun",
        "metadata": {"name": "demo", "namespace": "research"},
        "spec": {"task": "medcalc", "rollout": {"kvCacheGib": 2}, "policy": {"ttlS": 60}},
    }


def test_a_document_without_a_name_gets_the_one_that_load_would_give() -> None:
    for written in ({"task": "medcalc"}, {"task": "medcalc", "preset": "tiny"}):
        assert crd.to_object(written, "ns")["metadata"]["name"] == spec.load(written).name


def test_a_run_is_resolved_and_the_object_stays_sparse() -> None:
    obj = an_object({"rlvr": {"promptsPerStep": 8}})
    run = crd.run(obj)
    assert run.spec == spec.load({"name": "demo", "task": "medcalc", "preset": "tiny", "rlvr": {"prompts_per_step": 8}})
    assert obj["spec"] == {"task": "medcalc", "preset": "tiny", "rlvr": {"promptsPerStep": 8}}


def test_the_documents_uid_comes_from_the_object() -> None:
    obj = an_object()
    obj["metadata"]["uid"] = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    document = crd.run_document(crd.run(obj))
    assert (document.uid, document.recipe_hash) == ("0f1e2d3c4b5a", document.spec.recipe_hash())


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"rlvr": {"promptsPerStep": 0}}, "rlvr.promptsPerStep: found 0: Input should be greater than or equal to 1"),
        ({"rlvr": {"prompts_per_step": 3}}, "rlvr.prompts_per_step: unknown key; did you mean 'promptsPerStep'?"),
        ({"rlvr": {"microBatchSize": 12}}, "rlvr.microBatchSize 12 must be a multiple of rlvr.samplesPerPrompt 8"),
        ({"rollout": {"minReady": 4}}, "minReady is 4 but there are only 1 replicas"),
        ({"rolout": {}}, "rolout: unknown key; did you mean 'rollout'?"),
        ({"name": "x"}, "name: unknown key"),
        ({"rlvr": {"reward": {"corect": 1}}}, "rlvr.reward.corect: unknown key; did you mean 'correct'?"),
        ({"data": 3}, "data: found 3"),
    ],
)
def test_a_wrong_object_is_refused_in_its_own_spelling(written: Object, sentence: str) -> None:
    with pytest.raises(SpecError) as error:
        crd.run(an_object(written))
    assert sentence in str(error.value)


@pytest.mark.parametrize("name", ["1st", "a.b", "../x", "a-", "x" * 41, "A", ""])
def test_a_name_that_cannot_begin_the_names_of_services_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"^metadata\.name: found .*: a run's name starts with a letter"):
        crd.run(an_object(name=name))


def test_a_document_in_the_objects_spelling_is_no_document() -> None:
    with pytest.raises(SpecError, match=r"rlvr\.promptsPerStep: unknown key; did you mean 'prompts_per_step'\?"):
        crd.to_object({"task": "medcalc", "rlvr": {"promptsPerStep": 3}}, "ns")


def test_an_accepted_run_keeps_its_recipe_and_takes_what_may_change_from_the_object() -> None:
    frozen = crd.run(an_object({"policy": {"ttlS": 60}, "rollout": {"replicas": 2}, "suspend": True})).spec
    later = crd.run(
        an_object({"preset": "small", "rlvr": {"steps": 7}, "attempt": 2, "rollout": {"replicas": 3}, "policy": {"deadlineS": 90}}), frozen
    )
    assert later.spec.recipe_hash() == frozen.recipe_hash()
    assert (later.spec.attempt, later.spec.rollout.replicas, later.spec.suspend) == (2, 3, False)
    assert (later.spec.policy.deadline_s, later.spec.policy.ttl_s) == (90, None)


def test_the_longest_names_of_children_fit_dns() -> None:
    longest = max((crd.child_name("x" * crd.NAME_LIMIT, stage, 99) for stage in spec.STAGES), key=len)
    assert len(f"{longest}-worker-99") <= 63


# The schema


def nodes(node: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Every node of a schema with its path."""
    yield path, node
    for key, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{key}".lstrip("."))
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of the run document, in the object's spelling."""
    for key, info in model.model_fields.items():
        yield prefix + camel(key)
        if inner := section(info.annotation):
            yield from fields(inner, f"{prefix}{camel(key)}.")


def test_the_schema_has_the_keys_of_the_document_and_a_sentence_for_each() -> None:
    found = {path: node for path, node in nodes(SPEC) if path and "[]" not in path and not path.startswith("inputs.")}
    assert set(found) == set(fields(RunSpec)) - {"name"}
    assert [path for path, node in found.items() if len(node.get("description", "")) < 10] == []
    assert [path for path, node in found.items() if camel_text(node["description"]) != node["description"]] == []


@pytest.mark.parametrize("preset", spec.PRESETS)
def test_the_rules_accept_every_resolved_preset(preset: str) -> None:
    assert list(refusals(crd.to_object(spec.load({"task": "medcalc", "preset": preset}).model_dump(mode="json"), "ns"))) == []


def test_everything_in_an_object_is_bounded() -> None:
    for path, node in nodes(SCHEMA):
        if path in ("apiVersion", "kind", "metadata"):
            continue
        bound = {"string": {"maxLength", "enum", "format"}, "array": {"maxItems"}, "object": {"properties", "maxProperties"}}.get(node["type"])
        assert bound is None or bound & node.keys(), path


def largest(node: Object) -> Any:
    """The longest value that a schema takes, in ASCII."""
    if node["type"] == "object":
        return {k: largest(v) for k, v in node.get("properties", {}).items()} | {"x" * 32 + str(n): 0.1 for n in range(node.get("maxProperties", 0))}
    if node["type"] == "array":
        return [largest(node["items"])] * node["maxItems"]
    return max(node.get("enum", ("x" * node.get("maxLength", 20),)), key=len) if node["type"] == "string" else 2**40


def test_the_largest_status_is_under_32_kib() -> None:
    assert 16 << 10 < len(json.dumps(largest(SCHEMA["properties"]["status"]))) < 32 << 10


def test_bounds_are_those_of_the_model() -> None:
    found = dict(nodes(SPEC))
    assert {k: found["seed"][k] for k in ("type", "minimum", "maximum", "exclusiveMaximum")} == {
        "type": "integer",
        "minimum": 0,
        "maximum": 2**31,
        "exclusiveMaximum": True,
    }
    assert found["sft.percent"]["exclusiveMinimum"] is True and found["sft.percent"]["minimum"] == 0
    assert found["evaluate.policies"]["minItems"] == 1 and found["evaluate.limit"]["nullable"] is True
    assert found["preset"]["enum"] == list(spec.PRESETS)


def test_a_default_is_in_the_schema_only_where_no_preset_says_otherwise() -> None:
    found = {path: node["default"] for path, node in nodes(SPEC) if "default" in node}
    assert found == {"preset": "default", "profile": "default", "suspend": False, "cancel": False, "attempt": 1, "rollout": {}, "rollout.replicas": 1}
    for name in (*spec.PRESETS, "recipe-paper"):
        assert not set(found) & {camel(k) for k in overlaid(spec.overlay(name))}
    assert crd.run(defaulted(SCHEMA, an_object())) == crd.run(an_object())


def overlaid(part: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted keys that a preset sets; a section only through the keys inside."""
    return {key for k, v in part.items() for key in (overlaid(v, f"{prefix}{k}.") if isinstance(v, dict) else {prefix + k})}


def test_the_description_names_the_presets_that_differ() -> None:
    assert dict(nodes(SPEC))["rlvr.steps"]["description"].endswith(
        "Default: 200 (30 with preset tiny, 100 with preset small, 1700 with preset paper)."
    )


def test_no_preset_sets_what_may_change_in_a_run() -> None:
    for name in (*spec.PRESETS, "recipe-paper"):
        assert not set(crd.MUTABLE_KEYS) & overlaid(spec.overlay(name))


def test_the_manifest_is_the_definition() -> None:
    assert yaml.safe_load((ROOT / "manifests" / "crd" / "ehrmindruns.yaml").read_text(encoding="utf-8")) == crd.definition()


# The rules, judged by cel-python; a real API server judges the same tables in tests/cluster


@functools.cache
def program(rule: str) -> celpy.Runner:
    """A compiled rule."""
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def refusals(new: Object, old: Object | None = None) -> Iterator[tuple[str, str]]:
    """(field, sentence) of every rule that `new` breaks, as the API server finds them: defaults first, old values only on update."""
    yield from _broken(SCHEMA, defaulted(SCHEMA, new), defaulted(SCHEMA, old) if old else None, "")


def _broken(node: Object, new: Any, old: Any, path: str) -> Iterator[tuple[str, str]]:
    if new is None:
        return
    values = {name: celpy.json_to_cel(value) for name, value in (("self", new), ("oldSelf", old)) if value is not None}
    for rule in node.get("x-kubernetes-validations", ()):
        if ("oldSelf" not in rule["rule"] or old is not None) and not program(rule["rule"]).evaluate(values):
            yield f"{path}{rule.get('fieldPath', '')}".lstrip("."), rule["message"]
    for key, inner in node.get("properties", {}).items():
        if isinstance(new, dict) and key in new:
            yield from _broken(inner, new[key], (old or {}).get(key), f"{path}.{key}")


def defaulted(node: Object, value: Any) -> Any:
    """`value` as the API server's rules see it: defaults where their parent is there, null as absence, numbers as floats."""
    if not isinstance(value, dict):
        return float(value) if node.get("type") == "number" and value is not None else value
    made = copy.deepcopy(value)
    for key, inner in node.get("properties", {}).items():
        if key not in made and "default" in inner:
            made[key] = inner["default"]
        if key in made:
            made[key] = defaulted(inner, made[key])
    return {key: inner for key, inner in made.items() if inner is not None}


@pytest.mark.parametrize("case", REFUSED)
def test_a_document_that_cannot_run_is_refused_with_a_sentence(case: str) -> None:
    obj, field, sentence = REFUSED[case]
    assert [found for found in refusals(obj) if found[0] == field and sentence in found[1]] != []


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_of_a_run_is_refused_with_a_sentence_or_fine(case: str) -> None:
    before, after, field, sentence = CHANGES[case]
    found = list(refusals(an_object(after), an_object(before)))
    assert ([f for f, _ in found], any(sentence in text for _, text in found)) == (([field], True) if sentence else ([], False))


def test_every_rule_is_broken_by_a_case() -> None:
    said = {found for obj, _, _ in REFUSED.values() for found in refusals(obj)}
    said |= {found for before, after, _, _ in CHANGES.values() for found in refusals(an_object(after), an_object(before))}
    assert [path for path in rules.RULES if path not in {"spec." + p if p else "spec" for p, _ in nodes(SPEC)} | {""}] == []
    exist = {(f"{path}.{rule.field}".strip("."), rule.message) for path, found in rules.RULES.items() for rule in found}
    inputs = {(path, text) for path, text in exist if path.startswith("spec.inputs.") and path != "spec.inputs.sft"}
    assert exist - inputs - said == set()


def test_every_key_may_change_or_is_fixed_by_a_case() -> None:
    may = {".".join(map(camel, key.split("."))) for key in crd.MUTABLE_KEYS}
    leaves = {key for key in fields(RunSpec) if key.count(".") == 0 or key.split(".")[0] in ("rollout", "policy")} - {"name", "rollout", "policy"}
    assert set(FIXED) == leaves - may


# The examples


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_breaks_no_rule_and_is_planned(path: Path) -> None:
    obj = yaml.safe_load(path.read_text(encoding="utf-8"))
    run = crd.run(obj)
    steps = plan.build(run.spec, f"{run.spec.store or 's3://bucket/runs'}/{run.name}")
    assert [step.stage for step in steps] == list(run.spec.stages)
    assert (list(refusals(obj)), obj["metadata"]) == ([], {"name": path.stem})


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4
