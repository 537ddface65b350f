"""EHRMindRun objects as an API server would send them, for tests of what reads them."""

from typing import Any

from ehrmind_k8s import crd

UID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


def run(status: dict[str, Any] | None = None, **document: Any) -> dict[str, Any]:
    """A run called demo whose author wrote `document`, with what the server adds."""
    obj = crd.to_object({"task": "medcalc", "preset": "tiny", "name": "demo", **document}, "research")
    for key, value in (("profile", "default"), ("suspend", False), ("cancel", False), ("attempt", 1)):
        obj["spec"].setdefault(key, value)
    obj["spec"].setdefault("rollout", {}).setdefault("replicas", 1)
    obj["metadata"] |= {"uid": UID, "generation": 1, "creationTimestamp": "2026-11-24T10:00:00Z"}
    return obj | ({"status": status} if status else {})


def stage(name: str, state: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "attempt": attempt, **more}


def pod(role: str, attempt: int, number: int = 0, created: str = "2026-11-24T10:00:00Z") -> dict[str, Any]:
    labels = {crd.LABEL_ROLE: role, crd.LABEL_ATTEMPT: str(attempt)}
    return {
        "metadata": {"name": f"demo-{role}-{attempt}-{number}", "labels": labels, "creationTimestamp": created, "uid": f"{role}{attempt}{number}"}
    }
