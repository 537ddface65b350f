"""`ehrmind plan`: what a document would do."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ehrmind_k8s.cli import options

_READABLE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="RUN.YAML")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any field of the document. Repeatable.")
@options.store_option
@click.option("--manifests", is_flag=True, help="Print what a cluster without the operator needs, as YAML in the order to apply it.")
@click.option("--profile", "profile_file", type=_READABLE, metavar="FILE", help="With --manifests: profile of the pods (YAML).")
@click.option("-n", "--namespace", metavar="NAMESPACE", help="With --manifests: namespace of the objects. [none is written]")
@options.json_option
def command(
    path: Path,
    overrides: tuple[str, ...],
    store: str | None,
    manifests: bool,
    profile_file: Path | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Print the steps of a run document without running it: what each reads, writes and is started with.

    \b
    Examples:
      ehrmind plan run.yaml
      ehrmind plan run.yaml --set rollout.replicas=2 --json
      ehrmind plan run.yaml --manifests --store s3://bucket/runs --profile profile.yaml > jobs.yaml
    """
    from ehrmind_k8s import plan, storage
    from ehrmind_k8s.cli import document

    written = document.gather(path, {"store": store}, None, overrides)
    if manifests:
        _manifests(written, profile_file, namespace, as_json)
        return
    if profile_file or namespace:
        raise click.UsageError("--profile and --namespace are about --manifests")
    spec = document.placed(written)
    uri = storage.join(spec.store or "", spec.name)
    steps = plan.build(spec, uri)
    if as_json:
        argv = [["python", *s.argv(uri, 1)] for s in steps]
        options.echo_json(
            {"run": uri, "steps": [asdict(s) | {"argv": a} for s, a in zip(steps, argv, strict=True)], "spec": spec.model_dump(mode="json")}
        )
        return
    click.echo(f"{spec.name}: task {spec.task}, preset {spec.preset}, recipe {spec.recipe} -> {uri}")
    for step in steps:
        servers = f", from {spec.rollout.replicas} rollout server(s)" if step.wants_rollout else ""
        click.echo(f"\n{step.stage}  ({step.image}{servers})")
        click.echo(f"  reads   {' '.join(step.reads) or '-'}")
        click.echo(f"  writes  {step.writes}")
        click.echo(f"  runs    python {' '.join(step.argv(uri, 1))}")


def _manifests(written: Mapping[str, Any], profile_file: Path | None, namespace: str | None, as_json: bool) -> None:
    """Print the objects of a run."""
    from ehrmind_k8s import profile, settings
    from ehrmind_k8s.backends.kubernetes import submission
    from ehrmind_k8s.cli import document
    from ehrmind_k8s.controller.resources import templates

    written = document.for_cluster(written, settings.load().store)
    submission.refuse_paths(written)
    pods = profile.parse(profile_file.name, profile_file.read_text(encoding="utf-8", errors="replace")) if profile_file else profile.Profile()
    parts = templates.render(document.checked(written), pods, namespace)
    if as_json:
        options.echo_json({"apiVersion": "v1", "kind": "List", "items": [o for part in parts for o in part.objects]})
        return
    click.echo(templates.text(parts), nl=False)
