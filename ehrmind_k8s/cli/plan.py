"""`ehrmind plan`: what a document would do."""

from dataclasses import asdict
from pathlib import Path

import click

from ehrmind_k8s.cli import options


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="RUN.YAML")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any field of the document. Repeatable.")
@options.store_option
@options.json_option
def command(path: Path, overrides: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Print the steps of a run document without running it: what each reads, writes and is started with.

    \b
    Examples:
      ehrmind plan run.yaml
      ehrmind plan run.yaml --set rollout.replicas=2 --json
    """
    from ehrmind_k8s import plan, storage
    from ehrmind_k8s.cli import document

    spec = document.placed(document.gather(path, {"store": store}, None, overrides))
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
