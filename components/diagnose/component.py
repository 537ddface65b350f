"""Component `diagnose`."""

from kfp import dsl

from components.step import container


@dsl.container_component
def diagnose(
    document: str,
    run_id: str,
    prepare_uri: str,
    run: dsl.OutputPath(str),
    diagnose_uri: dsl.OutputPath(str),
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    namespace: str = "",
):
    """Finds out what the start model knows already: per category solved, misapplied or missing, and so how much SFT is needed.

    Args:
        document: The run document, as JSON; an output of prepare.
        run_id: Id of the pipeline's run.
        prepare_uri: Where the prepared data is; an output of prepare.
        run: Name of the EHRMindRun of this step.
        diagnose_uri: Where the diagnosis is.
        metrics: How many categories are solved, misapplied and missing.
        summary: What was decided and why.
        namespace: Where the EHRMindRuns are. Empty: the namespace of this step.
    """
    return container("diagnose")
