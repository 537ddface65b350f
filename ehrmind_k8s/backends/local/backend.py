"""Submit, status, logs and cancel on this machine."""

import importlib.util
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ehrmind_k8s import artifacts, plan, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.backends.base import Attempt, LogLine, RunStatus
from ehrmind_k8s.backends.local import display
from ehrmind_k8s.backends.local.state import State
from ehrmind_k8s.backends.local.supervisor import Supervisor
from ehrmind_k8s.errors import Busy, SpecError
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.spec import RunSpec, difference
from ehrmind_k8s.storage import ObjectStore, disk

POLL_S = 0.3
CANCEL_WAIT_S = 90  # longer than a stage's grace and then a server's


class LocalBackend:
    """Runs documents in the foreground of this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def submit(self, spec: RunSpec, written: Mapping[str, Any] | None = None) -> RunStatus:
        """Run, continue, or (when every stage is complete) return at once. Raises SpecError where another recipe has the name."""
        if spec.suspend or spec.cancel:
            raise SpecError(
                "suspend and cancel act on a run in a cluster; here Ctrl-C or `ehrmind cancel` stops one, and the same submit continues it"
            )
        assert spec.store is not None
        store = storage.open(storage.join(spec.store, spec.name))
        state = State(self.settings.state_dir, store.uri)
        shown = display.choose()
        try:
            with disk.errors(state.folder), state.lock():
                for pid in state.kill_leftovers():
                    shown.say(f"killed process {pid}, left over from an earlier supervisor of this run")
                spec = self._fit(spec, shown)
                self._document(store, spec, state, shown)
                steps = plan.build(spec, store.uri)
                env = {"EHRMIND_LOG_FORMAT": "json", "EHRMIND_RUN_TOKEN": secrets.token_urlsafe(32)}
                return Supervisor(spec, store.uri, steps, state, shown, env).run()
        finally:
            shown.close()

    def follow(self, run_uri: str) -> RunStatus:
        """How the run stands: `submit` has shown it to its end."""
        return self.status(run_uri)

    def status(self, run_uri: str) -> RunStatus:
        """What the supervisor wrote last, or what the store shows of a run made elsewhere."""
        state = State(self.settings.state_dir, run_uri)
        known = state.read()
        if known is None:
            return _from_store(run_uri)
        if known.state == "running" and state.holder() is None:
            return replace(known, state="interrupted", message="its supervisor is gone; the same submit continues the run", rollouts_ready=0)
        return known

    def logs(self, run_uri: str, source: str | None, follow: bool) -> Iterator[LogLine]:
        """Lines of the newest log, or of `source`. With `follow`, on to the next attempts and stages until the run stops."""
        state = State(self.settings.state_dir, run_uri)
        path = state.newest_log(source)
        if path is None:
            known = ", ".join(state.sources())
            raise SpecError(
                f"{run_uri}: no log of {source or 'any stage'} on this machine; " + (f"there are: {known}" if known else "the run was made elsewhere")
            )
        while path is not None:
            with path.open(encoding="utf-8", errors="replace") as file:
                while True:
                    going_on = follow and state.holder() is not None  # asked before reading, so that nothing written before the end is missed
                    yield from (LogLine(line.rstrip("\n")) for line in file)
                    newest = state.newest_log(source)
                    if not going_on or newest != path:
                        break
                    time.sleep(POLL_S)
            path = newest if follow and newest != path else None

    def cancel(self, run_uri: str) -> RunStatus:
        """Ask the supervisor to stop and wait for it. Raises Busy if it has not stopped after 90 s."""
        state = State(self.settings.state_dir, run_uri)
        pid = state.holder()
        if pid is None:
            return self.status(run_uri)
        state.cancelled = True
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, signal.SIGTERM)
        patience = time.monotonic() + CANCEL_WAIT_S
        while state.holder() == pid:
            if time.monotonic() > patience:
                raise Busy(f"{run_uri}: process {pid} has not stopped within {CANCEL_WAIT_S} s; kill -9 {pid} ends it with all its children")
            time.sleep(POLL_S)
        return self.status(run_uri)

    def suspend(self, run_uri: str) -> RunStatus:
        """Raises SpecError: what stops a run here is Ctrl-C."""
        raise SpecError(
            f"{run_uri}: only a run in a cluster is suspended; here Ctrl-C or `ehrmind cancel` stops one, and the same submit continues it"
        )

    def resume(self, run_uri: str) -> RunStatus:
        """Raises SpecError: what continues a run here is the same submit."""
        raise SpecError(f"{run_uri}: only a run in a cluster is resumed; here the same submit continues one")

    def delete(self, run_uri: str) -> int:
        """Delete a run and this machine's state of it. Raises Busy while it goes on.

        Manifests go first, so that no reader sees a complete artifact with files gone; spec.json goes last, so that an interrupted
        delete leaves a run that is still listed and can be deleted again.
        """
        state, store = State(self.settings.state_dir, run_uri), storage.open(run_uri)
        with disk.errors(state.folder), state.lock():
            state.kill_leftovers()
            keys = sorted((o.key for o in store.list()), key=lambda key: (key == artifacts.SPEC, not key.endswith(artifacts.MANIFEST)))
            for key in keys:
                store.delete(key)
            store.discard_unfinished("")
            state.remove()
        return len(keys)

    def _fit(self, spec: RunSpec, shown: display.Display) -> RunSpec:
        """The document this machine can run: without vLLM it samples inside the trainer. Raises SpecError where training cannot be done at all."""
        if spec.rollout.engine == "vllm" and not _installed("vllm"):
            shown.say("vllm is not installed here: rollout.engine becomes transformers (pip install 'ehrmind_k8s[rollout]' brings it)")
            spec = spec.model_copy(update={"rollout": spec.rollout.model_copy(update={"engine": "transformers"})})
        heavy = [s.stage for s in plan.build(spec, "run") if s.image == "ehrmind-trainer"]
        missing = [m for m in ("torch", "transformers", "trl", "peft") if not _installed(m)]
        if heavy and missing:
            raise SpecError(f"{' and '.join(heavy)}: {', '.join(missing)} not installed; training needs: pip install 'ehrmind_k8s[train]'")
        return spec

    def _document(self, store: ObjectStore, spec: RunSpec, state: State, shown: display.Display) -> None:
        """Publish spec.json, or check that the one there computes the same; what only says how to execute may change."""
        try:
            there = RunDocument.read(store)
        except KeyError:
            state.forget()  # of a run of this name that was deleted by other means
            if RunDocument.new(spec).write(store):
                return
            there = RunDocument.read(store)  # another machine was first
        if changes := difference(there.spec, spec):
            lines = "\n  ".join(changes)
            raise SpecError(
                f"run {spec.name} exists with another recipe:\n  {lines}\nchoose another --name, or delete it: ehrmind runs delete {store.uri}"
            )
        if there.spec != spec:
            store.put_bytes(artifacts.SPEC, RunDocument(there.uid, spec, there.recipe_hash).to_json())
        before = state.read()
        if before and before.state != "succeeded":
            how = "interrupted" if before.state == "running" else before.state  # nobody but this process holds the run
            shown.say(f"continuing run {spec.name} ({how} in stage {before.stage or 'prepare'})")
        state.cancelled = False


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _from_store(run_uri: str) -> RunStatus:
    """What the store shows of a run made elsewhere."""
    spec = RunDocument.at(run_uri).spec
    attempts, score, stage = [], None, ""
    for step in plan.build(spec, run_uri):
        out = storage.open(step.writes)
        manifest = artifacts.load(out)
        if manifest is None:
            stage = stage or step.stage
            continue
        result = manifest.meta.get("result", {})
        attempts.append(Attempt(step.stage, artifacts.latest_attempt(out), result.get("reason", "ok"), seconds=result.get("seconds", 0.0)))
        score = result.get("score") if result.get("score") is not None else score
    message = "from the store; this machine did not run it" + (f"; {stage} is not complete" if stage else "")
    return RunStatus(
        spec.name, run_uri, spec.task, "unfinished" if stage else "succeeded", stage, score=score, message=message, attempts=tuple(attempts)
    )
