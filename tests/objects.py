"""EHRMindRun objects that the API server must refuse, with the sentence a person then reads.

The same tables are judged twice: by cel-python in tests/unit/test_crd.py, and by a real API server in tests/cluster/test_crd.py.
"""

from typing import Any

from ehrmind_k8s import crd

Object = dict[str, Any]


def an_object(spec: Object | None = None, name: str = "demo") -> Object:
    """A valid object of the smallest run, with `spec` over it."""
    made = crd.to_object({"task": "medcalc", "preset": "tiny"}, "")
    return made | {"metadata": {"name": name}, "spec": made["spec"] | (spec or {})}


# What is refused at once: the object, the field, a piece of the sentence.
REFUSED: dict[str, tuple[Object, str, str]] = {
    "a name that starts with a digit": (an_object(name="1st"), "", "a run's name starts with a letter"),
    "a name with a dot": (an_object(name="a.b"), "", "a run's name starts with a letter"),
    "a name too long for the names of its pods": (an_object(name="x" * 41), "", "at most 40 long"),
    "a task with a slash": (an_object({"task": "../medcalc"}), "spec.task", "`ehrmind tasks` lists what is installed"),
    "no stage": (an_object({"stages": []}), "spec.stages", "at least one stage is needed"),
    "a store in a folder": (an_object({"store": "/data/runs"}), "spec.store", "store is s3://bucket/prefix"),
    "a store with a query": (an_object({"store": "s3://bucket/runs?x=1"}), "spec.store", "store is s3://bucket/prefix"),
    "a store above its prefix": (an_object({"store": "s3://bucket/runs/../other"}), "spec.store", "no part `.` or `..`"),
    "an input in a folder": (an_object({"inputs": {"sft": "file:///sft"}}), "spec.inputs.sft", "an input is s3://bucket/prefix"),
    "an input above its prefix": (an_object({"inputs": {"sft": "s3://bucket/.."}}), "spec.inputs.sft", "no part `.` or `..`"),
    "data in a folder": (an_object({"data": {"uri": "/etc"}}), "spec.data.uri", "data.uri is s3://bucket/prefix"),
    "data above its prefix": (an_object({"data": {"uri": "s3://bucket/./a"}}), "spec.data.uri", "no part `.` or `..`"),
    "a train file elsewhere": (an_object({"data": {"train": "/etc/passwd"}}), "spec.data.train", "relative to data.uri"),
    "a test file above": (an_object({"data": {"test": "a/../../b"}}), "spec.data.test", "relative to data.uri"),
    "a model in a folder": (an_object({"model": {"uri": "/models/a"}}), "spec.model.uri", "model.uri is `toy`, s3://bucket/prefix, or a hub id"),
    "a model above its prefix": (an_object({"model": {"uri": "s3://bucket/../x"}}), "spec.model.uri", "no part `.` or `..`"),
    "a hub model without a commit": (an_object({"model": {"uri": "Qwen/Qwen3-4B"}}), "spec.model.revision", "a hub model needs model.revision"),
    "traces of a file that is not named": (an_object({"sft": {"traces": "file"}}), "spec.sft.tracesFile", "sft.traces file needs sft.tracesFile"),
    "traces in a folder": (
        an_object({"sft": {"traces": "file", "tracesFile": "/data/traces.jsonl"}}),
        "spec.sft.tracesFile",
        "sft.tracesFile is s3://bucket/prefix",
    ),
    "traces above their prefix": (
        an_object({"sft": {"traces": "file", "tracesFile": "s3://bucket/../t"}}),
        "spec.sft.tracesFile",
        "no part `.` or `..`",
    ),
    "a teacher without an address": (
        an_object({"sft": {"traces": "teacher", "teacher": {"model": "m"}}}),
        "spec.sft.teacher",
        "needs sft.teacher.url and sft.teacher.model",
    ),
    "an SFT batch that does not divide": (
        an_object({"sft": {"batchSize": 10, "microBatchSize": 4}}),
        "spec.sft.batchSize",
        "sft.batchSize must be a multiple of sft.microBatchSize",
    ),
    "a group that straddles passes": (
        an_object({"rlvr": {"samplesPerPrompt": 8, "microBatchSize": 12}}),
        "spec.rlvr.microBatchSize",
        "must be a multiple of rlvr.samplesPerPrompt",
    ),
    "an RLVR step that does not divide": (
        an_object({"rlvr": {"promptsPerStep": 3, "samplesPerPrompt": 8, "microBatchSize": 16}}),
        "spec.rlvr.promptsPerStep",
        "must be a multiple of rlvr.microBatchSize",
    ),
    "a reward for being wrong": (an_object({"rlvr": {"reward": {"wrong": 2, "correct": 1}}}), "spec.rlvr.reward", "malformed <= unparseable"),
    "a reward for nonsense": (an_object({"rlvr": {"reward": {"malformed": 1, "unparseable": 0}}}), "spec.rlvr.reward", "malformed <= unparseable"),
    "a reward for no value": (an_object({"rlvr": {"reward": {"unparseable": 1.5, "wrong": 1}}}), "spec.rlvr.reward", "malformed <= unparseable"),
    "more ready than there are": (an_object({"rollout": {"replicas": 2, "minReady": 3}}), "spec.rollout.minReady", "cannot be ready among fewer"),
    "more ready than the default": (an_object({"rollout": {"minReady": 2}}), "spec.rollout.minReady", "cannot be ready among fewer"),
    "a prompt too long for the model": (
        an_object({"model": {"context": 1024}, "data": {"maxPromptTokens": 1000}, "rlvr": {"maxCompletionTokens": 25}}),
        "spec",
        "is over model.context",
    ),
}

# Every key that is fixed once the run exists, with two values that are both fine.
FIXED: dict[str, tuple[Any, Any]] = {
    "task": ("medcalc", "other"),
    "preset": ("tiny", "small"),
    "recipe": ("corrected", "paper"),
    "seed": (1, 2),
    "stages": (["prepare"], ["prepare", "sft"]),
    "inputs": ({"sft": "s3://bucket/a"}, {"sft": "s3://bucket/a", "prepare": "s3://bucket/b"}),
    "store": ("s3://bucket/a", "s3://bucket/b"),
    "profile": ("default", "gpu"),
    "model": ({"uri": "toy"}, {"uri": "toy", "context": 4096}),
    "data": ({"uri": "s3://bucket/a"}, {"uri": "s3://bucket/b"}),
    "diagnose": ({"samples": 12}, {"samples": 8}),
    "sft": ({"epochs": 1}, {"epochs": 2}),
    "rlvr": ({"steps": 1, "reward": {"correct": 1}}, {"steps": 1, "reward": {"correct": 2}}),
    "evaluate": ({}, {"limit": 1}),
    "rollout.engine": ("vllm", "transformers"),
    "rollout.minReady": (1, 2),
    "rollout.waitS": (10, 20),
    "rollout.kvCacheGib": (1, 1.5),
    "rollout.gpuMemory": (0.5, 0.9),
    "rollout.cores": ("0", "0|1"),
    "policy.retries": (0, 1),
}

# What else may happen to a run that exists: the spec before, after, the field, and a piece of the sentence ("" where the change is fine).
CHANGES: dict[str, tuple[Object, Object, str, str]] = {
    "suspend": ({}, {"suspend": True}, "", ""),
    "resume": ({"suspend": True}, {"suspend": False}, "", ""),
    "cancel": ({}, {"cancel": True}, "", ""),
    "take a cancel back": ({"cancel": True}, {"cancel": False}, "spec.cancel", "cancel cannot be taken back"),
    "continue a cancelled run": ({"cancel": True}, {"cancel": False, "attempt": 2}, "", ""),
    "try a cancelled run again": ({"cancel": True}, {"cancel": True, "attempt": 2}, "spec.attempt", "set cancel to false in the same change"),
    "cancel a later attempt": ({"attempt": 2}, {"attempt": 2, "cancel": True}, "", ""),
    "try again": ({}, {"attempt": 2}, "", ""),
    "lower the attempt": ({"attempt": 3}, {"attempt": 2}, "spec.attempt", "attempt only grows"),
    "drop the attempt": ({"attempt": 3}, {}, "spec.attempt", "attempt only grows"),
    "scale": ({}, {"rollout": {"replicas": 3}}, "", ""),
    "scale below what must be ready": (
        {"rollout": {"replicas": 3, "minReady": 2}},
        {"rollout": {"replicas": 1, "minReady": 2}},
        "spec.rollout.minReady",
        "cannot be ready among fewer",
    ),
    "say when it is deleted": ({}, {"policy": {"ttlS": 3600}}, "", ""),
    "keep it after all": ({"policy": {"ttlS": 3600}}, {}, "", ""),
    "move the deadline": ({"policy": {"deadlineS": 60}}, {"policy": {"deadlineS": 90}}, "", ""),
    "a deadline and fewer retries": ({}, {"policy": {"deadlineS": 90, "retries": 1}}, "spec.policy.retries", "policy.retries is fixed"),
    "write a default out": ({}, {"profile": "default", "suspend": False, "rollout": {}}, "", ""),
    "null is absence": ({}, {"store": None}, "", ""),
}


def _with(key: str, value: Any) -> Object:
    """A spec of two replicas that has `value` at the dotted key."""
    parent, _, leaf = key.rpartition(".")
    base: Object = {"rollout": {"replicas": 2}}
    return base | ({parent: base.get(parent, {}) | {leaf: value}} if parent else {leaf: value})


for _key, (_one, _other) in FIXED.items():
    _sentence = f"{_key} is fixed once the run exists"
    CHANGES[f"change {_key}"] = (_with(_key, _one), _with(_key, _other), f"spec.{_key}", _sentence)
    if _key not in ("task", "preset", "profile"):  # these are never absent
        CHANGES[f"add {_key}"] = ({"rollout": {"replicas": 2}}, _with(_key, _one), f"spec.{_key}", _sentence)
        CHANGES[f"remove {_key}"] = (_with(_key, _one), {"rollout": {"replicas": 2}}, f"spec.{_key}", _sentence)
