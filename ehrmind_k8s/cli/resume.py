"""`ehrmind resume`: go on where a run was suspended."""

import click

from ehrmind_k8s.cli import options, status
from ehrmind_k8s.cli.options import Place


@click.command()
@options.run_argument
def command(run: str, place: Place) -> None:
    """Let a suspended run in a cluster go on from its last checkpoint.

    \b
    Example:
      ehrmind resume medcalc-small --namespace research
    """
    backend, found = options.find(run, place)
    click.echo(status.headline(backend.resume(found)))
