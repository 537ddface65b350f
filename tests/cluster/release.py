"""The operator as a test installs it: the chart of this repository, with the images and the store of the test cluster."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.harness.client import Cluster
from tests.cluster.harness.s3 import S3Access

CHART = Path(__file__).parents[2] / "helm" / "ehrmind"
SYSTEM = "ehrmind-system"
SECRET = "ehrmind-s3"
# Every pod of a run asks for little: two vLLM servers, a trainer and the control plane share two cores in CI.
ROLES = ("prepare", "diagnose", "sft", "rlvr", "evaluate", "rollout")

_installed: list[Cluster] = []


def values(s3: S3Access, tag: str = "test", **profile: Any) -> dict[str, Any]:
    """Values of the chart; `tag` is that of trainer and rollout servers, and `profile` changes the default profile."""
    images = {"ehrmind": {"tag": "test"}} | {name: {"tag": tag} for name in ("trainer", "rollout")}
    resources = {role: {"requests": {"cpu": "100m"}} for role in ROLES}
    default = {"store": f"s3://{s3.bucket}/{{namespace}}", "s3": {"endpoint_url": s3.endpoint, "secret": SECRET}, "resources": resources, **profile}
    return {"images": {"pullPolicy": "IfNotPresent", **images}, "profiles": {"default": default}, "resources": {"requests": {"cpu": "100m"}}}


def install(cluster: Cluster, s3: S3Access, tag: str = "test", **profile: Any) -> None:
    """`helm install` (or upgrade), and wait until the operator is ready."""
    given = json.dumps(values(s3, tag, **profile))
    cluster.helm(
        "upgrade", "--install", "ehrmind", CHART, "--create-namespace", "--values=-", "--wait", "--timeout=120s", namespace=SYSTEM, given=given
    )
    if cluster not in _installed:
        _installed.append(cluster)


def remove() -> None:
    """Uninstall what tests have installed. An operator that stays would carry out the runs of other tests."""
    while _installed:
        _installed.pop().helm("uninstall", "ehrmind", "--ignore-not-found", "--wait", namespace=SYSTEM)


def admit(cluster: Cluster, namespace: str, s3: S3Access) -> None:
    """Give a namespace what runs need there: the Secret with the store's keys."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": s3.secret}
    cluster.apply(secret, namespace=namespace)
