"""`ehrmind status`: where a run is."""

import time
from dataclasses import asdict

import click

from ehrmind_k8s.cli import options


@click.command()
@options.run_argument
@options.json_option
def command(run: str, store: str | None, as_json: bool) -> None:
    """Show where a run is: its stage, progress, latest figures, rollout servers, and every attempt with what ended it.

    \b
    Examples:
      ehrmind status medcalc-tiny
      ehrmind status s3://bucket/runs/medcalc-tiny --json
    """
    from ehrmind_k8s import settings
    from ehrmind_k8s.backends import base

    uri = options.locate(run, store)
    status = base.open("local", settings.load()).status(uri)
    if as_json:
        options.echo_json(asdict(status))
        return
    click.echo(f"{status.name}: {status.state}" + (f" ({status.message})" if status.message else ""))
    click.echo(f"  run       {status.uri}")
    if status.stage and status.state != "succeeded":
        click.echo(f"  stage     {status.stage}" + (f"  {status.done}/{status.total} {status.unit}" if status.total else ""))
    if status.figures:
        click.echo("  figures   " + "  ".join(f"{k} {v:.4g}" for k, v in status.figures.items()))
    if status.rollouts_wanted:
        click.echo(f"  rollouts  {status.rollouts_ready} of {status.rollouts_wanted} ready, {status.rollout_restarts} restarts")
    if status.score is not None:
        click.echo(f"  score     {status.score:.4g}")
    for a in status.attempts:
        click.echo(f"  {a.stage:9} attempt {a.attempt}: {a.reason} after {a.seconds:.0f} s" + (f" ({a.message})" if a.message else ""))
    if status.updated:
        click.echo(f"  updated   {time.time() - status.updated:.0f} s ago")
