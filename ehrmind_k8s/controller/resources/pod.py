"""One pod template for everything that a run starts: what all its pods have in common, whoever makes them.

It satisfies `restricted` of the Pod Security Standards, holds no API token, and reaches neither a hub nor a telemetry server by its own
doing. What changes from cluster to cluster comes from the profile alone: without one, a container asks for no resources.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ehrmind_k8s import plan
from ehrmind_k8s.controller.resources import metadata
from ehrmind_k8s.controller.resources.document import config_map_name
from ehrmind_k8s.controller.resources.metadata import Object
from ehrmind_k8s.crd import Run
from ehrmind_k8s.profile import Profile, Resources, Role

USER = 65532  # that of the images, which distroless images made customary
PROGRESS_PORT, ROLLOUT_PORT = 9400, 8000
SPEC_FOLDER, AUTHORITY_FOLDER, WORK = "/etc/ehrmind", "/etc/ehrmind-ca", "/work"
GRACE_S: dict[Role, int] = {"sft": 120, "rlvr": 120, "rollout": 60}  # a trainer saves a checkpoint, a server ends its requests
# Kubeflow's namespaces of users have Istio, whose proxy stands between trainers and outlives a stage that is done. A profile may want it.
NO_MESH = {"sidecar.istio.io/inject": "false"}

Environment = Mapping[str, str | Mapping[str, Any]]


def template(
    run: Run,
    profile: Profile,
    role: Role,
    attempt: int | None,
    container: str,
    command: Sequence[str],
    image: str,
    *,
    port: int = PROGRESS_PORT,
    gpus: int = 0,
    processes: int = 1,
    env: Mapping[str, str] = {},
    restart: str = "Never",
    more: Mapping[str, Any] = {},
    more_pod: Mapping[str, Any] = {},
) -> Object:
    """A pod template. `processes` share the CPUs of the container; `more` are further keys of the container, `more_pod` of the pod."""
    wanted = profile.resources.get(role, Resources())
    volumes = _volumes(run, profile, shared_memory=role in (*plan.TRAINING, "rollout"))
    main = {
        "name": container,
        "image": image,
        "imagePullPolicy": profile.images.pull_policy,
        "command": list(command),
        "env": _listed({**_common(profile), **_teacher(profile, role), "OMP_NUM_THREADS": str(threads(wanted, processes)), **env, **profile.env}),
        "ports": [{"name": "progress" if port == PROGRESS_PORT else "http", "containerPort": port, "protocol": "TCP"}],
        **more,
        "resources": _resources(wanted, {profile.gpu_resource: str(gpus)} if gpus else {}),
        "terminationMessagePolicy": "File",  # never a tail of the log, which could quote a record
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [_mount(volume, place) for volume, place in volumes],
    }
    annotations = {"annotations": dict(profile.pod_annotations)} if profile.pod_annotations else {}
    return {
        "metadata": {"labels": {**NO_MESH, **profile.pod_labels, **metadata.labels(run, role, attempt)}, **annotations},
        "spec": {
            **_pod(profile, role, accelerated=role in (*plan.TRAINING, "rollout") or gpus > 0),
            "restartPolicy": restart,
            **more_pod,
            "containers": [main],
            "volumes": [volume for volume, _ in volumes],
        },
    }


def threads(wanted: Resources, processes: int) -> int:
    """Threads of each process: its share of the CPUs that the container may use, else of those it asks for; 1 when neither is said."""
    cpu = wanted.limits.get("cpu") or wanted.requests.get("cpu") or "1"
    number, parts = (cpu[:-1], 1000) if cpu.endswith("m") else (cpu, 1)
    try:
        return max(1, int(float(number) / parts / processes))
    except (ValueError, OverflowError):  # `4k` of CPUs: a quantity, but of no machine
        return 1


def _pod(profile: Profile, role: Role, accelerated: bool) -> Object:
    """The pod's own keys."""
    priority = (profile.rollout_priority_class or profile.priority_class) if role == "rollout" else profile.priority_class
    found = {
        "serviceAccountName": profile.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S.get(role, 30),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "imagePullSecrets": [{"name": name} for name in profile.images.pull_secrets],
        "nodeSelector": dict(profile.node_selector),
        "tolerations": [t.model_dump(exclude_none=True) for t in profile.tolerations],
        "priorityClassName": priority,
        "runtimeClassName": profile.runtime_class if accelerated else None,
    }
    return {key: value for key, value in found.items() if value not in (None, [], {})}


def _common(profile: Profile) -> dict[str, Any]:
    """Environment of every container."""
    s3 = profile.s3
    found: dict[str, Any] = {
        "EHRMIND_SPEC_FILE": f"{SPEC_FOLDER}/spec.json",
        "EHRMIND_S3_ENDPOINT_URL": s3.endpoint_url,
        "EHRMIND_S3_REGION": s3.region,
        "EHRMIND_S3_ADDRESSING": s3.addressing,
        "EHRMIND_S3_ACCESS_KEY_ID": _secret(s3.secret, s3.access_key_id_key),
        "EHRMIND_S3_SECRET_ACCESS_KEY": _secret(s3.secret, s3.secret_access_key_key),
        "EHRMIND_S3_CA_BUNDLE": f"{AUTHORITY_FOLDER}/ca.crt" if s3.ca_config_map else None,
        "EHRMIND_WORK_DIR": WORK,
        "EHRMIND_STATE_DIR": f"{WORK}/state",
        "EHRMIND_LOG_FORMAT": "json",
        "EHRMIND_PROGRESS_PORT": str(PROGRESS_PORT),
        "EHRMIND_TERMINATION_LOG": "/dev/termination-log",
        "HOME": WORK,
        "TMPDIR": "/tmp",  # noqa: S108 (an emptyDir)
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    return {name: value for name, value in found.items() if value is not None}


def _teacher(profile: Profile, role: Role) -> dict[str, Any]:
    """The teacher's key, for the stage that asks it."""
    key = _secret(profile.teacher_secret, "key")
    return {"EHRMIND_TEACHER_KEY": key} if key and role == "diagnose" else {}


def _secret(name: str | None, key: str) -> Object | None:
    return {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}} if name else None


def _listed(env: Environment) -> list[Object]:
    return [{"name": name, **({"value": value} if isinstance(value, str) else value)} for name, value in env.items()]


def _resources(wanted: Resources, gpus: Mapping[str, str]) -> Object:
    """Requests and limits. A GPU stands in both, since a template is counted by queues before the API server completes it."""
    both = {"requests": {**wanted.requests, **gpus}, "limits": {**wanted.limits, **gpus}}
    return {key: value for key, value in both.items() if value}


def _volumes(run: Run, profile: Profile, shared_memory: bool) -> list[tuple[Object, str]]:
    """Volumes, each with the place where it is mounted."""
    found: list[tuple[Object, str]] = [
        ({"name": "spec", "configMap": {"name": config_map_name(run.name)}}, SPEC_FOLDER),
        ({"name": "work", "emptyDir": {"sizeLimit": profile.scratch}}, WORK),
        ({"name": "tmp", "emptyDir": {}}, "/tmp"),  # noqa: S108
    ]
    if shared_memory:
        found.append(({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": profile.shared_memory}}, "/dev/shm"))  # noqa: S108
    if profile.s3.ca_config_map:
        found.append(({"name": "ca", "configMap": {"name": profile.s3.ca_config_map}}, AUTHORITY_FOLDER))
    return found


def _mount(volume: Object, place: str) -> Object:
    return {"name": volume["name"], "mountPath": place} | ({"readOnly": True} if "configMap" in volume else {})
