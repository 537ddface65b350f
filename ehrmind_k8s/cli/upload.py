"""`ehrmind pipeline upload`: the pipeline for people who press Create run."""

from pathlib import Path

import click

from ehrmind_k8s.cli import options
from ehrmind_k8s.cli.options import Place


@click.command(short_help="Put the compiled pipeline into Kubeflow Pipelines.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--name", metavar="N", help="Name of the pipeline. [that in the file]")
@options.place_options
def command(file: Path | None, name: str | None, place: Place) -> None:
    """Put the compiled pipeline into KFP, as a new version where the pipeline is there already. FILE is another compiled pipeline than ours.

    With --namespace the pipeline is that user's, else everybody's.

    \b
    Examples:
      ehrmind pipeline upload
      ehrmind pipeline upload --name ehrmind-test --namespace research
      ehrmind pipeline upload sweep.yaml
    """
    from ehrmind_k8s.backends.kfp import pipelines

    backend = options.pipelines(place)
    found = pipelines.upload(backend.api, file, name, backend.settings.kfp_image)
    click.echo(f"pipeline {found.name}, version {found.version}: {'uploaded' if found.new else 'is there already'}\n  id  {found.pipeline_id}")
    backend.point(found.page)
