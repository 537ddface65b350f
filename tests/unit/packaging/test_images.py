"""The Containerfiles, read as text: what goes into an image, as whom it runs, and that nothing secret or unneeded gets in."""

import fnmatch
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from ehrmind_k8s.controller.resources import pod
from ehrmind_k8s.profile import Images
from tests.conftest import ROOT

FOLDER = ROOT / "components" / "images"
FILES = sorted(FOLDER.glob("Containerfile.*"))
EXTRAS = {"ehrmind": None, "trainer": "train", "rollout": "rollout"}


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str


def instructions(path: Path) -> list[Instruction]:
    """The instructions of a file, continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*(line.split(maxsplit=1))) for line in joined.splitlines() if line.strip()]


def stages(path: Path) -> list[list[Instruction]]:
    """The instructions of each stage, its FROM first; what stands before the first FROM is the first entry."""
    found: list[list[Instruction]] = [[]]
    for instruction in instructions(path):
        if instruction.word == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def of(stage: list[Instruction], word: str) -> list[str]:
    return [i.rest for i in stage if i.word == word]


@pytest.fixture(params=FILES, ids=lambda p: p.suffix[1:])
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_there_is_one_file_for_each_image_of_a_profile() -> None:
    assert {p.suffix[1:] for p in FILES} == {name for name in Images.model_fields if not name.startswith("pull_")}


def test_the_base_can_be_replaced_and_is_the_only_image_from_outside(path: Path) -> None:
    before, *later = stages(path)
    assert [i.rest.partition("=")[0] for i in before] == ["BASE"]
    names = {"${BASE}"}
    for stage in later:
        image, *name = stage[0].rest.split(" AS ")
        assert image in names
        names |= set(name)
    copied = re.findall(r"--from=(\S+)", path.read_text(encoding="utf-8"))
    assert set(copied) < names


def test_it_runs_as_the_user_of_the_pods_without_a_shell_or_anything_to_fetch_at_its_start(path: Path) -> None:
    last = stages(path)[-1]
    assert of(last, "USER") == [f"{pod.USER}:{pod.USER}"]
    assert last[-1].word == "CMD"
    assert last[-1].rest.startswith('["')
    assert not of(last, "ENTRYPOINT") + of(last, "HEALTHCHECK")
    assert not re.search(r"\b(sh|bash|pip|uv|curl|wget|git)\b", last[-1].rest)
    assert "/opt/uv" not in str(last), "no installer is left in it"


def test_nothing_secret_is_asked_for_and_nothing_is_downloaded_by_hand(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"^(ARG|ENV)\b.*(SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY)", text, re.MULTILINE | re.IGNORECASE)
    assert not [i for i in instructions(path) if i.word == "ADD" or re.search(r"\b(curl|wget|git clone)\b", i.rest)]


def test_versions_are_those_that_were_tested_together_and_are_compiled(path: Path) -> None:
    _, dependencies, package, _ = stages(path)
    installs = [run for stage in (dependencies, package) for run in of(stage, "RUN") if "uv pip install" in run]
    assert all("constraint constraints.txt" in run for run in installs)
    assert [len(re.findall("compileall .*unchecked-hash", " ".join(of(stage, "RUN")))) for stage in (dependencies, package)] == [1, 1]
    uv = re.search(r"uv==(\S+)", path.read_text(encoding="utf-8"))
    assert uv and f"uv_version={uv[1]} " in (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")


def test_the_installed_extra_exists(path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted, text = EXTRAS[path.suffix[1:]], path.read_text(encoding="utf-8")
    found = re.search(r"--extra \"?(\S+?)\"?$", text, re.MULTILINE)
    named = found[1].replace("${VLLM}", "rollout") if found else None
    assert named == wanted
    assert wanted is None or wanted in extras


def test_what_changes_with_every_commit_comes_last(path: Path) -> None:
    copies = [i.rest.split()[-1] for i in stages(path)[-1] if i.word == "COPY"]
    assert copies == ["/opt/venv", "/opt/ehrmind"]
    assert all("ehrmind_k8s" not in rest for rest in of(stages(path)[1], "COPY")), "or every commit would install all dependencies anew"


def test_what_is_copied_is_in_the_build_context_and_nothing_beside_it_is() -> None:
    ignored, *kept = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    kept = [line.removeprefix("!") for line in kept if line.startswith("!")]
    assert ignored == "*"
    copied = {name for p in FILES for i in instructions(p) if i.word == "COPY" and "--from" not in i.rest for name in i.rest.split()[:-1]}
    assert copied == set(kept)
    assert all((ROOT / name).exists() for name in kept)
    assert not [name for name in kept if fnmatch.fnmatch(name, "*.env") or name in (".git", "tests", "runs")]


def test_python_is_on_the_path_and_finds_the_package(path: Path) -> None:
    env = dict(pair.split("=", 1) for rest in of(stages(path)[-1], "ENV") for pair in rest.split())
    assert env["PATH"].split(":")[:2] == ["/opt/ehrmind/bin", "/opt/venv/bin"]
    assert env["PYTHONPATH"] == "/opt/ehrmind"
    if path.suffix != ".ehrmind":
        assert (env["HF_HUB_OFFLINE"], env["VLLM_NO_USAGE_STATS"]) == ("1", "1")
