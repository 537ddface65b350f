"""`ehrmind submit`: a document and a few options become a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ehrmind_k8s.cli import options
from ehrmind_k8s.cli.options import Place


@click.command()
@options.document_options
@click.option("--follow", is_flag=True, help="Stay until the run ends and say what happens. The local backend always does.")
@options.place_options
def command(
    path: Path | None,
    task: str | None,
    preset: str | None,
    data: str | None,
    name: str | None,
    overrides: tuple[str, ...],
    follow: bool,
    place: Place,
) -> int:
    """Run a document: from data to a trained, evaluated model.

    The same command again continues a run that was stopped or failed, and prints the result of one that is complete. In a cluster the run
    goes on without this command; with --follow, Ctrl-C leaves it going on, and the exit code says how the run ended.

    \b
    Examples:
      ehrmind submit --task medcalc --preset tiny --namespace research --follow
      ehrmind submit -f run.yaml --set rlvr.steps=50
      ehrmind submit --task medcalc --backend local --preset tiny
      ehrmind submit --task medcalc --backend local --preset tiny --data medcalc/v1.0 --store s3://bucket/runs
      ehrmind submit --task medcalc --backend kfp --preset tiny --follow
    """
    from ehrmind_k8s import settings
    from ehrmind_k8s.cli import document

    configured = settings.load()
    kind = place.backend or configured.backend
    written = document.gather(path, {"task": task, "preset": preset, "name": name, "store": place.store}, data, overrides)
    if kind == options.LOCAL:
        return _here(written, place)
    return _cluster(document.for_cluster(written, configured.store), kind, place, follow)


def _here(written: Mapping[str, Any], place: Place) -> int:
    """Run in the foreground of this machine."""
    from ehrmind_k8s.backends.local.supervisor import Stopped
    from ehrmind_k8s.cli import document, result

    backend = place.open(options.LOCAL)
    spec = document.placed(written)
    try:
        status = backend.submit(spec, written)
    except Stopped as stopped:
        click.echo(f"stopped by {stopped}; the same command continues run {spec.name}", err=True)
        return stopped.exit_code
    result.show(status)
    return 0


def _cluster(written: Mapping[str, Any], kind: str, place: Place, follow: bool) -> int:
    """Hand a document to a cluster, and stay with the run if that is wanted."""
    from ehrmind_k8s.cli import document, result, status

    spec = document.checked(written)
    backend = place.open(kind)
    run = backend.submit(spec, written)
    named = run.name + (f" -n {run.namespace}" if place.namespace else "")
    named += f" --backend {kind}" if place.backend and kind != options.CLUSTER else ""
    if run.state == "succeeded":
        result.show(run)
        return 0
    if not follow:
        click.echo(f"{status.headline(run)}\n  ehrmind status {named}\n  ehrmind logs {named} --follow")
        return 0
    try:
        result.show(backend.follow(run.name))
    except KeyboardInterrupt:
        click.echo(f"\nrun {run.name} goes on in the cluster: `ehrmind status {named}`; `ehrmind cancel {named}` ends it", err=True)
        return 130
    return 0
