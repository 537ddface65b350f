"""`ehrmind doctor`."""

import click


@click.command(short_help="Check what is installed, reachable and configured.")
def command() -> None:
    """Check what is installed, reachable and configured."""
