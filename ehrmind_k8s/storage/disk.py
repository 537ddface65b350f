"""Files that appear whole or not at all, and what a disk's errors mean."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ehrmind_k8s.errors import EhrmindError, SpecError, StoreUnavailable

ASIDE = ".aside-"
"""How names of unfinished files begin; no reader takes them for objects."""

NEARLY_FULL_BYTES = 1 << 20
"""Less than this is no room for anything that a stage writes."""

FULL = (errno.ENOSPC, errno.EDQUOT)
LAYOUT = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP)
RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A file to fill beside `path`, which takes its name at the end; after an error nothing of it is left. Makes the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(path)
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def aside_of(path: Path) -> Path:
    """A fresh unfinished name in the folder of `path`."""
    return path.parent / f"{ASIDE}{uuid.uuid4().hex}"


def reserve(descriptor: int, size_bytes: int) -> None:
    """Take the space of a file before it is filled, so that a full disk shows at once."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size_bytes)


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`; several threads may do so in one file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """What the operating system refuses at `path`: SpecError where the user mends it, StoreUnavailable where it may pass."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or path
        if error.errno in FULL:
            raise StoreUnavailable(f"{where}: disk full ({error.strerror}); free some space and run the same command again") from None
        if error.errno in RIGHTS:
            raise SpecError(f"{where}: no permission ({error.strerror}) for user {os.getuid()}; choose another folder or change its rights") from None
        if error.errno in LAYOUT:
            raise SpecError(f"{where}: {error.strerror}; a file is where a folder should be, or the other way round; choose another folder") from None
        if error.errno == errno.ENOENT:
            raise SpecError(f"{where}: there is no such file or folder") from None
        raise StoreUnavailable(f"{where}: {error.strerror or type(error).__name__}") from None


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """A library's failure to write below `folder` while its disk is full: StoreUnavailable. Each library has words of its own for it, torch
    none at all, so the disk is asked. Everything else passes as it is.
    """
    try:
        yield
    except EhrmindError:
        raise
    except Exception as error:
        told = isinstance(error, OSError) and error.errno in FULL
        if told or shutil.disk_usage(folder).free < NEARLY_FULL_BYTES:
            raise StoreUnavailable(f"{folder}: disk full ({type(error).__name__}); free some space and run the same command again") from None
        raise
