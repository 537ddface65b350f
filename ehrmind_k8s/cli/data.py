"""`ehrmind data`: source files become prepared splits here, or go to a store as they are."""

import tempfile
from pathlib import Path
from typing import Any

import click

# What makes a run of the first stage alone: explanations of any length stay, and rows without one are fine.
SETTINGS = ("stages=[prepare]", "sft.mode=never", "rlvr.max_completion_tokens=2048", "rollout.engine=transformers")


@click.group(short_help="Prepare data, or copy it to a store.")
def command() -> None:
    """Prepare data, or copy it to a store.

    \b
    Examples:
      ehrmind data prepare --task medcalc --source medcalc/v1.0 --out prepared
      ehrmind data put medcalc/v1.0 s3://bucket/data/medcalc
    """


@command.command("prepare")
@click.option("--task", required=True, metavar="TASK", help="Clinical task; `ehrmind tasks` lists them and the layouts they read.")
@click.option("--source", required=True, metavar="PATH", help="File, folder, zip or s3://bucket/prefix.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the result; new or empty.")
@click.option("--format", "form", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True, help="Form of the splits.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Data settings, for example data.labels=recomputed. Repeatable.")
def prepare(task: str, source: str, out: Path, form: str, overrides: tuple[str, ...]) -> int:
    """Turn source files into train, validation and test rows, as the prepare stage of a run does.

    \b
    Examples:
      ehrmind data prepare --task medcalc --source medcalc/v1.0 --out prepared --set data.test=test_data.csv
      ehrmind data prepare --task medcalc --source s3://bucket/medcalc --out prepared --format jsonl
      ehrmind data prepare --task medcalc --source notes.zip --out prepared --set model.uri=models/Qwen3-0.6B

    Writes the splits, drops.jsonl and, last, manifest.json with inputs, counts, drops, checks and a SHA-256 per file. `n_tokens` counts with the
    tokenizer of model.uri; without it with that of the toy model, which is trained on these rows.
    """
    from ehrmind_k8s import artifacts, settings, storage
    from ehrmind_k8s.backends import base
    from ehrmind_k8s.backends.local.supervisor import Stopped
    from ehrmind_k8s.cli import document
    from ehrmind_k8s.errors import SpecError
    from ehrmind_k8s.records import SPLITS

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SpecError(f"--out {out}: exists and is not an empty folder; choose another, or delete it")
    with tempfile.TemporaryDirectory(prefix="ehrmind-data-") as work:
        place = base.open("local", settings.load())
        written = document.gather(None, {"task": task, "preset": "tiny", "store": work}, source, [*SETTINGS, *overrides])
        try:
            status = place.submit(document.placed(written), written)
        except Stopped as stopped:
            click.echo(f"stopped by {stopped}; nothing was written", err=True)
            return stopped.exit_code
        meta = _deliver(storage.join(status.uri, "prepare"), Path(work) / "delivery", out, form)
        place.delete(status.uri)
    for split in SPLITS:
        counts = meta["counts"][split]
        dropped = ", ".join(f"{n} {reason}" for reason, n in meta["drops"][split].items()) or "none"
        click.echo(f"{split:11}{counts['rows']:7} rows  {counts['groups']:7} groups  dropped: {dropped}")
    for warning in meta["audit"].get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{out / artifacts.MANIFEST}")
    return 0


def _deliver(prepared: str, folder: Path, out: Path, form: str) -> dict[str, Any]:
    """Publish the splits in the wanted form to `out`, the manifest last; the model stays behind. Returns the manifest's meta."""
    from ehrmind_k8s import artifacts, examples, storage
    from ehrmind_k8s.records import SPLITS

    splits = [f"{split}.parquet" for split in SPLITS]
    manifest = artifacts.fetch(storage.open(prepared), "", folder, [*splits, "drops.jsonl"])
    if form == "jsonl":
        for name in splits:
            examples.write_split((folder / name).with_suffix(".jsonl"), examples.read_split(folder / name))
            (folder / name).unlink()
    meta = {key: value for key, value in manifest.meta.items() if key != "result"}
    artifacts.publish(storage.open(str(out)), "", folder, "data", meta)
    return meta


@command.command("put")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("uri")
def put(path: Path, uri: str) -> None:
    """Copy a file or a folder to a store, to be named as data.uri.

    \b
    Examples:
      ehrmind data put medcalc/v1.0 s3://bucket/data/medcalc
      ehrmind data put train_data.csv.zip s3://bucket/data/medcalc-train

    Interrupted, the same command continues. A manifest with a SHA-256 per file is written last; prepare reads nothing that differs from it.
    """
    from ehrmind_k8s.cli import transfer
    from ehrmind_k8s.errors import DataError

    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if _wanted(p, folder)) if path.is_dir() else [path.name]
    if not names:
        raise DataError(f"{path}: the folder is empty")
    transfer.put(folder, names, uri, "data", {"source": path.name})


def _wanted(path: Path, folder: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
