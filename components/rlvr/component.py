"""Component `rlvr`."""

from kfp import dsl

from components.step import container


@dsl.container_component
def rlvr(
    document: str,
    run_id: str,
    prepare_uri: str,
    diagnose_uri: str,
    sft_uri: str,
    run: dsl.OutputPath(str),
    rlvr_uri: dsl.OutputPath(str),
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    namespace: str = "",
):
    """Trains the policy by GRPO with a reward computed by rule, against vLLM servers in pods of their own.

    Args:
        document: The run document, as JSON; an output of prepare.
        run_id: Id of the pipeline's run.
        prepare_uri: Where the prepared data is; an output of prepare.
        diagnose_uri: Where the diagnosis is; an output of diagnose.
        sft_uri: Where the policy to start from is; an output of sft.
        run: Name of the EHRMindRun of this step.
        rlvr_uri: Where the policy, its learning curve and the ledger are.
        model: A pointer to the policy, with its place in the metadata. The weights stay where they are.
        metrics: Reward and other figures of the end.
        namespace: Where the EHRMindRuns are. Empty: the namespace of this step.
    """
    return container("rlvr")
