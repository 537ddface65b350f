"""The HTTP protocol of one rollout server, and what a reply must hold before a sample of it counts.

Whatever a server answers that is not a whole, rightly tagged group is a ServerError: the group goes elsewhere, since generation is
stateless and only complete replies are consumed. A server that is shutting down answers 200 with finish_reason `abort` and no tokens.
"""

import math
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ehrmind_k8s.errors import DataError, IntegrityError
from ehrmind_k8s.records import Completion, Prompt
from ehrmind_k8s.rollout.base import Policy, Sampling
from ehrmind_k8s.rollout.weights import PolicyMeta
from ehrmind_k8s.tokenization import Tokenizer

CONNECT_S = 5.0
STATE_S = 10.0
SYNC_S = 600.0  # a whole model of tens of GB over the network; an adapter takes seconds
CANARY_S = 120.0
GENERATE_S = 60.0  # plus SLOWEST_TOKEN_S per token: a group waits at most for one other wave of the same length
SLOWEST_TOKEN_S = 0.25
# A node that vanishes sends no goodbye. The kernel asks after 5 s and gives the connection up after three answers missed, long before a read would.
KEEPALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
if sys.platform == "linux":
    KEEPALIVE += [
        (socket.IPPROTO_TCP, option, value) for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
    ]
NO_LOGPROB = -9999.0  # what vLLM writes where a log-prob is missing, NaN or -inf


class ServerError(Exception):
    """This server did not do what was asked; another one, or this one later, may. The message is a short reason without data."""


@dataclass(frozen=True, slots=True)
class Target:
    """The policy that servers should hold, what its manifest says, and its name on servers (`<uid>.<name>`)."""

    policy: Policy
    meta: PolicyMeta
    uid: str

    @property
    def served(self) -> str:
        return f"{self.uid}.{self.policy.name}"

    @property
    def model(self) -> str:
        """What a request names: an adapter has a name of its own, whole weights are served under the run's uid."""
        return self.served if self.meta.kind == "lora" else self.uid


class Client:
    """One server. Safe to use from several threads."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        # trust_env off: a proxy of the environment must not see prompts, and pod addresses are not reachable through one.
        transport = httpx.HTTPTransport(trust_env=False, limits=limits, socket_options=KEEPALIVE)
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, transport=transport)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def state(self) -> dict[str, Any]:
        """`{"uid", "policy", "loaded"}` of the server."""
        return self._json(self._send("GET", "/v1/policy", STATE_S))

    def sync(self, target: Target) -> float:
        """Make the server hold the policy; returns how long it stood still for it (seconds). Raises IntegrityError where it refuses the artifact."""
        route = "/v1/policy/adapter" if target.meta.kind == "lora" else "/v1/policy/sync"
        reply = self._send("POST", route, SYNC_S, {"name": target.policy.name, "uri": target.policy.uri})
        if reply.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise IntegrityError(f"{self.url}: {_field(reply, 'message') or 'refuses the policy'}")
        return float(self._json(reply).get("pause_s", 0.0))

    def canary(self, target: Target) -> list[float | None]:
        """Log-probs the server gives to the canary's tokens now."""
        ids = list(target.meta.canary.token_ids)
        # One token is the least vLLM generates. A salt of its own: a cached prefix would answer for weights that are gone.
        sampling = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}
        body = {"model": target.model, "token_ids": ids, "cache_salt": f"canary-{target.served}", "sampling_params": sampling}
        document = self._json(self._send("POST", "/inference/v1/generate", CANARY_S, body))
        try:
            rows = document["prompt_logprobs"][1:]
            return [row[str(token)]["logprob"] for row, token in zip(rows, ids[1:], strict=True)]
        except (KeyError, TypeError, ValueError):
            raise ServerError("canary reply without log-probs") from None

    def generate(self, target: Target, prompt: Prompt, sampling: Sampling, tokenizer: Tokenizer) -> list[Completion]:
        """One group: up to n completions, those with a log-prob that is not finite left out. Raises DataError for a prompt that no server takes."""
        body = {
            "model": target.model,
            "token_ids": list(prompt.token_ids),
            "cache_salt": target.served,
            "sampling_params": _sampling_params(prompt, sampling, tokenizer.stop_ids),
        }
        reply = self._send("POST", "/inference/v1/generate", GENERATE_S + SLOWEST_TOKEN_S * sampling.max_tokens, body)
        if reply.status_code == httpx.codes.BAD_REQUEST:
            raise DataError(
                f"prompt {prompt.id}: the server refuses {len(prompt.token_ids)} prompt tokens and up to {sampling.max_tokens} more,"
                f" {sampling.n} samples; together they must fit model.context"
            )
        return read_group(self._json(reply), target, prompt, sampling.n, tokenizer)

    def _send(self, method: str, path: str, read_s: float, body: dict[str, Any] | None = None) -> httpx.Response:
        timeout = httpx.Timeout(CONNECT_S, read=read_s, pool=read_s)
        try:
            return self._http.request(method, path, json=body, timeout=timeout)
        except httpx.TransportError as error:
            raise ServerError(type(error).__name__) from None
        except RuntimeError:  # the client was closed by the pool, since the server left
            raise ServerError("closed") from None

    def _json(self, reply: httpx.Response) -> dict[str, Any]:
        if reply.status_code != httpx.codes.OK:
            raise ServerError(f"status {reply.status_code} {_field(reply, 'error') or ''}".strip())
        try:
            document = reply.json()
        except ValueError:
            raise ServerError("not JSON") from None
        if not isinstance(document, dict):
            raise ServerError("not a JSON object")
        return document


def read_group(document: dict[str, Any], target: Target, prompt: Prompt, n: int, tokenizer: Tokenizer) -> list[Completion]:
    """The completions of a reply of /inference/v1/generate. Raises ServerError unless it is whole and made by `target` alone."""
    try:
        if document["model"] != target.model:
            raise ServerError("another model answered")
        choices = sorted(document["choices"], key=lambda c: c["index"])
        if [c["index"] for c in choices] != list(range(n)):
            raise ServerError("incomplete group")
        found = [_read_choice(choice, target, prompt, tokenizer) for choice in choices]
    except (KeyError, TypeError) as error:
        raise ServerError(f"unknown reply ({type(error).__name__})") from None
    return [completion for completion in found if completion]


def _read_choice(choice: dict[str, Any], target: Target, prompt: Prompt, tokenizer: Tokenizer) -> Completion | None:
    reason, ids = choice["finish_reason"], tuple(choice["token_ids"])
    if reason not in ("stop", "length") or not ids:
        raise ServerError(f"finish_reason {reason}, {len(ids)} tokens")
    # An adapter's version is its name, which the reply's model has shown; for whole weights every token carries its version.
    if target.meta.kind == "full" and any(span["version"] != target.served for span in choice["weight_versions"] or [{"version": None}]):
        raise ServerError("tokens of another policy version")
    content = choice["logprobs"]["content"]
    if tuple(item["token_id"] for item in content) != ids:
        raise ServerError("log-probs of other tokens")
    values: Sequence[float | None] = [item["logprob"] for item in content]
    logprobs = tuple(v for v in values if v is not None and math.isfinite(v) and v > NO_LOGPROB)
    if len(logprobs) != len(ids):
        return None
    return Completion(prompt.id, ids, logprobs, tokenizer.text(ids), reason, target.policy.name)


def _field(reply: httpx.Response, name: str) -> str | None:
    """A text of an error reply of our routes; vLLM's own errors hold an object there, which may quote the request."""
    try:
        value = reply.json()[name]
    except (ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def _sampling_params(prompt: Prompt, sampling: Sampling, stop_ids: Sequence[int]) -> dict[str, Any]:
    # ignore_eos: the stop tokens are those named here, for every engine the same.
    stops = list(sampling.stop_token_ids or stop_ids)
    common = {"n": sampling.n, "max_tokens": sampling.max_tokens, "logprobs": 0, "stop_token_ids": stops, "ignore_eos": True, "detokenize": False}
    if sampling.greedy:
        return common | {"temperature": 0.0}
    return common | {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed_for(prompt.id)}
