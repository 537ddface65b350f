"""A bucket, or a prefix of one, as an object store: `s3://bucket/prefix`, on any S3-compatible server.

Below one part (32 MiB) a file is a single PUT or GET; above, parts travel `WORKERS` at a time. Downloads are ranged reads written into
their place in a preallocated file, each going on where a broken connection left it.
"""

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import botocore.exceptions as boto

from ehrmind_k8s.errors import SpecError, StoreRefused, StoreUnavailable
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import disk, s3_client, s3_upload
from ehrmind_k8s.storage.base import ObjectInfo, checked
from ehrmind_k8s.storage.parallel import gather

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

WORKERS = 4
CHUNK_BYTES = 1 << 20
"""One read from a socket and one write to the file."""

BROKEN = (boto.ResponseStreamingError, boto.IncompleteReadError, boto.ReadTimeoutError)
"""A body that ends early; boto3 repeats requests, but not reading."""

_Write = Callable[[bytes, int], object]
"""Takes a chunk and its offset in the object."""

Conditional = Literal["enforced", "refused", "ignored"]


class S3Store:
    """Objects below one prefix of a bucket. Safe to use from several threads."""

    def __init__(self, uri: str, settings: Settings, part_bytes: int = s3_upload.PART_BYTES) -> None:
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise SpecError(f"store URI {uri!r} names no bucket; write s3://BUCKET/PREFIX")
        self.prefix = prefix.strip("/")
        self.uri = "/".join(["s3:/", self.bucket, *([self.prefix] if self.prefix else [])])
        self.part_bytes = part_bytes
        self.client = s3_client.connect(settings)
        self.endpoint = self.client.meta.endpoint_url
        self._bucket_seen = False
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="s3")

    def put_bytes(self, key: str, data: bytes) -> None:
        with self._errors(key):
            self._put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        with disk.errors(path), self._errors(key):
            if path.stat().st_size <= self.part_bytes:
                self._put(key, path.read_bytes())
            else:
                s3_upload.Upload(self.client, self._pool, self.bucket, self._key(key), path, self.part_bytes).run()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._errors(key):
            if self.conditional_writes == "enforced":
                return self._create(key, data)
            if self.head(key):
                return False
            self._put(key, data)
            return True

    def get_bytes(self, key: str) -> bytes:
        buffer = io.BytesIO()
        with self._errors(key):
            self._read(key, 0, None, lambda chunk, _: buffer.write(chunk))
        return buffer.getvalue()

    def get_file(self, key: str, path: Path, arrived: Callable[[int], object] | None = None) -> None:
        with disk.errors(path), self._errors(key), disk.appearing(path) as aside:
            descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                self._download(key, descriptor, arrived)
            finally:
                os.close(descriptor)

    def head(self, key: str) -> ObjectInfo | None:
        try:
            with self._errors(key):
                return ObjectInfo(key, self.client.head_object(Bucket=self.bucket, Key=self._key(key))["ContentLength"])
        except KeyError:
            self._require_bucket()
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        root = f"{self.prefix}/" if self.prefix else ""
        with self._errors(prefix):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=root + prefix):
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(root)
                    if not key.endswith("/") and not key.rpartition("/")[2].startswith(disk.ASIDE):
                        yield ObjectInfo(key, item["Size"])

    def delete(self, key: str) -> None:
        # One at a time: some servers refuse batches without a Content-MD5, which boto3 no longer sends.
        with self._errors(key):
            self.client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def discard_unfinished(self, prefix: str) -> int:
        below = f"{self._key(prefix)}/" if prefix else f"{self.prefix}/".lstrip("/")
        with self._errors(prefix):
            unfinished = list(s3_upload.open_uploads(self.client, self.bucket, below))
            for key, upload_id in unfinished:
                s3_upload.abort(self.client, self.bucket, key, upload_id)
        return len(unfinished)

    @cached_property
    def conditional_writes(self) -> Conditional:
        """What this server makes of `If-None-Match: *`, asked once with a scratch object."""
        scratch = disk.aside_of(Path("probe")).name
        with self._errors(scratch):
            try:
                self._create(scratch, b"1")
                return "ignored" if self._create(scratch, b"2") else "enforced"
            except boto.ClientError as error:
                if int(error.response["ResponseMetadata"]["HTTPStatusCode"]) in (400, 501):
                    return "refused"
                raise
            finally:
                self.delete(scratch)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{checked(key)}" if self.prefix else checked(key)

    def _errors(self, key: str) -> AbstractContextManager[None]:
        return s3_client.errors(f"{self.uri}/{key}", self.endpoint)

    def _put(self, key: str, data: bytes, **conditions: Any) -> None:
        body = io.BytesIO(data)
        self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=body, **s3_upload.integrity(self.client, body), **conditions)

    def _create(self, key: str, data: bytes) -> bool:
        try:
            self._put(key, data, IfNoneMatch="*")
        except boto.ClientError as error:
            status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            if status == 412 or (status == 409 and self.head(key)):  # 409 alone: somebody is writing or deleting it just now
                return False
            raise
        return True

    def _require_bucket(self) -> None:
        """A refused HEAD has no body, so its 404 may speak of the bucket. Raises SpecError."""
        if not self._bucket_seen:
            try:
                with self._errors(""):
                    self.client.head_bucket(Bucket=self.bucket)
            except KeyError:
                raise StoreRefused(f"{self.uri}: {self.endpoint} has no bucket {self.bucket!r}; create it, or correct the store URI") from None
            self._bucket_seen = True

    def _get(self, key: str, start: int, stop: int | None) -> "GetObjectOutputTypeDef":
        if start == 0 and stop is None:
            return self.client.get_object(Bucket=self.bucket, Key=self._key(key))
        answer = self.client.get_object(Bucket=self.bucket, Key=self._key(key), Range=f"bytes={start}-{'' if stop is None else stop - 1}")
        if start and not answer.get("ContentRange"):
            raise SpecError(f"{self.uri}/{key}: {self.endpoint} ignores ranged reads, which this package needs; use an S3 server that has them")
        return answer

    def _read(self, key: str, start: int, stop: int | None, write: _Write, answer: "GetObjectOutputTypeDef | None" = None, etag: str = "") -> None:
        """Hand the bytes [start, stop) to `write` chunk by chunk. A broken connection is taken up again where it broke, while it gets anywhere."""
        position, tries = start, s3_client.ATTEMPTS
        while True:
            answer = answer or self._get(key, position, stop)
            etag = etag or answer["ETag"]
            if answer["ETag"] != etag:
                raise StoreUnavailable(f"{self.uri}/{key}: replaced while it was read; run the same command again")
            before = position
            try:
                for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                    write(chunk, position)
                    position += len(chunk)
                return
            except BROKEN:
                tries = s3_client.ATTEMPTS if position > before else tries - 1
                if not tries:
                    raise
                answer = None

    def _download(self, key: str, descriptor: int, arrived: Callable[[int], object] | None) -> None:
        try:
            first = self._get(key, 0, self.part_bytes)
        except boto.ClientError as error:
            if s3_client.code(error) != "InvalidRange":  # what an empty object answers to any range
                raise
            return
        size = int(first["ContentRange"].rpartition("/")[2]) if first.get("ContentRange") else first["ContentLength"]
        etag, step = first["ETag"], self.part_bytes
        if first["ContentLength"] < size:
            disk.reserve(descriptor, size)

        def write(chunk: bytes, at: int) -> None:
            disk.write_at(descriptor, chunk, at)
            if arrived:
                arrived(len(chunk))

        def read(start: int) -> None:
            self._read(key, start, min(start + step, size), write, None if start else first, etag)

        if first["ContentLength"] == size:
            read(0)
        else:
            gather(self._pool, read, range(0, size, step))
