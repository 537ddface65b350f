"""The command line: one file per command, each loaded only when it is asked for.

`ehrmind --help` reads the table below and imports no command, so it answers at once; a test holds the sentences here and in the
commands together. Errors of `errors.EhrmindError` end with one message and their exit code; anything else is a bug of ours and keeps its traceback.
"""

import importlib
import sys

import click

from ehrmind_k8s import __version__
from ehrmind_k8s.errors import EhrmindError, nearest

COMMANDS: dict[str, str] = {
    "submit": "Run a document: from data to a trained, evaluated model.",
    "plan": "Print the steps of a run document without running it.",
    "status": "Show where a run is.",
    "logs": "Print the log of a run.",
    "cancel": "Stop a run that is going on.",
    "suspend": "Stop the pods of a run in a cluster.",
    "resume": "Let a suspended run in a cluster go on.",
    "runs": "List the runs of a namespace or of a store, or delete one.",
    "report": "Show the result of a run.",
    "data": "Prepare data, or copy it to a store.",
    "model": "Copy a start model to a store.",
    "score": "Judge completions with a task's scorer.",
    "pipeline": "Bring the recipe to Kubeflow Pipelines.",
    "tasks": "List the installed clinical tasks.",
    "schema": "Print the JSON schema of the run document.",
    "doctor": "Check what is installed, reachable and configured.",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports `ehrmind_k8s.cli.<name>` for the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ehrmind_k8s.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"command {args[0]!r} is unknown; {nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="ehrmind")
def group() -> None:
    """Adapt a language model to clinical reasoning over health records: SFT warm-up, then RLVR.

    \b
    First steps:
      ehrmind doctor                                                 what a run would need
      ehrmind submit --task medcalc --preset tiny --follow           in the cluster of your kubeconfig
      ehrmind submit --task medcalc --backend local --preset tiny    the whole recipe on a laptop
      ehrmind report medcalc-tiny --open

    \b
    Exit codes: 0 ok, 1 a bug of ours, 2 usage or run document, 10 data, 11 model or tokenizer,
    20 integrity of a stored artifact, 30 run failed, 31 cancelled, 75 try again, 130 and 143 signals.
    """


def main() -> None:
    """Run the command line and exit with the code of `errors`."""
    try:
        code = group.main(prog_name="ehrmind", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except EhrmindError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except BrokenPipeError:  # `ehrmind logs RUN | head`: the reader has seen enough
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
