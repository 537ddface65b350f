"""A folder as an object store: write aside, flush, rename."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.storage import disk
from ehrmind_k8s.storage.base import ObjectInfo, checked

ABANDONED_S = 3600
"""An unfinished file that nobody has written to for an hour belongs to a dead writer: a live one touches it with every megabyte."""


class LocalStore:
    """Objects are files below one folder. A rename makes each appear whole; `os.link` decides who was first."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        if parts.scheme and parts.netloc not in ("", "localhost"):
            raise SpecError(f"store URI {uri!r} names the host {parts.netloc!r}; a folder has three slashes: file:///{parts.netloc}{parts.path}")
        self.root = Path(unquote(parts.path) if parts.scheme else uri).expanduser().absolute()
        self.uri = self.root.as_uri()

    def put_bytes(self, key: str, data: bytes) -> None:
        with self._writing(key) as aside:
            _write(aside, data)

    def put_file(self, key: str, path: Path) -> None:
        with self._writing(key) as aside:
            shutil.copyfile(path, aside)
            _flush(aside)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with disk.errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = disk.aside_of(path)
            try:
                _write(aside, data)
                os.link(aside, path)
            except FileExistsError:
                return False
            finally:
                aside.unlink(missing_ok=True)
            _flush(path.parent)
        return True

    def get_bytes(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def get_file(self, key: str, path: Path, arrived: Callable[[int], object] | None = None) -> None:
        with self._reading(key) as source, disk.appearing(path) as aside:
            shutil.copyfile(source, aside)
            if arrived:
                arrived(aside.stat().st_size)

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with disk.errors(path):
            return ObjectInfo(key, path.stat().st_size) if path.is_file() else None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = self.root / prefix.rpartition("/")[0]
        with disk.errors(folder):
            found = [Path(top, name) for top, _, names in os.walk(folder, onerror=_unless_gone) for name in names]
        for key, path in sorted((p.relative_to(self.root).as_posix(), p) for p in found):
            if key.startswith(prefix) and not path.name.startswith(disk.ASIDE) and (info := self.head(key)):
                yield info

    def delete(self, key: str) -> None:
        path = self._path(key)
        with disk.errors(path):
            path.unlink(missing_ok=True)

    def discard_unfinished(self, prefix: str) -> int:
        folder = self._path(prefix) if prefix else self.root
        with disk.errors(folder):
            abandoned = [path for path in folder.rglob(f"{disk.ASIDE}*") if _age_s(path) > ABANDONED_S]
            for path in abandoned:
                path.unlink(missing_ok=True)
        return len(abandoned)

    def _path(self, key: str) -> Path:
        return self.root / checked(key)

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with disk.errors(path):
            with disk.appearing(path) as aside:
                yield aside
            _flush(path.parent)

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with disk.errors(path):
            if not path.is_file():
                raise KeyError(key)
            try:
                yield path
            except FileNotFoundError:
                raise KeyError(key) from None


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk: a manifest must not survive a power cut that its files do not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # its writer has just finished
        return 0.0


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
