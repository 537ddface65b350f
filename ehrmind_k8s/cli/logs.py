"""`ehrmind logs`: what a run has written."""

import json
import time
from typing import Any

import click

from ehrmind_k8s.cli import options
from ehrmind_k8s.cli.options import Place


@click.command()
@options.run_argument
@click.option(
    "--of", "source", metavar="SOURCE", help="A stage (sft), one attempt of it (sft-a2), servers (rollout, rollout-0) or a pod. [newest stage]"
)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@options.json_option
def command(run: str, place: Place, source: str | None, follow: bool, as_json: bool) -> None:
    """Print the log of a run. With -o json: its events as they were written, one JSON object a line, and nothing else.

    Where several pods write, each line begins with its pod's name. --follow goes on with the next attempts and stages.

    \b
    Examples:
      ehrmind logs medcalc-tiny --follow
      ehrmind logs medcalc-tiny --namespace research --of rollout
      ehrmind logs medcalc-tiny --of rlvr -o json | jq 'select(.event == "progress")'
    """
    backend, found = options.find(run, place)
    for line in backend.logs(found, source, follow):
        shown = line.text if as_json and _event(line.text) else None if as_json else readable(line.text)
        if shown is not None:
            click.echo(f"{line.origin}: {shown}" if line.origin and not as_json else shown)


def readable(line: str) -> str:
    """An event as one line for people; any other line as it is."""
    event = _event(line)
    if event is None:
        return line
    clock = time.strftime("%H:%M:%S", time.localtime(event.pop("time", 0)))
    name = str(event.pop("event"))
    return " ".join([clock, name, *(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in event.items())])


def _event(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None
