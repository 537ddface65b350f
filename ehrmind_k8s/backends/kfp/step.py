"""What a node of a pipeline does: begin or find the run of its stage, stay with it to its end, tell the operator that somebody is there.

Nothing is lost when the node dies, at whatever moment: the run goes on, and a step that starts again finds it by its name. If none starts
again, the operator ends the run after `crd.FOLLOWED_S`, since its Lease stands still. Terminate in the UI leaves a node less than a second:
enough, mostly, for the one call that cancels the run at once.
"""

import contextlib
import signal
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from ehrmind_k8s import crd, spec
from ehrmind_k8s.backends import follow
from ehrmind_k8s.backends.base import ENDS, RunStatus
from ehrmind_k8s.backends.kfp import stage
from ehrmind_k8s.backends.kubernetes.backend import KubernetesBackend, say
from ehrmind_k8s.backends.kubernetes.owner import Owner
from ehrmind_k8s.errors import Cancelled, EhrmindError, SpecError

LABEL_VALUE_LIMIT = 63


class Stopped(BaseException):
    """SIGTERM or SIGINT. Not an Exception: nothing on the way must take it for an answer that did not come."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def run(name: str, parameters: stage.Parameters, backend: KubernetesBackend) -> RunStatus:
    """Carry stage `name` of a pipeline's run to its end. Returns how it succeeded; raises the error that stopped it, and Stopped after a signal."""
    document = stage.of(name, parameters)
    resolved = spec.load(document)
    metadata = {"annotations": {crd.ANNOTATION_FOLLOWED: "true"}, "labels": _labels(str(parameters.get("run_id") or ""))}
    owner = Owner(backend.client, backend.namespace, document["name"], f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}")
    with _signals():
        try:
            return _followed(lambda: backend.submit(resolved, document, metadata), document["name"], backend, owner)
        except Stopped:
            _cancel(backend, owner)
            raise


def _followed(submit: Callable[[], RunStatus], name: str, backend: KubernetesBackend, owner: Owner) -> RunStatus:
    """Begin or find the run and stay with it. One that is just being cancelled, by a step before this one, is first let come to its end.

    Every call may be done again, so an API server that is away is waited for from the first one on: nobody else would keep the run alive.
    """

    def begun() -> bool:
        status = submit()
        owner.take(status.uid)
        return bool(status.state not in ENDS and backend.get(name)["spec"].get("cancel"))

    while True:
        leaving = follow.patiently(begun, say)
        try:
            return backend.follow(name, owner)
        except Cancelled:
            if not leaving:
                raise


def _cancel(backend: KubernetesBackend, owner: Owner) -> None:
    """End the run, if it is still this step that follows it. There may be time for no more than these two calls; else its Lease ends it."""
    if not owner.taken:
        return
    say(f"cancelling run {owner.run}")
    with contextlib.suppress(EhrmindError):
        owner.renew(at_once=True)
        backend.ask_cancel(owner.run)


def _labels(run_id: str) -> dict[str, str]:
    if not run_id:
        return {}
    if len(run_id) > LABEL_VALUE_LIMIT or not all(c.isalnum() or c in "-_." for c in run_id):
        raise SpecError(f"run_id: {run_id[:80]!r} is no id of a pipeline's run; pass the placeholder of the job's id as the whole value")
    return {crd.LABEL_PIPELINE_RUN: run_id}


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGINT raise Stopped."""

    def raise_stopped(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    before: Mapping[int, Any] = {number: signal.signal(number, raise_stopped) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
