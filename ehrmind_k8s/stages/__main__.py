"""The argument line that every place to run starts a stage with:

    python -m ehrmind_k8s.stages sft --run file:///runs/demo --attempt 1

Standard output carries events (`logs`), the last of which is `result` or `error`. The exit code is that of `errors`.
"""

import argparse
import os
import signal
import sys
import traceback
from dataclasses import asdict
from types import FrameType

from ehrmind_k8s import logs, stages
from ehrmind_k8s.errors import EhrmindError
from ehrmind_k8s.spec import STAGES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ehrmind_k8s.stages", description="Run one stage of a run.")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--run", required=True, help="URI of the run directory")
    parser.add_argument("--attempt", type=int, required=True, help="K, the attempt that every key written carries")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminate)
    logs.bind(stage=arguments.stage, attempt=arguments.attempt)
    try:
        result = stages.run_stage(arguments.stage, arguments.run, arguments.attempt)
    except EhrmindError as error:
        logs.event("error", reason=type(error).__name__, message=str(error), exit_code=error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        logs.event("error", reason="Interrupted", message="interrupted", exit_code=130)
        return 130
    except Exception as error:
        # A bug of ours. The traceback names files and lines; its message could quote a record, so only the class is logged.
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in frames]
        logs.event("error", reason=type(error).__name__, message="unexpected error; this is a bug", frames=where, exit_code=1)
        return 1
    if os.environ.get("RANK", "0") == "0":
        logs.event("result", **asdict(result))
    return 0


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main())
