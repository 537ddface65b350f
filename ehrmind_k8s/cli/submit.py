"""`ehrmind submit`: a document and a few options become a run."""

from pathlib import Path

import click

from ehrmind_k8s.cli import options


@click.command()
@click.option("-f", "--file", "path", type=click.Path(path_type=Path), metavar="RUN.YAML", help="Run document; the options below win over it.")
@click.option("--task", metavar="T", help="Clinical task; `ehrmind tasks` lists them.")
@click.option("--preset", metavar="P", help="Sizes and hyperparameters: tiny, small, default, paper.")
@click.option("--data", metavar="URI", help="Source data: a file, folder or zip, or s3://bucket/prefix. Preset tiny does without.")
@click.option("--name", metavar="N", help="Name of the run in the store. [<task>-<preset>]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any field of the document, for example rlvr.steps=30. Repeatable.")
@click.option("--backend", metavar="local|kubernetes|kfp", help="Where it runs. [EHRMIND_BACKEND, else kubernetes]")
@click.option("--follow", is_flag=True, help="Stay until the run ends. The local backend always does.")
@options.store_option
def command(
    path: Path | None,
    task: str | None,
    preset: str | None,
    data: str | None,
    name: str | None,
    overrides: tuple[str, ...],
    backend: str | None,
    follow: bool,
    store: str | None,
) -> int:
    """Run a document: from data to a trained, evaluated model.

    The same command again continues a run that was stopped, and prints the result of one that is complete.

    \b
    Examples:
      ehrmind submit --task medcalc --backend local --preset tiny
      ehrmind submit -f run.yaml --backend local --set rlvr.steps=50
      ehrmind submit --task medcalc --backend local --preset tiny --data medcalc/v1.0 --store s3://bucket/runs
    """
    from ehrmind_k8s import settings
    from ehrmind_k8s.backends import base
    from ehrmind_k8s.backends.local.supervisor import Stopped
    from ehrmind_k8s.cli import document, result

    configured = settings.load()
    place = base.open(backend or configured.backend, configured)
    spec = document.resolve(path, {"task": task, "preset": preset, "name": name, "store": store}, data, overrides)
    try:
        status = place.submit(spec)
    except Stopped as stopped:
        click.echo(f"stopped by {stopped}; the same command continues run {spec.name}", err=True)
        return stopped.exit_code
    result.show(status)
    return 0
