"""Whether a run is taken on, and with what: its resolved document, profile, store, steps and kind of training job.

A run is taken on once. From then on its recipe and its store come from the ConfigMap `<run>-spec` and its profile, until `spec.attempt` is
raised, from `<run>-profile-<attempt>`, so that neither an edited profile nor a newer operator's presets and images change a run under way.
What a person can mend outside the run, such as a missing profile, is waited for; what is wrong in the document itself ends it, since the
document is fixed.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ehrmind_k8s import __version__, crd, plan, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.controller.records import Object, Snapshot
from ehrmind_k8s.controller.resources import document, metadata, trainer, trainjob
from ehrmind_k8s.controller.state import State
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

    `frozen` and `profile_frozen`: the document and the profile are the ones that ConfigMaps of the run hold.
    """

    run: Run | None = None
    profile: Profile | None = None
    steps: tuple[Step, ...] = ()
    uri: str = ""
    trainer: str = ""
    frozen: bool = False
    profile_frozen: bool = False
    refusal: Refusal | None = None


def admit(snapshot: Snapshot, before: State) -> Case:
    """What to work with. Never raises: whatever is in the object, there is a sentence about it."""
    try:
        frozen = _frozen(snapshot)
    except (IntegrityError, SpecError) as error:
        unreadable = Refusal("SpecUnreadable", f"ConfigMap {error}; if it is damaged, delete it, and it is made again")
        return replace(_read(snapshot, None, before), refusal=unreadable)
    read = _read(snapshot, frozen, before)
    if (run := read.run) is None:
        return read
    lost = before.resolved.get("specHash", "") if frozen is None else ""
    if lost not in ("", run.spec.recipe_hash()):
        text = f"ConfigMap {_config_map(snapshot)} is gone, and this operator reads another recipe from the document; restore it, or submit a new run"
        return _settled(run, snapshot, before, Refusal("SpecLost", text))
    return replace(_settled(run, snapshot, before), frozen=frozen is not None)


def _read(snapshot: Snapshot, frozen: RunSpec | None, before: State) -> Case:
    """The run alone, or why the object makes none."""
    try:
        return Case(_run(snapshot.run, frozen))
    except SpecError as error:
        return Case(refusal=Refusal("InvalidSpec", str(error), final=not before.accepted))


def _settled(run: Run, snapshot: Snapshot, before: State, refusal: Refusal | None = None) -> Case:
    """Store, steps and training job of a run whose document is known; the first thing that is missing is the refusal."""
    kept = _kept_profile(run, snapshot)
    profile, problem = (kept, None) if kept else _profile(run, snapshot)
    store = run.spec.store or before.uri.removesuffix(f"/{run.name}") or (profile.run_store(run.namespace) if profile else None) or ""
    if not store.startswith("s3://"):
        return Case(run, profile, refusal=refusal or problem or _no_store(run, store))
    run = replace(run, spec=run.spec.model_copy(update={"store": store.rstrip("/")}))
    uri = storage.join(store, run.name)
    try:
        steps = plan.build(run.spec, uri)
    except SpecError as error:
        return Case(refusal=refusal or Refusal("InvalidSpec", camel_text(str(error)), final=not before.accepted))
    trainer, backend = _trainer(run, profile, snapshot, before, steps)
    return Case(run, profile, steps, uri, trainer, profile_frozen=kept is not None, refusal=refusal or problem or backend)


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
    """The state with the stages of the plan, each as the status has it, and the profile and kind of training job that the next attempt has."""
    found = {"trainer": case.trainer, "profileHash": case.profile.digest() if case.profile else ""}
    resolved = {**current.resolved, **{k: v for k, v in found.items() if v}}
    return replace(current, resolved=resolved, stages=tuple(current.stage(step.stage) for step in case.steps))


def _config_map(snapshot: Snapshot) -> str:
    return f"{snapshot.run['metadata'].get('name')}-spec"


def _frozen(snapshot: Snapshot) -> RunSpec | None:
    """The document the run was taken on with. Raises IntegrityError or SpecError when it cannot be read."""
    name = _config_map(snapshot)
    text = _entry(snapshot, name, document.KEY)
    return None if text is None else _parsed(text, name)


def _kept_profile(run: Run, snapshot: Snapshot) -> Profile | None:
    """The profile that this attempt of the run began with. One that this version cannot read counts as none: the present one is used."""
    text = _entry(snapshot, document.profile_name(run), document.PROFILE_KEY)
    try:
        return None if text is None else _profile_of(text)
    except ValueError:
        return None


def _entry(snapshot: Snapshot, name: str, key: str) -> str | None:
    """An entry of a ConfigMap of this run; None while there is no such ConfigMap."""
    found = next((c for c in snapshot.children if c.ours and c.kind == "ConfigMap" and c.name == name), None)
    return None if found is None else str((found.object.get("data") or {}).get(key, ""))


@functools.lru_cache(maxsize=256)
def _profile_of(text: str) -> Profile:
    return Profile.model_validate_json(text)


@functools.lru_cache(maxsize=256)
def _parsed(text: str, where: str) -> RunSpec:
    """The document in an immutable ConfigMap: read once for as long as its run is busy."""
    return RunDocument.parse(text.encode(), where).spec


def _run(obj: Object, frozen: RunSpec | None) -> Run:
    """The object as a Run. Raises SpecError.

    An edit cannot end a run that was taken on: one that makes no sense counts as not made, except for the keys that stop or continue it.
    """
    try:
        return _shaped(obj, frozen)
    except SpecError:
        written = obj.get("spec")
        if frozen is None or not isinstance(written, Mapping):
            raise
        return _shaped({**obj, "spec": {k: v for k, v in written.items() if k in EDITS}}, frozen)


def _shaped(obj: Object, frozen: RunSpec | None) -> Run:
    try:
        return crd.run(obj, frozen)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The schema lets nothing through that is not shaped like a run; a cluster whose CRD was tampered with might.
        raise SpecError(f"the object is not shaped like an {crd.KIND} ({type(error).__name__}); is its CustomResourceDefinition ours?") from None


def _profile(run: Run, snapshot: Snapshot) -> tuple[Profile | None, Refusal | None]:
    name, profile = run.spec.profile, snapshot.profile
    if profile is None:
        return None, Refusal("ProfileNotFound", snapshot.profile_error or f"profile {name!r} is unknown")
    if profile.allowed_namespaces and run.namespace not in profile.allowed_namespaces:
        return None, Refusal("ProfileForbidden", f"profile {name!r} is not for namespace {run.namespace}; choose another, or ask its owners")
    return profile, None


def _no_store(run: Run, store: str) -> Refusal:
    if run.spec.store:
        return Refusal("InvalidSpec", f"store {store!r} is no object store: pods see no folder of a machine; name s3://bucket/prefix", final=True)
    return Refusal("NoStore", f"there is no store: set `store` of profile {run.spec.profile!r} to s3://bucket/prefix, or spec.store of a new run")


def _trainer(run: Run, profile: Profile | None, snapshot: Snapshot, before: State, steps: tuple[Step, ...]) -> tuple[str, Refusal | None]:
    """How training stages run, if any is still to come; as they began, as long as the cluster serves it."""
    chosen = before.resolved.get("trainer", "")
    if profile is None or not any(step.stage in plan.TORCH and not before.stage(step.stage).done for step in steps):
        return chosen, None
    if KINDS.get(chosen) not in snapshot.served:
        try:
            chosen = trainer.choose(profile, snapshot.served, metadata.queue(run, profile))
        except SpecError as error:
            return chosen, Refusal("BackendUnavailable", str(error))
    try:
        if chosen == "trainjob":
            trainjob.check(run, steps, profile)
    except SpecError as error:
        return chosen, Refusal("NameTooLong", str(error))
    return chosen, None
