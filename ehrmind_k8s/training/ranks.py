"""What several training processes (torchrun) must agree on. With one process every function here is the plain call.

RANK and WORLD_SIZE come from the launcher's environment. Every rank runs the whole stage; rank 0 alone writes to the store.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

from ehrmind_k8s.errors import EhrmindError, PeerLost

T = TypeVar("T")

# How long a rank waits for the others: the first one may wait for rollout servers (rollout.wait_s) or upload a whole model meanwhile. With gloo
# a process that is gone shows at once, since its connections close; with NCCL it is the place that runs the job which must end the others.
PATIENCE = timedelta(hours=2)
LOST = "gloo/transport"  # in what gloo raises (a bare RuntimeError) when a connection breaks or nobody answers; NCCL has a class for it


def rank() -> int:
    """This process, from 0."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """Number of training processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Meet the other ranks, as Trainer will expect it. With one process nothing is set up."""
    if size() > 1:
        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


@contextmanager
def peers() -> Iterator[None]:
    """What the library of the collectives says when another rank is gone becomes PeerLost: what ended that one decides, not this."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and LOST not in str(error):
            raise
        raise PeerLost(f"rank {rank()} of {size()} lost another training process ({type(error).__name__}); the log of that one says why") from None


def on_first(action: Callable[[], T]) -> T:
    """Run `action` on rank 0 and give its result to all. Its failure raises everywhere, so that no rank waits for one that is gone."""
    if size() == 1:
        return action()
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = action()
        except EhrmindError as error:
            box[1] = error
        except Exception as error:  # told to the others first, then raised here with its traceback
            box[1] = EhrmindError(f"rank 0 stopped with {type(error).__name__}")
            dist.broadcast_object_list(box, src=0)
            raise
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


def gather(value: T) -> list[T]:
    """The value of every rank in order, on every rank. A barrier too: nobody returns before all have called."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values
