"""RunSpec as a Kubernetes object: `EHRMindRun` (`ehr`) of group `ehrmind.dev`.

The only module that knows both spellings: snake_case in run.yaml, camelCase in the object. The schema, its rules and its texts are made
from `spec.RunSpec`; manifests/crd and the chart hold the result, and a test fails when they differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ehrmind_k8s.spec import RunSpec

GROUP, VERSION, KIND, PLURAL, SHORT = "ehrmind.dev", "v1alpha1", "EHRMindRun", "ehrmindruns", "ehr"
API_VERSION = f"{GROUP}/{VERSION}"
NAME_LIMIT = 40  # `<run>-rlvr-99-worker-99` and the service names made of it stay within 63

FIELD_MANAGER = "ehrmind-controller"
MANAGED_BY = "ehrmind-operator"
# Labels of every child and pod. Selectors use RUN_UID: a run made again under the same name never adopts old pods.
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_RUN_UID = f"{GROUP}/run-uid"
LABEL_ROLE = f"{GROUP}/role"  # a stage, or `rollout`
LABEL_ATTEMPT = f"{GROUP}/attempt"
ANNOTATION_PLAN = f"{GROUP}/plan-hash"

# States of a run. The last three are terminal; only raising `attempt` leads out of them.
PENDING, QUEUED, RUNNING, SUSPENDED, SUCCEEDED, FAILED, CANCELLED = ("pending", "queued", "running", "suspended", "succeeded", "failed", "cancelled")
TERMINAL = (SUCCEEDED, FAILED, CANCELLED)


@dataclass(frozen=True, slots=True)
class Run:
    """An EHRMindRun as the controller works with it. `spec` is resolved: presets and defaults are in."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: RunSpec
    status: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False


def child_name(run: str, stage: str, attempt: int) -> str:
    """Name of the object that runs one attempt of one stage."""
    return f"{run}-{stage}-{attempt}"
