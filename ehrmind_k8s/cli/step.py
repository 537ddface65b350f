"""`ehrmind pipeline step`: what a node of a pipeline runs."""

import click

from ehrmind_k8s.spec import STAGES


@click.command(short_help="Carry one stage of a pipeline's run to its end.")
@click.argument("stage", type=click.Choice(STAGES))
@click.option("--executor-input", required=True, metavar="JSON", help="What Kubeflow passes for {{$}}: inputs, and where outputs go.")
def command(stage: str, executor_input: str) -> int:
    """Carry one stage of a pipeline's run to its end: create or find its EHRMindRun, follow it, write the outputs that Kubeflow shows.

    The components of this project run this; a person types `ehrmind submit --backend kfp`. Its run ends with it: it renews the Lease
    <run>-owner, and where that stands still for two minutes the operator cancels the run. Started again, it finds the run and goes on.

    \b
    Example, as a component has it (Kubeflow fills in the last word):
      ehrmind pipeline step sft --executor-input '{{$}}'

    \b
    Exit codes: 0 succeeded, 2 a parameter is wrong, 30 the stage failed for good, 31 cancelled, 75 an API server
    that does not answer or a newer step that has taken over, 143 stopped by SIGTERM, which cancels the run.
    """
    from ehrmind_k8s.backends.kfp import step
    from ehrmind_k8s.backends.kfp.outputs import Outputs
    from ehrmind_k8s.backends.kubernetes.backend import KubernetesBackend

    outputs = Outputs(executor_input)
    backend = KubernetesBackend(str(outputs.parameters.get("namespace") or "") or None)
    try:
        status = step.run(stage, outputs.parameters, backend)
    except step.Stopped as stopped:
        return stopped.exit_code
    outputs.write(stage, status)
    return 0
