"""`ehrmind pipeline`: the recipe in Kubeflow Pipelines."""

import click

from ehrmind_k8s.cli import compare, step


@click.group(short_help="Bring the recipe to Kubeflow Pipelines.")
def command() -> None:
    """Bring the recipe to Kubeflow Pipelines."""


command.add_command(step.command, "step")
command.add_command(compare.command, "compare")
