"""Bring files to a store as an artifact, for `data put` and `model put`: a bar on a terminal, plain lines elsewhere, the manifest last."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.filesize import decimal

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.artifacts import Manifest
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.storage import ObjectStore


def put(folder: Path, names: Sequence[str], uri: str, kind: str, meta: Mapping[str, Any]) -> None:
    """Publish `names` of `folder` at `uri`. An artifact is never replaced: the same files there already are a success, others a SpecError."""
    store = storage.open(uri)
    there = artifacts.load(store)
    if there is not None:
        if _same(there, folder, names):
            click.echo(f"{store.uri}: the same {len(names)} files are there already")
            return
        raise SpecError(f"{store.uri} holds another {there.kind} artifact, which a run may rely on; choose another URI")
    sizes = {name: (folder / name).stat().st_size for name in names}
    with _watched(store, sizes) as watched:
        artifacts.publish(watched, "", folder, kind, meta, names)
    click.echo(f"{store.uri}: {len(names)} files, {decimal(sum(sizes.values()))}")


def _same(there: Manifest, folder: Path, names: Sequence[str]) -> bool:
    return {(f.name, f.sha256) for f in there.files} == {(name, artifacts.sha256(folder / name)) for name in names}


class _Watched:
    """A store that reports each file it has taken; everything else is the store's own."""

    def __init__(self, store: ObjectStore, taken: Any) -> None:
        self._store, self._taken = store, taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_file(self, key: str, path: Path) -> None:
        self._store.put_file(key, path)
        self._taken(key)


@contextmanager
def _watched(store: ObjectStore, sizes: Mapping[str, int]) -> Iterator[Any]:
    """`store`, with progress on standard error: a bar of bytes on a terminal, a line per file elsewhere."""
    if not sys.stderr.isatty():
        yield _Watched(store, lambda key: click.echo(f"sent {key} ({decimal(sizes[key])})", err=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("sending", total=sum(sizes.values()))
        yield _Watched(store, lambda key: progress.update(bar, advance=sizes[key]))
