"""`ehrmind runs`: the runs of a store."""

import time

import click

from ehrmind_k8s.cli import options


@click.group(invoke_without_command=True)
@options.store_option
@options.json_option
@click.pass_context
def command(ctx: click.Context, store: str | None, as_json: bool) -> None:
    """List the runs of a store, or delete one.

    \b
    Examples:
      ehrmind runs
      ehrmind runs --store s3://bucket/runs --json
      ehrmind runs delete medcalc-tiny
    """
    if ctx.invoked_subcommand:
        ctx.obj = store
        return
    from dataclasses import asdict

    from ehrmind_k8s import settings, storage
    from ehrmind_k8s.backends import base
    from ehrmind_k8s.errors import IntegrityError

    place, where = base.open("local", settings.load()), options.store_uri(store)
    found = []
    for name in options.run_names(where):
        try:
            found.append(place.status(storage.open(storage.join(where, name)).uri))
        except IntegrityError as error:  # a run of a newer version, or a damaged one, hides no other
            click.echo(f"{name}: {error}", err=True)
    if as_json:
        options.echo_json([asdict(s) for s in found])
        return
    if not found:
        click.echo(f"no runs in {where}")
    for s in found:
        score = "" if s.score is None else f"{s.score:.4g}"
        age = f"{(time.time() - s.started) / 60:.0f} min" if s.started else ""
        click.echo(f"{s.name:32} {s.task:10} {s.state:12} {s.stage:9} {score:>7} {age:>9}")


@command.command("delete")
@options.run_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def delete(ctx: click.Context, run: str, store: str | None, yes: bool) -> None:
    """Delete everything of a run: data, weights, report, and this machine's logs. Refused while the run goes on.

    \b
    Example:
      ehrmind runs delete medcalc-tiny --yes
    """
    from ehrmind_k8s import settings
    from ehrmind_k8s.backends import base

    uri = options.locate(run, store or ctx.obj)
    if not yes:
        click.confirm(f"delete {uri} for good?", abort=True)
    count = base.open("local", settings.load()).delete(uri)
    click.echo(f"deleted {uri} ({count} objects)")
