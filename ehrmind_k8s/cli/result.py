"""The result of a complete run as a small table, and where the report is."""

import json
from typing import Any

import click

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.backends.base import RunStatus
from ehrmind_k8s.cli import options
from ehrmind_k8s.errors import EhrmindError
from ehrmind_k8s.evaluation import summary

STAGE = "evaluate"


def show(status: RunStatus) -> None:
    """Print what the run found, if it has a report, and which command comes next.

    Of a run in a cluster whose store cannot be read from here: its score, and where the report is. Of a pipeline's run: its page.
    """
    if options.is_page(status.uri):
        click.echo(f"run {status.name}: complete\n\nreport: in the node evaluate of {status.uri}")
        return
    try:
        found = _report(status.uri)
    except EhrmindError as error:
        if not status.namespace:
            raise
        click.echo(f"run {status.name}: complete" + ("" if status.score is None else f", score {status.score:.4g}"))
        click.echo(f"\nreport: {storage.join(status.uri, STAGE, 'report.html')}")
        click.echo(f"        (the store cannot be read from here: {error})")
        return
    if found is None:
        click.echo(f"run {status.name}: complete, without evaluate; its output is at {status.uri}")
        return
    report, page = found
    click.echo(summary.summary_table(report))
    click.echo(f"\nreport: {page}")
    click.echo(f"        ehrmind report {status.uri} --open")


def _report(run_uri: str) -> tuple[dict[str, Any], str] | None:
    """The report's tree and where its page is (a path when the store is a folder), or None where evaluate is not complete."""
    out = storage.open(storage.join(run_uri, STAGE))
    if artifacts.load(out) is None:
        return None
    page = storage.join(out.uri, "report.html")
    return json.loads(out.get_bytes(artifacts.REPORT)), str(storage.path(page) or page)
