"""The run document: one file says what a run is (`run.yaml`), and the resolved form of it is stored as `spec.json`.

Values come from, each over the one before: the defaults below, the recipe (`presets/recipe-*.yaml`: definitions), the preset
(`presets/*.yaml`: sizes and hyperparameters), the user's file, `--set key=value`. Unknown keys are refused with the nearest known one.
Every field says its meaning, its unit and why its default is what it is; `ehrmind schema` and docs/run-document.md are made from this file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ehrmind_k8s.errors import SpecError, nearest

STAGES: tuple[str, ...] = ("prepare", "diagnose", "sft", "rlvr", "evaluate")
PRESETS: tuple[str, ...] = ("tiny", "small", "default", "paper")
POLICIES: tuple[str, ...] = ("base", "sft", "rlvr")
# Keys that say where and how a run executes, not what it computes: a second submit may change them.
# What only trades memory for time is among them, so that a run that ran out of memory goes on with less.
EXECUTION_KEYS: tuple[str, ...] = (
    "stages",
    "store",
    "profile",
    "suspend",
    "cancel",
    "attempt",
    "policy",
    "rollout.replicas",
    "rollout.min_ready",
    "rollout.wait_s",
    "rollout.cores",
    "rollout.kv_cache_gib",
    "rollout.gpu_memory",
    "sft.micro_batch_size",
)

Stage = Literal["prepare", "diagnose", "sft", "rlvr", "evaluate"]
Fraction = Annotated[float, Field(ge=0, le=1)]
ProfileName = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?$")]
# Of a URL nothing but host, port and path: it goes into network policies and logs. Ports end at 65535.
_PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
HTTP_URL = rf"^https?://([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])(:({_PORT}))?(/[^\s@?#]*)?$"
RunName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]


class Section(BaseModel):
    """A part of the document. Unknown keys are errors, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSpec(Section):
    """The start model."""

    uri: str = Field(
        "toy", description="`toy` (made by prepare from the train split), a local folder, or s3://. A hub id is refused unless `revision` is set."
    )
    revision: str | None = Field(None, description="Commit of a hub model. Required for a hub, since a name alone does not name weights.")
    tuning: Literal["lora", "full"] = Field(
        "lora", description="What is trained. lora: megabytes per policy version, so preemptible rollout pods catch up in seconds."
    )
    lora_rank: int = Field(
        16, ge=1, le=256, description="Rank of the adapter (dimensions). 16 is enough for a narrow task (LoRA paper, section 7.2)."
    )
    lora_alpha: int = Field(32, ge=1, description="Scale of the adapter; twice the rank is the usual start.")
    context: int = Field(8192, ge=64, description="Longest prompt plus completion the model is served with (tokens).")
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="Precision of weights in training and serving. They match, or the importance ratio drifts from 1."
    )


class DataSpec(Section):
    """The data of the task."""

    uri: str | None = Field(
        None, description="File, folder, zip or s3:// prefix in a layout the task reads. None: preset tiny makes the synthetic twin."
    )
    train: str | None = Field(None, description="File of the train split, relative to uri, where names alone do not decide.")
    test: str | None = Field(None, description="File of the test split, relative to uri, where names alone do not decide.")
    topics: tuple[str, ...] = Field((), description="trec: topic files, relative to uri. Empty: names decide.")
    qrels: tuple[str, ...] = Field((), description="trec: judgment files, relative to uri. Empty: names decide.")
    trials: tuple[str, ...] = Field((), description="trec: files, folders or zips with the trials' texts, relative to uri. Empty: names decide.")
    subtasks: tuple[str, ...] = Field((), description="ehrshot: which of its 15 tasks; `ehrmind tasks` lists them. Empty: the paper's five.")
    labels: str = Field(
        "original", description="Which label set of the task's data is the truth; `ehrmind tasks` lists them. original: the published one."
    )
    note_overlap: Literal["drop", "keep"] = Field(
        "drop", description="Train rows whose note also occurs in test. drop: else RL rehearses test notes. keep: the published split."
    )
    split: str | None = Field(
        None,
        description="How rows are split where the source does not say; `ehrmind tasks` lists the task's ways. None: its first.",
    )
    test_fraction: Fraction = Field(
        0.2, description="Share of groups held out for test where the source has no test split (of 1). 0.2: the paper's TREC."
    )
    max_missing_trials: Fraction = Field(
        0.05, description="trec: share of judged trials that may lack a text (of 1). Above it preparation stops; TrialGPT's corpus lacks 0.0005."
    )
    labels_per_subject: int | None = Field(
        20,
        ge=1,
        description="ehrshot: at most so many train and validation labels of one subject and subtask, chosen by seed; lab tasks have hundreds."
        " None: all.",
    )
    shots: int | None = Field(
        None,
        ge=1,
        description="ehrshot: train on so many positive and as many negative labels per subtask: the benchmark's own sample where the source has it"
        " (replicate: seed modulo their number), else chosen by seed. None: all of train, balanced.",
    )
    validation_fraction: Fraction = Field(0.1, description="Share of train groups held out for validation (of 1). 0.1 is the paper's order of size.")
    long_test: Literal["stop", "drop"] = Field(
        "stop", description="A test row over the budget: stop and name the context that fits, or drop it and state n beside every metric."
    )
    max_prompt_tokens: int = Field(
        4096, ge=16, description="Budget of a templated prompt (tokens). Rows over it are dropped from train and validation, counted, never cut."
    )


class DiagnoseSpec(Section):
    """What the start model already knows: k samples on train rows of every category, before anything is trained."""

    samples: int = Field(
        12, ge=2, le=64, description="k, samples per row at rlvr.temperature. 12: the paper; a task says how many of 12 must be right to be no guess."
    )
    threshold: Fraction = Field(
        0.5,
        description="Share of a category's rows that must be reliably right (of 1); below it knowledge is missing. 0.5: RLVR learns from rows"
        " where some samples are right, and SFT on a category that did not need it costs less than RLVR without a signal on most rows.",
    )
    limit: int | None = Field(
        100, ge=1, description="Train rows asked of each category. 100: the share is known to 10 points (95 %); the paper asks 500. None: all."
    )


class TeacherSpec(Section):
    """A model behind an OpenAI-compatible URL that writes explanations (sft.traces: teacher). Its key is EHRMIND_TEACHER_KEY, never in a document."""

    url: str | None = Field(
        None, pattern=HTTP_URL, description="Where it answers, up to and with /v1, for example http://teacher.models.svc:8000/v1."
    )
    model: str | None = Field(None, description="Its name there.")
    samples: int = Field(4, ge=1, le=64, description="Answers asked per row; the first that the scorer accepts is kept.")
    external: bool = Field(
        False, description="true lets prompts, which hold patient records, go to a public address, by https only. false refuses such an address."
    )


class SftSpec(Section):
    """The SFT warm-up: completion-only loss on explanations that end in the answer, with a learned stop token."""

    mode: Literal["auto", "always", "never"] = Field(
        "auto",
        description="auto: on the categories that lack knowledge, as stage diagnose decided; none lacks any: skipped. always: on all."
        " never publishes the start model unchanged.",
    )
    percent: float = Field(20, gt=0, le=100, description="Share of train rows used (percent). 20 is what the paper's final MEDCALC run used.")
    categories: tuple[str, ...] = Field((), description="Categories to warm up on, whatever the diagnosis says; empty: as mode says.")
    traces: Literal["source", "file", "own", "teacher"] = Field(
        "source",
        description="Who wrote the explanations. source: the data's own. file: yours, in traces_file. own: the start model's right samples of stage"
        " diagnose. teacher: another model, asked by stage diagnose. Of the last three only texts that the scorer accepts are kept.",
    )
    traces_file: str | None = Field(
        None, description='JSON lines {"id", "text"}, of train rows and whole completions; a local file or s3://. With traces: file.'
    )
    teacher: TeacherSpec = Field(default_factory=TeacherSpec, description="The model that is asked with traces: teacher.")
    epochs: float = Field(2, gt=0, le=1000, description="Passes over the chosen rows. 2: the paper.")
    batch_size: int = Field(16, ge=1, description="Rows per optimizer step over all ranks. 16: the paper.")
    micro_batch_size: int = Field(4, ge=1, description="Rows per forward pass and rank; lowers memory, not the result.")
    learning_rate: float = Field(2e-5, gt=0, le=1, description="Peak learning rate (AdamW). 2e-5: the paper, full fine-tuning.")
    loss_on: Literal["completion", "text"] = Field(
        "completion", description="completion masks the prompt. text trains on the prompt too (recipe: paper), which wastes capacity on notes."
    )
    checkpoint_every: int = Field(50, ge=1, description="Optimizer steps between checkpoints.")

    @model_validator(mode="after")
    def _traced(self) -> "SftSpec":
        if (self.traces == "file") != (self.traces_file is not None):
            raise ValueError("traces: file and traces_file go together: set both, or neither")
        if self.traces == "teacher" and not (self.teacher.url and self.teacher.model):
            raise ValueError("traces: teacher needs teacher.url and teacher.model")
        return self


class RewardSpec(Section):
    """Reward per outcome of the one scorer; the paper's table."""

    malformed: float = Field(-2.0, description="The structure is broken: no readable think and answer blocks.")
    unparseable: float = Field(0.0, description="An answer object is there, its value is not of the answer's type.")
    wrong: float = Field(0.0, description="A value was read and is wrong.")
    correct: float = Field(1.1, description="A value was read and is right.")

    @model_validator(mode="after")
    def _ordered(self) -> "RewardSpec":
        if not self.malformed <= self.unparseable <= self.wrong < self.correct:
            raise ValueError("rewards must satisfy malformed <= unparseable <= wrong < correct, or training learns to be wrong")
        return self


class RlvrSpec(Section):
    """RL with verifiable rewards: GRPO on the sampler's own log-probs."""

    steps: int = Field(200, ge=1, description="Optimizer steps, one weight sync each.")
    prompts_per_step: int = Field(32, ge=1, description="B, prompts per step over all ranks. 32: the paper.")
    samples_per_prompt: int = Field(8, ge=2, description="G, completions per prompt: the group whose mean is the baseline. The paper uses 8 to 12.")
    micro_batch_size: int = Field(
        8, ge=1, description="Completions per forward pass and rank; a multiple of samples_per_prompt keeps groups on one rank."
    )
    learning_rate: float = Field(
        1e-5, gt=0, le=1, description="Constant learning rate (AdamW). 1e-5 suits adapters; the paper's full fine-tuning uses 1e-6."
    )
    kl: float = Field(0.0, ge=0, description="Weight of the KL penalty against the SFT policy (added to the loss). 0: DAPO and later work drop it.")
    clip: float = Field(0.2, gt=0, lt=1, description="Lower clip of the importance ratio (of 1). 0.2: PPO and the paper.")
    clip_high: float | None = Field(None, gt=0, lt=5, description="Upper clip where it differs (DAPO clip-higher: 0.28). None: same as clip.")
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = Field(
        "dapo",
        description="How token losses are averaged (TRL loss_type). dapo: over the tokens of the whole batch, so long answers are not favoured.",
    )
    scale_rewards: Literal["group", "none"] = Field(
        "group", description="Divide advantages by the group's standard deviation (GRPO) or not (Dr. GRPO)."
    )
    temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature. 1: the log-probs of the loss are those of the sampler.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus. 1: a truncated sampler and a full softmax do not match.")
    max_completion_tokens: int = Field(1500, ge=8, description="Longest completion (tokens). 1500: the paper's MEDCALC budget.")
    max_grad_norm: float = Field(1.0, gt=0, description="Clip of the gradient norm. 1.0: the paper.")
    reward: RewardSpec = Field(default_factory=RewardSpec, description="Reward per outcome.")
    checkpoint_every: int = Field(10, ge=1, description="Steps between checkpoints: at most that much work is lost.")
    validate_every: int = Field(10, ge=0, description="Steps between greedy checks on validation rows (0: never); test rows are never read here.")
    validate_limit: int = Field(64, ge=1, description="Validation rows per check (stratified by category).")
    keep_policies: int = Field(2, ge=2, description="Policy versions kept behind the newest; a server in use is never cut off.")
    keep_checkpoints: int = Field(3, ge=1, description="Newest checkpoints kept; the best on validation is kept besides.")


class RolloutSpec(Section):
    """Who samples."""

    engine: Literal["vllm", "transformers"] = Field(
        "vllm", description="vllm: separate servers over HTTP. transformers: inside the trainer, no server."
    )
    replicas: int = Field(1, ge=1, le=256, description="Number of vLLM servers.")
    min_ready: int = Field(1, ge=1, description="Servers at the current version before a step starts; the others join when they can.")
    wait_s: int = Field(600, ge=1, description="Longest wait for a healthy server (seconds) before the attempt ends and can be tried again.")
    kv_cache_gib: float = Field(1.0, gt=0, description="Memory of a CPU server's KV cache (GiB). GPU servers take what gpu_memory leaves.")
    gpu_memory: Fraction = Field(0.9, description="Share of GPU memory a server takes (of 1). 0.9: vLLM's default, as the trainer is elsewhere.")
    cores: str | None = Field(
        None, description="CPU cores per local server, `0|1` for two. None: spread; vLLM's own choice pins every server to core 0."
    )

    @model_validator(mode="after")
    def _enough(self) -> "RolloutSpec":
        if self.min_ready > self.replicas:
            raise ValueError(f"min_ready is {self.min_ready} but there are only {self.replicas} replicas")
        return self


class EvaluateSpec(Section):
    """Base, SFT and RLVR side by side on the test split."""

    limit: int | None = Field(None, ge=1, description="Test rows used, stratified by category (stated in the report). None: all.")
    samples: int = Field(4, ge=0, description="Samples per prompt at rlvr.temperature beside the greedy one; their mean is reported too.")
    policies: tuple[Literal["base", "sft", "rlvr"], ...] = Field(
        ("base", "sft", "rlvr"), min_length=1, description="Which policies are compared; the newest of them becomes the run's model."
    )
    bootstrap: int = Field(
        2000, ge=100, description="Resamples of the clustered bootstrap. 2000 keeps the end points of an interval steady to about 0.5 %."
    )
    max_completion_tokens: int | None = Field(None, ge=8, description="Longest completion (tokens). None: as in rlvr.")


class PolicySpec(Section):
    """What happens when a stage fails."""

    retries: int = Field(3, ge=0, description="Attempts after the first for failures that another try may mend (exit code 75 or a killed process).")
    deadline_s: int | None = Field(
        None, ge=60, description="Longest time from acceptance to the end (seconds); a run that is continued has it anew. None: none."
    )
    ttl_s: int | None = Field(
        None,
        ge=60,
        description="On a cluster, time from the end until the run's object and pods are deleted (seconds); what it stored stays."
        " At least 60, so that whoever follows it reads the end. None: kept.",
    )


class RunSpec(Section):
    """One run, from data to evaluation."""

    name: RunName = Field(description="Name in the store: lower-case letters, digits and dashes, at most 40. Default: <task>-<preset>.")
    task: str = Field(description="Clinical task; `ehrmind tasks` lists what is installed.")
    preset: Literal["tiny", "small", "default", "paper"] = Field(
        "default", description="Sizes and hyperparameters: tiny (toy model, CPU), small (0.6B), default (4B), paper (3B, the paper's settings)."
    )
    recipe: Literal["corrected", "paper"] = Field(
        "corrected",
        description="Definitions. paper restores the paper's choices (loss on the prompt, T 0.6, KL 0.001, note overlap), never its defects.",
    )
    seed: int = Field(42, ge=0, lt=2**31, description="Seed of splits, order, sampling and initial weights.")
    stages: tuple[Stage, ...] = Field(
        ("prepare", "diagnose", "sft", "rlvr", "evaluate"),
        description="Stages to run; a subset needs `inputs` for what it leaves out. diagnose may be left out unless sft.mode or sft.traces need it.",
    )
    inputs: dict[Stage, str] = Field(default_factory=dict, description="Stage name -> URI of that stage's output in another run.")
    store: str | None = Field(
        None, description="Store URI. None: EHRMIND_STORE, else ./runs for the local backend and the profile's store on a cluster."
    )
    profile: ProfileName = Field(
        "default", description="On a cluster, which of its owners' profiles (images, queue, nodes, S3 access) the pods follow."
    )
    suspend: bool = Field(
        False, description="On a cluster, true stops all pods, which frees their GPUs; false continues from the last checkpoint as a new attempt."
    )
    cancel: bool = Field(False, description="On a cluster, true ends the run for good; what it stored stays. Only a raised attempt continues it.")
    attempt: int = Field(
        1, ge=1, description="On a cluster, raising it continues a failed or cancelled run where it stopped, with all of policy.retries anew."
    )
    model: ModelSpec = Field(default_factory=ModelSpec, description="The start model.")
    data: DataSpec = Field(default_factory=DataSpec, description="The data of the task.")
    diagnose: DiagnoseSpec = Field(default_factory=DiagnoseSpec, description="What the start model already knows.")
    sft: SftSpec = Field(default_factory=SftSpec, description="The SFT warm-up.")
    rlvr: RlvrSpec = Field(default_factory=RlvrSpec, description="RL with verifiable rewards.")
    rollout: RolloutSpec = Field(default_factory=RolloutSpec, description="Who samples.")
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec, description="The comparison at the end.")
    policy: PolicySpec = Field(default_factory=PolicySpec, description="What happens when a stage fails.")

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if not stages:
            raise ValueError("at least one stage is needed")
        return tuple(s for s in STAGES if s in stages)

    @model_validator(mode="after")
    def _consistent(self) -> "RunSpec":
        if "sft" in self.stages and not self.diagnosed and self.sft.mode != "never":
            needs = "mode auto" if self.sft.mode == "auto" else f"traces {self.sft.traces}" if self.sft.traces in ("own", "teacher") else ""
            if needs:
                raise ValueError(f"sft.{needs} needs stage diagnose: add it to stages, or set inputs.diagnose to its output in another run")
        if self.rlvr.micro_batch_size % self.rlvr.samples_per_prompt:
            raise ValueError(
                f"rlvr.micro_batch_size {self.rlvr.micro_batch_size} must be a multiple of rlvr.samples_per_prompt"
                f" {self.rlvr.samples_per_prompt}, or a group would straddle ranks and passes"
            )
        rows = self.rlvr.prompts_per_step * self.rlvr.samples_per_prompt
        if rows % self.rlvr.micro_batch_size:
            raise ValueError(
                f"rlvr.prompts_per_step x samples_per_prompt = {rows} must be a multiple of rlvr.micro_batch_size {self.rlvr.micro_batch_size}"
            )
        if self.sft.batch_size % self.sft.micro_batch_size:
            raise ValueError(f"sft.batch_size {self.sft.batch_size} must be a multiple of sft.micro_batch_size {self.sft.micro_batch_size}")
        longest = self.data.max_prompt_tokens + self.completion_tokens
        if longest > self.model.context:
            raise ValueError(
                f"data.max_prompt_tokens plus the longest completion is {longest} tokens, over model.context {self.model.context};"
                " raise model.context or lower one of the two"
            )
        return self

    @property
    def diagnosed(self) -> bool:
        """Whether there is a diagnosis of the start model: made by this run, or by another."""
        return "diagnose" in self.stages or "diagnose" in self.inputs

    @property
    def completion_tokens(self) -> int:
        """Longest completion of any stage (tokens)."""
        return max(self.rlvr.max_completion_tokens, self.evaluate.max_completion_tokens or 0)

    def recipe_hash(self) -> str:
        """SHA-256 over what the run computes; execution settings and the name are left out."""
        document = self.model_dump(mode="json")
        for key in (*EXECUTION_KEYS, "name"):
            _pop(document, key)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def load(document: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunSpec:
    """Resolve a user's document and `key=value` overrides into a whole RunSpec.

    Raises SpecError with every problem found: the key, what was found, what was expected.
    """
    user = written(document, overrides)
    preset = user.get("preset") or "default"
    if preset not in PRESETS:
        raise SpecError(f"preset {preset!r} is unknown; {nearest(str(preset), PRESETS)}")
    layers = overlay(str(preset))
    recipe = user.get("recipe") or layers.get("recipe") or "corrected"
    if recipe == "paper":
        layers = _merge(overlay("recipe-paper"), layers)
    whole = _merge(layers, user)
    whole["preset"], whole["recipe"] = preset, recipe
    if "name" not in whole and isinstance(whole.get("task"), str):
        whole["name"] = default_name(whole)
    return _validate(whole)


def written(document: Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A user's document with `key=value` overrides over it, as sparse as they are. Raises SpecError for an override that cannot be read."""
    return _merge(dict(document), _parse_overrides(overrides))


def default_name(document: Mapping[str, Any]) -> str:
    """The name of a run whose document gives none."""
    return f"{document['task']}-{document.get('preset') or 'default'}"


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A run document as plain data. Raises SpecError naming the line where YAML breaks."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2025-13-01
        raise SpecError(f"{where}: not valid YAML: {error}") from None
    if not isinstance(document, dict):
        raise SpecError(f"{where}: expected a mapping of run fields, found {type(document).__name__}; `ehrmind schema` shows the fields")
    return document


def from_json(document: Mapping[str, Any]) -> RunSpec:
    """A resolved document (`spec.json`) back into a RunSpec, without presets."""
    return _validate(dict(document))


def difference(old: RunSpec, new: RunSpec) -> list[str]:
    """Lines `key: old -> new` for what two documents compute differently (execution settings left out)."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    skip = (*EXECUTION_KEYS, "name")
    keys = [k for k in sorted({*before, *after}) if not any(k == s or k.startswith(s + ".") for s in skip)]
    return [f"{k}: {before.get(k)!r} -> {after.get(k)!r}" for k in keys if before.get(k) != after.get(k)]


def overlay(name: str) -> dict[str, Any]:
    """What a preset, or `recipe-paper`, changes."""
    text = resources.files("ehrmind_k8s").joinpath(f"presets/{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text) or {}


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = merged.get(key)
        merged[key] = _merge(nested, value) if isinstance(nested, dict) and isinstance(value, Mapping) and key != "inputs" else value
    return merged


def _parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise SpecError(f"--set {item!r}: expected key=value, for example --set rlvr.steps=30")
        try:
            value = yaml.safe_load(text) if text else None
        except (yaml.YAMLError, ValueError) as error:
            raise SpecError(f"--set {item!r}: the value is not valid YAML ({str(error).splitlines()[0]}); quote it") from None
        if isinstance(value, str) and _is_number(value):  # YAML 1.1 reads 1e-3 as text
            value = float(value)
        *parents, leaf = key.split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise SpecError(f"--set {item!r}: {parent!r} was already set to a single value")
        place[leaf] = value
    return document


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Every problem of a document of `model`: the key, what was found, what was expected. For this document and for profiles."""
    return [_sentence(problem, model) for problem in error.errors()]


def _validate(document: dict[str, Any]) -> RunSpec:
    try:
        return RunSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError("the run document is not valid:\n" + "\n".join(f"  {line}" for line in sentences(error, RunSpec))) from None


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    path = [str(p) for p in problem["loc"]]
    where = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; {nearest(path[-1], _known_keys(model, path[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: missing; add it to the document or pass --set {where}=..."
    if where and problem["type"] in ("model_type", "model_attributes_type"):
        return f"{where}: found {problem['input']!r}, expected a section of keys: {', '.join(_known_keys(model, path))}"
    found = problem["input"]
    shown = "" if isinstance(found, dict | BaseModel) else f"found {found!r}: "
    return f"{where + ': ' if where else ''}{shown}{problem['msg'].removeprefix('Value error, ')}"


def _known_keys(model: Any, path: Sequence[str]) -> list[str]:
    for part in path:
        fields = getattr(model, "model_fields", None)
        # A mapping or a list of sections: the part is a key or a place of it, and its annotation names the section.
        model = fields[part].annotation if fields else next(a for a in get_args(model) if hasattr(a, "model_fields"))
    return list(model.model_fields)


def _pop(document: dict[str, Any], dotted: str) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        document = document[parent]
    document.pop(leaf, None)


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
