"""What all components share: the image and the command. A node needs no kfp: it runs this project's command line, which creates or finds the
EHRMindRun of its stage and follows it to its end."""

import os
import re
from pathlib import Path

from kfp import dsl

ROOT = Path(__file__).parents[1]
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "ehrmind_k8s" / "__init__.py").read_text(encoding="utf-8"))
assert VERSION
# EHRMIND_IMAGE names the image in your registry, by version tag or digest: `make pipelines EHRMIND_IMAGE=...`.
IMAGE = os.environ.get("EHRMIND_IMAGE") or f"ehrmind:{VERSION[1]}"


def container(stage: str) -> dsl.ContainerSpec:
    """The container of a stage's component. All inputs and outputs reach the command in one argument, which the launcher fills in."""
    arguments = ["pipeline", "step", stage, "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
    return dsl.ContainerSpec(image=IMAGE, command=["ehrmind"], args=arguments)
