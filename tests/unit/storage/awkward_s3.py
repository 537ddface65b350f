"""A small S3 server with the faults of servers in the field that the tests cannot install: what they refuse, ignore or forget.

It speaks enough of the protocol over real HTTP for one client. Signatures are not checked.
"""

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import s3_upload
from ehrmind_k8s.storage.s3 import S3Store


@dataclass
class Faults:
    """What this server does not do as AWS does."""

    conditions: str = "enforced"  # or "ignored", "refused"
    lists_uploads: bool = True
    ranges: bool = True
    forgets_to_answer_complete: bool = False
    always: tuple[int, str] | None = None  # one answer to everything: status and S3 error code


@dataclass
class State:
    faults: Faults
    objects: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.state.faults.always:
            status, code = self.state.faults.always
            return self.answer(status, code if code.startswith("<") else f"<Error><Code>{code}</Code></Error>")
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        name = {"PUT": "put", "GET": "get", "HEAD": "get", "POST": "post", "DELETE": "delete"}[self.command]
        return getattr(self, f"_{name}")(url.path, query, body)

    do_PUT = do_GET = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815 - names of the standard library

    def _put(self, key: str, query: dict[str, list[str]], body: bytes) -> None:
        etag = hashlib.md5(body).hexdigest()
        if "partNumber" in query:
            self.state.parts[int(query["partNumber"][0])] = body
        elif self.headers.get("If-None-Match") and self.state.faults.conditions == "refused":
            return self.answer(501, "<Error><Code>NotImplemented</Code></Error>")
        elif self.headers.get("If-None-Match") and self.state.faults.conditions == "enforced" and key in self.state.objects:
            return self.answer(412, "<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self.state.objects[key], self.state.etags[key] = body, etag
        return self.answer(200, "", ETag=f'"{etag}"')

    def _get(self, key: str, query: dict[str, list[str]], body: bytes) -> None:
        if "uploads" in query:
            if not self.state.faults.lists_uploads:
                return self.answer(403, "<Error><Code>AccessDenied</Code></Error>")
            return self.answer(200, "<ListMultipartUploadsResult/>")
        if key == "/bucket":
            return self.answer(200, "")
        if key not in self.state.objects:
            return self.answer(404, "<Error><Code>NoSuchKey</Code></Error>")
        content, etag = self.state.objects[key], f'"{self.state.etags[key]}"'
        if self.headers.get("Range") and self.state.faults.ranges:
            first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
            span = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
            return self.answer(206, content[first : last + 1], ETag=etag, Content_Range=span)
        return self.answer(200, content, ETag=etag)

    def _post(self, key: str, query: dict[str, list[str]], body: bytes) -> None:
        if "uploads" in query:
            return self.answer(200, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        if not self.state.parts:
            return self.answer(404, "<Error><Code>NoSuchUpload</Code></Error>")
        parts = [self.state.parts[n] for n in sorted(self.state.parts)]
        self.state.objects[key] = b"".join(parts)
        digests = b"".join(hashlib.md5(p).digest() for p in parts)
        self.state.etags[key] = f"{hashlib.md5(digests).hexdigest()}-{len(parts)}"
        self.state.parts.clear()
        if self.state.faults.forgets_to_answer_complete:
            return self.answer(500, "<Error><Code>InternalError</Code></Error>")
        return self.answer(200, "<CompleteMultipartUploadResult/>")

    def _delete(self, key: str, query: dict[str, list[str]], body: bytes) -> None:
        self.state.objects.pop(key, None)
        self.answer(204, "")

    def answer(self, status: int, body: str | bytes, **headers: str) -> None:
        content = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class AwkwardServer:
    """One server process-wide (a boto3 client takes its time to make); each test gets a store with faults of its own and no objects."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def store(self, faults: Faults, part_bytes: int = s3_upload.PART_BYTES) -> S3Store:
        Handler.state = State(faults)
        endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return S3Store(
            "s3://bucket/run", Settings(s3_endpoint_url=endpoint, s3_access_key_id="a", s3_secret_access_key=SecretStr("a-secret")), part_bytes
        )

    def close(self, store: S3Store) -> None:
        store.client.close()
        self._server.shutdown()
        self._server.server_close()
