"""The S3 server of the cluster: versitygw inside the space, at one address for pods and for tests."""

import contextlib
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import s3_client
from tests.cluster.harness.space import Space
from tests.tools import build

PORT, START_S = 7070, 30


@dataclass(frozen=True)
class S3Access:
    """How tests and pods reach the store."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str

    @classmethod
    def parse(cls, text: str) -> "S3Access | None":
        """From `http://ACCESS:SECRET@HOST:PORT/BUCKET`; None from nothing."""
        url = urlsplit(text)
        if not text:
            return None
        return cls(f"{url.scheme}://{url.hostname}:{url.port}", unquote(url.username or ""), unquote(url.password or ""), url.path.strip("/"))

    @property
    def url(self) -> str:
        """What `parse` reads: `S3_TEST` of a session that is to use this cluster."""
        scheme, _, rest = self.endpoint.partition("://")
        return f"{scheme}://{quote(self.access_key)}:{quote(self.secret_key)}@{rest}/{self.bucket}"

    @property
    def settings(self) -> Settings:
        return Settings(
            s3_endpoint_url=self.endpoint, s3_access_key_id=self.access_key, s3_secret_access_key=SecretStr(self.secret_key), s3_addressing="path"
        )

    @property
    def secret(self) -> dict[str, str]:
        """Entries of the Secret that a profile expects by default (`Profile.s3`)."""
        return {"access-key-id": self.access_key, "secret-access-key": self.secret_key}

    @property
    def environment(self) -> dict[str, str]:
        return {
            "EHRMIND_S3_ENDPOINT_URL": self.endpoint,
            "EHRMIND_S3_ACCESS_KEY_ID": self.access_key,
            "EHRMIND_S3_SECRET_ACCESS_KEY": self.secret_key,
            "EHRMIND_STORE": f"s3://{self.bucket}/runs",
        }


@dataclass
class S3Server:
    """What it holds is in `folder`, so a server that was stopped comes back with what it had."""

    space: Space

    @property
    def folder(self) -> Path:
        return self.space.folder / "s3"

    @property
    def access(self) -> S3Access:
        return S3Access(f"http://{self.space.address}:{PORT}", "test-access", "test-secret-of-this-server", "bucket")

    def start(self) -> None:
        for name in ("objects", "meta"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        keys = ["--access", self.access.access_key, "--secret", self.access.secret_key]
        # A sidecar folder for metadata: not every file system of a test machine has extended attributes.
        backend = ["posix", "--sidecar", self.folder / "meta", self.folder / "objects"]
        self.space.spawn("s3", build.path("versitygw"), "--quiet", "--port", f"{self.space.address}:{PORT}", *keys, *backend)

    def wait(self) -> None:
        """Wait until it answers; its bucket is there afterwards."""
        deadline = time.monotonic() + START_S
        while not self._answers():
            if not self.space.alive("s3") or time.monotonic() > deadline:
                raise RuntimeError(f"versitygw did not start:\n{self.space.log('s3')}")
            time.sleep(0.02)
        client = s3_client.connect(self.access.settings)
        if self.access.bucket not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=self.access.bucket)
        client.close()

    def stop(self) -> None:
        self.space.kill("s3")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.space.address, PORT), timeout=1):
            return True
        return False
