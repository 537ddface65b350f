"""The recipe for several variants of one document, and the comparison of their reports: `make pipelines` compiles it into `sweep.yaml`."""

from kfp import dsl

from components.compare.component import compare
from pipelines.ehrmind import node, recipe

DESCRIPTION = """Train several variants and compare them: how much SFT, which start model, which learning rate.

Each entry of `f_variants` is a part of the run document that wins over all else, such as `{"sft": {"percent": 10}}` or
`{"model": {"uri": "s3://bucket/models/qwen3-0.6b"}}`. Every variant is the whole recipe, with runs of its own; at most two are trained at once.
The last node shows their reports side by side; for that it needs the Secret `ehrmind-s3` with the keys to the store. No two variants may be equal.

| Parameter | Meaning | Values |
|---|---|---|
| `a_task` | clinical task | `medcalc`, `trec`, `ehrshot` |
| `a_preset` | sizes and hyperparameters | `tiny` (toy model), `small`, `default`, `paper` |
| `a_name` | begins the names of the runs | empty: task and preset |
| `b_data_uri` | source data | `s3://bucket/prefix`; empty: synthetic, with preset `tiny` only |
| `b_store_uri` | where runs are stored | `s3://bucket/prefix`; empty: the profile's |
| `f_variants` | what is different in each | a list of parts of the run document |
| `g_namespace` | namespace of the runs | empty: that of the pipeline's run |
| `g_profile` | the administrators' profile | `default` |
| `h_overrides` | any other field of the run document, the same in all | `{"rlvr": {"steps": 100}}` |
"""
AT_ONCE = 2  # variants that are trained beside each other; GPUs are shared with other people


@dsl.pipeline(name="sweep", description=DESCRIPTION)
def sweep(
    a_task: str = "medcalc",
    a_preset: str = "tiny",
    a_name: str = "",
    b_data_uri: str = "",
    b_store_uri: str = "",
    f_variants: list = [{"sft": {"mode": "never"}}, {"sft": {"mode": "always"}}],  # noqa: B006 (kfp reads the default, nobody changes it)
    g_namespace: str = "",
    g_profile: str = "default",
    h_overrides: dict = {},  # noqa: B006
):
    with dsl.ParallelFor(f_variants, parallelism=AT_ONCE) as variant:
        evaluated = recipe(
            {
                "task": a_task,
                "preset": a_preset,
                "name": a_name,
                "data_uri": b_data_uri,
                "store_uri": b_store_uri,
                "namespace": g_namespace,
                "profile": g_profile,
                "overrides": h_overrides,
                "variant": variant,
            }
        )
    node(compare(evaluate_uris=dsl.Collected(evaluated.outputs["evaluate_uri"])), "6 Compare")
