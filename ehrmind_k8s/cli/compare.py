"""`ehrmind pipeline compare`: what the last node of a sweep runs."""

import click


@click.command(short_help="Set the reports of a sweep side by side.")
@click.option("--executor-input", required=True, metavar="JSON", help="What Kubeflow passes for {{$}}: inputs, and where outputs go.")
def command(executor_input: str) -> None:
    """Set the reports of a sweep side by side: a table, a chart and figures that Kubeflow shows.

    \b
    Example, as a component has it (Kubeflow fills in the last word):
      ehrmind pipeline compare --executor-input '{{$}}'

    Reads the reports from their store, with the settings EHRMIND_S3_*.
    """
    from ehrmind_k8s.backends.kfp import compare
    from ehrmind_k8s.backends.kfp.outputs import Outputs

    compare.write(Outputs(executor_input))
