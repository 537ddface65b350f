"""The compiled pipeline in KFP's list, for people who press Create run, and runs of it on a schedule."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ehrmind_k8s import __version__
from ehrmind_k8s.backends.kfp import document, view
from ehrmind_k8s.backends.kfp.backend import KfpBackend
from ehrmind_k8s.backends.kfp.document import Compiled
from ehrmind_k8s.backends.kfp.rest import Api, Conflict, Object
from ehrmind_k8s.backends.kubernetes import submission
from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.spec import RunSpec

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHORTCUTS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A version of a pipeline in KFP; `new` when it was not there before."""

    name: str
    version: str
    pipeline_id: str
    page: str
    new: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """Runs of one document again and again; `when` in words."""

    name: str
    id: str
    when: str
    enabled: bool
    page: str
    new: bool = False


def upload(api: Api, file: Path | None, name: str | None, image: str | None = None) -> Uploaded:
    """Put a compiled pipeline, ours without `file`, into KFP as a version of the pipeline called `name`.

    The pipeline is made first, without a version: made with the file, its first version would have the pipeline's name instead of its own.
    Whatever was interrupted, the same command completes it.
    """
    compiled = document.read(file) if file else document.compiled(image)
    name = name or compiled.name
    pipeline = api.pipeline(name) or _created(api, name, str(compiled.pipeline["pipelineInfo"].get("description") or ""))
    version, pipeline_id = version_name(compiled), pipeline["pipeline_id"]
    there = _version(api, pipeline_id, version)
    found = there or api.upload_version(pipeline_id, version, compiled.text)
    page = api.page(f"/pipelines/details/{pipeline_id}/version/{found['pipeline_version_id']}")
    return Uploaded(name, version, pipeline_id, page, there is None)


def listed(api: Api, compiled: Compiled) -> bool:
    """Whether the list of the UI has it, under its own name."""
    pipeline = api.pipeline(compiled.name)
    return pipeline is not None and _version(api, pipeline["pipeline_id"], version_name(compiled)) is not None


def version_name(compiled: Compiled) -> str:
    """What names a version: that of the package, and which file it is."""
    return f"{__version__}-{hashlib.sha256(compiled.text).hexdigest()[:8]}"


def _version(api: Api, pipeline_id: str, name: str) -> Object | None:
    return next((v for v in api.versions(pipeline_id) if name in (v.get("name"), v.get("display_name"))), None)


def schedule(backend: KfpBackend, spec: RunSpec, written: Mapping[str, Any], trigger: Mapping[str, Any]) -> Schedule:
    """Run a document again and again. Raises SpecError where another schedule has its name."""
    submission.refuse_paths(written)
    compiled = document.compiled(backend.settings.kfp_image)
    values = document.fitting(compiled, document.parameters(spec, written, backend.api.namespace))
    experiment = backend.made()
    there = next((s for s in backend.api.schedules(experiment["experiment_id"]) if s.get("display_name") == spec.name), None)
    if there is None:
        # One at a time, and none later for one that was missed: a training is not made up for.
        more = {"trigger": trigger, "mode": "ENABLE", "max_concurrency": "1", "no_catchup": True}
        return _seen(backend.api, backend.api.create_schedule(backend.body(experiment, spec.name, compiled, values) | more), new=True)
    lines = document.differences(compiled.defaults | dict(view.parameters(there)), values)
    if (was := _when(there)) != (now := _when({"trigger": trigger})):
        lines.append(f"when: {was} -> {now}")
    if lines:
        shown = "\n  ".join(lines)
        raise SpecError(f"schedule {spec.name} exists and differs:\n  {shown}\ndelete it first: ehrmind pipeline schedules delete {spec.name}")
    return _seen(backend.api, there)


def schedules(backend: KfpBackend) -> list[Schedule]:
    """The schedules of the experiment, newest first."""
    experiment = backend.experiment()
    return [_seen(backend.api, found) for found in backend.api.schedules(experiment["experiment_id"])]


def unschedule(backend: KfpBackend, name: str) -> None:
    """Delete a schedule; runs that it has started go on. Raises SpecError naming the nearest one where there is none."""
    found = schedules(backend)
    mine = [s for s in found if s.name == name]
    if not mine:
        hint = nearest(name, {s.name for s in found}) if found else "there is none at all"
        raise SpecError(f"there is no schedule {name} in experiment {backend.settings.kfp_experiment}; {hint}")
    for one in mine:
        backend.api.delete_schedule(one.id)


def cron(text: str) -> Object:
    """A trigger at times of the clock. Raises SpecError for what KFP does not read."""
    if text not in SHORTCUTS and len(text.split()) != 6:
        raise SpecError(f"--cron {text!r}: expected six fields, seconds first: '0 0 2 * * *' is every night at two; or one of {', '.join(SHORTCUTS)}")
    return {"cron_schedule": {"cron": text}}


def every(text: str) -> Object:
    """A trigger after each interval. Raises SpecError."""
    match = re.fullmatch(r"([1-9]\d*)([smhd])", text)
    if not match:
        raise SpecError(f"--every {text!r}: expected a number and a unit: 90m, 24h, 7d")
    return {"periodic_schedule": {"interval_second": str(int(match[1]) * UNITS_S[match[2]])}}


def _created(api: Api, name: str, description: str) -> Object:
    try:
        return api.create_pipeline(name, description)
    except Conflict:
        if found := api.pipeline(name):  # somebody else was faster
            return found
        raise


def _seen(api: Api, found: Mapping[str, Any], new: bool = False) -> Schedule:
    schedule_id = found["recurring_run_id"]
    enabled = found.get("status") != "DISABLED" and found.get("mode") != "DISABLE"
    return Schedule(
        found.get("display_name") or schedule_id, schedule_id, _when(found), enabled, api.page(f"/recurringrun/details/{schedule_id}"), new
    )


def _when(found: Mapping[str, Any]) -> str:
    """A trigger in words: `cron 0 0 2 * * *`, `every 24h`."""
    trigger = found.get("trigger") or {}
    if "cron_schedule" in trigger:
        return f"cron {trigger['cron_schedule'].get('cron')}"
    interval = int((trigger.get("periodic_schedule") or {}).get("interval_second") or 0)
    unit, size = next((u, s) for u, s in reversed(UNITS_S.items()) if interval % s == 0)
    return f"every {interval // size}{unit}"
