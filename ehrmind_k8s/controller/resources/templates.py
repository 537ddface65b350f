"""The same objects for a cluster without the operator: plain YAML that a person applies part by part.

`ehrmind plan --manifests` prints it. Nothing owns these objects, and nobody but whoever applies them retries a stage or takes them away.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ehrmind_k8s import crd, plan
from ehrmind_k8s.controller.resources import document, metadata, network, rollout, trainer
from ehrmind_k8s.controller.resources.metadata import SHARED, Object
from ehrmind_k8s.crd import Run
from ehrmind_k8s.profile import Profile
from ehrmind_k8s.spec import RunSpec

ATTEMPT = 1
MANAGED_BY = "ehrmind-plan"
EVERY_KIND = frozenset({"PyTorchJob", "TrainJob"})  # nobody asks the cluster: the profile decides
END = {"Job": "Complete", "PyTorchJob": "Succeeded", "TrainJob": "Complete"}  # the condition of success
NOTE = """\
Run {name} (task {task}, preset {preset}) for a cluster without the operator, made by `ehrmind plan --manifests`; FILE is this file.
Apply its parts in this order, each when the comment above it says. The namespace must have {needs}.
To try a stage again, give it the next number wherever this one stands: in its name, its label ehrmind.dev/attempt, and behind --attempt.
It goes on at its last checkpoint in {uri}.
At the end: kubectl delete {kinds} -l {labels}"""


@dataclass(frozen=True, slots=True)
class Part:
    """Objects that are applied together, with what to know before that."""

    comment: str
    objects: tuple[Object, ...]


def render(spec: RunSpec, profile: Profile, namespace: str | None) -> list[Part]:
    """The parts of a run in order; the first holds no object but a note. Without a namespace the objects name none. Raises SpecError."""
    named = Run(spec.name, namespace or "default", "", 1, spec)
    uri = document.run_uri(named, profile)
    store = uri.removesuffix(f"/{spec.name}")
    # The uid of a run that no object stands for: the same for the same place, since what is there is gone on with.
    run = Run(named.name, named.namespace, str(uuid.uuid5(uuid.NAMESPACE_URL, uri)), 1, spec.model_copy(update={"store": store}))
    parts = list(_parts(run, plan.build(run.spec, uri), profile))
    return [Part(_note(run, profile, uri, parts), ()), *(Part(p.comment, tuple(_free(o, namespace) for o in p.objects)) for p in parts)]


def text(parts: Sequence[Part]) -> str:
    """The parts as one YAML file, each with its comment above it."""
    return "".join(
        "".join(f"# {line}".rstrip() + "\n" for line in part.comment.splitlines())
        + "".join("---\n" + yaml.dump(o, Dumper=Dumper, sort_keys=False, width=150, allow_unicode=True) for o in part.objects)
        + ("\n" if part is not parts[-1] else "")
        for part in parts
    )


class Dumper(yaml.SafeDumper):
    """YAML as people write it: texts of several lines as blocks, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block(dumper: Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, _block)


def _parts(run: Run, steps: tuple[plan.Step, ...], profile: Profile) -> Iterator[Part]:
    chosen = trainer.choose(profile, EVERY_KIND, metadata.queue(run, profile))
    kinds = {step.stage: trainer.kind(run, step, profile, chosen) for step in steps}
    apart = [s for s in steps if s.wants_rollout and not trainer.holds_rollouts(run, s, profile, kinds[s.stage])]
    shared = (document.render(run), *network.render(run, profile, operator=False))
    yield Part(f"First: what all pods of the run share.\n{_apply(SHARED)}", shared)
    before = ""
    for step in steps:
        kind, name = kinds[step.stage], crd.child_name(run.name, step.stage, ATTEMPT)
        if apart and step == apart[0]:
            text = f"The rollout servers: now, or earlier, since they take minutes to start. They are needed until {apart[-1].stage} has ended."
            scale = f"kubectl scale deployment/{rollout.name(run)} --replicas=N    # whenever you like"
            yield Part(f"{text}\n{_apply('rollout')}\n{scale}", tuple(rollout.render(run, profile)))
        done = f"kubectl wait --for=condition={END[kind]} --timeout=-1s {kind.lower()}/{name}"
        text = f"Stage {step.stage}: " + (f"when {before} has succeeded." if before else "when that is there.")
        yield Part(f"{text}\n{_apply(step.stage)}\n{done}", tuple(reversed(trainer.render(kind, run, step, ATTEMPT, profile))))
        before = step.stage


def _apply(role: str) -> str:
    return f"kubectl apply -f FILE -l {crd.LABEL_ROLE}={role}"


def _note(run: Run, profile: Profile, uri: str, parts: list[Part]) -> str:
    s3 = profile.s3
    needs = [f"Secret {s3.secret} ({s3.access_key_id_key}, {s3.secret_access_key_key})"] if s3.secret else []
    needs += [f"ConfigMap {s3.ca_config_map} (ca.crt)"] if s3.ca_config_map else []
    kinds = ",".join(dict.fromkeys(o["kind"].lower() for part in reversed(parts) for o in reversed(part.objects)))
    labels = f"{crd.LABEL_RUN_UID}={run.uid}"
    needed = " and ".join(needs) or f"a ServiceAccount {profile.service_account} that may use the store"
    return NOTE.format(name=run.name, task=run.spec.task, preset=run.spec.preset, needs=needed, uri=uri, kinds=kinds, labels=labels)


def _free(obj: Mapping[str, Any], namespace: str | None) -> Object:
    """An object that belongs to no EHRMindRun, and which no operator takes for one of its own."""
    left_out = ("ownerReferences", "annotations", *(() if namespace else ("namespace",)))
    kept = {key: value for key, value in obj["metadata"].items() if key not in left_out}
    return dict(_relabelled({**obj, "metadata": kept}))


def _relabelled(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {k: MANAGED_BY if k == crd.LABEL_MANAGED_BY else _relabelled(v) for k, v in node.items()}
    return [_relabelled(item) for item in node] if isinstance(node, list | tuple) else node
