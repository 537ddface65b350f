"""What several commands share: RUN, which place it runs in, the options of kubectl, JSON output.

Which place RUN means, in this order: a run URI or --store names a run of that store, wherever it ran; --backend or EHRMIND_BACKEND; the
cluster; and where no cluster is configured at all, this machine, which is said on standard error.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from ehrmind_k8s.backends.base import Backend
    from ehrmind_k8s.backends.kfp.backend import KfpBackend

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_STORE = "./runs"
LOCAL, CLUSTER, KFP = "local", "kubernetes", "kfp"

store_option = click.option(
    "--store",
    metavar="URI",
    help=f"Store that holds the runs: a folder or s3://bucket/prefix. [EHRMIND_STORE, else {DEFAULT_STORE}; in a cluster that of the profile]",
)
_PLACE = (
    click.option("--backend", metavar="local|kubernetes|kfp", help="Where runs execute. [EHRMIND_BACKEND, else kubernetes]"),
    click.option("-n", "--namespace", metavar="NAMESPACE", help="Namespace of the cluster. [that of the context]"),
    click.option("--context", metavar="CONTEXT", help="Context of the kubeconfig. [its current one]"),
    click.option("--kubeconfig", metavar="PATH", help="Kubeconfig. [KUBECONFIG, ~/.kube/config, a pod's own account]"),
)
_DOCUMENT = (
    click.option(
        "-f",
        "--file",
        "path",
        type=click.Path(path_type=Path),
        metavar="RUN.YAML",
        help="Run document, or an EHRMindRun; the options below win over it.",
    ),
    click.option("--task", metavar="T", help="Clinical task; `ehrmind tasks` lists them."),
    click.option("--preset", metavar="P", help="Sizes and hyperparameters: tiny, small, default, paper."),
    click.option("--data", metavar="URI", help="Source data: s3://bucket/prefix, or here a file, folder or zip. Preset tiny does without."),
    click.option("--name", metavar="N", help="Name of the run. [<task>-<preset>]"),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any field of the document, for example rlvr.steps=30. Repeatable."),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command looks: what its options say."""

    store: str | None = None
    backend: str | None = None
    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None

    def over(self, outer: "Place") -> "Place":
        """These options, and where one is not given that of the group around the command."""
        return Place(*(getattr(self, f) if getattr(self, f) is not None else getattr(outer, f) for f in Place.__dataclass_fields__))

    def kind(self, run: str | None = None) -> str:
        """`local` or the name of another backend, by the rule above. Raises SpecError for a RUN that cannot be there."""
        from ehrmind_k8s import kubeapi, settings

        configured = settings.load()
        pointed = self.namespace or self.context or self.kubeconfig
        if run is not None and ("/" in run or (self.store and not pointed)):
            return LOCAL
        if self.backend or "backend" in configured.model_fields_set or pointed:
            return self.backend or configured.backend
        if configured.backend == CLUSTER and not kubeapi.configured():
            click.echo(f"no cluster is configured here ({kubeapi.looked()}): looking at the runs of this machine, as --backend local does", err=True)
            return LOCAL
        return configured.backend

    def open(self, kind: str) -> "Backend":
        """The backend called `kind`, in the cluster that the options say. Raises SpecError for such an option where runs execute here."""
        from ehrmind_k8s import settings
        from ehrmind_k8s.backends import base
        from ehrmind_k8s.errors import SpecError

        if kind == LOCAL and (self.namespace or self.context or self.kubeconfig):
            raise SpecError("--namespace, --context and --kubeconfig are about a cluster; leave them out, or pass --backend kubernetes")
        return base.open(kind, settings.load(), self.namespace, self.context, self.kubeconfig)


def document_options(command: Command) -> Command:
    """What a run document is made of; the command receives `path`, `task`, `preset`, `data`, `name` and `overrides`."""
    for option in reversed(_DOCUMENT):
        command = option(command)
    return command


def place_options(command: Command) -> Command:
    """--store, --backend and the options of kubectl; the command receives them as `place`."""

    @functools.wraps(command)
    def placed(*args: Any, **values: Any) -> Any:
        return command(*args, place=Place(**{name: values.pop(name) for name in Place.__dataclass_fields__}), **values)

    for option in reversed((store_option, *_PLACE)):
        placed = option(placed)
    return placed  # type: ignore[return-value]


def run_argument(command: Command) -> Command:
    """RUN and where it is, for a command about one run; it receives `run` and `place`."""
    return click.argument("run", metavar="RUN")(place_options(command))


def json_option(command: Command) -> Command:
    """`-o json` as kubectl has it, and --json; the command receives `as_json`."""

    @functools.wraps(command)
    def formatted(*args: Any, output: str | None, as_json: bool, **values: Any) -> Any:
        return command(*args, as_json=as_json or output == "json", **values)

    short = click.option("-o", "--output", type=click.Choice(["json"]), help="Print JSON for scripts.")
    return short(click.option("--json", "as_json", is_flag=True, help="The same as -o json.")(formatted))  # type: ignore[return-value]


def pipelines(place: Place) -> "KfpBackend":
    """Kubeflow Pipelines as options and settings say it. Raises SpecError where an option says another backend."""
    from ehrmind_k8s import settings
    from ehrmind_k8s.backends.kfp.backend import KfpBackend
    from ehrmind_k8s.errors import SpecError

    if place.backend not in (None, KFP):
        raise SpecError(f"--backend {place.backend}: a pipeline is of Kubeflow Pipelines; leave it out, or pass --backend {KFP}")
    return KfpBackend(settings.load(), place.namespace, place.context, place.kubeconfig)


def find(run: str, place: Place) -> tuple["Backend", str]:
    """The place where the run called RUN is, and what names it there. Raises SpecError when there is no run."""
    kind = place.kind(run)
    return place.open(kind), locate(run, place.store) if kind == LOCAL else run


def locate(run: str, store: str | None) -> str:
    """URI of the run called RUN: a name inside the store, or a run URI. Raises SpecError when there is no run."""
    from ehrmind_k8s import artifacts, storage
    from ehrmind_k8s.errors import SpecError, nearest

    base = store_uri(store)
    uri = absolute(run) if "/" in run else storage.join(base, run)
    there = storage.open(uri)
    if there.head(artifacts.SPEC):
        return there.uri
    known = run_names(base) if "/" not in run else []
    hint = nearest(run, known) if known else "`ehrmind runs` lists a store; --store or EHRMIND_STORE says which"
    raise SpecError(f"there is no run at {there.uri} ({artifacts.SPEC} is missing); {hint}")


def run_names(store: str) -> list[str]:
    """Names of the runs in a store."""
    from ehrmind_k8s import artifacts, storage

    ends = f"/{artifacts.SPEC}"
    return [o.key.removesuffix(ends) for o in storage.open(store).list() if o.key.endswith(ends) and o.key.count("/") == 1]


def store_uri(store: str | None) -> str:
    """The store a command means: its option, else EHRMIND_STORE, else ./runs; paths made absolute."""
    from ehrmind_k8s import settings

    return absolute(store or settings.load().store or DEFAULT_STORE)


def absolute(uri: str) -> str:
    """A path made absolute, so that a run does not depend on where the next command is typed; other URIs as they are."""
    return uri if urlsplit(uri).scheme else str(Path(uri).expanduser().absolute())


def is_page(uri: str) -> bool:
    """Whether a run is known by a page for people: a pipeline's, whose store is known to its pods alone."""
    return urlsplit(uri).scheme in ("http", "https")


def echo_json(document: Mapping[str, Any] | list[Any]) -> None:
    """Print a document for scripts."""
    click.echo(json.dumps(document, indent=2, default=str))
