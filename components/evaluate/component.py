"""Component `evaluate`."""

from kfp import dsl

from components.step import container


@dsl.container_component
def evaluate(
    document: str,
    run_id: str,
    prepare_uri: str,
    diagnose_uri: str,
    sft_uri: str,
    rlvr_uri: str,
    run: dsl.OutputPath(str),
    evaluate_uri: dsl.OutputPath(str),
    model_uri: dsl.OutputPath(str),
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    summary: dsl.Output[dsl.Markdown],
    report: dsl.Output[dsl.HTML],
    namespace: str = "",
):
    """Compares start model, SFT and RLVR on the test split, with 95 % intervals, and writes the report.

    Args:
        document: The run document, as JSON; an output of prepare.
        run_id: Id of the pipeline's run.
        prepare_uri: Where the prepared data is; an output of prepare.
        diagnose_uri: Where the diagnosis is; an output of diagnose.
        sft_uri: Where the policy after SFT is; an output of sft.
        rlvr_uri: Where the policy after RLVR is; an output of rlvr.
        run: Name of the EHRMindRun of this step.
        evaluate_uri: Where the report and the judged answers are.
        model_uri: Where the trained model is, ready to be served.
        metrics: Every metric of every policy, as `<policy>_<metric>`.
        classification: Confusion matrix, and ROC curve where the task predicts probabilities, of the newest policy.
        summary: The report as text.
        report: The report as one page that needs nothing else.
        namespace: Where the EHRMindRuns are. Empty: the namespace of this step.
    """
    return container("evaluate")
