"""The compiled pipelines: as the sources say, valid, and free of what works on one machine and fails on a cluster."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ehrmind_k8s import __version__
from ehrmind_k8s.backends.kfp import stage
from ehrmind_k8s.spec import STAGES
from tests.conftest import ROOT
from tests.pipelines import environment

PIPELINES = sorted((ROOT / "pipelines").glob("*.yaml"))
# Keys that the protocol buffers of backend 2.15 know, of those that a pipeline of ours may need (checked with kfp-pipeline-spec and
# kfp-kubernetes 2.15.2): an older backend refuses a file with any other. Names that we choose are not among them.
KNOWN = {
    *("components", "deploymentSpec", "pipelineInfo", "root", "schemaVersion", "sdkVersion", "defaultPipelineRoot"),
    *("executorLabel", "inputDefinitions", "outputDefinitions", "dag", "parameters", "artifacts", "tasks", "outputs"),
    *("parameterType", "defaultValue", "isOptional", "description", "artifactType", "schemaTitle", "schemaVersion", "isArtifactList"),
    *("executors", "container", "args", "command", "image", "env", "name", "value", "resources"),
    *("cpuRequest", "cpuLimit", "memoryRequest", "memoryLimit", "resourceCpuRequest", "resourceMemoryRequest", "resourceMemoryLimit"),
    *("cachingOptions", "componentRef", "dependentTasks", "inputs", "taskInfo", "componentInputParameter", "taskOutputParameter"),
    *("outputParameterKey", "producerTask", "runtimeValue", "constant", "parameterIterator", "itemInput", "items", "inputParameter"),
    *("iteratorPolicy", "parallelismLimit", "parameterExpressionSelector", "valueFromParameter", "producerSubtask"),
    *("platforms", "kubernetes", "secretAsEnv", "keyToEnv", "envVar", "secretKey", "secretName", "secretNameParameter", "optional"),
}
NAMED = ("components", "parameters", "artifacts", "tasks", "executors")  # mappings whose keys are names


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def keys(tree: Any, named: bool = False) -> Iterator[str]:
    """All keys that are not names that we choose."""
    if isinstance(tree, list):
        for item in tree:
            yield from keys(item)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if not named:
                yield key
            if key not in ("defaultValue", "constant"):
                yield from keys(value, named=not named and key in NAMED)


def strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from strings(item)


def tasks(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All tasks, also those inside a loop."""
    for dag in (spec["root"].get("dag"), *(c.get("dag") for c in spec["components"].values())):
        yield from (dag or {}).get("tasks", {}).values()


@pytest.fixture(params=PIPELINES, ids=lambda p: p.stem)
def compiled(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return documents(request.param)


def test_what_is_committed_is_what_the_sources_make(tmp_path: Path) -> None:
    environment.needed()
    subprocess.run([environment.PYTHON, "-m", "pipelines", tmp_path], cwd=ROOT, check=True, capture_output=True, timeout=120)
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert {p.suffix for p in made} == {".yaml", ".md"} and len([p for p in made if p.suffix == ".yaml"]) == len(PIPELINES)
    for path in made:
        fresh, committed = (re.sub(r"sdkVersion: .*", "", (place / path).read_text()) for place in (tmp_path, ROOT))
        assert fresh == committed, f"{path} is not what the sources make: run `make pipelines` and read the diff"


def test_it_is_valid_for_kfp() -> None:
    environment.needed()
    code = (
        "import sys, yaml\nfrom google.protobuf import json_format\nfrom kfp.pipeline_spec import pipeline_spec_pb2 as spec\n"
        "from kfp.kubernetes import kubernetes_executor_config_pb2 as platform\n"
        "for path in sys.argv[1:]:\n"
        "    first, second = yaml.safe_load_all(open(path))\n"
        "    json_format.ParseDict(first, spec.PipelineSpec())\n"
        "    for executor in second['platforms']['kubernetes']['deploymentSpec']['executors'].values():\n"
        "        json_format.ParseDict(executor, platform.KubernetesExecutorConfig())\n"
    )
    done = subprocess.run([environment.PYTHON, "-c", code, *PIPELINES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_oldest_backend_knows_every_key(compiled: list[dict[str, Any]]) -> None:
    assert {k for document in compiled for k in keys(document)} - KNOWN == set()


def test_placeholders_are_whole_values_of_parameters(compiled: list[dict[str, Any]]) -> None:
    """The launcher fills them in there and nowhere else; on one machine they would work everywhere."""
    spec = compiled[0]
    for executor in spec["deploymentSpec"]["executors"].values():
        found = [s for s in strings(executor) if "{{" in s]
        assert found == ["{{$}}"], "a container's only placeholder is the whole executor input"
    for task in tasks(spec):
        for given in task.get("inputs", {}).get("parameters", {}).values():
            constant = given.get("runtimeValue", {}).get("constant")
            assert not isinstance(constant, str) or "{{" not in constant or re.fullmatch(r"\{\{\$\.[a-z_]+\}\}", constant)


def test_nothing_heavy_moves_between_nodes(compiled: list[dict[str, Any]]) -> None:
    """An input artifact would be downloaded whole before a node's command starts, and an importer's URI must not come from a task."""
    spec = compiled[0]
    assert not any("artifacts" in c.get("inputDefinitions", {}) for c in spec["components"].values())
    assert not any("importer" in e for e in spec["deploymentSpec"]["executors"].values())


def test_images_have_a_version_and_the_command_is_ours(compiled: list[dict[str, Any]]) -> None:
    for executor in compiled[0]["deploymentSpec"]["executors"].values():
        container = executor["container"]
        assert container["image"] == f"ehrmind:{__version__}" and container["command"] == ["ehrmind"]
        assert container["resources"]["resourceMemoryRequest"] == "128Mi" and container["resources"]["resourceCpuRequest"] == "50m"


def test_a_person_can_press_start_at_once(compiled: list[dict[str, Any]]) -> None:
    spec = compiled[0]
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert len(parameters) <= 12 and all("defaultValue" in p for p in parameters.values())
    assert all(f"`{name}`" in spec["pipelineInfo"]["description"] for name in parameters), "the form does not show what a parameter means"
    assert not any(task["cachingOptions"] for task in tasks(spec) if "cachingOptions" in task and task["componentRef"]["name"][5:] in STAGES)


def test_the_steps_parameters_are_those_that_the_command_reads(compiled: list[dict[str, Any]]) -> None:
    for name in STAGES:
        given = set(compiled[0]["components"][f"comp-{name}"]["inputDefinitions"]["parameters"])
        shared = {"run_id", "namespace", *(f"{s}_uri" for s in STAGES)}
        known = {*stage.KEYS, "overrides", "variant", *shared} if name == "prepare" else {"document", *shared}
        assert given <= known
