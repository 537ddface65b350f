"""`ehrmind suspend`: let others have the GPUs for a while."""

import click

from ehrmind_k8s.cli import options, status
from ehrmind_k8s.cli.options import Place


@click.command()
@options.run_argument
def command(run: str, place: Place) -> None:
    """Stop the pods of a run in a cluster, which frees their GPUs, and wait until they are gone. It keeps everything up to its last checkpoint.

    \b
    Example:
      ehrmind suspend medcalc-small --namespace research
    """
    backend, found = options.find(run, place)
    click.echo(status.headline(backend.suspend(found)))
