"""Submit, status, logs, cancel, suspend, resume and delete of runs in one namespace of a cluster."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ehrmind_k8s import crd, kubeapi, plan, storage
from ehrmind_k8s.artifacts import SPEC, RunDocument
from ehrmind_k8s.backends import follow
from ehrmind_k8s.backends.base import ENDS, LogLine, RunStatus
from ehrmind_k8s.backends.kubernetes import access, logs, submission, view
from ehrmind_k8s.backends.kubernetes.access import CONFIG_MAP, EVENT, RUN
from ehrmind_k8s.backends.kubernetes.owner import Owner
from ehrmind_k8s.errors import Busy, Cancelled, SpecError
from ehrmind_k8s.spec import RunSpec

POLL_S = 1.0
STOP_WAIT_S = 180  # longer than a trainer's grace: it saves a checkpoint when it is told to stop


def say(text: str) -> None:
    """One line for the person, beside what a command prints."""
    print(text, file=sys.stderr, flush=True)


class KubernetesBackend:
    """Runs of one namespace. `run` is a run's name."""

    def __init__(self, namespace: str | None = None, context: str | None = None, kubeconfig: str | None = None) -> None:
        self.client = access.connect(kubeconfig, context)
        self.namespace = namespace or self.client.namespace

    def submit(self, spec: RunSpec, written: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> RunStatus:
        """Create the run, continue one that failed or was cancelled, or find it as it is. Raises SpecError where another recipe has the name.

        `metadata`: labels and annotations of a new object.
        """
        submission.refuse_paths(written)
        obj = crd.to_object(written, self.namespace)
        obj["metadata"] |= metadata or {}
        crd.run(obj)  # the name, which the server would refuse with less
        plan.build(spec, storage.join(spec.store or "s3://store", spec.name))
        with access.explained(self.client, self.namespace):
            try:
                self.client.create(RUN, obj, dry_run=True)
                made = self.client.create(RUN, obj)
            except kubeapi.AlreadyExists:
                return self._again(spec, written)
        say(f"run {spec.name} is created in namespace {self.namespace}")
        return view.status(made)

    def follow(self, run: str, owner: Owner | None = None) -> RunStatus:
        """Say what happens until the run ends, and give the `owner`'s signs of life. Returns how it ended; raises the error that stopped it."""
        seen: set[str] | None = None  # those of before are no news

        def warn(status: RunStatus) -> Iterator[str]:
            nonlocal seen
            found = self.warnings(status.uid)
            new = [line for key, line in found if seen is not None and key not in seen]
            seen = (seen or set()) | {key for key, _ in found}
            yield from new

        return follow.follow(lambda: self._followed(run, owner), warn, say)

    def status(self, run: str) -> RunStatus:
        """Where a run is."""
        return view.status(self.get(run))

    def runs(self, everywhere: bool = False) -> list[RunStatus]:
        """All runs of the namespace, or of all namespaces."""
        with access.explained(self.client, self.namespace):
            return [view.status(obj) for obj in self.client.objects(RUN, None if everywhere else self.namespace)]

    def logs(self, run: str, source: str | None, follow: bool) -> Iterator[LogLine]:
        """Lines of the pods of the newest stage, or of `source`. With `follow`, on to the next attempts and stages until the run ends."""
        with access.explained(self.client, self.namespace, run):
            return logs.read(self.client, self.get(run), source, follow)

    def cancel(self, run: str) -> RunStatus:
        """Ask for the end of a run and wait until its pods are gone. Raises Busy where that takes longer than a stage's grace."""
        before = self.status(run)
        if before.state in ENDS:
            return before
        self.ask_cancel(run)
        return self._until(run, lambda status: status.state in ENDS, "has been asked to end")

    def ask_cancel(self, run: str) -> None:
        """Ask for the end of a run, and do not wait for it."""
        self._patch(run, {"cancel": True})

    def suspend(self, run: str) -> RunStatus:
        """Stop the pods of a run, which frees what they hold, and wait until they are gone. Raises Busy where that takes long."""
        before = self.status(run)
        if before.state in ENDS:
            raise SpecError(f"run {run} has ended ({before.state}); there is nothing to suspend")
        self._patch(run, {"suspend": True})
        return self._until(run, lambda status: status.state in ("suspended", *ENDS), "has been asked to stop its pods")

    def resume(self, run: str) -> RunStatus:
        """Let a suspended run go on; returns at once."""
        obj = self.get(run)
        before = view.status(obj)
        if before.state in ENDS:
            again = "submit it again to continue it" if before.state != "succeeded" else f"ehrmind report {run} shows its result"
            raise SpecError(f"run {run} has ended ({before.state}); {again}")
        return view.status(self._patch(run, {"suspend": False})) if obj["spec"].get("suspend") else before

    def delete(self, run: str) -> int:
        """Delete the object, and with it pods and services; what the run stored stays. Raises Busy while it goes on."""
        obj = self.get(run)
        status = view.status(obj)
        if status.state not in (*ENDS, "suspended") and obj.get("status"):
            raise Busy(f"run {run} goes on ({status.state}); end it first: ehrmind cancel {run} -n {self.namespace}")
        with access.explained(self.client, self.namespace, run):
            self.client.delete(RUN, self.namespace, run, obj["metadata"]["uid"])
        return 1

    def gone(self, run: str, uid: str) -> bool:
        """Whether neither the object nor a pod of the run is there any more."""
        try:
            if self.client.get(RUN, self.namespace, run)["metadata"]["uid"] == uid:
                return False
        except kubeapi.NotFound:
            pass
        return not self.client.objects(access.POD, self.namespace, labels=f"{crd.LABEL_RUN_UID}={uid}")

    def get(self, run: str) -> kubeapi.Object:
        """The object of a run. Raises SpecError naming the nearest one where there is none."""
        with access.explained(self.client, self.namespace, run):
            return self.client.get(RUN, self.namespace, run)

    def warnings(self, uid: str) -> list[tuple[str, str]]:
        """(key, line) of the warnings about the object of this uid. None where this user may not read events."""
        try:
            found = self.client.objects(EVENT, self.namespace, fields=f"involvedObject.uid={uid},type=Warning")
        except (kubeapi.Refused, kubeapi.Unavailable):
            return []
        return [(e["metadata"]["uid"], f"warning: {e.get('reason')}: {e.get('message')}") for e in found]

    def _followed(self, run: str, owner: Owner | None) -> RunStatus:
        try:
            if owner:
                owner.renew()
            return view.status(self.client.get(RUN, self.namespace, run))
        except kubeapi.NotFound:
            raise Cancelled(f"run {run} was deleted while it was followed; what it stored stays") from None

    def _again(self, spec: RunSpec, written: Mapping[str, Any]) -> RunStatus:
        """A submit of a run that exists."""
        obj = self.get(spec.name)
        if "deletionTimestamp" in obj["metadata"]:
            raise Busy(f"run {spec.name} is being deleted; the same command creates it anew once it is gone")
        change = submission.change(obj, self._recipe(obj), spec, written)
        for line in change.lines or (f"run {spec.name} is there already, with the same recipe",):
            say(line)
        return view.status(self._patch(spec.name, change.spec) if change.spec else obj)

    def _recipe(self, obj: kubeapi.Object) -> RunSpec:
        """What a run computes: as it was accepted, or where this user may not read that, as this version resolves its document."""
        name = f"{obj['metadata']['name']}-spec"
        try:
            frozen = self.client.get(CONFIG_MAP, self.namespace, name)
        except (kubeapi.NotFound, kubeapi.Refused):
            return crd.run(obj).spec
        return RunDocument.parse(frozen["data"][SPEC].encode(), f"ConfigMap {name}").spec

    def _patch(self, run: str, spec: Mapping[str, Any]) -> kubeapi.Object:
        with access.explained(self.client, self.namespace, run):
            return self.client.patch(RUN, self.namespace, run, {"spec": spec})

    def _until(self, run: str, done: Callable[[RunStatus], bool], asked: str) -> RunStatus:
        """The status once `done` holds and no pod of the run works any more: the state changes first, then pods save for up to their grace."""
        patience = time.monotonic() + STOP_WAIT_S
        while not done(status := self.status(run)) or self._working(status.uid):
            if time.monotonic() > patience:
                raise Busy(
                    f"run {run} {asked} and has not within {STOP_WAIT_S} s ({status.message or status.state}); `ehrmind doctor` checks the operator"
                )
            time.sleep(POLL_S)
        return status

    def _working(self, uid: str) -> bool:
        """Whether pods of a run still run. Nobody knows where this user may not list pods."""
        try:
            pods = self.client.objects(access.POD, self.namespace, labels=f"{crd.LABEL_RUN_UID}={uid}")
        except kubeapi.Refused:
            return False
        return any((p.get("status") or {}).get("phase") not in ("Succeeded", "Failed") for p in pods)
