"""RunSpec as a Kubernetes object: `EHRMindRun` (`ehr`) of group `ehrmind.dev`.

    names.py     group, labels, states, conditions; no logic
    convert.py   the only place that knows both spellings: snake_case in run.yaml, camelCase in the object
    schema.py    the CustomResourceDefinition, made from `spec.RunSpec`
    rules.py     what the API server refuses, and the sentence it says (CEL)
    status.py    the status, bounded

manifests/crd holds the result of `definition()`, and a test fails when they differ.
"""

from ehrmind_k8s.crd.convert import MUTABLE_KEYS, Run, document, run, run_document, to_object
from ehrmind_k8s.crd.names import (
    ANNOTATION_FOLLOWED,
    ANNOTATION_PLAN,
    API_VERSION,
    CANCELLED,
    FAILED,
    FIELD_MANAGER,
    FOLLOWED_S,
    GROUP,
    KIND,
    LABEL_ATTEMPT,
    LABEL_INSTANCE,
    LABEL_MANAGED_BY,
    LABEL_PIPELINE_RUN,
    LABEL_ROLE,
    LABEL_RUN_UID,
    MANAGED_BY,
    MESSAGE_LIMIT,
    NAME_LIMIT,
    PENDING,
    PLURAL,
    QUEUED,
    RUNNING,
    SHORT,
    SUCCEEDED,
    SUSPENDED,
    TERMINAL,
    VERSION,
    child_name,
    owner_lease,
)
from ehrmind_k8s.crd.schema import definition

__all__ = [
    "ANNOTATION_FOLLOWED",
    "ANNOTATION_PLAN",
    "API_VERSION",
    "CANCELLED",
    "FAILED",
    "FIELD_MANAGER",
    "FOLLOWED_S",
    "GROUP",
    "KIND",
    "LABEL_ATTEMPT",
    "LABEL_INSTANCE",
    "LABEL_MANAGED_BY",
    "LABEL_PIPELINE_RUN",
    "LABEL_ROLE",
    "LABEL_RUN_UID",
    "MANAGED_BY",
    "MESSAGE_LIMIT",
    "MUTABLE_KEYS",
    "NAME_LIMIT",
    "PENDING",
    "PLURAL",
    "QUEUED",
    "RUNNING",
    "SHORT",
    "SUCCEEDED",
    "SUSPENDED",
    "TERMINAL",
    "VERSION",
    "Run",
    "child_name",
    "definition",
    "document",
    "owner_lease",
    "run",
    "run_document",
    "to_object",
]
