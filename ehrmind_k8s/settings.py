"""Where things are (EHRMIND_*), never what to compute: that is `spec.RunSpec`."""

import os
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ehrmind_k8s.errors import SpecError


def _s3(name: str, *usual: str) -> AliasChoices:
    return AliasChoices(f"EHRMIND_S3_{name}", *usual)


class Settings(BaseSettings):
    """Read from the environment; `ehrmind doctor` prints what was found (secrets as set or not set)."""

    model_config = SettingsConfigDict(env_prefix="EHRMIND_", extra="ignore", populate_by_name=True)

    backend: Literal["local", "kubernetes", "kfp"] = Field("kubernetes", description="Where `submit` runs a document.")
    store: str | None = Field(None, description="Store URI when neither document nor option names one: a folder, file:// or s3://.")
    state_dir: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "ehrmind",
        description="Where the local backend keeps locks, process ids, logs and caches; safe to delete when nothing runs.",
    )
    work_dir: Path | None = Field(
        None,
        description="Where a stage keeps what it works on; the system's temporary folder when not set. The local backend sets and empties it.",
    )
    s3_endpoint_url: str | None = Field(
        None, validation_alias=_s3("ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), description="S3 endpoint; AWS itself when not set."
    )
    s3_access_key_id: str | None = Field(None, validation_alias=_s3("ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"), description="S3 access key.")
    s3_secret_access_key: SecretStr | None = Field(
        None, validation_alias=_s3("SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"), description="S3 secret key."
    )
    s3_session_token: SecretStr | None = Field(
        None, validation_alias=_s3("SESSION_TOKEN", "AWS_SESSION_TOKEN"), description="Session token that goes with temporary S3 keys."
    )
    s3_region: str = Field("us-east-1", validation_alias=_s3("REGION", "AWS_REGION", "AWS_DEFAULT_REGION"), description="S3 region.")
    s3_ca_bundle: str | None = Field(
        None, validation_alias=_s3("CA_BUNDLE", "AWS_CA_BUNDLE"), description="PEM file with the authority that signed the endpoint's certificate."
    )
    s3_addressing: Literal["path", "virtual", "auto"] = Field(
        "path", validation_alias=_s3("ADDRESSING"), description="`path` works with every S3-compatible server; AWS accepts it too."
    )
    rollout_urls: str | None = Field(
        None, description="Rollout servers, comma separated; set by the backend. `dns://host:port` resolves a headless Service each second."
    )
    run_token: SecretStr | None = Field(
        None, description="Token of the run that every rollout route but /health asks for. The local backend sets it; else the run's store holds it."
    )
    teacher_key: SecretStr | None = Field(None, description="Key of the teacher that sft.teacher names, where it asks for one.")
    spec_file: Path | None = Field(
        None, description="The run document of a pod (spec.json of its ConfigMap); the first stage or server publishes it in the run's store."
    )
    world_size: int | None = Field(
        None, ge=1, description="Training processes that the cluster was asked for; a stage whose launcher has started another number refuses to run."
    )
    progress_port: int | None = Field(
        None, ge=1, le=65535, description="Port of /progress and /metrics of a stage's first process; not served when not set."
    )
    termination_log: Path | None = Field(
        None,
        description="Where a stage's first process leaves its report at its end (numbers and codes, 4 KiB at most): a pod's termination message.",
    )
    kfp_host: str | None = Field(
        None,
        description="Address of Kubeflow Pipelines: its gateway (https://kubeflow.example/pipeline) or its API server (http://ml-pipeline.kubeflow:8888)."
        " Not set: the service ml-pipeline through the API server of the kubeconfig, which KFP without users of its own allows.",
    )
    kfp_service_namespace: str = Field(
        "kubeflow", description="Namespace that KFP is installed in; where KFP has no users of its own, its runs live there too."
    )
    kfp_token_file: Path | None = Field(None, description="File with a bearer token for EHRMIND_KFP_HOST; read for each request, as tokens rotate.")
    kfp_cookie_file: Path | None = Field(
        None,
        description="File with a session cookie for EHRMIND_KFP_HOST, one line NAME=VALUE, where a gateway takes no tokens; read for each request.",
    )
    kfp_experiment: str = Field("ehrmind", min_length=1, description="Experiment that pipeline runs stand in; made when it is missing.")
    kfp_image: str | None = Field(
        None, description="Image of a pipeline's nodes in your registry, for submit, schedule and upload; ehrmind at this version when not set."
    )
    kfp_service_account: str | None = Field(None, description="Service account that the pods of pipeline runs get; KFP's own choice when not set.")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, JSON lines elsewhere.")


def load() -> Settings:
    """The settings of this process. Raises SpecError naming each variable that cannot be read."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"EHRMIND_{'_'.join(map(str, e['loc'])).upper().removeprefix('EHRMIND_')}: {e['msg']}" for e in error.errors(include_input=False)]
        raise SpecError("environment: " + "; ".join(lines)) from None
