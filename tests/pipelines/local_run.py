"""Run a compiled pipeline with kfp's local runner: each node as a process of this machine, with the command that its container has.

scripts/kfp.sh -m tests.pipelines.local_run COMPILED.YAML ROOT '{"a_task": "medcalc"}'      prints the outputs folder of each task

The runner takes only components that are written in Python; ours are containers, whose command works on this machine as well, so that check
is left out.
"""

import json
import sys

from kfp import components, local
from kfp.local.subprocess_task_handler import SubprocessTaskHandler


def main(compiled: str, root: str, parameters: str) -> None:
    """Run it to its end; raises RuntimeError when a node fails."""
    SubprocessTaskHandler.validate_not_container_component = lambda self, full_command: None
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
    components.load_component_from_file(compiled)(**json.loads(parameters))


if __name__ == "__main__":
    main(*sys.argv[1:])
