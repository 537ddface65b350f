"""One large file and many small ones, ours against boto3's defaults (upload_file, download_file), in one run:

    python -m benchmarks.store [--mib 256] [--files 300] [--rounds 5] [--store s3://BUCKET/PREFIX]

Without `--store` the S3 server of the tests (versitygw) is started on this machine, in memory where /dev/shm is; it shares the cores
with the clients, and its hashing bounds uploads. With it, EHRMIND_S3_* say where the server is. Rounds interleave, so that a noisy machine
is noisy for both. A ratio above 1 means that ours is faster, or takes less CPU time of the client.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3

from ehrmind_k8s import artifacts, settings
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage.parallel import gather
from ehrmind_k8s.storage.s3 import S3Store
from tests.integration import s3_server

MEMORY = Path("/dev/shm")
SMALL_BYTES = 32 << 10

Name = tuple[str, str]  # what is measured, and whose
Spent = tuple[float, float]  # wall and CPU seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="size of the large file")
    parser.add_argument("--files", type=int, default=300, help=f"number of small files, {SMALL_BYTES >> 10} KiB each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store", help="s3:// address to use instead of a server of its own")
    arguments = parser.parse_args()
    scratch = tempfile.TemporaryDirectory(prefix="ehrmind-benchmark-", dir=MEMORY if MEMORY.is_dir() else None)
    with scratch as folder, _server(Path(folder), arguments.store) as (uri, access):
        sources = [Path(folder) / "small" / f"{n:04d}" for n in range(arguments.files)]
        sources[0].parent.mkdir()
        for path in sources:
            path.write_bytes(os.urandom(SMALL_BYTES))
        large = Path(folder) / "large"
        with large.open("wb") as file:
            for _ in range(arguments.mib):
                file.write(os.urandom(1 << 20))
        _report(_measure(_transfers(uri, access, large, sources), arguments.rounds))


def _transfers(uri: str, access: Settings, large: Path, sources: list[Path]) -> dict[Name, Callable[[], object]]:
    """What to time, in an order in which each download finds its upload. Small files travel as many at once on either side."""
    store = S3Store(uri, access)
    secret = access.s3_secret_access_key
    client = boto3.client(
        "s3",
        endpoint_url=access.s3_endpoint_url,
        aws_access_key_id=access.s3_access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        region_name=access.s3_region,
    )
    bucket, theirs, target = store.bucket, f"{store.prefix}/boto3", large.with_name("target")
    pool = ThreadPoolExecutor(artifacts.TRANSFERS)
    return {
        ("large up", "ours"): lambda: store.put_file("ours/large", large),
        ("large up", "boto3"): lambda: client.upload_file(str(large), bucket, f"{theirs}/large"),
        ("large down", "ours"): lambda: store.get_file("ours/large", target),
        ("large down", "boto3"): lambda: client.download_file(bucket, f"{theirs}/large", str(target)),
        ("small up", "ours"): lambda: gather(pool, lambda p: store.put_file(f"ours/{p.name}", p), sources),
        ("small up", "boto3"): lambda: gather(pool, lambda p: client.upload_file(str(p), bucket, f"{theirs}/{p.name}"), sources),
        ("small down", "ours"): lambda: gather(pool, lambda p: store.get_file(f"ours/{p.name}", p), sources),
        ("small down", "boto3"): lambda: gather(pool, lambda p: client.download_file(bucket, f"{theirs}/{p.name}", str(p)), sources),
    }


def _measure(transfers: dict[Name, Callable[[], object]], rounds: int) -> dict[Name, list[Spent]]:
    spent: dict[Name, list[Spent]] = {name: [] for name in transfers}
    for number in range(rounds + 1):  # the first fills caches and opens connections
        for what in dict.fromkeys(what for what, _ in transfers):
            for who in ("ours", "boto3") if number % 2 else ("boto3", "ours"):
                wall, cpu = time.perf_counter(), time.process_time()
                transfers[what, who]()
                if number:
                    spent[what, who].append((time.perf_counter() - wall, time.process_time() - cpu))
    return spent


def _report(spent: dict[Name, list[Spent]]) -> None:
    print(f"{'':12}{'ours s':>8}{'boto3 s':>9}{'ratio':>7}{'CPU ratio':>11}   ratio of each round")
    for what in dict.fromkeys(what for what, _ in spent):
        (ours, our_cpu), (theirs, their_cpu) = ([statistics.median(s) for s in zip(*spent[what, who], strict=True)] for who in ("ours", "boto3"))
        each = "  ".join(f"{b / o:.2f}" for (o, _), (b, _) in zip(spent[what, "ours"], spent[what, "boto3"], strict=True))
        print(f"{what:12}{ours:8.2f}{theirs:9.2f}{theirs / ours:7.2f}{their_cpu / our_cpu:11.2f}   {each}")


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
