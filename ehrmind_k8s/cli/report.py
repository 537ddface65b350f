"""`ehrmind report`: what a run achieved."""

import json
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

import click

from ehrmind_k8s.cli import options
from ehrmind_k8s.cli.options import Place

PAGE = "report.html"


@click.command(short_help="Show the result of a run.")
@options.run_argument
@click.option("--open", "open_page", is_flag=True, help="Open the whole report in a browser.")
@options.json_option
def command(run: str, place: Place, open_page: bool, as_json: bool) -> None:
    """Show the result of a run: base, SFT and RLVR side by side with 95 % intervals, and where the whole report is.

    \b
    Examples:
      ehrmind report medcalc-tiny
      ehrmind report medcalc-tiny --open
      ehrmind report medcalc-tiny --namespace research
      ehrmind report s3://bucket/runs/medcalc-tiny -o json

    Of a run in a cluster the report is read from its store, with the S3 settings of this machine (EHRMIND_S3_*).
    """
    from ehrmind_k8s.evaluation import summary

    uri = _uri(run, place)
    tree, page = _fetch(uri)
    if as_json:
        options.echo_json(summary.scores(tree))
    else:
        click.echo(f"{summary.summary_table(tree)}\n\nreport: {page}")
    if open_page and not webbrowser.open(page.as_uri()):
        click.echo(f"no browser could be started here; open {page} yourself", err=True)


def _uri(run: str, place: Place) -> str:
    """Where a run is stored; of one in a cluster its status says so. Raises TryAgain until it has a place, SpecError for a pipeline's."""
    from ehrmind_k8s.errors import SpecError, TryAgain

    kind = place.kind(run)
    if kind == options.LOCAL:
        return options.locate(run, place.store)
    status = place.open(kind).status(run)
    if not status.uri:
        raise TryAgain(f"run {run} has no store yet ({status.message or status.state})")
    if options.is_page(status.uri):
        raise SpecError(
            f"the report of a pipeline's run is in its node evaluate, at {status.uri}; with the URI of the stored run: ehrmind report s3://..."
        )
    return status.uri


def _fetch(run_uri: str) -> tuple[dict[str, Any], Path]:
    """The verified report.json, and the page as a file of this machine. Raises TryAgain while the run has no report."""
    from ehrmind_k8s import artifacts, settings, storage
    from ehrmind_k8s.errors import TryAgain

    document = artifacts.RunDocument.at(run_uri)
    out = storage.open(artifacts.stage_uri(document.spec, run_uri, "evaluate"))
    if artifacts.load(out) is None:
        raise TryAgain(f"{run_uri}: there is no report yet, evaluate is not complete; `ehrmind status {run_uri}` shows where the run is")
    with tempfile.TemporaryDirectory(prefix="ehrmind-report-") as scratch:
        folder = Path(scratch) / "report"
        artifacts.fetch(out, "", folder, [artifacts.REPORT, PAGE])
        tree = json.loads((folder / artifacts.REPORT).read_text(encoding="utf-8"))
        if (here := storage.path(out.uri)) is not None:
            return tree, here / PAGE
        page = settings.load().state_dir / "reports" / f"{document.uid}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_bytes((folder / PAGE).read_bytes())
        return tree, page
