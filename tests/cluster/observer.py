"""Who watches one run on a cluster and remembers when everything was seen: each status of its object, and each event its trainers log.

Both are read the way a user reads them (`kubectl get --watch`, `ehrmind logs --follow`), in threads beside the test.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ehrmind_k8s.storage.s3 import S3Store
from tests.cluster.harness.client import CommandFailed, Object
from tests.cluster.harness.own import OwnCluster
from tests.cluster.harness.s3 import S3Access

WATCH_S = 120  # of one watch; what it shows first is where the run is, so the next misses nothing that lasts

T = TypeVar("T")
Event = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A status, and when it was seen (Unix seconds)."""

    time: float
    status: Object

    @property
    def message(self) -> str:
        return str(self.status.get("message", ""))

    def stage(self, name: str) -> Object:
        """A stage as this status has it; {} before it is there."""
        return next((s for s in self.status.get("stages", ()) if s["name"] == name), {})


class Observer:
    """One run. `start` begins to watch its object, `read_logs` its trainers; `close` ends both."""

    def __init__(self, cluster: OwnCluster, s3: S3Access, namespace: str, name: str) -> None:
        self.cluster, self.s3, self.namespace, self.name = cluster, s3, namespace, name
        self.seen: list[Seen] = []
        self.events: list[Event] = []
        self._over = threading.Event()
        self._logs: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Observer":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._logs:
            self._logs.kill()
            self._reader.join()
            self._logs.wait()

    def ehrmind(self, *arguments: str, timeout_s: float = 900) -> subprocess.CompletedProcess[str]:
        """The command line as a user of the cluster types it."""
        return subprocess.run(self.command(*arguments), env=self.environment(), capture_output=True, text=True, timeout=timeout_s, check=False)

    def read_logs(self, stage: str) -> None:
        """From now on collect the events of a stage, through all of its attempts."""
        command = self.command("logs", self.name, "--of", stage, "--follow", "-o", "json")
        self._logs = subprocess.Popen(command, env=self.environment(), stdout=subprocess.PIPE, text=True)
        self._reader.start()

    @property
    def last(self) -> Seen:
        """The newest status."""
        return self.seen[-1] if self.seen else Seen(0.0, {})

    def store(self, stage: str) -> S3Store:
        """What a stage has written."""
        return S3Store(f"s3://{self.s3.bucket}/{self.namespace}/{self.name}/{stage}", self.s3.settings)

    def pods(self, role: str = "") -> list[Object]:
        """The run's pods of a role, or all, oldest first."""
        selector = f"app.kubernetes.io/instance={self.name}" + (f",ehrmind.dev/role={role}" if role else "")
        found = self.cluster.items("pods", namespace=self.namespace, selector=selector)
        return sorted(found, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]))

    def until(self, what: str, true: Callable[[], T | None], timeout_s: float = 600) -> T:
        """What `true` gives once it gives something. Raises AssertionError after `timeout_s`, or as soon as the run has ended."""
        end = time.monotonic() + timeout_s
        while not (found := true()):
            ended = self.last.status.get("state") in ("succeeded", "failed", "cancelled")
            if ended and (found := true()):
                break
            assert not ended, f"the run ended before {what}: {self.last.message}"
            assert time.monotonic() < end, f"no {what} in {timeout_s:.0f} s; {self.last.message}\n{self.cluster.story(self.namespace)}"
            time.sleep(0.05)
        return found

    def says(self, pattern: str, since: float, timeout_s: float = 300) -> Seen:
        """The first status after `since` whose line matches."""
        return self.until(
            f"line {pattern!r}", lambda: next((s for s in [*self.seen] if s.time >= since and re.search(pattern, s.message)), None), timeout_s
        )

    def logs(self, event: str, since: float, timeout_s: float = 600, *, true: Callable[[Event], object] = lambda _: True) -> Event:
        """The first event of this name that a trainer logged after `since`, and of which `true` holds."""
        found = lambda: next((e for e in [*self.events] if e["event"] == event and e["time"] >= since and true(e)), None)  # noqa: E731
        return self.until(f"event {event}", found, timeout_s)

    def _watch(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(CommandFailed):
                for obj in self.cluster.watch("ehrmindrun", self.name, namespace=self.namespace, timeout_s=WATCH_S):
                    self.seen.append(Seen(time.time(), obj.get("status") or {}))
                    if self._over.is_set():
                        return
            self._over.wait(0.5)

    def _read(self) -> None:
        assert self._logs and self._logs.stdout
        with self._logs.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    self.events.append(json.loads(line))

    def command(self, *arguments: str) -> list[str]:
        """The command line of this run's namespace."""
        return [sys.executable, "-m", "ehrmind_k8s", *arguments, "--namespace", self.namespace]

    def environment(self) -> dict[str, str]:
        """What a user of the cluster has in the environment."""
        keys = {name: value for name, value in self.s3.environment.items() if name != "EHRMIND_STORE"}  # the profile's store has the namespace in it
        return os.environ | {"KUBECONFIG": str(self.cluster.kubeconfig), "EHRMIND_BACKEND": "kubernetes", **keys}
