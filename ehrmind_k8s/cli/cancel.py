"""`ehrmind cancel`: stop a run from another terminal."""

import click

from ehrmind_k8s.cli import options


@click.command()
@options.run_argument
def command(run: str, store: str | None) -> None:
    """Stop a run that is going on, with all its processes, and wait until they are gone. Submit it again to continue it.

    \b
    Example:
      ehrmind cancel medcalc-tiny
    """
    from ehrmind_k8s import settings
    from ehrmind_k8s.backends import base

    uri = options.locate(run, store)
    status = base.open("local", settings.load()).cancel(uri)
    click.echo(f"{status.name}: {status.state}")
