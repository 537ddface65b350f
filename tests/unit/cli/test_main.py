"""The command line as a script meets it: exit codes, messages, help."""

import importlib
import importlib.machinery
import json
import sys
from pathlib import Path

import click
import pytest

from ehrmind_k8s import artifacts, cli, spec, storage
from ehrmind_k8s.artifacts import RunDocument
from tests.conftest import ROOT


def make_run(folder: Path, name: str = "demo", **fields: object) -> str:
    """A run directory with a document and nothing else."""
    store = storage.open(str(folder / "runs" / name))
    RunDocument.new(spec.load({"task": "medcalc", "preset": "tiny", "name": name, **fields})).write(store)
    return store.uri


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_is_the_sentence_in_the_table(name: str) -> None:
    command = importlib.import_module(f"ehrmind_k8s.cli.{name}").command
    assert command.help and command.help.startswith(cli.COMMANDS[name].removesuffix("."))


def _leaves(command: click.Command, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    ctx = click.Context(command)
    return [leaf for name in command.list_commands(ctx) for leaf in _leaves(command.get_command(ctx, name), (*path, name))]  # type: ignore[arg-type]


@pytest.mark.parametrize(("path", "command"), _leaves(cli.group, ()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_every_command_shows_an_example_of_itself(path: tuple[str, ...], command: click.Command) -> None:
    assert f"ehrmind {' '.join(path)}" in (command.help or "")


def test_an_unknown_command_suggests_the_nearest(ehrmind) -> None:
    code, _, err = ehrmind("sumbit")
    assert code == 2
    assert "command 'sumbit' is unknown; did you mean 'submit'?" in err


def test_an_unknown_option_suggests_the_nearest(ehrmind) -> None:
    code, _, err = ehrmind("submit", "--preste", "tiny")
    assert code == 2
    assert "--preset" in err


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--task", "medcal", "--preset", "tiny"], 2, "task 'medcal' is unknown; did you mean 'medcalc'?"),
        (["--task", "medcalc", "--preset", "tinny"], 2, "preset 'tinny' is unknown; did you mean 'tiny'?"),
        (["--task", "medcalc", "--set", "rlvr.step=3"], 2, "rlvr.step: unknown key; did you mean 'steps'?"),
        (["--task", "medcalc", "--set", "rlvr.steps"], 2, "expected key=value"),
        (["--task", "medcalc", "--set", "stages=[prepare,sft]"], 2, "sft.mode auto needs stage diagnose"),
        (["--task", "medcalc", "--name", "No Spaces"], 2, "name: found 'No Spaces'"),
        (["--task", "medcalc", "--data", "nowhere.csv"], 10, "data.uri: no file or folder at"),
        (["--task", "medcalc", "--store", "ftp://host/runs"], 2, "unknown scheme 'ftp'"),
        (["-f", "nowhere.yaml"], 2, "nowhere.yaml: no such file"),
        ([], 2, "task: missing"),
    ],
)
def test_a_wrong_document_is_refused_with_what_to_do(ehrmind, argv: list[str], code: int, message: str) -> None:
    found, out, err = ehrmind("submit", "--backend", "local", *argv)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_a_state_folder_that_cannot_be_made_is_named(ehrmind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EHRMIND_STATE_DIR", str(tmp_path / "file" / "state"))
    code, _, err = ehrmind("submit", "--task", "medcalc", "--preset", "tiny", "--backend", "local")
    assert code == 2
    assert err.startswith(f"error: {tmp_path / 'file'}")


class Hidden(importlib.machinery.PathFinder):
    """Finds everything but some packages: a machine where they are not installed."""

    names: tuple[str, ...] = ()

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname in cls.names else super().find_spec(fullname, path, target)


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch):
    """Make packages look not installed."""

    def hide(*names: str) -> None:
        finder = type("Finder", (Hidden,), {"names": names})
        monkeypatch.setattr(sys, "meta_path", [finder if f is importlib.machinery.PathFinder else f for f in sys.meta_path])
        for name in names:
            monkeypatch.delitem(sys.modules, name, raising=False)

    return hide


def test_without_vllm_a_run_samples_inside_the_trainer_and_says_so(ehrmind, hide, tmp_path: Path) -> None:
    make_run(tmp_path, rollout={"engine": "transformers"}, store=str(tmp_path / "runs"))
    hide("vllm")
    _, _, err = ehrmind("submit", "--task", "medcalc", "--preset", "tiny", "--name", "demo", "--backend", "local", "--set", "seed=7")
    assert "vllm is not installed here: rollout.engine becomes transformers" in err
    assert "seed: 42 -> 7" in err
    assert "rollout.engine: " not in err  # the run that is there was made with transformers too


def test_without_torch_nothing_is_begun_and_the_install_line_is_shown(ehrmind, hide, tmp_path: Path) -> None:
    hide("torch", "vllm")
    code, _, err = ehrmind("submit", "--task", "medcalc", "--preset", "tiny", "--backend", "local")
    assert code == 2
    assert "pip install 'ehrmind_k8s[train]'" in err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_backend_suggests_the_nearest(ehrmind) -> None:
    code, _, err = ehrmind("submit", "--task", "medcalc", "--backend", "kpf")
    assert code == 2
    assert "backend 'kpf' is unknown; did you mean 'kfp'?" in err


def test_the_default_backend_is_kubernetes_and_the_environment_changes_it(ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no cluster is configured here" in ehrmind("submit", "--task", "medcalc")[2]
    monkeypatch.setenv("EHRMIND_BACKEND", "nomad")
    code, _, err = ehrmind("submit", "--task", "medcalc")
    assert code == 2
    assert "EHRMIND_BACKEND" in err


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_a_missing_run_names_the_nearest_one(ehrmind, tmp_path: Path, command: str) -> None:
    make_run(tmp_path, "medcalc-tiny")
    code, _, err = ehrmind(command, "medcalc-tyny")
    assert code == 2
    assert "did you mean 'medcalc-tiny'?" in err


def test_a_run_of_a_newer_version_is_refused_as_such(ehrmind, tmp_path: Path) -> None:
    uri = make_run(tmp_path)
    store = storage.open(uri)
    store.put_bytes(artifacts.SPEC, json.dumps({"format": artifacts.FORMAT + 1}).encode())
    for argv in (["status", "demo"], ["submit", "--task", "medcalc", "--preset", "tiny", "--name", "demo", "--backend", "local"]):
        code, _, err = ehrmind(*argv)
        assert code == 20
        assert "newer than this version reads" in err


def test_another_recipe_under_the_same_name_is_refused_with_the_difference(ehrmind, tmp_path: Path) -> None:
    make_run(tmp_path, store=str(tmp_path / "runs"))
    code, _, err = ehrmind("submit", "--task", "medcalc", "--preset", "tiny", "--name", "demo", "--backend", "local", "--set", "seed=7")
    assert code == 2
    assert "seed: 42 -> 7" in err


def test_status_of_a_run_made_elsewhere_comes_from_the_store(ehrmind, tmp_path: Path) -> None:
    uri = make_run(tmp_path)
    code, out, _ = ehrmind("status", uri, "--json")
    shown = json.loads(out)
    assert code == 0
    assert (shown["state"], shown["stage"]) == ("unfinished", "prepare")


def test_runs_lists_a_store(ehrmind, tmp_path: Path) -> None:
    make_run(tmp_path, "one")
    make_run(tmp_path, "two")
    _, out, _ = ehrmind("runs", "--json")
    assert [r["name"] for r in json.loads(out)] == ["one", "two"]


def test_delete_takes_everything_of_one_run(ehrmind, tmp_path: Path) -> None:
    make_run(tmp_path, "one")
    make_run(tmp_path, "two")
    assert ehrmind("runs", "delete", "one", "--yes")[0] == 0
    assert [o.key for o in storage.open(str(tmp_path / "runs")).list()] == ["two/spec.json"]


def test_delete_asks_first(ehrmind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    uri = make_run(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert ehrmind("runs", "delete", "demo")[0] == 130
    assert storage.open(uri).head(artifacts.SPEC)


def test_plan_prints_the_argument_lines(ehrmind, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{task: medcalc, preset: tiny}")
    code, out, _ = ehrmind("plan", "run.yaml", "--json")
    shown = json.loads(out)
    assert code == 0
    assert [s["stage"] for s in shown["steps"]] == list(spec.STAGES)
    assert shown["steps"][2]["argv"][:4] == ["python", "-m", "ehrmind_k8s.stages", "sft"]


def test_schema_describes_every_field(ehrmind) -> None:
    schema = json.loads(ehrmind("schema")[1])
    fields = [(name, field) for model in (schema, *schema["$defs"].values()) for name, field in model["properties"].items()]
    assert [name for name, field in fields if not field.keys() & {"description", "$ref"}] == []


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ehrmind", "schema"])
    monkeypatch.setattr(spec.RunSpec, "model_json_schema", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_an_option_for_a_section_that_the_file_fills_with_text_wins(ehrmind, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{task: medcalc, preset: tiny, data: notes}")
    code, _, err = ehrmind("submit", "-f", "run.yaml", "--backend", "local", "--data", "gone")
    assert code == 10
    assert f"data.uri: no file or folder at {tmp_path / 'gone'}" in err


def test_a_report_in_a_folder_with_a_space_is_where_it_says(ehrmind, tmp_path: Path) -> None:
    run = make_run(tmp_path / "my runs")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "report.json").write_bytes((ROOT / "tests" / "golden" / "report" / "report.json").read_bytes())
    (tmp_path / "made" / "report.html").touch()
    artifacts.publish(storage.open(f"{run}/evaluate"), "", tmp_path / "made", "report")
    code, out, _ = ehrmind("report", run)
    assert code == 0
    assert Path(out.splitlines()[-1].removeprefix("report: ")).is_file()


def test_a_run_that_cannot_be_read_hides_no_other(ehrmind, tmp_path: Path) -> None:
    make_run(tmp_path)
    make_run(tmp_path, "newer")
    path = tmp_path / "runs" / "newer" / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    code, out, err = ehrmind("runs")
    assert code == 0
    assert out.startswith("demo ") and "newer" not in out
    assert "format 99 is newer than this version reads" in err


OBJECT = """
apiVersion: ehrmind.dev/v1alpha1
kind: EHRMindRun
metadata: {name: night}
spec: {task: medcalc, preset: tiny, rollout: {replicas: 2}, rlvr: {promptsPerStep: 4}}
"""


def test_a_document_may_be_the_object_that_kubectl_takes(ehrmind, tmp_path: Path) -> None:
    (tmp_path / "object.yaml").write_text(OBJECT)
    (tmp_path / "plain.yaml").write_text("{name: night, task: medcalc, preset: tiny, rollout: {replicas: 2}, rlvr: {prompts_per_step: 4}}\n")
    plans = [ehrmind("plan", name, "--json")[:2] for name in ("object.yaml", "plain.yaml")]
    assert plans[0] == plans[1] and plans[0][0] == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: EHRMindRun", "kind: PyTorchJob", "PyTorchJob, expected a run document"),
        ("{name: night}", "{generateName: night-}", "expected metadata.name and spec"),
        ("{name: night}", "{name: night, namespace: research}", "pass --namespace research"),
        ("{name: night}", "{name: night, labels: {a: b}}", "metadata.labels would be lost"),
        ("spec: {", "sepc: {}\nspec: {", "sepc would be lost"),
        ("replicas", "replica", "did you mean 'replicas'?"),
    ],
)
def test_an_object_that_is_not_taken_whole_is_refused(ehrmind, tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "object.yaml").write_text(OBJECT.replace(old, new))
    code, _, err = ehrmind("plan", "object.yaml")
    assert code == 2 and said in err
