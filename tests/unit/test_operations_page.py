"""The page of faults names tests that exist, one in every row."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[str]:
    """The rows of all tables of that chapter."""
    lines = PAGE.read_text(encoding="utf-8").partition("\n## Faults\n")[2].partition("\n## ")[0].splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith(("| fault |", "| --- |"))]


def functions_of(path: Path) -> set[str]:
    """Names of the test functions of a file, also of those in classes."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip())
def test_a_fault_names_a_test_that_exists(row: str) -> None:
    named = NAMED.findall(row.split("|")[-2])
    assert len(named) == 1
    file, test = named[0]
    assert test in functions_of(ROOT / file)


def test_the_page_lists_faults() -> None:
    assert len(rows()) > 50
