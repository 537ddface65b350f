"""`ehrmind pipeline compile`: the pipeline's file for your registry."""

from pathlib import Path

import click


@click.command(short_help="Write the compiled pipeline for your registry.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Where to write it.")
@click.option("--image", metavar="IMAGE", help="Image of the nodes, by version tag or digest. [ehrmind at this version]")
@click.option("--lists", is_flag=True, help="Declare what parameters may say, for lists in the form; not for KFP before 2.16.")
def command(file: Path | None, out: Path, image: str | None, lists: bool) -> None:
    """Write the compiled pipeline for your registry, to be uploaded in the UI or by `ehrmind pipeline upload FILE`.

    Needs no kfp: it is the file of this release, or FILE, adapted. The sources are in pipelines/, which `make pipelines` compiles.

    \b
    Examples:
      ehrmind pipeline compile --image registry.example/ehrmind:0.1.0 --out ehrmind.yaml
      ehrmind pipeline compile --lists --out ehrmind.yaml
      ehrmind pipeline compile pipelines/sweep.yaml --image registry.example/ehrmind:0.1.0 --out sweep.yaml
    """
    from ehrmind_k8s.backends.kfp import document
    from ehrmind_k8s.errors import SpecError

    text = document.adapted(document.read(file) if file else document.compiled(), image, lists)
    try:
        out.write_bytes(text)
    except OSError as error:
        raise SpecError(f"--out {out}: {error.strerror}") from None
    click.echo(f"{out}: upload it in the UI, or: ehrmind pipeline upload {out}")
