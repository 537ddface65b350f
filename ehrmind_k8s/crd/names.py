"""Names that the API server, the operator, the command line and the chart agree on."""

GROUP, VERSION, KIND, PLURAL, SHORT = "ehrmind.dev", "v1alpha1", "EHRMindRun", "ehrmindruns", "ehr"
API_VERSION = f"{GROUP}/{VERSION}"
NAME_LIMIT = 40  # `<run>-rlvr-99-worker-99` and the service names made of it stay within 63
# A run's name begins its Services' names, which DNS wants to start with a letter (RFC 1035).
NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_RULE = (
    f"a run's name starts with a letter, has lower-case letters, digits and dashes only, does not end with a dash, and is at most {NAME_LIMIT} long"
)

FIELD_MANAGER = "ehrmind-controller"
MANAGED_BY = "ehrmind-operator"
# Labels of every child and pod. Selectors use RUN_UID: a run made again under the same name never adopts old pods.
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_RUN_UID = f"{GROUP}/run-uid"
LABEL_ROLE = f"{GROUP}/role"  # a stage, or `rollout`
LABEL_ATTEMPT = f"{GROUP}/attempt"
ANNOTATION_PLAN = f"{GROUP}/plan-hash"
# On a run that is to end with whoever follows it: the Lease that the follower renews has to change at least this often.
ANNOTATION_FOLLOWED = f"{GROUP}/cancel-unless-followed"
FOLLOWED_S = 120.0
LABEL_PIPELINE_RUN = f"{GROUP}/pipeline-run"  # id of the pipeline's run that a run is a stage of

# States of a run. The last three are terminal; only raising `attempt` leads out of them.
PENDING, QUEUED, RUNNING, SUSPENDED, SUCCEEDED, FAILED, CANCELLED = ("pending", "queued", "running", "suspended", "succeeded", "failed", "cancelled")
TERMINAL = (SUCCEEDED, FAILED, CANCELLED)
STATES = (PENDING, QUEUED, RUNNING, SUSPENDED, *TERMINAL)
MESSAGE_LIMIT = 1024  # characters of a message in the status


def owner_lease(run: str) -> str:
    """Name of the Lease that the follower of a run renews."""
    return f"{run}-owner"


def child_name(run: str, stage: str, attempt: int) -> str:
    """Name of the object that runs one attempt of one stage."""
    return f"{run}-{stage}-{attempt}"
