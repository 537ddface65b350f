"""`ehrmind cancel`: end a run from another terminal."""

import click

from ehrmind_k8s.cli import options
from ehrmind_k8s.cli.options import Place


@click.command()
@options.run_argument
def command(run: str, place: Place) -> None:
    """Stop a run that is going on, with all its processes or pods, and wait until they are gone. Submit it again to continue it.

    \b
    Examples:
      ehrmind cancel medcalc-tiny
      ehrmind cancel medcalc-small --namespace research
    """
    backend, found = options.find(run, place)
    status = backend.cancel(found)
    click.echo(f"{status.name}: {status.state}")
