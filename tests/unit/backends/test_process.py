"""Reading a child's output, and telling one process from another."""

import asyncio
import os

from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.backends.local import process


def read(chunks: list[bytes], longest: int = 1 << 20) -> list[bytes]:
    """The lines of a stream that arrives in these chunks."""

    async def feed(stream: asyncio.StreamReader) -> None:
        for chunk in chunks:
            stream.feed_data(chunk)
            await asyncio.sleep(0)  # let the reader take it before the next one comes
        stream.feed_eof()

    async def collect() -> list[bytes]:
        stream = asyncio.StreamReader()
        feeding = asyncio.create_task(feed(stream))
        found = [line async for line in process.lines(stream, longest)]
        await feeding
        return found

    return asyncio.run(collect())


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.integers(1, 7))
def test_lines_do_not_depend_on_how_the_output_is_cut(lines: list[bytes], size: int) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    assert read([whole[i : i + size] for i in range(0, len(whole), size)]) == lines


def test_a_last_line_without_its_end_is_read() -> None:
    assert read([b"one\ntw", b"o"]) == [b"one", b"two"]


def test_an_endless_line_is_skipped_and_the_next_one_is_read() -> None:
    assert read([b"x" * 50, b"its end\nnext\n"], longest=30) == [b"next"]


def test_a_process_is_told_from_another_by_its_start() -> None:
    started = process.started_at(os.getpid())
    assert started is not None
    assert process.is_same(os.getpid(), started)
    assert not process.is_same(os.getpid(), started - 60)
