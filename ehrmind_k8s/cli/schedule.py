"""`ehrmind pipeline schedule` and `schedules`: runs of a document again and again."""

from dataclasses import asdict
from pathlib import Path

import click

from ehrmind_k8s.cli import options
from ehrmind_k8s.cli.options import Place


@click.command(short_help="Run a document again and again.")
@options.document_options
@click.option("--cron", metavar="FIELDS", help="When: seconds, minutes, hours, day of month, month, day of week, such as '0 0 2 * * *'.")
@click.option("--every", metavar="TIME", help="When: after each 90m, 24h, 7d.")
@options.place_options
def command(
    path: Path | None,
    task: str | None,
    preset: str | None,
    data: str | None,
    name: str | None,
    overrides: tuple[str, ...],
    cron: str | None,
    every: str | None,
    place: Place,
) -> None:
    """Run a document again and again, one run at a time. The same command again finds its schedule as it is.

    \b
    Examples:
      ehrmind pipeline schedule -f run.yaml --cron '0 0 2 * * *'
      ehrmind pipeline schedule --task medcalc --preset tiny --every 24h --namespace research
    """
    from ehrmind_k8s import settings
    from ehrmind_k8s.backends.kfp import pipelines
    from ehrmind_k8s.cli import document

    if (cron is None) == (every is None):
        raise click.UsageError("give one of --cron and --every")
    trigger = pipelines.cron(cron) if cron is not None else pipelines.every(every or "")
    written = document.gather(path, {"task": task, "preset": preset, "name": name, "store": place.store}, data, overrides)
    written = document.for_cluster(written, settings.load().store)
    backend = options.pipelines(place)
    found = pipelines.schedule(backend, document.checked(written), written, trigger)
    click.echo(f"schedule {found.name}, {found.when}: {'created' if found.new else 'is there already'}\n  id  {found.id}")
    backend.point(found.page)


@click.group("schedules", invoke_without_command=True)
@options.place_options
@options.json_option
@click.pass_context
def schedules(ctx: click.Context, place: Place, as_json: bool) -> None:
    """List the schedules of the experiment, or delete one.

    \b
    Examples:
      ehrmind pipeline schedules
      ehrmind pipeline schedules delete medcalc-tiny
    """
    if ctx.invoked_subcommand:
        ctx.obj = place
        return
    from ehrmind_k8s.backends.kfp import pipelines

    backend = options.pipelines(place)
    found = pipelines.schedules(backend)
    if as_json:
        options.echo_json([asdict(s) for s in found])
        return
    if not found:
        click.echo(f"no schedules in experiment {backend.settings.kfp_experiment} of {backend.api.host}")
    for s in found:
        click.echo(f"{s.name:40} {s.when:24} {'enabled' if s.enabled else 'disabled':9} {s.id}")


@schedules.command("delete")
@click.argument("name")
@options.place_options
@click.pass_context
def unschedule(ctx: click.Context, name: str, place: Place) -> None:
    """Delete a schedule. Runs that it has started go on.

    \b
    Example:
      ehrmind pipeline schedules delete medcalc-tiny --namespace research
    """
    from ehrmind_k8s.backends.kfp import pipelines

    pipelines.unschedule(options.pipelines(place.over(ctx.obj)), name)
    click.echo(f"deleted schedule {name}")
