"""Where a task's files are: one file, a folder, or a zip (also a zip inside a folder, as some releases ship their train split).

File names decide the split: a word `train`, `test` (or `held_out`), `validation` (or `val`, `dev`, `tuning`). Two files for one split
stop with both names; `data.train` and `data.test` pick one. Shards (`train-00000-of-00002.parquet`) count as one file.
"""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ehrmind_k8s.errors import DataError, nearest
from ehrmind_k8s.records import SPLITS, Split
from ehrmind_k8s.spec import DataSpec

WORDS: dict[str, Split] = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "tuning": "validation",
}
ARCHIVE_LIMIT_BYTES = 4 << 30  # all members of one zip; the largest published MedCalc split is 41 MB, the trial corpus 1.8 GB
_SHARD = re.compile(r"-[0-9]{5}-of-([0-9]{5})$")


@dataclass(frozen=True, slots=True)
class File:
    """One readable file. `name` is relative to the source, `path` the file on disk that holds it (the zip for a member)."""

    name: str
    path: Path
    read: Callable[[], bytes]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()


def find(source: Path, suffixes: Sequence[str]) -> list[File]:
    """All files with one of `suffixes` in a file, folder or zip, by name. Raises DataError where there is nothing to read."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if source.is_file():
        found = _open(source, source.name)
    else:
        paths = sorted(p for p in source.rglob("*") if p.is_file() and not p.name.startswith("."))
        found = [file for p in paths for file in _open(p, p.relative_to(source).as_posix())]
    found = [f for f in found if f.suffix in suffixes]
    if not found:
        raise DataError(f"{source}: no {' or '.join(suffixes)} file in it (also not inside a zip)")
    return found


def by_split(source: Path, files: Sequence[File], data: DataSpec) -> dict[Split, list[File]]:
    """Which files make which split. Raises DataError where names do not decide, or decide twice."""
    chosen: dict[Split, list[File]] = {}
    picked: dict[Split, str | None] = {"train": data.train, "test": data.test}
    for split, wanted in picked.items():
        if wanted is not None:
            chosen[split] = [_named(source, files, split, wanted)]
    taken = {f.name for fs in chosen.values() for f in fs}
    for split in SPLITS:
        named = [f for f in files if f.name not in taken and split_of(f.name) == split]
        if split not in chosen and named:
            chosen[split] = _one(source, split, named)
    if not chosen:
        names = ", ".join(f.name for f in files)
        raise DataError(f"{source}: no file name says which split it is ({names}); name one train* or test*, or set data.train or data.test to it")
    return chosen


def split_of(name: str) -> Split | None:
    """The split that a file name's words decide, or None where none or several are in it."""
    words = re.split(r"[^a-z]+", PurePosixPath(name.removesuffix(".zip")).stem.lower())
    found: set[Split] = {WORDS[w] for w in words if w in WORDS}
    if "held" in words and "out" in words:
        found.add("test")
    return found.pop() if len(found) == 1 else None


def sha256(path: Path) -> str:
    """Hex digest of a file on disk."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named(source: Path, files: Sequence[File], split: Split, wanted: str) -> File:
    """The file that `wanted` names: by its whole name, its last part, or the zip that holds it alone."""
    for name_of in (lambda f: f.name, lambda f: PurePosixPath(f.name).name, lambda f: f.path.name):
        found = [f for f in files if name_of(f) == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"data.{split}: {wanted!r} could be {' or '.join(f.name for f in found)} in {source}; give the whole name")
    raise DataError(f"data.{split}: no file {wanted!r} in {source}; {nearest(wanted, [f.name for f in files])}")


def _one(source: Path, split: Split, files: Sequence[File]) -> list[File]:
    """The one file of a split, or its shards in order."""
    counts = {m.group(1) for f in files if (m := _SHARD.search(PurePosixPath(f.name).stem))}
    if len(files) == 1 and not counts:
        return list(files)
    if len(counts) == 1 and all(_SHARD.search(PurePosixPath(f.name).stem) for f in files):
        if len(files) != int(*counts):
            raise DataError(f"{source}: {len(files)} of {int(*counts)} shards of the {split} split are there")
        return sorted(files, key=lambda f: f.name)
    names = " and ".join(f.name for f in files)
    how = f"set data.{split} to one of them" if split != "validation" else "keep one of them"
    raise DataError(f"{source}: {len(files)} files for the {split} split: {names}; {how}")


def _open(path: Path, name: str) -> list[File]:
    if path.suffix.lower() != ".zip":
        return [File(name, path, path.read_bytes)]
    with opened(path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir() and not is_litter(m.filename)]
    total = sum(m.file_size for m in members)
    if total > ARCHIVE_LIMIT_BYTES:
        raise DataError(f"{path}: unpacks to {total} bytes, over the limit of {ARCHIVE_LIMIT_BYTES}; unpack it yourself and pass the folder")
    return [_member(path, m, f"{name}/") for m in members]


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to list and read. Raises DataError for one that is torn, or a member that cannot be unpacked."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path}: not a whole zip file ({error}); copy it again") from None
    with archive:
        try:
            yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise DataError(f"{path}: a member cannot be unpacked ({type(error).__name__}); copy the archive again") from None


def checked_member(path: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    """The name of a zip's member. Nothing is ever unpacked to disk, but a name that would escape says what kind of archive this is.

    Raises DataError for an absolute name, `..`, a link, or an encrypted member.
    """
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or re.match(r"[A-Za-z]:", member.filename):
        raise DataError(f"{path}: a member has an absolute path or `..` in its name; refusing the archive")
    if (member.external_attr >> 16) & 0o170000 == 0o120000:
        raise DataError(f"{path}: a member is a link; refusing the archive")
    if member.flag_bits & 1:
        raise DataError(f"{path}: encrypted; decrypt it and pass the result")
    return name


def _member(path: Path, member: zipfile.ZipInfo, inside: str) -> File:
    name = checked_member(path, member)

    def read() -> bytes:
        with opened(path) as archive:
            return archive.read(member)

    return File(f"{inside}{name}", path, read)


def is_litter(name: str) -> bool:
    """What macOS adds to a zip."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return name.startswith("__MACOSX/") or last.startswith("._") or last == ".DS_Store"
