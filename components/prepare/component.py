"""Component `prepare`."""

from kfp import dsl

from components.step import container


@dsl.container_component
def prepare(
    task: str,
    run_id: str,
    document: dsl.OutputPath(str),
    run: dsl.OutputPath(str),
    prepare_uri: dsl.OutputPath(str),
    data: dsl.Output[dsl.Dataset],
    summary: dsl.Output[dsl.Markdown],
    preset: str = "default",
    name: str = "",
    data_uri: str = "",
    store_uri: str = "",
    model_uri: str = "",
    sft_mode: str = "",
    rlvr_steps: int = 0,
    rollout_replicas: int = 0,
    profile: str = "default",
    namespace: str = "",
    overrides: dict = {},  # noqa: B006 (kfp reads the default, nobody changes it)
    variant: dict = {},  # noqa: B006
):
    """Reads the source data, checks it, splits it and writes the prompts; resolves the start model.

    Makes the run document that the steps after it share. Every parameter that is empty or 0 is left to the preset.

    Args:
        task: Clinical task: medcalc, trec or ehrshot, or one that is installed in the image.
        run_id: Id of the pipeline's run, which makes the names of its runs; pass the placeholder of the job's id as the whole value.
        document: The run document of this pipeline's run, as JSON.
        run: Name of the EHRMindRun of this step.
        prepare_uri: Where the prepared data is.
        data: A pointer to the prepared data, with its place in the metadata. The data itself stays where it is.
        summary: Rows by split and class, what was dropped and why, and the checks.
        preset: Sizes and hyperparameters: tiny, small, default or paper.
        name: Begins the names of the runs. Empty: the task and the preset.
        data_uri: Source data, s3://bucket/prefix. Empty: the synthetic twin, which preset tiny allows.
        store_uri: Where runs are stored, s3://bucket/prefix. Empty: the store of the profile.
        model_uri: Start model, s3:// or the id of a hub where the profile allows one. Empty: the preset's.
        sft_mode: Whether there is a warm-up: auto (the diagnosis decides), always or never.
        rlvr_steps: Steps of RLVR.
        rollout_replicas: vLLM servers that sample.
        profile: Which of the administrators' profiles the pods follow.
        namespace: Where the EHRMindRuns are. Empty: the namespace of this step.
        overrides: Any other field of the run document, nested as in run.yaml.
        variant: Fields that win over all others: what is different in one iteration of a sweep.
    """
    return container("prepare")
