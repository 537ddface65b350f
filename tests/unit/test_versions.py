"""Which software computed a run."""

import subprocess
from pathlib import Path

from ehrmind_k8s import versions
from tests.conftest import needs_program


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)


def test_the_revision_is_that_of_a_checkout_which_tracks_the_package_and_not_of_one_around_it(tmp_path: Path) -> None:
    needs_program("git", "apt-get install git")
    for name in ("tracked", "installed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "tracked")
    git(tmp_path, "commit", "-q", "-m", "one")
    assert versions.git_revision(tmp_path / "tracked")
    assert versions.git_revision(tmp_path / "installed") is None
