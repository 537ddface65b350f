"""The status of a run: what the operator writes and people read. Every text, list and map in it is bounded: together under 32 KiB.

The operator cuts what may be longer (`names.MESSAGE_LIMIT`): the API server refuses a status over these bounds as a whole.
"""

from typing import Any

from ehrmind_k8s.crd import names
from ehrmind_k8s.spec import STAGES

Schema = dict[str, Any]

FIGURES = 32  # latest numbers of a stage: loss, reward, ...
STAGE_STATES = ("pending", "queued", "starting", "running", "succeeded", "skipped", "failed")

COLUMNS = [
    {"name": "Task", "type": "string", "jsonPath": ".spec.task"},
    {"name": "State", "type": "string", "jsonPath": ".status.state"},
    {"name": "Stage", "type": "string", "jsonPath": ".status.stage"},
    {"name": "Step", "type": "string", "jsonPath": ".status.step"},
    {"name": "Score", "type": "number", "jsonPath": ".status.score"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
]


def schema() -> Schema:
    """The schema of `status`."""
    return _object(
        "Where the run is. Written by the operator alone.",
        observedGeneration=_whole("Generation of the spec that this status is about."),
        state=_one_of("Where the run is as a whole; the last three are ends, which only a raised attempt leaves.", names.STATES),
        stage=_text("The stage that the run is in, or was in last.", 32),
        step=_text("Progress inside the stage, such as 12/30.", 64),
        score={"description": "The task's primary metric of the newest policy on the test split.", "type": "number"},
        message=_text("One line for people: what is going on, or why it does not and what to do.", names.MESSAGE_LIMIT),
        uri=_text("Where everything durable of the run is.", 1024),
        startTime=_time("When the operator accepted the run."),
        completionTime=_time("When it ended."),
        attempt=_whole("The spec.attempt that the state belongs to."),
        progress=_progress(),
        stages={
            "description": "The stages of the run in order.",
            "type": "array",
            "maxItems": 8,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": _stage(),
        },
        rollout=_object(
            "The rollout servers.",
            replicas=_whole("Servers wanted."),
            ready=_whole("Servers that are ready."),
            selector=_text("Selects their pods, as the scale subresource wants it.", 512),
        ),
        resolved=_object(
            "What the run was accepted with.",
            operatorVersion=_text("Version of the operator that accepted it.", 64),
            profile=_text("Name of the profile.", 64),
            profileHash=_text("Hash of the profile's content.", 64),
            specHash=_text("Hash of what the run computes: preset and defaults resolved, execution left out.", 64),
            frozenSpec=_text("Hash of the document in ConfigMap <run>-spec; one that holds another is not believed.", 64),
            frozenProfile=_text("Hash of the profile and the rollout pods that the run keeps, in a ConfigMap named after it.", 64),
            trainer=_text("Kind of the training job: pytorchjob or trainjob.", 32),
        ),
        conditions={
            "description": "Accepted, Admitted, Progressing, RolloutsReady, Suspended, Complete, Failed: each with a reason and a message.",
            "type": "array",
            "maxItems": 16,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": _condition(),
        },
    )


def _progress() -> Schema:
    figures = {"description": "Latest numbers of the stage, by name.", "type": "object", "maxProperties": FIGURES}
    return _object(
        "What the leader of the running stage said last.",
        done=_whole("Units done."),
        total=_whole("Units in all."),
        unit=_text("What a unit is: rows, step, prompts.", 32),
        figures=figures | {"additionalProperties": {"type": "number"}},
        updated=_time("When it said so."),
    )


def _stage() -> Schema:
    return _object(
        "One stage.",
        required=("name", "state"),
        name=_one_of("The stage.", STAGES),
        state=_one_of("Where it is.", STAGE_STATES),
        attempt=_whole("Number of its newest child. It only grows: suspending, preemption and retries each lead to the next."),
        retries=_whole("Tries of the present spec.attempt that count against policy.retries."),
        child=_object(
            "The object that runs it.",
            kind=_text("Job, PyTorchJob or TrainJob.", 32),
            name=_text("Its name.", 63),
            uid=_text("Its uid.", 64),
        ),
        startTime=_time("When its newest attempt started."),
        endTime=_time("When it ended."),
        reason=_text("How it ended, as a code: ok, skipped, or the name of an error.", 64),
        exitCode=_whole("Exit code of its leader."),
        score={"description": "What the stage measured, if it measures.", "type": "number"},
        seconds={"description": "How long it worked (seconds).", "type": "number"},
    )


def _condition() -> Schema:
    """metav1.Condition, with a shorter message."""
    return _object(
        "One aspect of the run.",
        required=("type", "status", "reason", "message", "lastTransitionTime"),
        type=_text("Which aspect.", 64),
        status=_one_of("Whether it holds.", ("True", "False", "Unknown")),
        reason=_text("Why, as one CamelCase word.", 64) | {"minLength": 1, "pattern": "^[A-Za-z][A-Za-z0-9]*$"},
        message=_text("Why, as a sentence for people.", names.MESSAGE_LIMIT),
        lastTransitionTime=_time("When status changed last."),
        observedGeneration=_whole("Generation of the spec that this is about."),
    )


def _object(description: str, required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"description": description, "type": "object", "properties": properties} | ({"required": list(required)} if required else {})


def _text(description: str, limit: int) -> Schema:
    return {"description": description, "type": "string", "maxLength": limit}


def _one_of(description: str, values: tuple[str, ...]) -> Schema:
    return {"description": description, "type": "string", "enum": list(values)}


def _whole(description: str) -> Schema:
    return {"description": description, "type": "integer", "format": "int64"}


def _time(description: str) -> Schema:
    return {"description": description, "type": "string", "format": "date-time"}
