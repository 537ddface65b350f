"""The recipe as a pipeline of Kubeflow: `make pipelines` compiles it into `ehrmind.yaml`, which is what people upload.

Nothing is cached: data behind a URI may change, and a step that is complete is found again by its run's own manifest.
"""

from kfp import dsl, kubernetes

from components.diagnose.component import diagnose
from components.evaluate.component import evaluate
from components.prepare.component import prepare
from components.rlvr.component import rlvr
from components.sft.component import sft

# What a node needs itself; the stages' own pods are the operator's.
# The command fits into the request (benchmarks/pipeline_step.py); what KFP's launcher needs in the same container is not ours to know.
CPU, MEMORY, MOST_MEMORY = "50m", "128Mi", "512Mi"
# Secret of the node's namespace with the keys to the store, so that a node can show the report; without it everything else works.
SECRET = "ehrmind-s3"  # noqa: S105 (a name)
KEYS = {
    "access-key-id": "EHRMIND_S3_ACCESS_KEY_ID",
    "secret-access-key": "EHRMIND_S3_SECRET_ACCESS_KEY",
    "endpoint-url": "EHRMIND_S3_ENDPOINT_URL",
    "region": "EHRMIND_S3_REGION",
}

DESCRIPTION = """Adapt a language model to clinical reasoning over health records: SFT warm-up, then RLVR, on your cluster and your data.

Press *Create run*, leave everything as it is, and *Start*: a toy model learns on synthetic records in some minutes. Then set `a_task`,
`a_preset` and `b_data_uri`. Each of the five nodes creates an `EHRMindRun` and follows it; *Terminate* cancels it, *Retry* continues it
where it stopped.

| Parameter | Meaning | Values |
|---|---|---|
| `a_task` | clinical task | `medcalc`, `trec`, `ehrshot` |
| `a_preset` | sizes and hyperparameters | `tiny` (toy model), `small`, `default`, `paper` |
| `a_name` | begins the names of the runs | empty: task and preset |
| `b_data_uri` | source data | `s3://bucket/prefix`; empty: synthetic, with preset `tiny` only |
| `b_store_uri` | where runs are stored | `s3://bucket/prefix`; empty: the profile's |
| `c_model_uri` | start model | `s3://...` or a hub id; empty: the preset's |
| `d_sft_mode` | SFT warm-up | `auto` (the diagnosis decides), `always`, `never`; empty: the preset's |
| `e_rlvr_steps` | steps of RLVR | 0: the preset's |
| `e_rollout_replicas` | vLLM servers | 0: the preset's |
| `g_namespace` | namespace of the runs | empty: that of the pipeline's run |
| `g_profile` | the administrators' profile | `default` |
| `h_overrides` | any other field of the run document | `{"rlvr": {"learning_rate": 1e-6}}` |

Needs the operator of this project in the cluster, rights for the pipeline's service account (`kubeflow.mode` of the chart), and, so that the
report shows here, a Secret `ehrmind-s3` with `access-key-id`, `secret-access-key` and `endpoint-url` in the namespace of the pipeline's run.
"""


def node(task: dsl.PipelineTask, title: str) -> dsl.PipelineTask:
    """What every node has: a title in the graph's order, small limits, no cache, a home to write to, the keys to the store where there are any."""
    task.set_display_name(title).set_caching_options(False).set_env_variable("HOME", "/tmp")  # noqa: S108
    task.set_cpu_request(CPU).set_memory_request(MEMORY).set_memory_limit(MOST_MEMORY)
    return kubernetes.use_secret_as_env(task, SECRET, KEYS, optional=True)


def recipe(made: dict[str, object]) -> dsl.PipelineTask:
    """The five nodes; `made` are the parameters of `prepare`. Returns the last."""
    # The launcher replaces this placeholder only where it is the whole value of a task's parameter.
    shared = {"run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "namespace": made["namespace"]}
    prepared = node(prepare(run_id=shared["run_id"], **made), "1 Prepare data")
    shared |= {"document": prepared.outputs["document"], "prepare_uri": prepared.outputs["prepare_uri"]}
    diagnosed = node(diagnose(**shared), "2 Diagnose")
    shared |= {"diagnose_uri": diagnosed.outputs["diagnose_uri"]}
    warm = node(sft(**shared), "3 SFT warm-up")
    shared |= {"sft_uri": warm.outputs["sft_uri"]}
    trained = node(rlvr(**shared), "4 RLVR")
    return node(evaluate(rlvr_uri=trained.outputs["rlvr_uri"], **shared), "5 Evaluate")


@dsl.pipeline(name="ehrmind", description=DESCRIPTION)
def ehrmind(
    a_task: str = "medcalc",
    a_preset: str = "tiny",
    a_name: str = "",
    b_data_uri: str = "",
    b_store_uri: str = "",
    c_model_uri: str = "",
    d_sft_mode: str = "",
    e_rlvr_steps: int = 0,
    e_rollout_replicas: int = 0,
    g_namespace: str = "",
    g_profile: str = "default",
    h_overrides: dict = {},  # noqa: B006 (kfp reads the default, nobody changes it)
):
    recipe(
        {
            "task": a_task,
            "preset": a_preset,
            "name": a_name,
            "data_uri": b_data_uri,
            "store_uri": b_store_uri,
            "model_uri": c_model_uri,
            "sft_mode": d_sft_mode,
            "rlvr_steps": e_rlvr_steps,
            "rollout_replicas": e_rollout_replicas,
            "namespace": g_namespace,
            "profile": g_profile,
            "overrides": h_overrides,
        }
    )
