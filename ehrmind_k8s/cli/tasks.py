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

    For each task: its primary metric, what data.labels, data.split and data.subtasks take (the first is the default), and the layouts it reads.
    A package adds a task with an entry point in the group ehrmind_k8s.tasks.
    """
    from ehrmind_k8s.tasks import registry

    tasks = [registry.get(name) for name in registry.names()]
    if as_json:
        names = ("name", "title", "primary_metric", "label_sets", "splits", "subtasks", "layouts")
        options.echo_json([{name: getattr(task, name) for name in names} for task in tasks])
        return
    for task in tasks:
        click.echo(f"{task.name}  {task.title}")
        click.echo(f"  primary metric  {task.primary_metric}")
        for name, values in (("label sets", task.label_sets), ("splits", task.splits), ("subtasks", task.subtasks)):
            if values:
                click.echo(textwrap.fill(", ".join(values), 100, initial_indent=f"  {name:<16}", subsequent_indent=" " * 18))
        click.echo(textwrap.fill(task.layouts, 100, initial_indent="  reads           ", subsequent_indent=" " * 18))
