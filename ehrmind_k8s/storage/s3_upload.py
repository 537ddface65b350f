"""A large file to S3 in parts, going on where an earlier, interrupted upload of the same key stopped.

The server's own list is the journal: an upload that is open for exactly this key, and in it every part whose size and MD5 equal ours.
So a new process, on another machine, resumes as well.
"""

import base64
import hashlib
import io
import math
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from ehrmind_k8s.storage.parallel import gather
from ehrmind_k8s.storage.s3_client import code

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer
    from mypy_boto3_s3 import S3Client

PART_BYTES = 32 << 20
MAX_PARTS = 10_000
NOT_OFFERED = ("AccessDenied", "403", "NotImplemented", "501", "MethodNotAllowed")
"""Answers to listing open uploads where the server, or the rights we were given, do not include it: then nothing is resumed."""


class Part(NamedTuple):
    """One part as the server knows it. `etag` is, on all but servers that encrypt with keys of their own, the MD5 of its bytes in hex."""

    number: int
    size_bytes: int
    etag: str


class Slice(io.RawIOBase):
    """`size` bytes of an open file from `start` on, as a file. It is read block by block while it is sent: no part is ever held in memory,
    and the socket's timeout counts per block, so that a slow line is not taken for a dead one."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self.descriptor, self.start, self.size, self.at = descriptor, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer)[: self.size - self.at]
        got = os.preadv(self.descriptor, [view], self.start + self.at) if view else 0
        self.at += got
        return got

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at


class Upload:
    """One file on its way to one key."""

    def __init__(self, client: "S3Client", pool: Executor, bucket: str, key: str, path: Path, part_bytes: int) -> None:
        self.client, self.pool, self.bucket, self.key, self.path = client, pool, bucket, key, path
        self.size = path.stat().st_size
        self.part_bytes = max(part_bytes, math.ceil(self.size / MAX_PARTS))

    def run(self) -> None:
        """Send what the server lacks, then let the object appear. Other unfinished uploads of the key are given up."""
        unfinished = [u for u in open_uploads(self.client, self.bucket, self.key) if u[0] == self.key]
        resumed = unfinished[-1][1] if unfinished else None
        self.id = resumed or self.client.create_multipart_upload(Bucket=self.bucket, Key=self.key)["UploadId"]
        self.there = self._parts() if resumed else {}
        with self.path.open("rb") as file:
            self.descriptor = file.fileno()
            parts = gather(self.pool, self._send, range(1, math.ceil(self.size / self.part_bytes) + 1))
        self._complete(parts)
        for _, other in unfinished[:-1]:
            abort(self.client, self.bucket, self.key, other)

    def _parts(self) -> dict[int, Part]:
        try:
            pages = self.client.get_paginator("list_parts").paginate(Bucket=self.bucket, Key=self.key, UploadId=self.id)
            found = (p for page in pages for p in page.get("Parts", []))
            return {p["PartNumber"]: Part(p["PartNumber"], p["Size"], p["ETag"].strip('"')) for p in found}
        except ClientError as error:
            if code(error) in NOT_OFFERED:
                return {}
            raise

    def _send(self, number: int) -> Part:
        start = (number - 1) * self.part_bytes
        body = Slice(self.descriptor, start, min(self.part_bytes, self.size - start))
        there = self.there.get(number)
        if there and there.size_bytes == body.size and there.etag == md5(body).hex():
            return there
        protected: dict[str, Any] = {"Body": body, **integrity(self.client, body)}
        sent = self.client.upload_part(Bucket=self.bucket, Key=self.key, UploadId=self.id, PartNumber=number, **protected)
        return Part(number, body.size, sent["ETag"].strip('"'))

    def _complete(self, parts: list[Part]) -> None:
        listed = [{"PartNumber": p.number, "ETag": f'"{p.etag}"'} for p in parts]
        try:
            self.client.complete_multipart_upload(Bucket=self.bucket, Key=self.key, UploadId=self.id, MultipartUpload={"Parts": listed})  # type: ignore[typeddict-item]
        except ClientError as error:
            if code(error) != "NoSuchUpload" or not self._appeared(parts):
                raise

    def _appeared(self, parts: list[Part]) -> bool:
        """Whether a repeated "complete" was refused only because the first one, whose answer was lost, had worked."""
        whole = hashlib.md5(b"".join(bytes.fromhex(p.etag) for p in parts), usedforsecurity=False).hexdigest()
        return self.client.head_object(Bucket=self.bucket, Key=self.key)["ETag"].strip('"') == f"{whole}-{len(parts)}"


def md5(body: io.RawIOBase | io.BytesIO) -> bytes:
    """MD5 of what is left to read, which is then left to read again."""
    position = body.tell()
    digest = hashlib.file_digest(body, lambda: hashlib.md5(usedforsecurity=False)).digest()
    body.seek(position)
    return digest


def integrity(client: "S3Client", body: io.RawIOBase | io.BytesIO) -> dict[str, Any]:
    """How a body is protected on its way: by Content-MD5 where TLS leaves it out of the signature.

    Over plain HTTP boto3 signs the SHA-256 of every body, which a server must check: an MD5 would have it hashed twice more (measured: 1.5
    times the CPU time of an upload).
    """
    if client.meta.endpoint_url.startswith("https:"):
        return {"ContentMD5": base64.b64encode(md5(body)).decode()}
    return {}


def open_uploads(client: "S3Client", bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Key and id of every unfinished upload below `prefix`, the oldest first; none where the server does not say."""
    try:
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        found = [u for page in pages for u in page.get("Uploads", [])]
    except ClientError as error:
        if code(error) in NOT_OFFERED:
            return
        raise
    for upload in sorted(found, key=lambda u: u["Initiated"]):
        yield upload["Key"], upload["UploadId"]


def abort(client: "S3Client", bucket: str, key: str, upload_id: str) -> None:
    """Give an upload's parts back. One that is gone already is fine."""
    try:
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    except ClientError as error:
        if code(error) != "NoSuchUpload":
            raise
