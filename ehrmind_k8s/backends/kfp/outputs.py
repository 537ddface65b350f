"""What a node of a pipeline leaves for Kubeflow: the outputs of its step, as the launcher reads them.

Checkpoints and data stay where the run has put them. A model or a data set is a small pointer here, so that no step copies gigabytes; the
page of the report, its text and its plots are of some ten kilobytes and are written out.

The launcher puts files of an artifact with uri `s3://bucket/key` at `/s3/bucket/key` (`gs://` at `/gcs/`); a run on one machine uses paths.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.artifacts import Manifest
from ehrmind_k8s.backends.base import RunStatus
from ehrmind_k8s.backends.kfp import stage as stages
from ehrmind_k8s.errors import SpecError, StoreRefused
from ehrmind_k8s.evaluation import summary
from ehrmind_k8s.evaluation.views import facts

ROOTS = {"s3://": "/s3/", "minio://": "/minio/", "gs://": "/gcs/"}
PARTS = {"prepare": ("counts", "drops", "checks"), "diagnose": ("choice",)}  # of a manifest's meta, in the summary


class Outputs:
    """The outputs that the executor input of a step asks for. Raises SpecError for an input that is none."""

    def __init__(self, executor_input: str) -> None:
        try:
            found = json.loads(executor_input)
            self.parameters: dict[str, Any] = dict(found.get("inputs", {}).get("parameterValues") or {})
            wanted = found["outputs"]
            self._file = Path(wanted["outputFile"])
            self._parameters = set(wanted.get("parameters") or {})
            self._artifacts = {name: each["artifacts"][0] for name, each in (wanted.get("artifacts") or {}).items()}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            text = f"--executor-input: expected the JSON that Kubeflow passes for {{{{$}}}}, found something else ({type(error).__name__})"
            raise SpecError(text) from None

    def write(self, stage: str, status: RunStatus) -> None:
        """Write everything that was asked for about a stage that succeeded."""
        uri = storage.join(status.uri, stage)
        manifest, missing = _manifest(uri)
        values = {f"{stage}_uri": uri, "run": status.name, "model_uri": storage.join(status.uri, artifacts.MODEL)}
        if "document" in self._parameters:
            values["document"] = json.dumps(stages.document(self.parameters), sort_keys=True)
        pointer = {"uri": uri, "stage": stage, "run": status.name, "namespace": status.namespace, "task": status.task}
        made: dict[str, tuple[str, Mapping[str, Any]]] = {
            "data": (json.dumps(pointer, indent=1), pointer),
            "model": (json.dumps(pointer, indent=1), pointer),
            "metrics": ("", numbers(status.figures)),
            "summary": (_summary(stage, status, manifest, missing), {}),
        }
        if stage == "evaluate" and manifest:
            made |= _report(uri)
        self.finish(values, made)

    def finish(self, values: Mapping[str, Any], made: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        """Write those of `values` and of `made` (artifact -> its file's text, its metadata) that were asked for."""
        artifacts_out = {}
        for name, artifact in self._artifacts.items():
            text, metadata = made.get(name, ("", {}))
            if text:
                path = _path(artifact["uri"])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            artifacts_out[name] = {"artifacts": [{**artifact, "metadata": {**(artifact.get("metadata") or {}), **metadata}}]}
        document = {"parameterValues": {k: v for k, v in values.items() if k in self._parameters}, "artifacts": artifacts_out}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(document), encoding="utf-8")


def _manifest(uri: str) -> tuple[Manifest | None, str]:
    """The manifest of a stage, or why this step may not read it. Raises StoreUnavailable, and IntegrityError for one that is torn."""
    try:
        found = artifacts.load(storage.open(uri))
    except StoreRefused as error:  # no keys here; a store that is only away is not taken for that
        return None, str(error)
    return found, "" if found else "its manifest is not there"


def _summary(stage: str, status: RunStatus, manifest: Manifest | None, missing: str) -> str:
    """A stage in a few lines of Markdown."""
    lines = [f"# {stage}", "", status.message, "", f"Run `{status.name}` in namespace `{status.namespace}`; its output is at `{status.uri}/{stage}`."]
    if manifest is None:
        lines += ["", f"The store cannot be read from this step, so there is no more to show here ({missing})."]
        return "\n".join(lines) + "\n"
    for part in PARTS.get(stage, ()):
        if isinstance(found := manifest.meta.get(part), Mapping):
            lines += ["", f"## {part}", "", "| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in facts(found))]
    return "\n".join(lines) + "\n"


def _report(uri: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Page, text, figures and plots of an evaluation."""
    store = storage.open(uri)
    tree = json.loads(store.get_bytes(artifacts.REPORT))
    found = summary.scores(tree)["policies"]
    metrics = {f"{policy}_{metric.replace('/', '_')}": e["value"] for policy, each in found.items() for metric, e in each.items()}
    return {
        "report": (store.get_bytes("report.html").decode(), {}),
        "summary": (store.get_bytes("report.md").decode(), {}),
        "metrics": ("", numbers(metrics)),
        "classification": ("", _classification(tree["policies"])),
    }


def _classification(policies: Mapping[str, Any]) -> dict[str, Any]:
    """Confusion matrix and ROC curve of the newest policy, where its task has them."""
    newest = list(policies.values())[-1]
    found: dict[str, Any] = {}
    if matrix := newest.get("confusion"):
        names = [*matrix["classes"], "none of them"]
        rows = [*matrix["counts"], [0] * len(names)]  # square, as the plot wants it; no row is of no class
        found["confusionMatrix"] = {"annotationSpecs": [{"displayName": n} for n in names], "rows": [{"row": row} for row in rows]}
    if curve := newest.get("roc"):
        points = [{"confidenceThreshold": c["threshold"], "falsePositiveRate": c["false_positive_rate"], "recall": c["recall"]} for c in curve]
        found["confidenceMetrics"] = points
    return found


def numbers(figures: Mapping[str, float | None]) -> dict[str, float]:
    """What can be compared between runs: numbers that are defined, to six digits."""
    return {name: float(f"{value:.6g}") for name, value in figures.items() if isinstance(value, int | float) and math.isfinite(value)}


def _path(uri: str) -> Path:
    for scheme, root in ROOTS.items():
        if uri.startswith(scheme):
            return Path(root + uri.removeprefix(scheme))
    return Path(uri.removeprefix("file://"))


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
