"""What the API server refuses, and the sentence it says then (CEL, https://kubernetes.io/docs/reference/using-api/cel/).

Rules are for people who type `kubectl apply`: they hear at once. The truth stays with spec.py, whose checks see the document with its
preset; what passes here and not there becomes a Failed condition. A rule compares two keys only where its author wrote both.

A rule with `oldSelf` is skipped where there was no old value, so "may not change" stands on the spec, which is always there, and compares
presence too. No function newer than Kubernetes 1.29 is used.
"""

from dataclasses import dataclass
from typing import Any

from ehrmind_k8s.crd import names
from ehrmind_k8s.crd.convert import MUTABLE_KEYS, camel, section
from ehrmind_k8s.spec import STAGES, RunSpec

# A bucket and a prefix in characters that need no quoting anywhere, without a part `.` or `..`.
S3 = r"^s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/[-A-Za-z0-9_.=+@]+)*/?$"
HUB = r"^[A-Za-z0-9][-A-Za-z0-9_.]*/[A-Za-z0-9][-A-Za-z0-9_.]*$"
DOTS = r"(^|/)[.][.]?(/|$)"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: CEL that must be true, the sentence for when it is not, and the field below it that the sentence is about."""

    rule: str
    message: str
    field: str = ""
    reason: str = "FieldValueInvalid"

    def manifest(self) -> dict[str, Any]:
        """The rule as an entry of x-kubernetes-validations."""
        return {"rule": self.rule, "message": self.message, "reason": self.reason} | ({"fieldPath": f".{self.field}"} if self.field else {})


def _cel(text: str) -> str:
    """A text as a CEL literal without escapes."""
    assert "'" not in text
    return f"r'{text}'"


def _written(*keys: str) -> str:
    """CEL: all of these dotted keys are there, so that they can be compared."""
    parts = [f"has(self.{'.'.join(key.split('.')[: n + 1])})" for key in keys for n in range(key.count(".") + 1)]
    return " && ".join(dict.fromkeys(parts))


def _where_written(keys: tuple[str, ...], condition: str) -> str:
    """CEL: `condition`, or one of the keys is left to preset and default."""
    return f"!({_written(*keys)}) || {condition}"


def _fixed() -> list[Rule]:
    """Every key but `MUTABLE_KEYS` keeps its value, or its absence. A section is compared whole unless one of its keys may change."""
    parents = {key.rpartition(".")[0] for key in MUTABLE_KEYS if "." in key}
    keys = []
    for name, info in RunSpec.model_fields.items():
        inner = section(info.annotation)
        keys += [f"{name}.{key}" for key in inner.model_fields] if inner and name in parents else [name]
    may = ", ".join(map(_camel_key, MUTABLE_KEYS))
    return [_unchanged(_camel_key(key), may) for key in keys if key not in MUTABLE_KEYS and key != "name"]


def _unchanged(key: str, may: str) -> Rule:
    now = _written(key)
    before = now.replace("self.", "oldSelf.")
    rule = f"({now}) == ({before}) && (!({now}) || self.{key} == oldSelf.{key})"
    return Rule(rule, f"{key} is fixed once the run exists: make a run with another name. What may change: {may}", key, "FieldValueForbidden")


def _camel_key(key: str) -> str:
    return ".".join(map(camel, key.split(".")))


def _s3(what: str) -> tuple[Rule, ...]:
    return (
        Rule(f"self.matches({_cel(S3)})", f"{what} is s3://bucket/prefix, of letters, digits and -_.=+@/: pods reach an object store, no folder"),
        Rule(f"!self.matches({_cel(DOTS)})", "a URI has no part `.` or `..`"),
    )


_FILE = (
    Rule(
        f"!self.startsWith('/') && !self.matches({_cel(DOTS)})",
        "a file name is relative to data.uri: no leading / and no part `..`",
    ),
)

RULES: dict[str, tuple[Rule, ...]] = {
    "": (Rule(f"self.metadata.name.size() <= {names.NAME_LIMIT} && self.metadata.name.matches({_cel(names.NAME_PATTERN)})", names.NAME_RULE),),
    "spec": (
        *_fixed(),
        Rule("self.attempt >= oldSelf.attempt", "attempt only grows: each number is a new try", "attempt"),
        Rule(
            "!oldSelf.cancel || self.cancel || self.attempt > oldSelf.attempt",
            "cancel cannot be taken back; to continue a cancelled run, set it to false and raise attempt in one change",
            "cancel",
        ),
        Rule(
            "self.attempt == oldSelf.attempt || !self.cancel",
            "a raised attempt continues the run and cancel ends it: set cancel to false in the same change",
            "attempt",
        ),
        Rule(
            _where_written(
                ("model.context", "data.maxPromptTokens", "rlvr.maxCompletionTokens"),
                "self.data.maxPromptTokens + self.rlvr.maxCompletionTokens <= self.model.context",
            ),
            "data.maxPromptTokens plus rlvr.maxCompletionTokens is over model.context; raise model.context or lower one of the two",
        ),
    ),
    "spec.task": (Rule("self.matches('^[a-z0-9][-_a-z0-9]{0,62}$')", "task is a name such as medcalc; `ehrmind tasks` lists what is installed"),),
    "spec.stages": (Rule("self.size() > 0", "at least one stage is needed"),),
    "spec.store": _s3("store"),
    **{f"spec.inputs.{stage}": _s3("an input") for stage in STAGES},
    "spec.model": (
        Rule(
            "!has(self.uri) || self.uri == 'toy' || self.uri.startsWith('s3://') || has(self.revision)",
            "a hub model needs model.revision, its commit: a name alone does not name weights",
            "revision",
        ),
    ),
    "spec.model.uri": (
        Rule(
            f"self == 'toy' || self.matches({_cel(S3)}) || self.matches({_cel(HUB)})",
            "model.uri is `toy`, s3://bucket/prefix, or a hub id such as Qwen/Qwen3-0.6B",
        ),
        Rule(f"!self.matches({_cel(DOTS)})", "a URI has no part `.` or `..`"),
    ),
    "spec.data.uri": _s3("data.uri"),
    "spec.data.train": _FILE,
    "spec.data.test": _FILE,
    "spec.sft.tracesFile": _s3("sft.tracesFile"),
    "spec.sft": (
        Rule("!has(self.traces) || self.traces != 'file' || has(self.tracesFile)", "sft.traces file needs sft.tracesFile", "tracesFile"),
        Rule(
            "!has(self.traces) || self.traces != 'teacher' || has(self.teacher) && has(self.teacher.url) && has(self.teacher.model)",
            "sft.traces teacher needs sft.teacher.url and sft.teacher.model",
            "teacher",
        ),
        Rule(
            _where_written(("batchSize", "microBatchSize"), "self.batchSize % self.microBatchSize == 0"),
            "sft.batchSize must be a multiple of sft.microBatchSize",
            "batchSize",
        ),
    ),
    "spec.rlvr": (
        Rule(
            _where_written(("microBatchSize", "samplesPerPrompt"), "self.microBatchSize % self.samplesPerPrompt == 0"),
            "rlvr.microBatchSize must be a multiple of rlvr.samplesPerPrompt, or a group would straddle ranks and passes",
            "microBatchSize",
        ),
        Rule(
            _where_written(
                ("promptsPerStep", "samplesPerPrompt", "microBatchSize"),
                "(self.promptsPerStep * self.samplesPerPrompt) % self.microBatchSize == 0",
            ),
            "rlvr.promptsPerStep x samplesPerPrompt must be a multiple of rlvr.microBatchSize",
            "promptsPerStep",
        ),
    ),
    "spec.rlvr.reward": tuple(
        Rule(
            _where_written((low, high), f"self.{low} {sign} self.{high}"),
            "rewards must satisfy malformed <= unparseable <= wrong < correct, or training learns to be wrong",
        )
        for low, sign, high in (("malformed", "<=", "unparseable"), ("unparseable", "<=", "wrong"), ("wrong", "<", "correct"))
    ),
    "spec.rollout": (
        Rule("!has(self.minReady) || self.minReady <= self.replicas", "rollout.minReady servers cannot be ready among fewer replicas", "minReady"),
    ),
}
