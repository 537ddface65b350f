"""Logs of a run's pods: all pods of one attempt of a stage merged by time, or followed through reconnects, restarts, attempts and stages.

The kubelet stamps every line, so a stream that broke off is taken up again after the last line that was read, none twice and none missing.
"""

import contextlib
import heapq
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ehrmind_k8s import crd, kubeapi
from ehrmind_k8s.backends.base import ENDS, LogLine
from ehrmind_k8s.backends.kubernetes import view
from ehrmind_k8s.backends.kubernetes.access import POD, RUN
from ehrmind_k8s.backends.kubernetes.sources import Source, parse
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.kubeapi import Client

Pod = Mapping[str, Any]
Stamped = tuple[str, LogLine]

POLL_S = 2.0
SILENCE_S = 300.0  # of a followed stream before it is opened anew: a connection may die without a word
LAST_WORDS_S = 15.0  # what may still come after a run's end, from a pod that does not answer


def read(client: Client, obj: kubeapi.Object, source: str | None, follow: bool) -> Iterator[LogLine]:
    """Lines of the newest pods of `source`. Raises SpecError where there are none, naming what there is."""
    wanted = parse(source, obj["metadata"]["name"])
    pods = _pods(client, obj)
    newest = wanted.newest(pods)
    if follow and (newest or view.status(obj).state not in ENDS):
        return _Follower(client, obj, wanted, pods).lines()
    if not newest:
        there = ", ".join(dict.fromkeys(label(pod) for pod in pods)) or "none (--follow waits for them; a log goes with its pod)"
        raise SpecError(f"run {obj['metadata']['name']} has no pod of {source or 'a stage'}; its pods: {there}")
    return _merged(client, newest)


def label(pod: Pod) -> str:
    """What names a pod's log on the command line: `sft-a2`, or the pod's own name for a server."""
    labels = pod["metadata"]["labels"]
    role = labels[crd.LABEL_ROLE]
    return pod["metadata"]["name"] if role == "rollout" else f"{role}-a{labels.get(crd.LABEL_ATTEMPT, '1')}"


def _pods(client: Client, obj: kubeapi.Object) -> list[kubeapi.Object]:
    """The pods of a run, oldest first. Those of an earlier run of the same name are not among them."""
    meta = obj["metadata"]
    found = client.objects(POD, meta["namespace"], labels=f"{crd.LABEL_RUN_UID}={meta['uid']},{crd.LABEL_ROLE}")
    return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _merged(client: Client, pods: Sequence[Pod]) -> Iterator[LogLine]:
    """What pods have written until now, by time."""
    streams = [_written(client, pod, pod["metadata"]["name"] if len(pods) > 1 else "") for pod in pods]
    for _, line in heapq.merge(*streams, key=lambda stamped: stamped[0]):
        yield line


def _written(client: Client, pod: Pod, origin: str) -> Iterator[Stamped]:
    """What a pod has written until now; of a container that was restarted, its last words before that first."""
    if _restarts(pod):
        with contextlib.suppress(kubeapi.ApiError):  # the node keeps one, and not for ever
            yield from _stream(client, pod, origin, {"previous": "true"}, 60.0)
    try:
        yield from _stream(client, pod, origin, {}, 60.0)
    except kubeapi.Invalid:
        yield "", LogLine(f"{pod['metadata']['name']} has not started ({_waiting(pod)})", origin)
    except kubeapi.NotFound:
        return


def _stream(client: Client, pod: Pod, origin: str, query: Mapping[str, str], read_timeout_s: float) -> Iterator[Stamped]:
    """Stamped lines of a pod's first container, the one that does the pod's work."""
    meta = pod["metadata"]
    asked = {"container": pod["spec"]["containers"][0]["name"], "timestamps": "true", **query}
    for raw in client.lines(POD.path(meta["namespace"], meta["name"], "log"), asked, read_timeout_s=read_timeout_s):
        stamp, _, text = raw.decode(errors="replace").partition(" ")
        yield stamp, LogLine(text.rstrip("\r"), origin)


def _restarts(pod: Pod) -> int:
    return sum(c.get("restartCount") or 0 for c in (pod.get("status") or {}).get("containerStatuses") or ())


def _waiting(pod: Pod) -> str:
    """Why a pod has no log yet: the reason code of a waiting container, else the pod's phase."""
    status = pod.get("status") or {}
    states = [c.get("state") or {} for c in status.get("containerStatuses") or ()]
    return next((s["waiting"].get("reason", "") for s in states if "waiting" in s), "") or status.get("phase") or "Pending"


class _Follower:
    """Readers of all pods that matter, one thread each, and one queue of what they read."""

    def __init__(self, client: Client, obj: kubeapi.Object, source: Source, pods: Sequence[Pod]) -> None:
        self.client, self.obj, self.source = client, obj, source
        newest = {pod["metadata"]["uid"] for pod in source.newest(pods)}
        self.passed = {pod["metadata"]["uid"] for pod in pods} - newest  # of earlier attempts and stages
        self.readers: dict[str, threading.Thread] = {}
        self.found: queue.Queue[LogLine | Exception] = queue.Queue()
        self.heard = time.monotonic()

    def lines(self) -> Iterator[LogLine]:
        """Lines as they come, until nothing more can come."""
        while True:
            over = self._look()
            yield from self._heard(POLL_S)
            alive = any(reader.is_alive() for reader in self.readers.values())
            if over and self.found.empty() and (not alive or time.monotonic() - self.heard > LAST_WORDS_S):
                return

    def _look(self) -> bool:
        """Start a reader for each new pod; returns whether no other pod of the source can come."""
        meta = self.obj["metadata"]
        try:
            self.obj = self.client.get(RUN, meta["namespace"], meta["name"])
            pods = self.source.among(_pods(self.client, self.obj))
        except kubeapi.NotFound:
            return True
        except kubeapi.Unavailable:
            return False  # the readers say nothing either; the next look may
        groups = [label(pod) if "rollout" not in label(pod) else "rollout" for pod in pods]
        for pod, group in zip(pods, groups, strict=True):
            uid = pod["metadata"]["uid"]
            if uid not in self.readers and uid not in self.passed:
                origin = pod["metadata"]["name"] if groups.count(group) > 1 else ""
                self.readers[uid] = threading.Thread(target=self._read, args=(pod, origin), daemon=True)
                self.readers[uid].start()
        status = view.status(self.obj)
        return status.state in ENDS or self.source.over(status, bool(self.readers))

    def _heard(self, timeout_s: float) -> Iterator[LogLine]:
        """What readers found within `timeout_s`; raises what stopped one of them."""
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            try:
                line = self.found.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(line, Exception):
                raise line
            self.heard = time.monotonic()
            yield line

    def _read(self, pod: Pod, origin: str) -> None:
        """Read a pod to its end, through whatever interrupts the stream."""
        last, meta = "", pod["metadata"]
        try:
            while True:
                try:
                    query = {"follow": "true"} | ({"sinceTime": last} if last else {})
                    for stamp, line in _stream(self.client, pod, origin, query, SILENCE_S):
                        if stamp > last:
                            last = stamp
                            self.found.put(line)
                except (kubeapi.Invalid, kubeapi.Unavailable):
                    pass  # it has not started, or somebody on the way does not answer: ask the server which
                now = pod
                with contextlib.suppress(kubeapi.Unavailable):
                    now = self.client.get(POD, meta["namespace"], meta["name"])
                if now["metadata"]["uid"] != meta["uid"] or now["status"].get("phase") in ("Succeeded", "Failed"):
                    return
                time.sleep(POLL_S / 2)
        except kubeapi.NotFound:
            return
        except Exception as error:  # whatever it is belongs to the thread that prints
            self.found.put(error)
