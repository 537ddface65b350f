"""A profile: what the owners of a cluster decide about the pods of a run, so that its users need not.

Profiles are the entries of one ConfigMap in the operator's namespace (`ehrmind-profiles`, one YAML document a key); a run names one
(`profile`, `default` when it says nothing). The operator freezes what it used in the run's status as a hash.

What would fail in every pod is refused here, once and with a sentence: a name no API server accepts, a variable the operator sets itself.
"""

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.spec import HTTP_URL, sentences

Role = Literal["prepare", "diagnose", "sft", "rlvr", "evaluate", "rollout"]

QUANTITY = r"^[0-9]+(\.[0-9]+)?([eE][0-9]+|m|k|[KMGTP]i?)?$"
OBJECT_NAME = r"^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$"  # DNS subdomain: Secrets, ConfigMaps, ServiceAccounts, classes
STORE = r"^s3://(\{namespace\}|[-.a-z0-9])+(/(\{namespace\}|[-A-Za-z0-9_.=+@])+)*/?$"
# Set by the operator, or by a training operator, for every container. What a profile may override (HF_HUB_OFFLINE, OMP_NUM_THREADS) is not here.
OWN_VARIABLES = ("EHRMIND_", "PET_", "MASTER_", "WORLD_SIZE", "RANK", "LOCAL_RANK")
OWN_LABELS = ("app.kubernetes.io/", "ehrmind.dev/", "training.kubeflow.org/", "kueue.x-k8s.io/")  # selectors and queues are made of these


def _text(value: Any) -> Any:
    """`cpu: 4` in YAML is a number, and a quantity all the same."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _network(value: str) -> str:
    ipaddress.ip_network(value)  # its error names what is wrong with the CIDR
    return value


_Written = Annotated[str, Field(pattern=QUANTITY)]
Quantity = Annotated[_Written, BeforeValidator(_text, json_schema_input_type=_Written | int | float)]
ObjectName = Annotated[str, Field(pattern=OBJECT_NAME)]
Image = Annotated[str, Field(pattern=r"^\S+$")]
Cidr = Annotated[str, AfterValidator(_network)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Images(_Section):
    """Container images by digest or version tag; what each holds: docs/operations.md."""

    ehrmind: Image = Field("ehrmind:latest", description="Prepare and evaluate: the command line, no torch.")
    trainer: Image = Field("ehrmind-trainer:latest", description="Diagnose, SFT and RLVR, and stages that sample with transformers.")
    rollout: Image = Field("ehrmind-rollout:latest", description="vLLM with our plug-ins.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="When a node pulls an image it has.")
    pull_secrets: tuple[ObjectName, ...] = Field((), description="Secrets of the run's namespace with registry credentials.")


class S3(_Section):
    """The object store as pods reach it. Keys stay in a Secret of the run's namespace, which the operator never reads."""

    endpoint_url: str | None = Field(None, pattern=HTTP_URL, description="S3 endpoint, http:// or https://; AWS itself when not set.")
    region: str = Field("us-east-1", description="S3 region.")
    addressing: Literal["path", "virtual", "auto"] = Field("path", description="How bucket names enter a request.")
    secret: ObjectName | None = Field(
        "ehrmind-s3", description="Secret with the keys. None: the pods' service account carries the right (workload identity)."
    )
    access_key_id_key: str = Field("access-key-id", description="Entry of the Secret that holds the access key.")
    secret_access_key_key: str = Field("secret-access-key", description="Entry of the Secret that holds the secret key.")
    ca_config_map: ObjectName | None = Field(
        None, description="ConfigMap of the run's namespace with `ca.crt`, where a private authority signs the endpoint."
    )


class Resources(_Section):
    """What a container asks for and may use at most. Quantities as Kubernetes writes them."""

    requests: dict[str, Quantity] = Field(default_factory=dict, description="What the scheduler reserves.")
    limits: dict[str, Quantity] = Field(default_factory=dict, description="The most it may use.")


class Trainer(_Section):
    """How training pods are made."""

    kind: Literal["auto", "pytorchjob", "trainjob"] = Field(
        "auto", description="auto: PyTorchJob where served, but TrainJob where a queue is set and both are served."
    )
    nodes: int = Field(1, ge=1, le=64, description="Pods of a training stage. Several meet through the training operator's rendezvous.")
    gpus: int = Field(0, ge=0, le=16, description="GPUs of each training pod, and processes in it (0: CPU, one process).")


class Toleration(_Section):
    """A taint that pods accept, as in a pod spec."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: int | None = None  # noqa: N815 (the API's own name)


class Profile(_Section):
    """Everything about pods that is the cluster's business rather than the recipe's."""

    store: str | None = Field(
        None,
        pattern=STORE,
        description="Where runs are kept unless they say: s3://bucket/prefix; `{namespace}` in it becomes the run's namespace,"
        " and is needed unless the profile is for one namespace: runs of one name would share a directory.",
    )
    allowed_namespaces: tuple[str, ...] = Field((), description="Namespaces that may use this profile; empty means all.")
    images: Images = Field(default_factory=Images, description="Container images.")
    s3: S3 = Field(default_factory=S3, description="The object store as pods reach it.")
    teacher_secret: ObjectName | None = Field(
        None, description="Secret of the run's namespace whose entry `key` the teacher of a document asks for (sft.teacher). None: it asks for none."
    )
    teacher_urls: tuple[Annotated[str, Field(pattern=HTTP_URL)], ...] = Field(
        (), description="Teachers that runs may ask (sft.teacher.url as it is written there). Empty: any, without a key; needed with teacher_secret."
    )
    service_account: ObjectName = Field("default", description="ServiceAccount of the run's namespace for its pods; no token is mounted.")
    trainer: Trainer = Field(default_factory=Trainer, description="How training pods are made.")
    resources: dict[Role, Resources] = Field(
        default_factory=dict, description="Per role, without GPUs (`trainer.gpus`, `rollout_gpus`); what is left out has no requests and no limits."
    )
    gpu_resource: str = Field("nvidia.com/gpu", description="Resource name of a GPU.")
    rollout_gpus: int = Field(0, ge=0, le=16, description="GPUs of each rollout pod (0: the CPU build of vLLM).")
    shared_memory: Quantity = Field("1Gi", description="Size of /dev/shm; counts against the memory limit. vLLM's engine asks for 160 MiB on CPU.")
    scratch: Quantity = Field("20Gi", description="Size limit of a pod's working folder.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of nodes that may run the pods.")
    tolerations: tuple[Toleration, ...] = Field((), description="Taints that the pods accept.")
    runtime_class: ObjectName | None = Field(None, description="RuntimeClass of training and rollout pods.")
    priority_class: ObjectName | None = Field(None, description="PriorityClass of all pods but rollouts.")
    rollout_priority_class: ObjectName | None = Field(None, description="PriorityClass of rollout pods. None: the same as the others.")
    queue: ObjectName | None = Field(None, description="Kueue LocalQueue of the run's namespace. None: no queueing.")
    env: dict[str, str] = Field(
        default_factory=dict, description="Further environment of every container, such as proxies; not what the operator sets itself. Never secrets."
    )
    egress: tuple[Cidr, ...] = Field(
        (),
        description="CIDRs that pods may reach besides DNS, their own run, the S3 endpoint and a teacher on the cluster's networks; empty keeps"
        " everything else closed, a public teacher (sft.teacher.external) too.",
    )
    pod_labels: dict[str, str] = Field(default_factory=dict, description="Further labels of every pod; not what selects pods or queues.")
    pod_annotations: dict[str, str] = Field(default_factory=dict, description="Further annotations of every pod.")

    @field_validator("env")
    @classmethod
    def _further_variables(cls, env: dict[str, str]) -> dict[str, str]:
        if taken := [name for name in env if name.startswith(OWN_VARIABLES)]:
            raise ValueError(f"{taken[0]} is set by the operator; take it out")
        return env

    @model_validator(mode="after")
    def _key_for_somebody(self) -> "Profile":
        if self.teacher_secret and not self.teacher_urls:
            raise ValueError("teacher_secret needs teacher_urls: or whoever writes a run would choose where its key goes")
        return self

    def admits_teacher(self, url: str | None) -> bool:
        """Whether a run may ask the teacher at this URL."""
        return not self.teacher_urls or (url or "").rstrip("/") in {known.rstrip("/") for known in self.teacher_urls}

    @field_validator("pod_labels")
    @classmethod
    def _further_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        if taken := [key for key in labels if key.startswith(OWN_LABELS)]:
            raise ValueError(f"{taken[0]} is set by the operator, which selects pods by such labels; take it out (`queue` names a queue)")
        return labels

    @model_validator(mode="after")
    def _one_directory_a_run(self) -> "Profile":
        if self.store and "{namespace}" not in self.store and len(self.allowed_namespaces) != 1:
            raise ValueError(
                f"store {self.store}: runs of one name in two namespaces would share a directory; put {{namespace}} into it,"
                " or let allowed_namespaces name the only one"
            )
        return self

    @model_validator(mode="after")
    def _gpus_once(self) -> "Profile":
        for role, wanted in self.resources.items():
            if self.gpu_resource in {*wanted.requests, *wanted.limits}:
                place = {"rollout": "rollout_gpus"}.get(role, "trainer.gpus")
                raise ValueError(f"resources.{role} names {self.gpu_resource}; its GPUs are counted in {place}")
        return self

    def digest(self) -> str:
        """First 16 hex digits of a SHA-256 over the whole profile; the order of its keys does not matter."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]

    def run_store(self, namespace: str) -> str | None:
        """`store` for a run in `namespace`."""
        return self.store.replace("{namespace}", namespace) if self.store else None


def parse(name: str, text: str) -> Profile:
    """A profile from its YAML. Raises SpecError with every problem: the key, what was found, what was expected."""
    try:
        return Profile.model_validate(yaml.safe_load(text) or {})
    except (yaml.YAMLError, ValueError) as error:
        problems = sentences(error, Profile) if isinstance(error, ValidationError) else [f"not valid YAML ({str(error).splitlines()[0]})"]
        raise SpecError(f"profile {name}: {'; '.join(problems)}") from None


def find(name: str, profiles: Mapping[str, str]) -> Profile:
    """The profile called `name` among a ConfigMap's entries. Raises SpecError."""
    if name not in profiles:
        raise SpecError(f"profile {name!r} is unknown; {nearest(name, profiles)}")
    return parse(name, profiles[name])
