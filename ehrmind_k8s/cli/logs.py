"""`ehrmind logs`: what a run has written."""

import json
import time
from typing import Any

import click

from ehrmind_k8s.cli import options


@click.command()
@options.run_argument
@click.option("--of", "source", metavar="SOURCE", help="A stage (sft), one attempt of it (sft-a2) or a server (rollout-0). [newest stage]")
@click.option("--follow", is_flag=True, help="Go on until the run stops.")
@options.json_option
def command(run: str, store: str | None, source: str | None, follow: bool, as_json: bool) -> None:
    """Print the log of a run. With --json: its events as they were written, one JSON object a line, and nothing else.

    \b
    Examples:
      ehrmind logs medcalc-tiny --follow
      ehrmind logs medcalc-tiny --of rollout-0
      ehrmind logs medcalc-tiny --of rlvr --json | jq 'select(.event == "progress")'
    """
    from ehrmind_k8s import settings
    from ehrmind_k8s.backends import base

    uri = options.locate(run, store)
    for line in base.open("local", settings.load()).logs(uri, source, follow):
        shown = line if as_json and _event(line) else None if as_json else readable(line)
        if shown is not None:
            click.echo(shown)


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
