"""What the builders make is what is kept. After an intended change: python -m tests.unit.controller.resources.cases, and read the diff."""

import pytest

from tests.unit.controller.resources import cases


@pytest.mark.parametrize("case", cases.CASES)
def test_the_objects_are_those_of_the_golden_file(case: str) -> None:
    assert cases.golden(case) == (cases.GOLDEN / f"{case}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", cases.TEMPLATES)
def test_the_job_templates_are_those_of_the_manifests(name: str) -> None:
    assert cases.template(name) == (cases.JOBS / f"{name}.yaml").read_text(encoding="utf-8")


def test_nothing_is_kept_that_no_case_makes() -> None:
    assert {p.stem for p in cases.GOLDEN.iterdir()} == set(cases.CASES)
    assert {p.stem for p in cases.JOBS.iterdir()} == set(cases.TEMPLATES)
