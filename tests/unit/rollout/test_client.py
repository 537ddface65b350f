"""What a reply of a rollout server must hold before a sample of it counts. Replies are those of vLLM 0.32, shortened."""

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.records import Prompt
from ehrmind_k8s.rollout.base import Policy
from ehrmind_k8s.rollout.client import ServerError, Target, read_group
from ehrmind_k8s.rollout.weights import Canary, Kind, PolicyMeta
from ehrmind_k8s.tokenization import Tokenizer

PROMPT = Prompt("p", (1, 2, 3))


def target(kind: Kind = "full") -> Target:
    return Target(Policy("v3-a1", "s3://b/v3"), PolicyMeta("v3-a1", kind, "f", Canary((1, 2), (-1.0,)), 3, None), "uid")


def reply(n: int = 2, model: str = "uid", version: str = "uid.v3-a1") -> dict[str, Any]:
    choice = {
        "finish_reason": "stop",
        "token_ids": [40, 41],
        "weight_versions": [{"version": version, "start": 0, "end": 2}],
        "logprobs": {"content": [{"token_id": 40, "logprob": -0.5}, {"token_id": 41, "logprob": -0.25}]},
    }
    return {"model": model, "choices": [copy.deepcopy(choice) | {"index": i} for i in range(n)]}


def test_a_whole_reply_gives_its_completions(tokenizer: Tokenizer) -> None:
    first, second = read_group(reply(), target(), PROMPT, 2, tokenizer)
    assert first == second
    assert (first.prompt_id, first.token_ids, first.logprobs, first.finish_reason, first.policy) == ("p", (40, 41), (-0.5, -0.25), "stop", "v3-a1")
    assert first.text == tokenizer.text([40, 41])


def test_choices_are_read_in_the_order_of_their_index(tokenizer: Tokenizer) -> None:
    document = reply()
    document["choices"][0]["token_ids"] = [42, 41]
    document["choices"][0]["logprobs"]["content"][0]["token_id"] = 42
    document["choices"].reverse()
    assert [c.token_ids[0] for c in read_group(document, target(), PROMPT, 2, tokenizer)] == [42, 40]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"finish_reason": "abort", "token_ids": []}, "abort", id="a draining server answers abort"),
        pytest.param({"finish_reason": "stop", "token_ids": []}, "0 tokens", id="no tokens"),
        pytest.param({"finish_reason": "error"}, "error", id="an unknown finish reason"),
        pytest.param({"weight_versions": [{"version": "default", "start": 0, "end": 2}]}, "another policy", id="weights of the start model"),
        pytest.param(
            {"weight_versions": [{"version": "uid.v3-a1", "start": 0, "end": 1}, {"version": "uid.v4-a1", "start": 1, "end": 2}]},
            "another policy",
            id="a sync in the middle of the reply",
        ),
        pytest.param({"weight_versions": None}, "another policy", id="no version"),
        pytest.param({"index": 7}, "incomplete", id="a sample is missing"),
        pytest.param({"logprobs": {"content": [{"token_id": 40, "logprob": -0.5}]}}, "other tokens", id="a log-prob is missing"),
        pytest.param({"logprobs": None}, "unknown reply", id="no log-probs"),
    ],
)
def test_a_reply_that_is_not_whole_is_no_group(tokenizer: Tokenizer, change: dict[str, Any], reason: str) -> None:
    document = reply()
    document["choices"][1] |= change
    with pytest.raises(ServerError, match=reason):
        read_group(document, target(), PROMPT, 2, tokenizer)


def test_an_adapter_is_known_by_the_model_of_the_reply(tokenizer: Tokenizer) -> None:
    document = reply(model="uid.v3-a1", version="default")
    assert len(read_group(document, target("lora"), PROMPT, 2, tokenizer)) == 2
    with pytest.raises(ServerError, match="another model"):
        read_group(document | {"model": "uid"}, target("lora"), PROMPT, 2, tokenizer)


@pytest.mark.parametrize("value", [None, math.nan, -math.inf, -9999.0], ids=["null", "NaN", "minus infinity", "what vLLM writes for those"])
def test_a_sample_whose_logprob_is_not_one_is_left_out_of_its_group(tokenizer: Tokenizer, value: float | None) -> None:
    document = reply(n=3)
    document["choices"][1]["logprobs"]["content"][1]["logprob"] = value
    assert len(read_group(document, target(), PROMPT, 3, tokenizer)) == 2


NAMES = ("model", "choices", "index", "finish_reason", "token_ids", "weight_versions", "version", "logprobs", "content", "token_id", "logprob")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6))


@given(st.data())
def test_any_reply_is_a_group_or_a_server_error(tokenizer: Tokenizer, data: st.DataObject) -> None:
    document = reply(n=1)
    place: Any = data.draw(st.sampled_from([document, document["choices"][0], document["choices"][0]["logprobs"]["content"][0]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    try:
        group = read_group(document, target(), PROMPT, 1, tokenizer)
    except ServerError:
        return
    assert all(len(c.logprobs) == len(c.token_ids) and all(math.isfinite(v) for v in c.logprobs) for c in group)
