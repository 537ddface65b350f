"""evaluate over a real toy model in this process, after real prepare and sft stages: what a finished run leaves, and its command."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ehrmind_k8s import artifacts, cli, spec, stages, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tokenization import Tokenizer
from tests.conftest import needs_module

SETTINGS = (
    *("rollout.engine=transformers", "sft.mode=never", "rlvr.max_completion_tokens=48", "evaluate.limit=12", "evaluate.samples=2"),
    *("diagnose.limit=1", "diagnose.samples=3"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of base and a skipped SFT, complete."""
    needs_module("torch", "make setup, or pip install 'ehrmind_k8s[train]'")
    folder = tmp_path_factory.mktemp("runs")
    registry.get("medcalc").synthesize(folder / "twin", 3, "unit")
    document = {"task": "medcalc", "preset": "tiny", "name": "demo", "data": {"uri": str(folder / "twin")}, "evaluate": {"policies": ["base", "sft"]}}
    RunDocument.new(spec.load(document, SETTINGS)).write(storage.open(str(folder / "demo")))
    for stage in ("prepare", "diagnose", "sft", "evaluate"):
        stages.run_stage(stage, (folder / "demo").as_uri(), 1)
    return folder / "demo"


def test_the_stage_leaves_three_forms_of_the_report_and_every_policy_s_answers(run: Path) -> None:
    names = {o.key for o in storage.open(str(run / "evaluate")).list()}
    assert {"report.json", "report.md", "report.html", "manifest.json", "results/base/completions-base.jsonl"} <= names
    lines = [json.loads(line) for line in (run / "evaluate/results/base/completions-base.jsonl").read_text().splitlines()]
    assert sum(line["greedy"] for line in lines) == 12
    assert sum(not line["greedy"] for line in lines) == 24


def test_a_skipped_sft_is_reported_as_the_start_model_and_not_asked(run: Path) -> None:
    report = json.loads((run / "evaluate/report.json").read_text())
    assert report["policies"]["sft"]["same_as"] == "base"
    assert report["policies"]["sft"]["metrics"] == report["policies"]["base"]["metrics"]
    assert not (run / "evaluate/results/sft").exists()


def test_no_text_of_a_record_or_an_answer_is_in_the_report(run: Path) -> None:
    answers = [json.loads(line) for line in (run / "evaluate/results/base/completions-base.jsonl").read_text().splitlines()]
    pages = [(run / f"evaluate/report.{kind}").read_text() for kind in ("json", "md", "html")]
    for text in [a["text"].strip() for a in answers if len(a["text"].strip()) > 20]:
        assert not any(text in page for page in pages)


def test_the_run_s_model_is_a_folder_that_opens(run: Path) -> None:
    assert artifacts.load(storage.open(str(run)), "model") is not None
    assert len(Tokenizer(run / "model")) > 300
    assert (run / "model/model.safetensors").stat().st_size > 1_000_000


def test_report_prints_the_table_and_the_json_that_scripts_read(run: Path) -> None:
    shown = CliRunner().invoke(cli.group, ["report", str(run)])
    assert shown.exit_code == 0, shown.output
    assert "accuracy" in shown.output and f"report: {run}/evaluate/report.html" in shown.output
    found = json.loads(CliRunner().invoke(cli.group, ["report", "demo", "--store", str(run.parent), "--json"]).output)
    assert found["run"] == "demo" and found["primary_metric"] == "accuracy"
    assert found["policies"]["base"]["accuracy"]["n"] == 12


def test_a_run_that_is_not_evaluated_yet_has_no_report(tmp_path: Path) -> None:
    RunDocument.new(spec.load({"task": "medcalc", "preset": "tiny"})).write(storage.open(str(tmp_path / "young")))
    result = CliRunner().invoke(cli.group, ["report", str(tmp_path / "young")])
    assert result.exception is not None and getattr(result.exception, "exit_code", None) == 75
    assert "evaluate is not complete" in str(result.exception)
