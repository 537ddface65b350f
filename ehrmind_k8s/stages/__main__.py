"""The argument line that every place to run starts a stage with:

    python -m ehrmind_k8s.stages sft --run file:///runs/demo --attempt 1

Standard output carries events (`logs`), the last of which is `result` or `error`. The exit code is that of `errors`. In a pod the first
rank also answers for its progress and leaves a report (`progress`); torchrun ends with 1 whatever its ranks end with, the report does not.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict
from types import FrameType

from ehrmind_k8s import logs, progress, stages
from ehrmind_k8s.errors import EhrmindError
from ehrmind_k8s.spec import STAGES

FIRST_S = 3.0  # torchrun ends all ranks when one does: the first one, which reports, gets a moment to see the same error for itself


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ehrmind_k8s.stages", description="Run one stage of a run.")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--run", required=True, help="URI of the run directory")
    parser.add_argument("--attempt", type=int, required=True, help="K, the attempt that every key written carries")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminate)
    logs.bind(stage=arguments.stage, attempt=arguments.attempt)
    _launched()
    return _run(arguments.stage, arguments.run, arguments.attempt)


def _run(stage: str, run_uri: str, attempt: int) -> int:
    """Run the stage, report, and return the exit code."""
    started = time.monotonic()
    try:
        progress.start(stage, attempt)
        result = stages.run_stage(stage, run_uri, attempt)
        if os.environ.get("RANK", "0") == "0":
            logs.event("result", **asdict(result))
        progress.write_report(stage, attempt, result.reason, 0, score=result.score, seconds=result.seconds, headline=result.headline)
        return 0
    except EhrmindError as error:
        reason, code = type(error).__name__, error.exit_code
        logs.event("error", reason=reason, message=str(error), exit_code=code)
    except KeyboardInterrupt:
        reason, code = progress.TERMINATED, 130
        logs.event("error", reason="Interrupted", message="interrupted", exit_code=code)
    except SystemExit as stop:
        reason, code = progress.TERMINATED, stop.code if isinstance(stop.code, int) else 1
    except Exception as error:
        # A bug of ours. The traceback names files and lines; its message could quote a record, so only the class is logged.
        reason, code = type(error).__name__, 1
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in frames]
        logs.event("error", reason=reason, message="unexpected error; this is a bug", frames=where, exit_code=code)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    progress.write_report(stage, attempt, reason, code, seconds=time.monotonic() - started)
    if os.environ.get("RANK", "0") != "0":
        time.sleep(FIRST_S)
    return code


def _launched() -> None:
    """Take what torchrun says: the rank into every event, or, for a single process, nothing: accelerate would keep a second copy of all gradients."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        logs.bind(rank=int(os.environ["RANK"]))
        return
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    exit_code = main()
    if exit_code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)  # threads that still wait for a server's reply must not hold a pod that is told to end
    sys.exit(0)
