"""The servers that tests run, each built once from its pinned Go module and kept in a cache keyed by its version.

    python -m tests.tools.build [NAME...]       build what is missing (all, or these) and print where each is

The cache is EHRMIND_TEST_TOOLS, else ~/.cache/ehrmind/test-tools. To add a tool: a folder here with go.mod, go.sum and tools.go
(`go mod tidy` writes the first two), and a line in TOOLS. A new version is one line in its go.mod.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("EHRMIND_TEST_TOOLS") or Path.home() / ".cache" / "ehrmind" / "test-tools")
GET_GO = "install Go 1.25 or newer and run: python -m tests.tools.build"


@dataclass(frozen=True)
class Tool:
    """One program: the wrapper module that pins it (a folder here), its package, and what the linker is told."""

    wrapper: str
    package: str
    ldflags: str = "-s -w"

    @property
    def version(self) -> str:
        """What the wrapper's go.mod requires of the module that holds the package."""
        required = re.findall(r"^(?:require )?\s*(\S+) (v\S+)", (HERE / self.wrapper / "go.mod").read_text(), re.MULTILINE)
        return max((r for r in required if f"{self.package}/".startswith(f"{r[0]}/")), key=lambda r: len(r[0]))[1]


TOOLS = {"versitygw": Tool("versitygw", "github.com/versity/versitygw/cmd/versitygw")}


def path(name: str) -> Path:
    """Where the program is, or will be once it is built."""
    return CACHE / f"{name}-{TOOLS[name].version}"


def available(name: str) -> bool:
    """Whether the program is built, or can be."""
    return path(name).exists() or shutil.which("go") is not None


def build(name: str) -> Path:
    """The program, built if this version of it is not in the cache yet. Processes that ask at once build it once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path(name).exists():
            _build(TOOLS[name], path(name))
    return path(name)


def _build(tool: Tool, target: Path) -> None:
    aside = target.with_suffix(".building")
    command = ["go", "build", "-trimpath", "-ldflags", tool.ldflags, "-o", str(aside), tool.package]
    done = subprocess.run(command, cwd=HERE / tool.wrapper, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} in {HERE / tool.wrapper} failed:\n{done.stderr[-2000:]}")
    aside.replace(target)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or TOOLS:
        print(build(wanted))
