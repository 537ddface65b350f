"""`sft.mode: auto` on two real start models: one that knows nothing, and one that has been taught but errs. Each is sampled, not scripted."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import artifacts, examples, spec, stages, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.tasks import registry
from tests.conftest import needs_module
from tests.integration import small_twin

# Samples are right about as often as the imperfect teacher of the twin: the rows of one calculator, a few hundred steps of a toy.
SETTINGS = [
    *["model.context=512", "data.max_prompt_tokens=256", "rollout.engine=transformers", "rlvr.max_completion_tokens=48"],
    *["sft.batch_size=32", "sft.micro_batch_size=32", "sft.epochs=10", "evaluate.policies=[base,sft]", "evaluate.limit=8", "evaluate.samples=0"],
    "diagnose.limit=8",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_module("torch", "make setup, or pip install 'ehrmind_k8s[train]'")
    return small_twin.write(tmp_path_factory.mktemp("data"), train=640, test=16)


def run(data: Path, folder: Path, *settings: str) -> Path:
    """A run up to the end of SFT."""
    document = spec.load({"task": "medcalc", "preset": "tiny"}, [*SETTINGS, f"data.uri={data}", "sft.mode=auto", *settings])
    RunDocument.new(document).write(storage.open(str(folder)))
    for stage in ("prepare", "diagnose", "sft"):
        stages.run_stage(stage, str(folder), 1)
    return folder


def meta(folder: Path, stage: str) -> dict[str, Any]:
    store: ObjectStore = storage.open(str(folder / stage))
    manifest = artifacts.load(store)
    assert manifest
    return dict(manifest.meta)


def findings(folder: Path) -> dict[str, str]:
    document = json.loads((folder / "diagnose" / artifacts.DIAGNOSIS).read_text(encoding="utf-8"))
    return {f["category"]: f["finding"] for f in document["findings"]}


@pytest.fixture(scope="module")
def ignorant(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a start model of random weights, evaluated."""
    folder = run(data, tmp_path_factory.mktemp("runs") / "ignorant")
    stages.run_stage("evaluate", str(folder), 1)
    return folder


def test_a_model_that_lacks_the_knowledge_is_warmed_up(ignorant: Path) -> None:
    assert findings(ignorant) == {"risk": "missing"}
    sft = meta(ignorant, "sft")
    assert (sft["skipped"], sft["warm_up"]["categories"]) == (False, ["risk"])
    assert meta(ignorant, "diagnose")["result"]["message"] == "knowledge is missing in risk: SFT on it, then RLVR"


def test_the_report_shows_what_moved_on_the_same_rows(ignorant: Path) -> None:
    report = json.loads((ignorant / "evaluate" / artifacts.REPORT).read_text(encoding="utf-8"))
    (before,), (after,) = report["diagnosis"]["findings"], report["after_sft"]["findings"]
    assert (before["n"], before["reliable"]["value"]) == (after["n"], 0.0)
    assert after["reliable"]["value"] > 0.5 and after["unreadable"] < before["unreadable"]
    assert "missing → misapplied" in (ignorant / "evaluate" / "report.md").read_text(encoding="utf-8")


def test_a_model_that_misapplies_it_goes_on_to_rlvr_alone(ignorant: Path, data: Path, tmp_path: Path) -> None:
    folder = run(data, tmp_path / "taught", f"model.uri={ignorant / 'model'}")
    assert findings(folder) == {"risk": "misapplied"}
    sft = meta(folder, "sft")
    assert (sft["skipped"], sft["rows"], sft["result"]["reason"]) == (True, 0, "skipped")
    assert "no category lacks knowledge (misapplied: risk)" in sft["result"]["message"]
    base, warm = ((folder / place / "model.safetensors").read_bytes() for place in ("diagnose/policy/base", "sft/policy/sft"))
    assert base == warm


def test_the_own_right_samples_of_a_model_can_be_what_it_learns_from(ignorant: Path, data: Path, tmp_path: Path) -> None:
    folder = run(data, tmp_path / "own", f"model.uri={ignorant / 'model'}", "sft.traces=own", "sft.mode=always", "sft.epochs=1")
    judged = meta(folder, "sft")["warm_up"]["judged"]
    lines = (folder / "diagnose" / artifacts.TRACES).read_text(encoding="utf-8").splitlines()
    assert 0 < len(lines) == judged["kept"] == meta(folder, "sft")["rows"] <= judged["rows"] == 8


def test_a_teacher_writes_for_the_category_that_lacks_knowledge(ignorant: Path, data: Path, tmp_path: Path) -> None:
    """It knows every second answer; SFT learns from those rows alone."""
    task, train = registry.get("medcalc"), examples.read_split(ignorant / "prepare" / "train.parquet")
    knows = {e.messages[-1]["content"]: task.gold(e) for e in train[::2]}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = knows.get(asked["messages"][-1]["content"], "I do not know.")
            reply = json.dumps({"choices": [{"message": {"content": text}}] * asked["n"]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        teacher = [f"sft.teacher.url=http://127.0.0.1:{server.server_address[1]}/v1", "sft.teacher.model=big", "sft.teacher.samples=2"]
        folder = run(data, tmp_path / "run", "sft.traces=teacher", *teacher, "sft.percent=10", "sft.epochs=1")
    finally:
        server.shutdown()
        server.server_close()
    sft = meta(folder, "sft")
    judged = sft["warm_up"]["judged"]
    assert judged["rows"] == round(len(train) / 10) and 0 < judged["kept"] == sft["rows"] < judged["rows"]
    assert judged["correct"] + judged["malformed"] == 2 * judged["rows"]
    texts = [json.loads(line) for line in (folder / "diagnose" / artifacts.TRACES).read_text(encoding="utf-8").splitlines()]
    assert {t["text"] for t in texts} <= set(knows.values())
