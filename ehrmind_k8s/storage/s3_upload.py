"""A large file to S3 in parts, going on where an earlier, interrupted upload of the same key stopped.

The server's own list is the journal: an upload that is open for exactly this key, and in it every part whose size and MD5 equal ours.
So a new process, on another machine, resumes as well. Nothing below needs more memory than `WORKERS` parts.
"""

import base64
import hashlib
import io
import math
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import ClientError

from ehrmind_k8s.storage.parallel import gather
from ehrmind_k8s.storage.s3_client import code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_BYTES = 32 << 20
MAX_PARTS = 10_000
NOT_OFFERED = ("AccessDenied", "403", "NotImplemented", "501", "MethodNotAllowed")
"""Answers to listing open uploads where the server, or the rights we were given, do not include it: then nothing is resumed."""


class Part(NamedTuple):
    """One part as the server knows it. `etag` is the MD5 of its bytes in hex, without quotes."""

    number: int
    size_bytes: int
    etag: str


class Upload:
    """One file on its way to one key."""

    def __init__(self, client: "S3Client", pool: Executor, bucket: str, key: str, path: Path, part_bytes: int) -> None:
        self.client, self.pool, self.bucket, self.key, self.path = client, pool, bucket, key, path
        self.size = path.stat().st_size
        self.part_bytes = max(part_bytes, math.ceil(self.size / MAX_PARTS))
        self.sent = 0  # parts that had to travel

    def run(self) -> None:
        """Send what the server lacks, then let the object appear. Other unfinished uploads of the key are given up."""
        unfinished = [u for u in open_uploads(self.client, self.bucket, self.key) if u[0] == self.key]
        resumed = unfinished[-1][1] if unfinished else None
        self.id = resumed or self.client.create_multipart_upload(Bucket=self.bucket, Key=self.key)["UploadId"]
        self.there = self._parts() if resumed else {}
        numbers = range(1, math.ceil(self.size / self.part_bytes) + 1)
        self._complete(gather(self.pool, self._send, numbers))
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
        with self.path.open("rb") as file:
            file.seek((number - 1) * self.part_bytes)
            data = file.read(self.part_bytes)
        md5 = hashlib.md5(data, usedforsecurity=False)
        part = Part(number, len(data), md5.hexdigest())
        if self.there.get(number) != part:
            # A file object, not bytes: the socket's timeout then counts per block and not for the whole part, which a slow line needs.
            self.client.upload_part(
                Bucket=self.bucket,
                Key=self.key,
                UploadId=self.id,
                PartNumber=number,
                Body=io.BytesIO(data),
                ContentMD5=base64.b64encode(md5.digest()).decode(),
            )
            self.sent += 1
        return part

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
