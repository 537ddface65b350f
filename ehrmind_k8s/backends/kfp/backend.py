"""Submit, status, logs, cancel and delete of runs of the compiled pipeline, in one experiment of Kubeflow Pipelines."""

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.backends import follow
from ehrmind_k8s.backends.base import LogLine, RunStatus
from ehrmind_k8s.backends.kfp import document, view
from ehrmind_k8s.backends.kfp.credentials import COOKIE, TOKEN, Credentials
from ehrmind_k8s.backends.kfp.rest import Api, Conflict, Missing, Object
from ehrmind_k8s.backends.kfp.transport import HOST, Direct, Proxied, Transport, Unavailable
from ehrmind_k8s.backends.kubernetes import submission
from ehrmind_k8s.errors import Busy, Cancelled, SpecError, nearest
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.spec import RunSpec

POLL_S = 1.0
STOP_WAIT_S = 180  # a stage saves a checkpoint when it is told to stop
TAKEN_UP_S = 10  # from a retry until KFP shows that the run goes on
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")


def say(text: str) -> None:
    """One line for the person, beside what a command prints."""
    print(text, file=sys.stderr, flush=True)


class KfpBackend:
    """Runs of one experiment. `run` is a run's name, of which the newest counts, or its id."""

    def __init__(self, settings: Settings, namespace: str | None = None, context: str | None = None, kubeconfig: str | None = None) -> None:
        self.settings = settings
        self.cluster = (context, kubeconfig)
        self.api = Api(_transport(settings, context, kubeconfig), namespace or "")
        self.namespace = namespace or settings.kfp_service_namespace  # of a run's pods, where its parameters name none

    def submit(self, spec: RunSpec, written: Mapping[str, Any]) -> RunStatus:
        """Start a run, let one go on that failed or was cancelled, or find it as it is. Raises SpecError where another recipe has the name."""
        submission.refuse_paths(written)
        crd.run(crd.to_object(written, "any"))  # the name: the stages' objects in the cluster begin with it
        compiled = document.compiled(self.settings.kfp_image)
        values = document.fitting(compiled, document.parameters(spec, written, self.api.namespace))
        experiment = self.made()
        if there := self._newest(experiment, spec.name):
            return self._again(there, compiled.defaults | dict(view.parameters(there)), values)
        made = self.api.create_run(self.body(experiment, spec.name, compiled, values))
        say(f"run {spec.name} is created in experiment {self.settings.kfp_experiment} of {self.api.host}")
        self.point(self.address(made))
        return self._seen(made)

    def follow(self, run: str) -> RunStatus:
        """Say what happens until the run ends. Returns how it ended; raises the error that stopped it."""
        run_id = self.get(run)["run_id"]
        return follow.follow(lambda: self._followed(run, run_id), lambda _: (), say)

    def status(self, run: str) -> RunStatus:
        """Where a run is."""
        return self._seen(self.get(run))

    def runs(self, everywhere: bool = False) -> list[RunStatus]:
        """The runs of the experiment, or of all experiments that the namespace has, newest first. Other pipelines' runs are not among them."""
        found = list(self.api.experiments()) if everywhere else [e for e in [self._experiment()] if e]
        runs = [run for experiment in found for run in self.api.runs(experiment["experiment_id"])]
        return [self._seen(run) for run in runs if "a_task" in view.parameters(run) and not view.archived(run)]

    def logs(self, run: str, source: str | None, follow: bool) -> Iterator[LogLine]:
        """Lines of the pods of the newest stage, or of `source`: each stage is an object of the cluster, whose pods are read there."""
        from ehrmind_k8s.backends.kfp import logs

        found = self.get(run)
        context, kubeconfig = self.cluster
        cluster = logs.connect(self._where(found), context, kubeconfig, run, self.address(found))
        return logs.read(cluster, found["run_id"], source, (lambda: self._ended(found["run_id"])) if follow else None)

    def cancel(self, run: str) -> RunStatus:
        """Ask for the end of a run and wait until it has ended. Raises Busy where that takes longer than a stage's grace."""
        found = self.get(run)
        if found.get("state") not in (*ENDED, "CANCELING"):
            try:
                self.api.terminate_run(found["run_id"])
            except SpecError:  # it may have ended, or somebody else was faster
                if self.api.run(found["run_id"]).get("state") not in (*ENDED, "CANCELING"):
                    raise
        return self._seen(self._until(found, lambda now: now.get("state") in ENDED, "has been asked to end"))

    def suspend(self, run: str) -> RunStatus:
        """KFP does not know it."""
        found = self.get(run)
        where = self._where(found)
        raise SpecError(
            "a pipeline's run cannot be suspended; its stage can:"
            f" `kubectl -n {where} get ehr -l {crd.LABEL_PIPELINE_RUN}={found['run_id']}` names it,"
            f" `ehrmind suspend STAGE --backend kubernetes -n {where}` frees its pods; or cancel the run, and submit it again to continue"
        )

    def resume(self, run: str) -> RunStatus:
        """KFP does not know it."""
        where = self._where(self.get(run))
        raise SpecError(
            f"a pipeline's run cannot be resumed; its stage that was suspended can: `ehrmind resume STAGE --backend kubernetes -n {where}`."
            " A run that was cancelled continues with the same submit"
        )

    def delete(self, run: str) -> int:
        """Forget a run; what it stored stays. Raises Busy while it goes on."""
        found = self.get(run)
        if found.get("state") not in ENDED:
            name = found.get("display_name")
            raise Busy(f"run {name} goes on ({self._seen(found).state}); end it first: ehrmind cancel {name} --backend kfp")
        with contextlib.suppress(Missing):  # of a call that was done, and whose answer got lost
            self.api.delete_run(found["run_id"])
        return 1

    def get(self, run: str) -> Object:
        """A run, by its id or as the newest of its name. Raises SpecError naming the nearest one where there is none."""
        if ID.fullmatch(run):
            return self.api.run(run)
        experiment = self._experiment()
        where = f"experiment {self.settings.kfp_experiment} of {self.api.host}"
        if experiment is None:
            raise SpecError(f"there is no {where}, and so no run {run}; EHRMIND_KFP_EXPERIMENT names another, --namespace that of a user")
        if found := self._newest(experiment, run):
            return self.api.run(found["run_id"])
        known = {obj.get("display_name") or "" for obj in self.api.runs(experiment["experiment_id"])}
        raise SpecError(f"there is no run {run} in {where}; {nearest(run, known) if known else 'it has no run at all'}")

    def experiment(self) -> Object:
        """The experiment of the settings. Raises SpecError when it is not there."""
        if found := self._experiment():
            return found
        raise SpecError(f"there is no experiment {self.settings.kfp_experiment} at {self.api.host}; the first submit makes it")

    def body(self, experiment: Mapping[str, Any], name: str, compiled: document.Compiled, values: Mapping[str, Any]) -> Object:
        """What a run, and one on a schedule, is made of."""
        account = {"service_account": self.settings.kfp_service_account} if self.settings.kfp_service_account else {}
        return {
            "display_name": name,
            "experiment_id": experiment["experiment_id"],
            "pipeline_spec": compiled.source,
            "runtime_config": {"parameters": dict(values)},
            **account,
        }

    def made(self) -> Object:
        """The experiment of the settings, made when it is missing."""
        if found := self._experiment():
            return found
        try:
            return self.api.create_experiment(self.settings.kfp_experiment)
        except Conflict:  # another submit was faster
            return self.experiment()

    def address(self, run: Mapping[str, Any]) -> str:
        """A run's page."""
        return self.api.page(f"/runs/details/{run['run_id']}")

    def point(self, page: str) -> None:
        """Say where people see it."""
        hint = self.api.transport.ui_hint
        say(f"  {page}" + (f"  (while this runs: {hint})" if hint else ""))

    def _experiment(self) -> Object | None:
        return self.api.experiment(self.settings.kfp_experiment)

    def _newest(self, experiment: Mapping[str, Any], name: str) -> Object | None:
        """The newest run of a name that nobody has archived."""
        return next((run for run in self.api.runs(experiment["experiment_id"], name) if not view.archived(run)), None)

    def _again(self, there: Object, was: Mapping[str, Any], wanted: Mapping[str, Any]) -> RunStatus:
        """A submit of a run that exists."""
        name = there.get("display_name")
        if lines := document.differences(was, wanted):
            shown = "\n  ".join(lines)
            raise SpecError(
                f"run {name} exists with another recipe, and the parameters of a pipeline's run are fixed:\n  {shown}\n"
                f"choose another --name, or delete it: ehrmind runs delete {name} --backend kfp"
            )
        state = there.get("state")
        if state not in ("FAILED", "CANCELED"):
            say(f"run {name} is there already, with the same recipe" if state in ENDED else f"run {name} goes on, with the same recipe")
            return self._seen(self.api.run(there["run_id"]))
        self.api.retry_run(there["run_id"])
        say(f"continuing run {name} ({view.STATES[view.ended_as(there)]}): what is complete stays, the other stages are tried again")
        self.point(self.address(there))
        with contextlib.suppress(Busy):
            there = self._until(there, lambda now: now.get("state") not in ("FAILED", "CANCELED"), "", TAKEN_UP_S)
        return self._seen(there)

    def _followed(self, run: str, run_id: str) -> RunStatus:
        try:
            return self._seen(self.api.run(run_id))
        except Missing:
            raise Cancelled(f"run {run} was deleted while it was followed; what it stored stays") from None

    def _ended(self, run_id: str) -> bool:
        try:
            return self.api.run(run_id).get("state") in ENDED
        except Missing:
            return True
        except Unavailable:
            return False

    def _seen(self, run: Mapping[str, Any]) -> RunStatus:
        return view.status(run, self.address(run), self._where(run))

    def _where(self, run: Mapping[str, Any]) -> str:
        """The namespace of a run's pods."""
        return str(view.parameters(run).get(document.NAMESPACE) or self.namespace)

    def _until(self, run: Object, done: Callable[[Object], bool], asked: str, patience_s: float = STOP_WAIT_S) -> Object:
        """The run once `done` holds. Raises Busy."""
        until = time.monotonic() + patience_s
        while not done(now := self.api.run(run["run_id"])):
            if time.monotonic() > until:
                raise Busy(f"run {run.get('display_name')} {asked} and has not within {patience_s:.0f} s; see {self.address(run)}")
            time.sleep(POLL_S)
        return now


def _transport(settings: Settings, context: str | None, kubeconfig: str | None) -> Transport:
    """The way to KFP that the settings say. Raises SpecError where they say none."""
    if settings.kfp_host:
        return Direct(settings.kfp_host, Credentials(settings.kfp_token_file, settings.kfp_cookie_file))
    for name, file in ((TOKEN, settings.kfp_token_file), (COOKIE, settings.kfp_cookie_file)):
        if file:
            raise SpecError(f"{name} is for a gateway: set {HOST} to its address too")
    from ehrmind_k8s import kubeapi

    try:
        return Proxied(kubeapi.connect(kubeconfig, context), settings.kfp_service_namespace)
    except SpecError as error:
        raise SpecError(f"{HOST} names no KFP, and there is no cluster to look for one: {error}") from None
