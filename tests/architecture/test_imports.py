"""The light side stays light: what a person runs, and what pods without torch run, loads no model library."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm")
LIGHT = (
    *("artifacts", "errors", "examples", "logs", "plan", "progress", "records", "settings", "spec", "tokenization"),
    *("backends.base", "backends.local.backend", "cli", "evaluation", "evaluation.report", "rollout.base", "rollout.pool", "rollout.weights"),
    *("backends.kfp.backend", "backends.kfp.pipelines"),
    *("controller.records", "crd", "kubeapi", "profile"),
    *("stages", "stages.evaluate", "stages.prepare", "statistics", "storage", "storage.local", "storage.s3", "tasks.registry", "tasks.medcalc"),
)


def _loaded(statement: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after `statement`."""
    script = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_loads_no_model_library(module: str) -> None:
    assert _loaded(f"import ehrmind_k8s.{module}") == set()


def test_every_command_loads_no_model_library() -> None:
    commands = sorted(p.stem for p in (ROOT / "ehrmind_k8s" / "cli").glob("*.py") if p.stem != "__init__")
    assert _loaded("\n".join(f"import ehrmind_k8s.cli.{c}" for c in commands)) == set()


def test_help_imports_no_command() -> None:
    script = "import sys, runpy; sys.argv = ['ehrmind', '--help']\ntry: runpy.run_module('ehrmind_k8s', run_name='__main__')\nexcept SystemExit: pass"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nprint(*[m for m in sys.modules if m.startswith('ehrmind_k8s')])"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(done.stdout.splitlines()[-1].split()) == {"ehrmind_k8s", "ehrmind_k8s.cli", "ehrmind_k8s.errors"}


def test_the_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_every_module_opens_with_its_subject() -> None:
    silent = [p for p in (ROOT / "ehrmind_k8s").rglob("*.py") if not p.read_text(encoding="utf-8").lstrip().startswith('"""')]
    assert silent == []


def test_the_stage_modules_are_the_stages_of_the_plan() -> None:
    from ehrmind_k8s.spec import STAGES

    for stage in STAGES:
        importlib.util.find_spec(f"ehrmind_k8s.stages.{stage}")
    assert {p.stem for p in (ROOT / "ehrmind_k8s" / "stages").glob("[a-z]*.py")} == set(STAGES)
