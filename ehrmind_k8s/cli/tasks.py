"""`ehrmind tasks`: what can be trained here, and on which data."""

import textwrap

import click

from ehrmind_k8s.cli import options


@click.command(name="tasks")
@options.json_option
def command(as_json: bool) -> None:
    """List the installed clinical tasks.

    \b
    Examples:
      ehrmind tasks
      ehrmind tasks --json

    For each task: its primary metric, the label sets that data.labels takes (the first is the default), and the data layouts it reads.
    A package adds a task with an entry point in the group ehrmind_k8s.tasks.
    """
    from ehrmind_k8s.tasks import registry

    tasks = [registry.get(name) for name in registry.names()]
    if as_json:
        options.echo_json(
            [
                {"name": t.name, "title": t.title, "primary_metric": t.primary_metric, "label_sets": list(t.label_sets), "layouts": t.layouts}
                for t in tasks
            ]
        )
        return
    for task in tasks:
        click.echo(f"{task.name}  {task.title}")
        click.echo(f"  primary metric  {task.primary_metric}")
        click.echo(f"  label sets      {', '.join(task.label_sets)}")
        click.echo(textwrap.fill(task.layouts, 100, initial_indent="  reads           ", subsequent_indent=" " * 18))
