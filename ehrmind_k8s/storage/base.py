"""What the rest of the package may ask of a store.

Keys are relative to the URI the store was opened with, use `/`, and never start or end with it. A key either holds a whole object or
does not exist: no reader sees half a write. Errors are StoreUnavailable (try again), SpecError (wrong address, rights or credentials:
the user mends it) and KeyError for a key that is not there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from ehrmind_k8s.errors import SpecError, nearest


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its key and size (bytes)."""

    key: str
    size_bytes: int


class ObjectStore(Protocol):
    """A flat map from keys to bytes. Implementations: `local.LocalStore`, `s3.S3Store`."""

    uri: str

    def put_bytes(self, key: str, data: bytes) -> None:
        """Write a small object, replacing what was there."""

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file of any size; resumes its own interrupted upload."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write only where nothing is; False if something was. Atomic only where the server enforces it."""

    def get_bytes(self, key: str) -> bytes:
        """Read a small object. Raises KeyError."""

    def get_file(self, key: str, path: Path, arrived: Callable[[int], object] | None = None) -> None:
        """Download to `path`, which appears whole or not at all. `arrived` hears of every few bytes that did. Raises KeyError."""

    def head(self, key: str) -> ObjectInfo | None:
        """Size of an object, or None."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, in key order."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it is not there."""

    def discard_unfinished(self, prefix: str) -> int:
        """Give back the space of interrupted uploads below the folder `prefix` ("" is the whole store), whose writers are gone. Returns how many."""


def open(uri: str) -> ObjectStore:
    """The store for a URI: a plain path or file:// (a folder), or s3://bucket/prefix."""
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        from ehrmind_k8s.storage.local import LocalStore

        return LocalStore(uri)
    if scheme == "s3":
        from ehrmind_k8s import settings
        from ehrmind_k8s.storage.s3 import S3Store

        return S3Store(uri, settings.load())
    raise SpecError(f"store URI {uri!r} has the unknown scheme {scheme!r}; {nearest(scheme, ['file', 's3'])}")


def path(uri: str) -> Path | None:
    """Where a URI points on this machine; None for what is elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(uri).expanduser()


def checked(key: str) -> str:
    """The key, if it stays inside its store: relative, `/` between its parts, none of them empty, `.` or `..`. Raises SpecError."""
    if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or "\0" in key:
        raise SpecError(f"{key!r} is no key of a store: it must be relative, with / between its parts, and none of them empty, '.' or '..'")
    return key


def join(uri: str, *parts: str) -> str:
    """A URI below another."""
    return "/".join([uri.rstrip("/"), *(p.strip("/") for p in parts)])
