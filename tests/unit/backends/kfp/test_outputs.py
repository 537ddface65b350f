"""What a step leaves for Kubeflow, beside a report as the evaluation writes it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.backends.base import RunStatus
from ehrmind_k8s.backends.kfp.outputs import Outputs
from ehrmind_k8s.errors import EhrmindError, SpecError, StoreRefused, StoreUnavailable
from ehrmind_k8s.storage.local import LocalStore
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden" / "report"


def executor_input(folder: Path, parameters: tuple[str, ...], made: tuple[str, ...], inputs: dict[str, Any]) -> str:
    """As Kubeflow's launcher passes it."""
    each = {name: {"artifacts": [{"name": name, "uri": str(folder / "out" / name), "type": {"schemaTitle": "system.Artifact"}}]} for name in made}
    outputs = {
        "parameters": {p: {"outputFile": str(folder / p)} for p in parameters},
        "artifacts": each,
        "outputFile": str(folder / "x" / "out.json"),
    }
    return json.dumps({"inputs": {"parameterValues": inputs}, "outputs": outputs})


def status(folder: Path, **more: Any) -> RunStatus:
    return RunStatus("demo-prepare-1", str(folder / "run"), "medcalc", "succeeded", message="Succeeded", namespace="research", **more)


def written(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "x" / "out.json").read_text())
    return found


def test_a_step_passes_on_where_its_output_is_and_a_pointer_to_it(tmp_path: Path) -> None:
    asked = executor_input(tmp_path, ("prepare_uri", "run", "document"), ("data", "summary"), {"task": "medcalc", "rlvr_steps": 3})
    Outputs(asked).write("prepare", status(tmp_path))
    found, uri = written(tmp_path), f"{tmp_path}/run/prepare"
    assert found["parameterValues"] == {"prepare_uri": uri, "run": "demo-prepare-1", "document": '{"rlvr": {"steps": 3}, "task": "medcalc"}'}
    (data,) = found["artifacts"]["data"]["artifacts"]
    pointer = {"uri": uri, "stage": "prepare", "run": "demo-prepare-1", "namespace": "research", "task": "medcalc"}
    assert data["metadata"] == pointer == json.loads((tmp_path / "out" / "data").read_text())
    assert "its manifest is not there" in (tmp_path / "out" / "summary").read_text()


def test_figures_are_metrics_that_can_be_compared(tmp_path: Path) -> None:
    figures = {"reward": 0.6123456789, "loss": float(3)}
    Outputs(executor_input(tmp_path, (), ("metrics", "model"), {})).write("rlvr", status(tmp_path, figures=figures))
    (metrics,) = written(tmp_path)["artifacts"]["metrics"]["artifacts"]
    assert metrics["metadata"] == {"reward": 0.612346, "loss": 3.0}


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """A folder with a run whose evaluation is complete; its report has a confusion matrix and a ROC curve."""
    tree = json.loads((GOLDEN / "report.json").read_text())
    newest = list(tree["policies"].values())[-1]
    newest["confusion"] = {"classes": ["no", "yes"], "counts": [[5, 1, 0], [2, 7, 1]]}
    newest["roc"] = [{"threshold": 0.75, "false_positive_rate": 0.1, "recall": 0.6}, {"threshold": 0.0, "false_positive_rate": 1.0, "recall": 1.0}]
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(tree))
    shutil.copy(GOLDEN / "report.md", folder / "report.md")
    (folder / "report.html").write_text("<h1>report</h1>")
    out = storage.open(str(tmp_path / "run" / "evaluate"))
    artifacts.publish(out, "", folder, "evaluate")
    return tmp_path


def test_the_report_its_figures_and_its_plots_are_shown(evaluated: Path) -> None:
    asked = executor_input(evaluated, ("evaluate_uri", "model_uri"), ("metrics", "classification", "summary", "report"), {})
    Outputs(asked).write("evaluate", status(evaluated))
    found, out = written(evaluated), evaluated / "out"
    assert found["parameterValues"]["model_uri"] == f"{evaluated}/run/model"
    assert (out / "report").read_text() == "<h1>report</h1>"
    assert (out / "summary").read_text() == (GOLDEN / "report.md").read_text()
    metrics = found["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert {"base_accuracy", "sft_accuracy", "rlvr_accuracy"} <= set(metrics) and all(isinstance(v, float) for v in metrics.values())
    assert found["artifacts"]["classification"]["artifacts"][0]["metadata"] == {
        "confusionMatrix": {
            "annotationSpecs": [{"displayName": "no"}, {"displayName": "yes"}, {"displayName": "none of them"}],
            "rows": [{"row": [5, 1, 0]}, {"row": [2, 7, 1]}, {"row": [0, 0, 0]}],
        },
        "confidenceMetrics": [
            {"confidenceThreshold": 0.75, "falsePositiveRate": 0.1, "recall": 0.6},
            {"confidenceThreshold": 0.0, "falsePositiveRate": 1.0, "recall": 1.0},
        ],
    }


def test_artifacts_in_a_bucket_are_written_where_the_launcher_looks() -> None:
    from ehrmind_k8s.backends.kfp import outputs

    uris = ("s3://b/k/report", "minio://mlpipeline/v2/x", "gs://b/k", "/tmp/local/x")
    assert [str(outputs._path(uri)) for uri in uris] == ["/s3/b/k/report", "/minio/mlpipeline/v2/x", "/gcs/b/k", "/tmp/local/x"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"outputs": {}}', '{"outputs": {"outputFile": "x", "artifacts": {"a": {"artifacts": []}}}}']
)
def test_what_is_no_executor_input_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="expected the JSON that Kubeflow passes"):
        Outputs(text)


@pytest.mark.parametrize(("error", "ends"), [(StoreRefused("no keys"), False), (StoreUnavailable("away"), True)])
def test_a_store_without_keys_is_said_and_one_that_is_away_fails_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: EhrmindError, ends: bool
) -> None:
    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(LocalStore, "get_bytes", refused)
    (tmp_path / "run" / "evaluate").mkdir(parents=True)
    (tmp_path / "run" / "evaluate" / artifacts.MANIFEST).write_text("{}")
    outputs = Outputs(executor_input(tmp_path, ("evaluate_uri",), ("summary", "report"), {}))
    if ends:
        with pytest.raises(StoreUnavailable):
            outputs.write("evaluate", status(tmp_path))
        assert not (tmp_path / "x" / "out.json").exists(), "a green node without a result would never be tried again"
    else:
        outputs.write("evaluate", status(tmp_path))
        assert "cannot be read from this step" in (tmp_path / "out" / "summary").read_text()
