"""What several commands share: the RUN argument, the store option, JSON output, and how RUN becomes a run URI."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_STORE = "./runs"

json_option = click.option("-o", "--json", "as_json", is_flag=True, help="Print JSON for scripts.")
store_option = click.option(
    "--store", metavar="URI", help=f"Store that holds the runs: a folder or s3://bucket/prefix. [EHRMIND_STORE, else {DEFAULT_STORE}]"
)


def run_argument(command: Command) -> Command:
    """RUN and --store, for a command about one run; it receives `run` and `store`."""
    return click.argument("run", metavar="RUN")(store_option(command))


def locate(run: str, store: str | None) -> str:
    """URI of the run called RUN: a name inside the store, or a run URI. Raises SpecError when there is no run."""
    from ehrmind_k8s import artifacts, storage
    from ehrmind_k8s.errors import SpecError, nearest

    base = store_uri(store)
    uri = absolute(run) if "/" in run else storage.join(base, run)
    place = storage.open(uri)
    if place.head(artifacts.SPEC):
        return place.uri
    known = run_names(base) if "/" not in run else []
    hint = nearest(run, known) if known else "`ehrmind runs` lists a store; --store or EHRMIND_STORE says which"
    raise SpecError(f"there is no run at {place.uri} ({artifacts.SPEC} is missing); {hint}")


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


def echo_json(document: Any) -> None:
    """Print a document for scripts."""
    click.echo(json.dumps(document, indent=2, default=str))
