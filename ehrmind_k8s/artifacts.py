"""Every name inside a run directory, and the two rules that keep it true: publish last, read only what is complete.

    <run-uri>/
      spec.json                         the resolved run document, with the run's uid and the recipe hash
      <stage>/attempts/<K>              a claim: attempt K has begun; a writer that sees a higher one stops
      <stage>/manifest.json             the stage is complete
      prepare/{train,validation,test}.parquet, prepare/model/
      sft/policy/{base,sft}/            policies, each with its own manifest
      sft/checkpoint/step-<N>-a<K>/
      rlvr/policy/v<N>-a<K>/            one policy version per step
      rlvr/checkpoint/step-<N>-a<K>/    everything needed to continue
      rlvr/ledger/<step>-a<K>.jsonl     what became of every prompt
      rollout/token                     what the routes of the run's rollout servers ask for
      evaluate/results/<policy>/        judged completions
      evaluate/report.{json,md,html}
      model/                            what the run is for

An artifact is a prefix with `manifest.json`, written last, which lists every file with size and SHA-256. Publishing over an artifact
takes its manifest away first: a reader finds the old one, none, or the new one, never a mixture.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ehrmind_k8s import storage
from ehrmind_k8s.errors import Fenced, IntegrityError, SpecError
from ehrmind_k8s.spec import RunSpec, difference, from_json
from ehrmind_k8s.storage import ObjectStore, disk
from ehrmind_k8s.storage.base import checked
from ehrmind_k8s.storage.meter import Meter
from ehrmind_k8s.storage.parallel import gather

FORMAT = 1
SPEC = "spec.json"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"  # learning curves, in the output of sft and rlvr
DIAGNOSIS = "diagnosis.json"  # in the output of diagnose, beside the rows it asked and the traces it gathered for SFT
ASKED = "asked.parquet"
TRACES = "traces.jsonl"
RECORDS = "records.npy"  # in the output of prepare: sketches of the records of its train rows, and of what its start model learned from
REPORT = "report.json"  # in the output of evaluate, beside report.md and report.html
TOKEN = "rollout/token"  # noqa: S105 (a name, of what `rollout.token` keeps below the run's own URI)
LEDGER = "ledger/"  # entries of one step and attempt each, in the rlvr stage
MODEL = "model"  # what the run is for, below the run's own URI
TERMS = "DATA_TERMS.txt"  # beside weights that learned from data with terms of use, so that they go where the weights go
ATTEMPTS = "attempts/"  # claims of a stage
TRANSFERS = 8  # files of one artifact under way at once; the parts of large ones share the store's own workers


@dataclass(frozen=True, slots=True)
class File:
    """One file of an artifact."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What makes a prefix an artifact. `kind` says what it is (`data`, `policy`, `checkpoint`, `report`, a stage name); `meta` is its own."""

    kind: str
    files: tuple[File, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()


def stage_uri(spec: RunSpec, run_uri: str, stage: str) -> str:
    """Where the output of `stage` is: in this run, or where `inputs` points."""
    return spec.inputs.get(stage) or storage.join(run_uri, stage)  # type: ignore[call-overload]


def policy_key(name: str) -> str:
    """Prefix of a policy inside its stage."""
    return f"policy/{name}"


def checkpoint_key(step: int, attempt: int) -> str:
    """Prefix of a checkpoint inside its stage."""
    return f"checkpoint/step-{step}-a{attempt}"


def results_key(policy: str, place: str = "results") -> str:
    """Prefix of a policy's judged completions inside the stage that asked."""
    return f"{place}/{policy}"


def ledger_key(step: int, attempt: int) -> str:
    """Key of the ledger entries of one step inside the rlvr stage."""
    return f"{LEDGER}{step:06d}-a{attempt}.jsonl"


def checkpoints(store: ObjectStore) -> list[tuple[int, int]]:
    """(step, attempt) of every checkpoint of a stage that has been begun, complete or not, oldest step first."""
    return _numbered(store, "checkpoint/step-")


def versions(store: ObjectStore) -> list[tuple[int, int]]:
    """(version, attempt) of every policy version `v<N>-a<K>` of a stage that has been begun, complete or not, oldest version first."""
    return _numbered(store, "policy/v")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class RunDocument:
    """`spec.json`: the resolved document, the run's uid (part of every served policy name) and the hash of what it computes."""

    uid: str
    spec: RunSpec
    recipe_hash: str

    @classmethod
    def new(cls, spec: RunSpec) -> "RunDocument":
        """A document for a run that does not exist yet."""
        return cls(uuid.uuid4().hex[:12], spec, spec.recipe_hash())

    @classmethod
    def read(cls, store: ObjectStore) -> "RunDocument":
        """The document of the run that `store` is rooted at. Raises KeyError where there is no run, IntegrityError for one it cannot read."""
        return cls.parse(store.get_bytes(SPEC), f"{store.uri}/{SPEC}")

    @classmethod
    def parse(cls, body: bytes, where: str) -> "RunDocument":
        """The document in `body`, which is at `where`. Raises IntegrityError for one it cannot read, SpecError for one that is not valid."""
        try:
            raw = json.loads(body)
            if raw["format"] > FORMAT:
                raise IntegrityError(f"{where}: format {raw['format']} is newer than this version reads ({FORMAT}); upgrade ehrmind_k8s")
            return cls(raw["uid"], from_json(raw["spec"]), raw["recipe_hash"])
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{where}: damaged ({type(error).__name__})") from None

    @classmethod
    def at(cls, run_uri: str) -> "RunDocument":
        """The document of the run at `run_uri`. Raises SpecError where there is no run, IntegrityError for one it cannot read."""
        try:
            return cls.read(storage.open(run_uri))
        except KeyError:
            raise SpecError(f"{run_uri}: no {SPEC} here, so this is not a run; expected the URI of a submitted run") from None

    @classmethod
    def settle(cls, run_uri: str, file: Path | None, *, update: bool = True) -> "RunDocument":
        """The document that all pods of a run agree on: `file` (EHRMIND_SPEC_FILE), published by whoever comes first; without it, what is there.

        A run made again under its name goes on in its store, so the store's uid stays. Raises SpecError where another recipe has the name.
        How to execute is taken from `file`, and with `update` the store's copy learns of it.
        """
        if file is None:
            return cls.at(run_uri)
        with disk.errors(file):
            ours = cls.parse(file.read_bytes(), str(file))
        store = storage.open(run_uri)
        try:
            there = cls.read(store)
        except KeyError:
            ours.write(store)
            there = cls.read(store)
        if changes := difference(there.spec, ours.spec):
            lines = "\n  ".join(changes)
            raise SpecError(
                f"{store.uri}: run {ours.spec.name} exists with another recipe:\n  {lines}\n"
                f"give the run another name, or delete what is there: ehrmind runs delete {store.uri}"
            )
        if there.spec == ours.spec:
            return there
        settled = cls(there.uid, ours.spec, there.recipe_hash)
        if update:
            store.put_bytes(SPEC, settled.to_json())
        return settled

    def write(self, store: ObjectStore) -> bool:
        """Publish it where no document is yet; False if one was there."""
        return _put_own(store, SPEC, self.to_json())

    def to_json(self) -> bytes:
        body = {"format": FORMAT, "uid": self.uid, "recipe_hash": self.recipe_hash, "spec": self.spec.model_dump(mode="json")}
        return json.dumps(body, indent=1, sort_keys=True).encode()


class Claim:
    """The right of attempt K to write into a stage, until a higher attempt is claimed."""

    def __init__(self, store: ObjectStore, attempt: int) -> None:
        self.store, self.attempt = store, attempt

    def take(self, note: Mapping[str, Any] | None = None) -> None:
        """Claim the stage. Raises Fenced if this attempt or a higher one is claimed already."""
        self.check()
        body = {**(note or {}), "writer": uuid.uuid4().hex}
        if not _put_own(self.store, f"{ATTEMPTS}{self.attempt}", json.dumps(body).encode()):
            raise Fenced(f"{self.store.uri}: attempt {self.attempt} is claimed already")
        self.check()  # a higher attempt may have looked before this one was visible

    def check(self) -> None:
        """Raises Fenced if a higher attempt is claimed."""
        newest = latest_attempt(self.store)
        if newest > self.attempt:
            raise Fenced(f"{self.store.uri}: attempt {newest} has taken over from attempt {self.attempt}")


def latest_attempt(store: ObjectStore) -> int:
    """Highest claimed attempt of a stage, 0 if none."""
    names = (item.key.removeprefix(ATTEMPTS) for item in store.list(ATTEMPTS))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def publish(
    store: ObjectStore,
    prefix: str,
    folder: Path,
    kind: str,
    meta: Mapping[str, Any] | None = None,
    names: Iterable[str] | None = None,
    claim: Claim | None = None,
) -> Manifest:
    """Upload the files of `folder` (all, or `names`) below `prefix`, then the manifest. Returns it. `prefix` "" is the store's own root.

    Nothing may write to `folder` meanwhile (IntegrityError). A manifest at its top is left out, so a copy of an artifact can be published.
    Raises Fenced when `claim` is overtaken.
    """
    if names is None:
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())

    def upload(name: str) -> File:
        return _upload(store, _at(prefix, name), folder / name, name)

    if claim:
        claim.check()
    store.delete(_at(prefix, MANIFEST))
    with ThreadPoolExecutor(TRANSFERS) as pool:
        files = gather(pool, upload, [name for name in names if name != MANIFEST])
    manifest = Manifest(kind, tuple(files), dict(meta or {}))
    if claim:
        claim.check()
    store.put_bytes(_at(prefix, MANIFEST), manifest.to_json())
    if claim or prefix:  # a store's root without a claim (`data put`) may hold what others are uploading
        store.discard_unfinished(prefix)
    return manifest


def load(store: ObjectStore, prefix: str = "") -> Manifest | None:
    """The manifest of a complete artifact, or None where there is none. Raises IntegrityError for one that cannot be read."""
    where = storage.join(store.uri, prefix)
    try:
        raw = store.get_bytes(_at(prefix, MANIFEST))
    except KeyError:
        return None
    try:
        document = json.loads(raw)
        if document["format"] > FORMAT:
            raise IntegrityError(f"{where}: manifest format {document['format']} is newer than this version reads ({FORMAT}); upgrade ehrmind_k8s")
        return Manifest(document["kind"], tuple(_file(f) for f in document["files"]), document["meta"], document["format"])
    except SpecError as error:
        raise IntegrityError(f"{where}: {MANIFEST} lists a file outside of its artifact: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{where}: {MANIFEST} is damaged ({type(error).__name__}); publish the artifact again") from None


def fetch(store: ObjectStore, prefix: str, folder: Path, names: Iterable[str] | None = None) -> Manifest:
    """Download an artifact (all files, or `names`), verify every byte, and let `folder` appear whole. Raises IntegrityError.

    A `folder` that is there already is replaced.
    """
    where = storage.join(store.uri, prefix)
    manifest = load(store, prefix)
    if manifest is None:
        raise IntegrityError(f"{where}: no {MANIFEST}, so this artifact was never finished; run the stage that makes it again")
    files = _chosen(manifest, names, where)
    aside = disk.aside_of(folder)
    meter = Meter(where, sum(file.size_bytes for file in files))

    def download(file: File) -> None:
        _download(store, _at(prefix, file.name), aside / file.name, file, where, meter)

    with disk.errors(folder):
        aside.mkdir(parents=True)
        try:
            with ThreadPoolExecutor(TRANSFERS) as pool:
                gather(pool, download, files)
            _replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return manifest


def remove(store: ObjectStore, prefix: str) -> None:
    """Delete an artifact or what a killed writer left of one, the manifest first, so that no reader sees a complete one with files gone."""
    store.delete(_at(prefix, MANIFEST))
    store.discard_unfinished(prefix)
    with ThreadPoolExecutor(TRANSFERS) as pool:
        gather(pool, store.delete, [item.key for item in store.list(_at(prefix, ""))])


def _put_own(store: ObjectStore, key: str, body: bytes) -> bool:
    """Whether `body`, unlike any other writer's, is what the store has at `key` after trying to be first.

    Reading it back settles two cases: a lost answer (the repeated request finds our own object), and servers that enforce nothing.
    """
    store.put_if_absent(key, body)
    return store.get_bytes(key) == body


def _upload(store: ObjectStore, key: str, path: Path, name: str) -> File:
    before, digest = path.stat(), sha256(path)
    store.put_file(key, path)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise IntegrityError(f"{path}: changed while it was published; publish when nothing writes to it")
    return File(name, before.st_size, digest)


def _download(store: ObjectStore, key: str, path: Path, file: File, where: str, meter: Meter) -> None:
    try:
        store.get_file(key, path, meter)
    except KeyError:
        raise IntegrityError(f"{where}: {file.name} is listed in {MANIFEST} but missing; publish the artifact again") from None
    found = path.stat().st_size
    if found != file.size_bytes:
        raise IntegrityError(f"{where}: {file.name} has {found} bytes, its manifest says {file.size_bytes}; it was altered after publishing")
    if sha256(path) != file.sha256:
        raise IntegrityError(f"{where}: {file.name} differs from the SHA-256 in its manifest; it was altered after publishing")


def _file(raw: Mapping[str, Any]) -> File:
    file = File(checked(raw["name"]), raw["size_bytes"], raw["sha256"])
    if not (isinstance(file.size_bytes, int) and file.size_bytes >= 0 and re.fullmatch("[0-9a-f]{64}", file.sha256)):
        raise ValueError("size or SHA-256")
    return file


def _chosen(manifest: Manifest, names: Iterable[str] | None, where: str) -> list[File]:
    if names is None:
        return list(manifest.files)
    files = {file.name: file for file in manifest.files}
    wanted = set(names)
    if missing := sorted(wanted - files.keys()):
        raise IntegrityError(f"{where}: the artifact has no file {missing[0]!r}; it holds {', '.join(sorted(files)) or 'none'}")
    return [files[name] for name in sorted(wanted)]


def _replace(aside: Path, folder: Path) -> None:
    """Give `aside` the name `folder`; what had it goes away whole."""
    if folder.exists():
        old = disk.aside_of(folder)
        folder.rename(old)
        shutil.rmtree(old)
    aside.rename(folder)


def _at(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _numbered(store: ObjectStore, stem: str) -> list[tuple[int, int]]:
    names = {item.key.removeprefix(stem).split("/")[0] for item in store.list(stem)}
    found = (re.fullmatch(r"(\d+)-a(\d+)", name) for name in names)
    return sorted((int(match[1]), int(match[2])) for match in found if match)
