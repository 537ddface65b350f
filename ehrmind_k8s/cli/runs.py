"""`ehrmind runs`: the runs of a namespace or a store."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ehrmind_k8s.cli import options
from ehrmind_k8s.cli.options import Place

if TYPE_CHECKING:
    from ehrmind_k8s.backends.base import RunStatus
    from ehrmind_k8s.backends.kfp.backend import KfpBackend
    from ehrmind_k8s.backends.kubernetes.backend import KubernetesBackend

GONE_WAIT_S = 180  # for a trainer's last checkpoint and a server's last answers


@click.group(invoke_without_command=True)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Runs of the whole cluster; with --backend kfp, of all experiments.")
@options.place_options
@options.json_option
@click.pass_context
def command(ctx: click.Context, place: Place, everywhere: bool, as_json: bool) -> None:
    """List the runs of a namespace or of a store, or delete one.

    \b
    Examples:
      ehrmind runs --namespace research
      ehrmind runs --all-namespaces -o json
      ehrmind runs --store s3://bucket/runs
      ehrmind runs --backend kfp
      ehrmind runs delete medcalc-tiny
    """
    if ctx.invoked_subcommand:
        ctx.obj = place
        return
    kind = options.LOCAL if place.store and not everywhere else place.kind()
    backend = None if kind == options.LOCAL else options.pipelines(place) if kind == options.KFP else _cluster(place)
    found = backend.runs(everywhere) if backend else list(_of_store(place.store))
    if as_json:
        options.echo_json([asdict(s) for s in found])
        return
    if not found:
        click.echo(f"no runs in {_where(backend, everywhere) if backend else options.store_uri(place.store)}")
    for s in found:
        score = "" if s.score is None else f"{s.score:.4g}"
        step = f"{s.done}/{s.total}" if s.total and s.state == "running" else ""
        where = f"{s.namespace:20} " if everywhere else ""
        click.echo(f"{where}{s.name:32} {s.task:10} {s.state:12} {s.stage:9} {step:>9} {score:>7} {_age(s.started):>9}")


@command.command("delete")
@options.run_argument
@click.option("--store-too", is_flag=True, help="Of a run in a cluster, delete what it stored as well: data, weights, report.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def delete(ctx: click.Context, run: str, place: Place, store_too: bool, yes: bool) -> None:
    """Delete a run. Refused while it goes on.

    Of a run on this machine or in a store: data, weights, report and this machine's logs. Of a run in a cluster: its object, pods and
    logs; what it stored stays, unless --store-too says so, and the same submit would continue from there.

    \b
    Examples:
      ehrmind runs delete medcalc-tiny --yes
      ehrmind runs delete medcalc-tiny --namespace research --store-too
      ehrmind runs delete s3://bucket/runs/medcalc-tiny
    """
    place = place.over(ctx.obj)
    kind = place.kind(run)
    if kind == options.LOCAL:
        _stored(options.locate(run, place.store), yes)
        return
    if kind == options.KFP:
        _of_pipeline(options.pipelines(place), run, store_too, yes)
        return
    backend = _cluster(place)
    status = backend.status(run)
    if store_too and status.uri:
        options.locate(status.uri, None)  # before anything is gone: can it be read from here?
    if not yes:
        also = f" and everything at {status.uri}" if store_too and status.uri else ""
        click.confirm(f"delete run {run} of namespace {status.namespace}{also} for good?", abort=True)
    backend.delete(run)
    click.echo(f"deleted run {run} of namespace {status.namespace}")
    if store_too and status.uri:
        _wait_until_gone(backend, run, status.uid)
        _stored(status.uri, yes=True)
    elif status.uri:
        click.echo(f"what it stored stays: {status.uri}")


def _of_store(store: str | None) -> "Iterator[RunStatus]":
    """The runs of a store, as this machine knows them."""
    from ehrmind_k8s import storage
    from ehrmind_k8s.errors import IntegrityError

    backend, where = Place().open(options.LOCAL), options.store_uri(store)
    for name in options.run_names(where):
        try:
            yield backend.status(storage.open(storage.join(where, name)).uri)
        except IntegrityError as error:  # a run of a newer version, or a damaged one, hides no other
            click.echo(f"{name}: {error}", err=True)


def _stored(uri: str, yes: bool) -> None:
    """Delete a run from its store."""
    if not yes:
        click.confirm(f"delete {uri} for good?", abort=True)
    count = Place().open(options.LOCAL).delete(uri)
    click.echo(f"deleted {uri} ({count} objects)")


def _of_pipeline(backend: "KfpBackend", run: str, store_too: bool, yes: bool) -> None:
    """Delete a pipeline's run."""
    from ehrmind_k8s.errors import SpecError

    if store_too:
        raise SpecError(
            "--store-too: where a pipeline's run is stored is known to its pods alone; delete it by its URI: ehrmind runs delete s3://..."
        )
    status = backend.status(run)
    if not yes:
        click.confirm(f"delete run {run} ({status.uri}) for good?", abort=True)
    backend.delete(status.uid)
    click.echo(f"deleted run {run}; what it stored stays")


def _where(backend: "KubernetesBackend | KfpBackend", everywhere: bool) -> str:
    from ehrmind_k8s.backends.kubernetes.backend import KubernetesBackend

    if not isinstance(backend, KubernetesBackend):
        return f"{'any experiment' if everywhere else f'experiment {backend.settings.kfp_experiment}'} of {backend.api.host}"
    return f"{'any namespace' if everywhere else f'namespace {backend.namespace}'} of {backend.client.host}"


def _cluster(place: Place) -> "KubernetesBackend":
    from ehrmind_k8s.backends.kubernetes.backend import KubernetesBackend

    return KubernetesBackend(place.namespace, place.context, place.kubeconfig)


def _wait_until_gone(backend: "KubernetesBackend", run: str, uid: str) -> None:
    """Wait for the last pod of a run: while one lives it may write to the store. Raises Busy."""
    from ehrmind_k8s.errors import Busy

    until = time.monotonic() + GONE_WAIT_S
    while not backend.gone(run, uid):
        if time.monotonic() > until:
            raise Busy(f"run {run}: its pods are not gone after {GONE_WAIT_S} s, so its store was left as it is; see kubectl get pods")
        time.sleep(1)


def _age(started: float) -> str:
    minutes = (time.time() - started) / 60 if started else 0
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
