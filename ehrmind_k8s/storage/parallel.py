"""Several transfers at once, the first failure ending them all."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def gather(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of every item, in order. After a failure (or a signal) nothing new starts, and what has started is waited for."""
    futures = [pool.submit(function, item) for item in items]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
    failed = (error for f in futures if not f.cancelled() and (error := f.exception()))
    for error in failed:
        raise error
    return [f.result() for f in futures]
