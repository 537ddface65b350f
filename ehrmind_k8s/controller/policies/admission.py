"""Whether a run is taken on, and with what: its resolved document, profile, store, steps and kind of training job.

A run is taken on once. From then on its recipe and its store come from the ConfigMap `<run>-spec`, and its profile, until `spec.attempt` leads
it out of an end, from `<run>-profile-<hash>`, so that neither an edited profile nor a newer operator's presets and images change a run under
way. A ConfigMap counts if the status has its hash, or if it holds just what would be written now: its owner reference anybody can write.

What a person can mend outside the run, such as a missing profile, is waited for; what is wrong in the document itself ends it, since the
document is fixed.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ehrmind_k8s import __version__, crd, plan, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.controller.records import Object, Snapshot, part
from ehrmind_k8s.controller.resources import document, frozen, metadata, rollout, trainer, trainjob
from ehrmind_k8s.controller.resources.frozen import Frozen
from ehrmind_k8s.controller.state import FROZEN_PROFILE, FROZEN_SPEC, State
from ehrmind_k8s.crd import Run
from ehrmind_k8s.crd.convert import camel_text
from ehrmind_k8s.errors import IntegrityError, SpecError
from ehrmind_k8s.plan import Step
from ehrmind_k8s.profile import Profile
from ehrmind_k8s.spec import RunSpec

RECHECK_S = 60.0  # the caches wake us when a profile or a training operator comes; this is for what they miss
KINDS = {"pytorchjob": "PyTorchJob", "trainjob": "TrainJob"}
EDITS = ("task", "suspend", "cancel", "attempt")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no child may be made now: a code and a sentence that says what to do. `final`: nothing but another document would help."""

    reason: str
    message: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """What is known about a run before its children are looked at. Without `run` nothing can be done but to say why.

    `servers`: the pod template of the rollout servers that the run has apart from its jobs. `frozen` and `profile_frozen`: ConfigMaps of the run
    hold the document, and profile and servers. `vouchers`: the hashes of what they hold, or will.
    """

    run: Run | None = None
    profile: Profile | None = None
    servers: dict[str, Any] | None = None
    steps: tuple[Step, ...] = ()
    uri: str = ""
    trainer: str = ""
    frozen: bool = False
    profile_frozen: bool = False
    vouchers: Mapping[str, str] = field(default_factory=dict)
    refusal: Refusal | None = None


def admit(snapshot: Snapshot, before: State) -> Case:
    """What to work with. Never raises: whatever is in the object, there is a sentence about it."""
    name = document.config_map_name(str(snapshot.run["metadata"].get("name")))
    data, vouched = _data(snapshot, name), before.resolved.get(FROZEN_SPEC, "")
    text = None if data is None else str(data.get(document.KEY, ""))
    if text is None or not vouched:
        return _anew(snapshot, before, name, text)
    if document.digest(text) != vouched:
        return replace(_read(snapshot, None, before), refusal=_not_ours(name))
    try:
        spec = _parsed(text, name)
    except (IntegrityError, SpecError) as error:
        unreadable = Refusal("SpecUnreadable", f"ConfigMap {error}; upgrade the operator, or delete the ConfigMap, and it is made again")
        return replace(_read(snapshot, None, before), refusal=unreadable)
    read = _read(snapshot, spec, before)
    if read.run is None:
        return read
    case = _settled(read.run, snapshot, before)
    return replace(case, frozen=True, vouchers={**case.vouchers, FROZEN_SPEC: vouched})


def _anew(snapshot: Snapshot, before: State, name: str, text: str | None) -> Case:
    """What to work with when the document is not frozen yet, or not any more; `text` is in a ConfigMap that the status says nothing of."""
    read = _read(snapshot, None, before)
    if (run := read.run) is None:
        return read
    if before.resolved.get("specHash", "") not in ("", run.spec.recipe_hash()):
        lost = f"ConfigMap {name} is gone, and this operator reads another recipe from the document; restore it, or submit a new run"
        return _settled(run, snapshot, before, Refusal("SpecLost", lost) if text is None else _not_ours(name))
    case = _settled(run, snapshot, before)
    if case.run is None or case.refusal:
        return case
    digest = document.digest(document.text(case.run))
    if text is not None and document.digest(text) != digest:
        return Case(run, refusal=_not_ours(name))
    return replace(case, frozen=text is not None, vouchers={**case.vouchers, FROZEN_SPEC: digest})


def _read(snapshot: Snapshot, kept: RunSpec | None, before: State) -> Case:
    """The run alone, or why the object makes none."""
    try:
        return Case(_run(snapshot.run, kept))
    except SpecError as error:
        return Case(refusal=Refusal("InvalidSpec", str(error), final=not before.accepted))


def _settled(run: Run, snapshot: Snapshot, before: State, refusal: Refusal | None = None) -> Case:
    """Store, steps and training job of a run whose document is known; the first thing that is missing is the refusal."""
    kept, problem = _kept(run, snapshot, before)
    profile = kept.profile if kept else None
    if not kept and not problem:
        profile, problem = _profile(run, snapshot)
    store = run.spec.store or before.uri.removesuffix(f"/{run.name}") or (profile.run_store(run.namespace) if profile else None) or ""
    if not store.startswith("s3://"):
        return Case(run, profile, refusal=refusal or problem or _no_store(run, store))
    run = replace(run, spec=run.spec.model_copy(update={"store": store.rstrip("/")}))
    uri = storage.join(store, run.name)
    try:
        steps = plan.build(run.spec, uri)
    except SpecError as error:
        return Case(refusal=refusal or Refusal("InvalidSpec", camel_text(str(error)), final=not before.accepted))
    if profile is None:
        return Case(run, steps=steps, uri=uri, trainer=before.resolved.get("trainer", ""), refusal=refusal or problem)
    found = kept or Frozen(profile, rollout.template(run, profile) if any(step.wants_rollout for step in steps) else None)
    vouchers = {FROZEN_PROFILE: frozen.digest(found.data())} if not kept else {}
    trainer, backend = _trainer(run, profile, snapshot, before, steps)
    return Case(run, profile, found.servers, steps, uri, trainer, profile_frozen=kept is not None, vouchers=vouchers, refusal=refusal or backend)


def accept(current: State, case: Case, now: float) -> State:
    """Take the run on."""
    assert case.run and case.profile
    spec = case.run.spec
    resolved = {
        "operatorVersion": __version__,
        "profile": spec.profile,
        "profileHash": case.profile.digest(),
        "specHash": spec.recipe_hash(),
        "trainer": case.trainer,
    }
    known = {k: v for k, v in resolved.items() if v}
    return replace(current, attempt=spec.attempt, uri=case.uri, started=now, completed=0.0, resolved=known)


def aligned(current: State, case: Case) -> State:
    """The state with the stages of the plan, each as the status has it, and what the next attempt is made of."""
    found = {"trainer": case.trainer, "profileHash": case.profile.digest() if case.profile else ""}
    resolved = {**current.resolved, **{k: v for k, v in found.items() if v}, **({} if case.refusal else case.vouchers)}
    return replace(current, resolved=resolved, stages=tuple(current.stage(step.stage) for step in case.steps))


def _kept(run: Run, snapshot: Snapshot, before: State) -> tuple[Frozen | None, Refusal | None]:
    """The profile and the servers that the run began with; nothing while it has none yet, begins anew, or has lost the ConfigMap."""
    vouched = "" if before.revived(run.spec.attempt) else before.resolved.get(FROZEN_PROFILE, "")
    name = frozen.name(run.name, vouched)
    data = _data(snapshot, name) if vouched else None
    if data is None:
        return None, None
    if frozen.digest(data) != vouched:
        return None, _not_ours(name)
    try:
        return frozen.read(data), None
    except ValueError:
        text = f"ConfigMap {name} has a profile that this operator cannot read; upgrade it, or delete the ConfigMap and take the profile of now"
        return None, Refusal("ProfileUnreadable", text)


def _data(snapshot: Snapshot, name: str) -> Object | None:
    """The entries of a ConfigMap that names the run as its owner; None while there is no such ConfigMap."""
    found = next((c for c in snapshot.children if c.ours and c.kind == "ConfigMap" and c.name == name), None)
    return None if found is None else part(found.object, "data")


def _not_ours(name: str) -> Refusal:
    text = f"ConfigMap {name} does not hold what this run was taken on with; see who wrote it, and delete it: the operator makes it again"
    return Refusal("NameConflict", text)


@functools.lru_cache(maxsize=256)
def _parsed(text: str, where: str) -> RunSpec:
    """The document in an immutable ConfigMap: read once for as long as its run is busy."""
    return RunDocument.parse(text.encode(), where).spec


def _run(obj: Object, kept: RunSpec | None) -> Run:
    """The object as a Run. Raises SpecError.

    An edit cannot end a run that was taken on: one that makes no sense counts as not made, except for the keys that stop or continue it.
    """
    try:
        return _shaped(obj, kept)
    except SpecError:
        written = obj.get("spec")
        if kept is None or not isinstance(written, Mapping):
            raise
        return _shaped({**obj, "spec": {k: v for k, v in written.items() if k in EDITS}}, kept)


def _shaped(obj: Object, kept: RunSpec | None) -> Run:
    try:
        return crd.run(obj, kept)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The schema lets nothing through that is not shaped like a run; a cluster whose CRD was tampered with might.
        raise SpecError(f"the object is not shaped like an {crd.KIND} ({type(error).__name__}); is its CustomResourceDefinition ours?") from None


def _profile(run: Run, snapshot: Snapshot) -> tuple[Profile | None, Refusal | None]:
    name, profile = run.spec.profile, snapshot.profile
    if profile is None:
        return None, Refusal("ProfileNotFound", snapshot.profile_error or f"profile {name!r} is unknown")
    if profile.allowed_namespaces and run.namespace not in profile.allowed_namespaces:
        return None, Refusal("ProfileForbidden", f"profile {name!r} is not for namespace {run.namespace}; choose another, or ask its owners")
    if run.spec.sft.traces == "teacher" and not profile.admits_teacher(run.spec.sft.teacher.url):
        known = ", ".join(profile.teacher_urls)
        return None, Refusal(
            "TeacherForbidden", f"profile {name!r} does not let runs ask this teacher, only {known}; name one of them, or ask its owners"
        )
    if profile.allowed_namespaces:  # the others are nobody's business where the run keeps it
        profile = profile.model_copy(update={"allowed_namespaces": (run.namespace,)})
    return profile, None


def _no_store(run: Run, store: str) -> Refusal:
    if run.spec.store:
        return Refusal("InvalidSpec", f"store {store!r} is no object store: pods see no folder of a machine; name s3://bucket/prefix", final=True)
    return Refusal("NoStore", f"there is no store: set `store` of profile {run.spec.profile!r} to s3://bucket/prefix, or spec.store of a new run")


def _trainer(run: Run, profile: Profile | None, snapshot: Snapshot, before: State, steps: tuple[Step, ...]) -> tuple[str, Refusal | None]:
    """How training stages run, if any is still to come; as they began, unless the cluster serves that no more when the next attempt is due."""
    chosen, queue = before.resolved.get("trainer", ""), metadata.queue(run, profile) if profile else ""
    left = [step for step in steps if not before.stage(step.stage).done]
    sampling = queue and any(step.wants_rollout for step in left)
    if profile is None or not (sampling or any(step.stage in plan.TRAINING for step in left)):
        return chosen, None
    active = any(before.stage(step.stage).active for step in steps)  # discovery may only have hiccuped: no second kind beside its child
    if not chosen or (KINDS.get(chosen) not in snapshot.served and not active):
        try:
            chosen = trainer.choose(profile, snapshot.served, queue, together=bool(sampling))
        except SpecError as error:
            return chosen, Refusal("BackendUnavailable", str(error))
    try:
        if chosen == "trainjob":
            trainjob.check(run, [s for s in steps if trainer.kind(run, s, profile, chosen) == trainjob.KIND], profile)
    except SpecError as error:
        return chosen, Refusal("NameTooLong", str(error))
    return chosen, None
