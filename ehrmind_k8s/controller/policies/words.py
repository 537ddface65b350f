"""What stages, figures and reasons are called in the lines that people read. Names, numbers and codes only: nothing that a pod wrote itself."""

from collections.abc import Mapping

from ehrmind_k8s import crd
from ehrmind_k8s.controller.policies import outcomes
from ehrmind_k8s.controller.state import Advance, Stage
from ehrmind_k8s.crd import Run
from ehrmind_k8s.plan import TRAINING

TITLES = {"prepare": "Preparing data", "diagnose": "Diagnosing", "sft": "SFT", "rlvr": "RLVR", "evaluate": "Evaluating"}
GLANCE = {"sft": ("loss",), "rlvr": ("reward",)}  # figures in the line, of a stage that has them
ENDS = {
    outcomes.OOM_KILLED: "the {pod} was OOM-killed",
    outcomes.EVICTED: "the {pod} was evicted for using more disk than its limit",
    outcomes.KILLED: "the {pod} was killed",
    outcomes.LOST: "its {kind} is gone",
    outcomes.NO_REPORT: "the {pod} ended without a report",
    outcomes.PREEMPTED: "the {pod} was preempted or evicted",
    outcomes.NODE_LOST: "its node does not answer",
    outcomes.FENCED: "its number was claimed in the store before",
    "Terminated": "the {pod} was stopped",
    "StoreUnavailable": "the object store did not answer or refused",
    "StoreRefused": "the object store refuses these keys, or has no such bucket",
    "PeerLost": "another process of the training was lost",
    "TeacherUnavailable": "the teacher of sft.teacher did not answer",
    "RolloutUnavailable": "no rollout server was healthy within rollout.waitS",
}


def title(stage: str) -> str:
    """A stage in a line."""
    return TITLES.get(stage, stage)


def position(stage: Stage, advance: Advance | None) -> str:
    """`RLVR step 12/30`, `Evaluating 120/600 prompts`, `Preparing data`."""
    name = title(stage.name)
    if not advance or not advance.total:
        return name
    if advance.unit == "step":
        return f"{name} step {advance.done}/{advance.total}"
    return f"{name} {advance.done}/{advance.total} {advance.unit}".rstrip()


def figures(stage: Stage, advance: Advance | None) -> str:
    """`reward 0.61`: what a glance at a running stage should show."""
    shown = advance.figures if advance else {}
    return ", ".join(f"{name} {number(shown[name])}" for name in GLANCE.get(stage.name, ()) if name in shown)


def headline(values: Mapping[str, float], score: float | None) -> str:
    """`accuracy 0.95 (rlvr)` from `{"accuracy@base": 0.4, "accuracy@rlvr": 0.95}`: the figure that is the score. "" where nothing was measured."""
    if score is None:
        return ""
    named = next((name for name, value in reversed(list(values.items())) if abs(value - score) < 1e-5), "")
    metric, _, policy = named.rpartition("@")
    return f"{metric or 'score'} {number(score)}" + (f" ({policy})" if policy else "")


def number(value: float) -> str:
    """Two decimals without trailing zeros; far from 1 as a power of ten."""
    if value and not 0.005 <= abs(value) < 1e6:
        return f"{value:.2g}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def cause(stage: Stage) -> str:
    """Why the newest attempt of a stage ended, as a clause."""
    pod = "trainer" if stage.name in TRAINING else "pod"
    return ENDS.get(stage.reason, f"it ended with {stage.reason}").format(pod=pod, kind=stage.kind)


def failure(stage: Stage, run: Run) -> str:
    """How a stage failed, with its exit code and class, and what to do next."""
    retries = run.spec.policy.retries
    used = "" if stage.exit_code in outcomes.PERMANENT else f", and {_used(retries)}"
    hint = _hint(stage, run)
    codes = [stage.reason] * (stage.reason in ENDS) + [f"exit code {stage.exit_code}"] * (stage.exit_code is not None)
    code = f" ({', '.join(codes)})" if codes else ""
    logs = f"see: ehrmind logs {run.name} --of {stage.name}-a{stage.attempt}"
    return f"{title(stage.name)} attempt {stage.attempt}: {cause(stage)}{code}{used}; {hint + '; ' if hint else ''}{logs}"


def _used(retries: int) -> str:
    return f"all {retries} retries are used" if retries > 1 else "its one retry is used" if retries else "policy.retries is 0"


def _hint(stage: Stage, run: Run) -> str:
    match stage.reason:
        case outcomes.OOM_KILLED:
            return f"give {stage.name} more memory in profile {run.spec.profile!r}, then raise spec.attempt"
        case outcomes.EVICTED:
            return f"raise `scratch` of profile {run.spec.profile!r}, then spec.attempt"
        case "StoreUnavailable":
            return "bring the object store back, then raise spec.attempt"
        case "StoreRefused":
            return f"mend the Secret of namespace {run.namespace} that profile {run.spec.profile!r} names, or the store, then raise spec.attempt"
        case outcomes.FENCED:
            return "see whether another run works in its store, and give that one another store or name; else raise spec.attempt"
        case "RolloutUnavailable":
            return f"see kubectl get pods -n {run.namespace} -l {crd.LABEL_INSTANCE}={run.name},{crd.LABEL_ROLE}=rollout"
        case _:
            return ""
