"""Policies as published artifacts, and the canary that proves a server holds exactly those weights.

A policy is an artifact of kind `policy`: safetensors of a whole model (`full`) or of an adapter over the run's start model (`lora`). Its
manifest also holds the canary: the log-probs that the publisher's own model gives to a fixed sequence. Whoever serves the policy computes
them again; checksums cannot see a packed or stale copy inside an engine, a log-prob can.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.artifacts import Claim, Manifest
from ehrmind_k8s.errors import IntegrityError, ModelError
from ehrmind_k8s.rollout.base import Policy
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.tokenization import PROBE

Kind = Literal["full", "lora"]
CANARY_TOKENS = 64
# Largest absolute difference of a canary log-prob (nats) that two sides may show. Equal fp32 weights differ by rounding, 1e-6 to 1e-5. bfloat16
# keeps 8 bits, so a logit near 16 is known to 0.06 and two kernels that sum in another order differ by a few such steps.
TOLERANCE: Mapping[str, float] = {"float32": 1e-3, "bfloat16": 0.3}

_FILES: Mapping[str, tuple[str, ...]] = {
    "full": ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    "lora": ("adapter_config.json", "adapter_model.safetensors"),
}
_REQUIRED: Mapping[str, tuple[str, ...]] = {"full": ("config.json", "model*.safetensors"), "lora": _FILES["lora"]}
LORA_RANKS = (8, 16, 32, 64, 128, 256)  # what vLLM takes for --max-lora-rank, as far as model.lora_rank goes
_LORA_KEYS = ("r", "lora_alpha", "target_modules")


class Encoder(Protocol):
    """What the canary needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A fixed sequence of T tokens; `logprobs[i]` is log p(token_ids[i+1] | token_ids[:i+1]) in nats, length T-1, from logits in fp32."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    def difference(self, found: Sequence[float | None]) -> float:
        """Largest absolute difference (nats); infinite where a value is missing or not finite."""
        if len(found) != len(self.logprobs):
            return math.inf
        pairs = zip(self.logprobs, found, strict=True)
        return max((abs(a - b) if b is not None and math.isfinite(a) and math.isfinite(b) else math.inf for a, b in pairs), default=math.inf)


@dataclass(frozen=True, slots=True)
class PolicyMeta:
    """What a policy's manifest says of it. `tokenizer` is the fingerprint, `lora` rank, alpha and targets of an adapter, `version` its step."""

    name: str
    kind: Kind
    tokenizer: str
    canary: Canary
    version: int
    lora: Mapping[str, Any] | None


def canary_ids(tokenizer: Encoder) -> list[int]:
    """The fixed sequence, at most 64 tokens: the tokenizer's own probe text, so that no record is ever part of it."""
    return tokenizer.encode(PROBE)[:CANARY_TOKENS]


def publish(
    out: ObjectStore, name: str, folder: Path, *, kind: Kind, tokenizer: str, canary: Canary, claim: Claim | None = None, version: int = 0
) -> Policy:
    """Publish the weights in `folder` (as save_pretrained leaves them; nothing pickled is taken) as policy `name` of the stage at `out`."""
    for pattern in _REQUIRED[kind]:
        if not any(folder.glob(pattern)):
            raise ModelError(f"{folder}: a {kind} policy needs {pattern}, which is not there")
    names = sorted({path.name for pattern in (*_FILES[kind], artifacts.TERMS) for path in folder.glob(pattern)})
    meta = {
        "name": name,
        "kind": kind,
        "tokenizer": tokenizer,
        "canary": {"token_ids": list(canary.token_ids), "logprobs": list(canary.logprobs)},
        "version": version,
        "lora": _lora(folder) if kind == "lora" else None,
    }
    key = artifacts.policy_key(name)
    artifacts.publish(out, key, folder, "policy", meta, names, claim)
    return Policy(name, storage.join(out.uri, key))


def served_rank(rank: int) -> int:
    """The --max-lora-rank of a server for adapters of this rank: the smallest that vLLM knows and that holds them."""
    return next(r for r in LORA_RANKS if r >= rank)


def load(policy: Policy) -> PolicyMeta:
    """What the manifest of a published policy says. Raises IntegrityError where it is missing, damaged, or of another policy."""
    manifest = artifacts.load(storage.open(policy.uri))
    if manifest is None:
        raise IntegrityError(f"{policy.uri}: no {artifacts.MANIFEST}, so policy {policy.name} was never published whole; run the stage that makes it")
    return _meta(policy, manifest)


def fetch(policy: Policy, folder: Path) -> PolicyMeta:
    """Download and verify a policy into `folder`, which appears whole or not at all. Raises IntegrityError."""
    return _meta(policy, artifacts.fetch(storage.open(policy.uri), "", folder))


def check(policy: Policy, canary: Canary, found: Sequence[float | None], tolerance: float, who: str) -> float:
    """The canary's difference (nats). Raises IntegrityError where it is over `tolerance`: `who` does not hold these weights."""
    difference = canary.difference(found)
    if not difference <= tolerance:
        raise IntegrityError(
            f"{who}: the canary of policy {policy.name} differs by {difference:.3g} nats, allowed {tolerance:g};"
            " it does not compute what was published (other weights, dtype or tokenizer) and is not used"
        )
    return difference


def _meta(policy: Policy, manifest: Manifest) -> PolicyMeta:
    if manifest.kind != "policy":
        raise IntegrityError(f"{policy.uri}: expected an artifact of kind policy, found {manifest.kind!r}")
    try:
        raw = manifest.meta
        canary = Canary(tuple(raw["canary"]["token_ids"]), tuple(raw["canary"]["logprobs"]))
        meta = PolicyMeta(raw["name"], raw["kind"], raw["tokenizer"], canary, raw["version"], raw["lora"])
    except (KeyError, TypeError) as error:
        raise IntegrityError(f"{policy.uri}: the manifest lacks what a policy has ({error}); publish the policy again") from None
    if meta.name != policy.name:
        raise IntegrityError(f"{policy.uri}: expected policy {policy.name}, found {meta.name!r}")
    return meta


def _lora(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return {key: sorted(value) if isinstance(value := config.get(key), list) else value for key in _LORA_KEYS}
