"""The last node of a sweep: reports side by side."""

import copy
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s.backends.kfp import compare
from ehrmind_k8s.backends.kfp.outputs import Outputs
from ehrmind_k8s.errors import SpecError
from tests.conftest import ROOT
from tests.unit.backends.kfp.test_outputs import executor_input

GOLDEN: dict[str, Any] = json.loads((ROOT / "tests" / "golden" / "report" / "report.json").read_text())


def report(name: str, accuracy: float | None, **settings: Any) -> dict[str, Any]:
    tree = copy.deepcopy(GOLDEN)
    tree["run"]["name"] = name
    tree["settings"] = {**tree["settings"], **settings, "name": name, "inputs": {"prepare": f"s3://b/{name}"}}
    tree["policies"]["rlvr"]["metrics"]["accuracy"] |= {"value": accuracy, "low": accuracy, "high": accuracy}
    return tree


def test_a_variant_is_called_by_what_is_different_in_it() -> None:
    trees = [report("a", 0.5, sft={"percent": 10, "epochs": 1}), report("b", 0.6, sft={"percent": 100, "epochs": 1}, seed=3)]
    assert compare.labels(trees) == ["1: seed 42, sft.percent 10", "2: seed 3, sft.percent 100"]
    assert compare.labels([report("a", 0.5), report("b", 0.5)]) == ["1", "2"]


def test_the_best_variant_is_first_and_an_undefined_one_last() -> None:
    rows = [("first", report("a", 0.5)), ("second", report("b", None)), ("third", report("c", 0.75))]
    lines = [line for line in compare.markdown(rows).splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[1:]] == ["| third", "| first", "| second"]
    assert "75.0 %" in lines[1] and "n/a" in lines[3] and lines[1].endswith("| `c` |")


def test_names_of_variants_are_no_markup() -> None:
    text = compare.page([("<script>alert(1)</script>", report("a", 0.5))])
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(text)
    assert "script" not in tags and "svg" in tags


def test_it_reads_the_reports_and_leaves_table_page_and_figures(tmp_path: Path) -> None:
    uris = []
    for tree in (report("a", 0.5, seed=1), report("b", 0.75, seed=2)):
        folder = tmp_path / tree["run"]["name"] / "evaluate"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(tree))
        uris.append(str(folder))
    compare.write(Outputs(executor_input(tmp_path, ("best",), ("metrics", "summary", "report"), {"evaluate_uris": uris})))
    found = json.loads((tmp_path / "x" / "out.json").read_text())
    assert found["parameterValues"] == {"best": "2: seed 2"}
    metrics = found["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert (metrics["1_rlvr_accuracy"], metrics["2_rlvr_accuracy"]) == (0.5, 0.75)
    assert (tmp_path / "out" / "summary").read_text().startswith("# accuracy by variant")
    assert (tmp_path / "out" / "report").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("uris", [None, [], "x", "{}"])
def test_a_sweep_without_variants_is_said_to_be_that(tmp_path: Path, uris: object) -> None:
    asked = executor_input(tmp_path, (), (), {"evaluate_uris": uris})
    with pytest.raises(SpecError, match="expected the list of outputs"):
        compare.write(Outputs(asked))
