"""Upload and download of one large file, ours against boto3's defaults, in one run:

    python -m benchmarks.store [--mib 256] [--rounds 5] [--store s3://BUCKET/PREFIX]

Without `--store` the S3 server of the tests (versitygw) is started on this machine. With it, EHRMIND_S3_* say where it is.
Rounds interleave, so that a noisy machine is noisy for both; the medians and their ratio are printed.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from ehrmind_k8s import settings
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage.s3 import S3Store
from tests.integration import s3_server

Transfer = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="size of the file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store", help="s3:// address to use instead of a server of its own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ehrmind-benchmark-") as folder, _server(Path(folder), arguments.store) as (uri, access):
        source = Path(folder) / "source"
        with source.open("wb") as file:
            for _ in range(arguments.mib):
                file.write(os.urandom(1 << 20))
        seconds = _measure(_transfers(uri, access, source, Path(folder) / "target"), arguments.rounds)
    for way in ("upload", "download"):
        ours, theirs = (statistics.median(seconds[way, who]) for who in ("ours", "boto3"))
        each = "  ".join(f"{b / o:.2f}" for o, b in zip(seconds[way, "ours"], seconds[way, "boto3"], strict=True))
        print(
            f"{way:9}ours {arguments.mib / ours:6.0f} MiB/s   boto3 {arguments.mib / theirs:6.0f} MiB/s   ratio {theirs / ours:.2f}   rounds {each}"
        )


def _transfers(uri: str, access: Settings, source: Path, target: Path) -> dict[tuple[str, str], Transfer]:
    store = S3Store(uri, access)
    secret = access.s3_secret_access_key
    client = boto3.client(
        "s3",
        endpoint_url=access.s3_endpoint_url,
        aws_access_key_id=access.s3_access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        region_name=access.s3_region,
    )
    bucket, key = store.bucket, f"{store.prefix}/boto3"
    return {
        ("upload", "ours"): lambda: store.put_file("ours", source),
        ("upload", "boto3"): lambda: client.upload_file(str(source), bucket, key),
        ("download", "ours"): lambda: store.get_file("ours", target),
        ("download", "boto3"): lambda: client.download_file(bucket, key, str(target)),
    }


def _measure(transfers: dict[tuple[str, str], Transfer], rounds: int) -> dict[tuple[str, str], list[float]]:
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in transfers}
    for number in range(rounds + 1):  # the first fills caches and opens connections
        for name, transfer in sorted(transfers.items(), reverse=number % 2 == 1, key=lambda item: item[0][1]):
            started = time.perf_counter()
            transfer()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


@contextmanager
def _server(folder: Path, uri: str | None) -> Iterator[tuple[str, Settings]]:
    if uri:
        yield uri, settings.load()
        return
    server = s3_server.S3Server(folder / "s3")
    server.start()
    try:
        server.create_bucket()
        yield f"s3://{s3_server.BUCKET}/benchmark", server.settings
    finally:
        server.kill()


if __name__ == "__main__":
    main()
