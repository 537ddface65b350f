"""Component `compare`."""

from kfp import dsl

from components.step import IMAGE


@dsl.container_component
def compare(
    evaluate_uris: list,
    best: dsl.OutputPath(str),
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    report: dsl.Output[dsl.HTML],
):
    """Sets the reports of a sweep side by side: the primary metric of every policy of every variant, with 95 % intervals.

    Needs the keys to the store, since it reads reports and creates no run.

    Args:
        evaluate_uris: Where the reports are: the outputs of evaluate that the loop of a sweep collects.
        best: The variant whose newest policy has the highest primary metric.
        metrics: The primary metric of every policy, by number of the variant.
        summary: The table of the variants.
        report: The table as a chart, on a page that needs nothing else.
    """
    arguments = ["pipeline", "compare", "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
    return dsl.ContainerSpec(image=IMAGE, command=["ehrmind"], args=arguments)
