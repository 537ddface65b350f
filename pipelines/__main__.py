"""Write everything that is made from components/ and pipelines/: the compiled pipelines and the components' READMEs.

python -m pipelines [FOLDER]     below FOLDER instead of in place; `make pipelines` calls it with the right environment
"""

import inspect
import sys
from pathlib import Path

from kfp import compiler, dsl

from components.compare.component import compare
from components.diagnose.component import diagnose
from components.evaluate.component import evaluate
from components.prepare.component import prepare
from components.rlvr.component import rlvr
from components.sft.component import sft
from pipelines.ehrmind import ehrmind
from pipelines.sweep import sweep

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = (prepare, diagnose, sft, rlvr, evaluate, compare)
PIPELINES = (ehrmind, sweep)


def write(folder: Path) -> None:
    """All files, below `folder` as they are in the repository."""
    for component in COMPONENTS:
        path = folder / "components" / component.name / "README.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(readme(component), encoding="utf-8")
    for pipeline in PIPELINES:
        path = folder / "pipelines" / f"{pipeline.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(pipeline, str(path))


def readme(component: dsl.container_component_class.ContainerComponent) -> str:
    """A component's page, from its signature and docstring."""
    spec, text = component.component_spec, inspect.cleandoc(component.pipeline_func.__doc__ or "")
    about, _, described = text.partition("Args:\n")
    meaning = dict(line.strip().split(": ", 1) for line in described.splitlines() if ": " in line)
    inputs = [f"| `{n}` | {_type(i.type)} | {_default(i)} | {_cell(meaning[n])} |" for n, i in (spec.inputs or {}).items()]
    outputs = [f"| `{n}` | {_type(o.type)} | {_cell(meaning[n])} |" for n, o in (spec.outputs or {}).items()]
    parts = [
        f"# {component.name}",
        "Made from `component.py` by `make pipelines`; do not edit.",
        about.strip(),
        "\n".join(["| Input | Type | Default | Meaning |", "|---|---|---|---|", *inputs]),
        "\n".join(["| Output | Type | Meaning |", "|---|---|---|", *outputs]),
        "The container runs `ehrmind pipeline` from the image `ehrmind`: nothing of kfp is in it, and nothing is installed at its start.",
    ]
    return "\n\n".join(parts) + "\n"


def _type(name: str) -> str:
    return name.removeprefix("system.").split("@")[0]


def _default(given: object) -> str:
    return f"`{given.default!r}`" if getattr(given, "optional", False) else "needed"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
