"""`ehrmind status`: where a run is."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ehrmind_k8s.cli import options
from ehrmind_k8s.cli.options import Place

if TYPE_CHECKING:
    from ehrmind_k8s.backends.base import Attempt, RunStatus

NOT_BEGUN = ("pending", "queued", "starting")


@click.command()
@options.run_argument
@options.json_option
def command(run: str, place: Place, as_json: bool) -> None:
    """Show where a run is: its stage, progress, latest figures, rollout servers, and every stage with what ended it.

    \b
    Examples:
      ehrmind status medcalc-tiny
      ehrmind status medcalc-tiny --namespace research -o json
      ehrmind status s3://bucket/runs/medcalc-tiny
      ehrmind status medcalc-tiny --backend kfp
    """
    backend, found = options.find(run, place)
    status = backend.status(found)
    if as_json:
        options.echo_json(asdict(status))
        return
    click.echo(headline(status))
    if status.namespace:
        click.echo(f"  namespace {status.namespace}")
    click.echo(f"  run       {status.uri or 'not accepted yet'}")
    if status.stage and status.state != "succeeded":
        click.echo(f"  stage     {status.stage}" + (f"  {status.done}/{status.total} {status.unit}" if status.total else ""))
    if status.figures:
        click.echo("  figures   " + "  ".join(f"{k} {v:.4g}" for k, v in status.figures.items()))
    if status.rollouts_wanted:
        restarts = "" if status.namespace else f", {status.rollout_restarts} restarts"
        click.echo(f"  rollouts  {status.rollouts_ready} of {status.rollouts_wanted} ready{restarts}")
    if status.score is not None:
        click.echo(f"  score     {status.score:.4g}")
    for attempt in status.attempts:
        click.echo(f"  {_line(attempt)}")
    if status.updated:
        click.echo(f"  updated   {time.time() - status.updated:.0f} s ago")


def headline(status: "RunStatus") -> str:
    """The run's state and its one-line message, which may say the state itself: `demo: Succeeded: accuracy 0.95 (rlvr)`."""
    if status.message.lower().startswith(status.state):
        return f"{status.name}: {status.message}"
    return f"{status.name}: {status.state}" + (f" ({status.message})" if status.message else "")


def _line(a: "Attempt") -> str:
    """One try of a stage, or of a cluster's stage where it stands."""
    after = f" after {a.seconds:.0f} s" if a.seconds or a.reason not in (*NOT_BEGUN, "running") else ""
    code = f", exit code {a.exit_code}" if a.exit_code else ""
    number = f"attempt {a.attempt}: " if a.attempt else ""
    return f"{a.stage:9} {number}{a.reason}{after}{code}" + (f" ({a.message})" if a.message else "")
