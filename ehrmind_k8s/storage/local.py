"""A folder as an object store: write aside, flush, rename."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from ehrmind_k8s.storage.base import ObjectInfo

_ASIDE = ".aside-"


class LocalStore:
    """Objects are files below one folder. A rename makes each appear whole; `os.link` decides who was first."""

    def __init__(self, uri: str) -> None:
        self.root = Path(uri.removeprefix("file://")).absolute()
        self.uri = self.root.as_uri()

    def put_bytes(self, key: str, data: bytes) -> None:
        os.replace(self._aside(key, data), self._path(key))

    def put_file(self, key: str, path: Path) -> None:
        os.replace(self._aside(key, path), self._path(key))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        aside = self._aside(key, data)
        try:
            os.link(aside, self._path(key))
        except FileExistsError:
            return False
        finally:
            aside.unlink()
        return True

    def get_bytes(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise KeyError(key) from None

    def get_file(self, key: str, path: Path) -> None:
        source = self._path(key)
        if not source.is_file():
            raise KeyError(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.parent / f"{_ASIDE}{uuid.uuid4().hex}"
        shutil.copyfile(source, aside)
        os.replace(aside, path)

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        return ObjectInfo(key, path.stat().st_size) if path.is_file() else None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if not self.root.is_dir():
            return
        found = [p for p in self.root.rglob("*") if p.is_file() and not p.name.startswith(_ASIDE)]
        for key, path in sorted((p.relative_to(self.root).as_posix(), p) for p in found):
            if key.startswith(prefix):
                yield ObjectInfo(key, path.stat().st_size)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / key

    def _aside(self, key: str, content: bytes | Path) -> Path:
        folder = self._path(key).parent
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{_ASIDE}{uuid.uuid4().hex}"
        with aside.open("wb") as file:
            if isinstance(content, Path):
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return aside
