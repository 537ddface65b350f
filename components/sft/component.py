"""Component `sft`."""

from kfp import dsl

from components.step import container


@dsl.container_component
def sft(
    document: str,
    run_id: str,
    prepare_uri: str,
    diagnose_uri: str,
    run: dsl.OutputPath(str),
    sft_uri: dsl.OutputPath(str),
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    namespace: str = "",
):
    """Warms the start model up on worked answers, as much as the diagnosis calls for; without need it hands the start model on.

    Args:
        document: The run document, as JSON; an output of prepare.
        run_id: Id of the pipeline's run.
        prepare_uri: Where the prepared data is; an output of prepare.
        diagnose_uri: Where the diagnosis is; an output of diagnose.
        run: Name of the EHRMindRun of this step.
        sft_uri: Where the policy and its learning curve are.
        model: A pointer to the policy, with its place in the metadata. The weights stay where they are.
        metrics: Loss and rows of the end.
        namespace: Where the EHRMindRuns are. Empty: the namespace of this step.
    """
    return container("sft")
