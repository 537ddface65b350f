"""The Kubernetes API for the command line and the operator: credentials as kubectl finds them, calls on plain dicts, one mapping of errors.

    errors.py        what the API server can answer besides yes
    client.py        calls and streams
    credentials.py   kubeconfig, context, the pod's own account

The only place that imports the `kubernetes` package, and only when a connection is made. Its typed models stay out: they break when client
and cluster differ in version, and objects of other projects have none.
"""

from ehrmind_k8s.kubeapi.client import CALL_TIMEOUT_S, Client, Object, Resource
from ehrmind_k8s.kubeapi.credentials import configured, connect, looked
from ehrmind_k8s.kubeapi.errors import AlreadyExists, ApiError, Conflict, Gone, Invalid, NotFound, Refused, Unavailable

__all__ = [
    "CALL_TIMEOUT_S",
    "AlreadyExists",
    "ApiError",
    "Client",
    "Conflict",
    "Gone",
    "Invalid",
    "NotFound",
    "Object",
    "Refused",
    "Resource",
    "Unavailable",
    "configured",
    "connect",
    "looked",
]
