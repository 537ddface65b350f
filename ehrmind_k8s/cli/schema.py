"""`ehrmind schema`: the run document for editors and scripts."""

import click

from ehrmind_k8s.cli import options


@click.command()
def command() -> None:
    """Print the JSON schema of the run document: every field with its meaning, unit, default and bounds.

    \b
    Example:
      ehrmind schema > run.schema.json    then, in run.yaml: # yaml-language-server: $schema=run.schema.json
    """
    from ehrmind_k8s.spec import RunSpec

    options.echo_json(RunSpec.model_json_schema())
