"""The chart as Helm renders it, and what is kept of that.

python -m tests.unit.packaging.rendered      after an intended change: writes tests/golden/chart and manifests/operator anew; read the diff
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, needs
from tests.tools import build

Object = dict[str, Any]
CHART = ROOT / "helm" / "ehrmind"
GOLDEN = ROOT / "tests" / "golden" / "chart"
OPERATOR = ROOT / "manifests" / "operator"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
NAMESPACE = "ehrmind-system"
# What Helm adds to mark an object as its own.
MARKS = re.compile(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", re.MULTILINE)


def helm() -> str:
    """The pinned Helm of the tests, built when there is Go; else one on the PATH; else a skip."""
    needs("helm", build.GET_GO + " helm", there=build.available("helm") or shutil.which("helm") is not None)
    return str(build.build("helm")) if build.available("helm") else "helm"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Helm, apart from what is configured on this machine."""
    return subprocess.run([helm(), *map(str, arguments)], capture_output=True, text=True, timeout=120)


def text(*options: str | Path, chart: Path = CHART, name: str = "ehrmind") -> str:
    """What `helm template` prints. Fails with what Helm says."""
    done = run("template", name, chart, "--namespace", NAMESPACE, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(*options: str | Path, name: str = "ehrmind") -> list[Object]:
    """The objects of the chart, hooks included."""
    return [o for o in yaml.safe_load_all(text(*options, name=name)) if o]


def refusal(*options: str | Path) -> str:
    """What Helm says when it refuses the values; empty when it does not."""
    return run("template", "ehrmind", CHART, *options).stderr


def pick(found: list[Object], kind: str, name: str) -> Object:
    """The one object of this kind and name."""
    (one,) = [o for o in found if o["kind"] == kind and o["metadata"]["name"] == name]
    return one


def golden(values: Path) -> str:
    """The objects for these values, as a golden file holds them: sorted, the CRD by its name only (manifests/crd holds it)."""
    found = sorted(objects("--values", values), key=lambda o: (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]))
    short = [{**o, "spec": "as in manifests/crd"} if o["kind"] == "CustomResourceDefinition" else o for o in found]
    return yaml.safe_dump_all(short, sort_keys=False, width=150)


def golden_path(values: Path) -> Path:
    """Where the golden file for these values is."""
    return GOLDEN / f"{values.stem.removesuffix('-values')}.yaml"


def plain() -> dict[str, str]:
    """The files of manifests/operator that are made from the chart: its templates with default values, without the marks of Helm."""
    files: dict[str, list[str]] = {}
    for part in re.split(r"^---\n", text("--skip-tests"), flags=re.MULTILINE)[1:]:
        source, _, body = part.partition("\n")
        name = "rbac.yaml" if "/rbac/" in source else Path(source).name
        if name != "crd.yaml":
            files.setdefault(name, []).append(MARKS.sub("", body.rstrip("\n") + "\n"))
    head = "# Made from helm/ehrmind by `python -m tests.unit.packaging.rendered`; do not edit.\n"
    return {name: head + "---\n".join(parts) for name, parts in files.items()}


def main() -> int:
    """Write the files that are kept."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for values in VALUES:
        golden_path(values).write_text(golden(values), encoding="utf-8")
    for name, body in plain().items():
        (OPERATOR / name).write_text(body, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
