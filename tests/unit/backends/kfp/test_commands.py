"""Runs of a pipeline by the command line, against an API server that refuses what KFP's own would."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.unit.backends.kfp.conftest import COMPILED
from tests.unit.backends.kfp.kfp_server import Kfp, cut, new_id, says

SUBMIT = ("submit", "--task", "medcalc", "--preset", "tiny")
SECRET = "very-secret-token"


@pytest.fixture
def submitted(kfp: Kfp, ehrmind) -> dict:
    """A run called medcalc-tiny that has just been created."""
    assert ehrmind(*SUBMIT)[0] == 0
    return kfp.runs[-1]


def later(act) -> threading.Thread:
    """Something that a cluster does meanwhile."""
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def reads(kfp: Kfp) -> list:
    """The questions about one run."""
    return [call for call in kfp.calls if call.method == "GET" and "/runs/" in call.path]


def when(condition) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_submit_creates_the_experiment_and_a_run_with_the_pipeline_inline(kfp: Kfp, ehrmind) -> None:
    code, out, err = ehrmind(*SUBMIT, "--set", "rlvr.steps=5", "--set", "seed=7", "--data", "s3://data/medcalc")
    assert code == 0
    run, experiment = kfp.runs[0], kfp.experiments[0]
    assert experiment["display_name"] == "ehrmind" and run["experiment_id"] == experiment["experiment_id"]
    assert run["display_name"] == "medcalc-tiny" and "service_account" not in run
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "ehrmind"
    assert "kubernetes" in run["pipeline_spec"]["platform_spec"]["platforms"]
    values = run["runtime_config"]["parameters"]
    assert (values["b_data_uri"], values["e_rlvr_steps"], values["h_overrides"]) == ("s3://data/medcalc", 5, {"seed": 7})
    assert out == "medcalc-tiny: pending\n  ehrmind status medcalc-tiny\n  ehrmind logs medcalc-tiny --follow\n"
    assert err == (f"run medcalc-tiny is created in experiment ehrmind of {kfp.address}\n  {kfp.address}/#/runs/details/{run['run_id']}\n")


def test_commands_that_submit_names_say_the_backend_where_an_option_did(kfp: Kfp, ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EHRMIND_BACKEND")
    assert "ehrmind status medcalc-tiny -n me --backend kfp\n" in ehrmind(*SUBMIT, "--backend", "kfp", "-n", "me")[1]


def test_service_account_experiment_and_namespace_are_settings(kfp: Kfp, ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp.multi_user = True
    monkeypatch.setenv("EHRMIND_KFP_SERVICE_ACCOUNT", "trainer")
    monkeypatch.setenv("EHRMIND_KFP_EXPERIMENT", "trials")
    assert ehrmind(*SUBMIT, "--namespace", "research")[0] == 0
    assert (kfp.experiments[0]["display_name"], kfp.experiments[0]["namespace"]) == ("trials", "research")
    assert kfp.runs[0]["service_account"] == "trainer"
    assert ehrmind("status", "medcalc-tiny", "--namespace", "research")[0] == 0
    code, _, err = ehrmind("status", "medcalc-tiny")
    assert code == 2 and "has users of its own" in err and "--namespace names yours" in err


def test_the_image_of_the_nodes_is_a_setting(kfp: Kfp, ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EHRMIND_KFP_IMAGE", "mirror.example/team/ehrmind:0.1.0")
    assert ehrmind(*SUBMIT)[0] == 0
    executors = kfp.runs[0]["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert {e["container"]["image"] for e in executors} == {"mirror.example/team/ehrmind:0.1.0"}


def test_an_experiment_that_somebody_makes_at_the_same_time_is_used(kfp: Kfp, ehrmind) -> None:
    def made_by_another(handler) -> bool:
        kfp.experiments.append({"experiment_id": new_id(), "display_name": "ehrmind", "namespace": "", "created_at": "2026-01-01T00:00:00Z"})
        return True

    kfp.fail(made_by_another, where="POST /apis/v2beta1/experiments")
    assert ehrmind(*SUBMIT)[0] == 0
    assert len(kfp.experiments) == 1 and kfp.runs[0]["experiment_id"] == kfp.experiments[0]["experiment_id"]


def test_a_second_submit_of_a_run_that_goes_on_finds_it(kfp: Kfp, ehrmind, submitted: dict) -> None:
    kfp.move(submitted, "RUNNING")
    code, out, err = ehrmind(*SUBMIT)
    assert (code, err) == (0, "run medcalc-tiny goes on, with the same recipe\n") and out.startswith("medcalc-tiny: running")
    assert len(kfp.runs) == 1


def test_a_submit_whose_answer_got_lost_finds_its_run(kfp: Kfp, ehrmind) -> None:
    ehrmind("runs")  # the way is clear

    def lost(handler) -> bool:
        handler.say = lambda *_, **__: cut(handler)
        return True

    kfp.fail(lost, where="POST /apis/v2beta1/runs")
    code, _, err = ehrmind(*SUBMIT)
    assert code == 75 and "the same command finds out" in err
    assert ehrmind(*SUBMIT)[0] == 0 and len(kfp.runs) == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_second_submit_of_a_run_that_ended_early_tries_it_again(kfp: Kfp, ehrmind, submitted: dict, state: str) -> None:
    kfp.move(submitted, state)
    code, out, err = ehrmind(*SUBMIT)
    assert code == 0 and out.startswith("medcalc-tiny: running")
    assert f"continuing run medcalc-tiny ({'failed' if state == 'FAILED' else 'cancelled'})" in err
    assert submitted["state"] == "RUNNING" and len(kfp.runs) == 1


@pytest.mark.parametrize("state", ["RUNNING", "FAILED", "SUCCEEDED"])
def test_another_recipe_under_a_name_is_refused_with_the_keys_that_differ(kfp: Kfp, ehrmind, submitted: dict, state: str) -> None:
    kfp.move(submitted, state)
    code, out, err = ehrmind(*SUBMIT, "--set", "rlvr.steps=5", "--set", "seed=9", "--data", "s3://ward-7/patients")
    assert (code, out) == (2, "")
    assert "exists with another recipe" in err and "  rlvr.steps: None -> 5\n" in err and "  seed: None -> 9\n" in err
    assert "  data.uri: another one\n" in err and "ward-7" not in err
    assert submitted["state"] == state


def test_a_second_submit_of_a_run_that_succeeded_shows_where_its_result_is(kfp: Kfp, ehrmind, submitted: dict) -> None:
    kfp.move(submitted, "SUCCEEDED")
    code, out, _ = ehrmind(*SUBMIT)
    assert code == 0 and "run medcalc-tiny: complete" in out and f"{kfp.address}/#/runs/details/{submitted['run_id']}" in out


def test_an_archived_run_leaves_its_name_free(kfp: Kfp, ehrmind, submitted: dict) -> None:
    submitted["storage_state"] = "ARCHIVED"
    assert ehrmind(*SUBMIT, "--set", "seed=9")[0] == 0
    assert len(kfp.runs) == 2


def test_follow_says_what_happens_and_ends_as_the_run_does(kfp: Kfp, ehrmind) -> None:
    def cluster() -> None:
        when(lambda: kfp.runs)
        run = kfp.runs[0]
        kfp.move(run, "RUNNING")
        kfp.node(run, "prepare", "PENDING")
        kfp.node(run, "prepare", "RUNNING")
        asked = len(reads(kfp))
        when(lambda: len(reads(kfp)) > asked + 1)
        kfp.node(run, "prepare", "SUCCEEDED")
        kfp.move(run, "SUCCEEDED")

    thread = later(cluster)
    code, out, err = ehrmind(*SUBMIT, "--follow")
    thread.join()
    assert code == 0 and "run medcalc-tiny: complete" in out
    assert "prepare: attempt 1 has begun" in err and "prepare: succeeded" in err


@pytest.mark.parametrize(("state", "code", "sentence"), [("FAILED", 30, "Failed: stage sft: out of luck"), ("CANCELED", 31, "was cancelled")])
def test_follow_ends_with_the_code_of_the_end(kfp: Kfp, ehrmind, state: str, code: int, sentence: str) -> None:
    def cluster() -> None:
        when(lambda: kfp.runs)
        kfp.node(kfp.runs[0], "sft", "RUNNING")
        kfp.node(kfp.runs[0], "sft", state, "out of luck")
        kfp.move(kfp.runs[0], state)

    thread = later(cluster)
    found, _, err = ehrmind(*SUBMIT, "--follow")
    thread.join()
    assert found == code and sentence in err


def test_a_run_that_is_deleted_while_it_is_followed_is_cancelled(kfp: Kfp, ehrmind) -> None:
    def cluster() -> None:
        when(lambda: len(reads(kfp)) > 1)
        kfp.runs.clear()

    thread = later(cluster)
    code, _, err = ehrmind(*SUBMIT, "--follow")
    thread.join()
    assert code == 31 and "was deleted while it was followed" in err


def test_status_shows_stages_and_the_page(kfp: Kfp, ehrmind, submitted: dict) -> None:
    kfp.move(submitted, "RUNNING")
    kfp.node(submitted, "prepare", "SUCCEEDED")
    kfp.node(submitted, "diagnose", "RUNNING")
    code, out, err = ehrmind("status", "medcalc-tiny")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "medcalc-tiny: running"
    assert f"  run       {kfp.address}/#/runs/details/{submitted['run_id']}" in lines and "  stage     diagnose" in lines
    assert "  prepare   attempt 1: succeeded after 0 s" in lines and "  diagnose  attempt 1: running" in lines
    found = json.loads(ehrmind("status", submitted["run_id"], "-o", "json")[1])
    assert (found["name"], found["task"], found["uid"], found["namespace"]) == ("medcalc-tiny", "medcalc", submitted["run_id"], "kubeflow")


def test_of_several_runs_of_a_name_the_newest_counts(kfp: Kfp, ehrmind, submitted: dict) -> None:
    kfp.runs.append({**submitted, "run_id": new_id(), "created_at": "2099-01-01T00:00:00Z", "state": "FAILED", "state_history": []})
    assert ehrmind("status", "medcalc-tiny")[1].startswith("medcalc-tiny: Failed")


def test_a_name_that_is_not_there_suggests_the_nearest(kfp: Kfp, ehrmind) -> None:
    code, _, err = ehrmind("status", "medcalc-tiny")
    assert code == 2 and "there is no experiment ehrmind of" in err
    ehrmind(*SUBMIT)
    code, _, err = ehrmind("status", "medcalc-tin")
    assert code == 2 and "did you mean 'medcalc-tiny'?" in err
    code, _, err = ehrmind("status", new_id())
    assert code == 2 and "not found" in err


def test_cancel_waits_for_the_end(kfp: Kfp, ehrmind, submitted: dict) -> None:
    kfp.move(submitted, "RUNNING")

    def cluster() -> None:
        when(lambda: submitted["state"] == "CANCELING")
        kfp.move(submitted, "FAILED")  # what becomes of the workflow, and so of the run

    thread = later(cluster)
    assert ehrmind("cancel", "medcalc-tiny") == (0, "medcalc-tiny: cancelled\n", "")
    thread.join()


def test_cancel_leaves_a_run_that_has_ended(kfp: Kfp, ehrmind, submitted: dict) -> None:
    kfp.move(submitted, "SUCCEEDED")
    assert ehrmind("cancel", "medcalc-tiny")[1] == "medcalc-tiny: succeeded\n"
    assert not any(c.path.endswith(":terminate") for c in kfp.calls)


def test_cancel_of_a_run_that_ends_at_that_moment_is_no_error(kfp: Kfp, ehrmind, submitted: dict) -> None:
    def ends(handler) -> bool:
        kfp.move(submitted, "SUCCEEDED")
        return True

    kfp.fail(ends, where=":terminate")
    assert ehrmind("cancel", "medcalc-tiny")[:2] == (0, "medcalc-tiny: succeeded\n")


def test_cancel_that_is_refused_says_why(kfp: Kfp, ehrmind, submitted: dict) -> None:
    kfp.fail(says(403, {"code": 7, "message": "not yours"}), where=":terminate")
    code, _, err = ehrmind("cancel", "medcalc-tiny")
    assert code == 2 and "does not allow this (403) (not yours)" in err


@pytest.mark.parametrize("command", ["suspend", "resume"])
def test_suspend_and_resume_say_what_to_do_instead(kfp: Kfp, ehrmind, submitted: dict, command: str) -> None:
    code, out, err = ehrmind(command, "medcalc-tiny")
    assert (code, out) == (2, "")
    assert f"cannot be {command}{'ed' if command == 'suspend' else 'd'}" in err and f"ehrmind {command} STAGE --backend kubernetes -n kubeflow" in err


def test_runs_lists_ours_and_deletes_what_has_ended(kfp: Kfp, ehrmind, submitted: dict) -> None:
    kfp.runs.append({"run_id": new_id(), "display_name": "other", "experiment_id": submitted["experiment_id"], "created_at": "2026-01-01T00:00:00Z"})
    out = ehrmind("runs")[1]
    assert out.startswith("medcalc-tiny ") and " medcalc " in out and " pending " in out and "other" not in out
    code, _, err = ehrmind("runs", "delete", "medcalc-tiny", "--yes")
    assert code == 75 and "goes on (pending); end it first: ehrmind cancel medcalc-tiny" in err
    code, _, err = ehrmind("runs", "delete", "medcalc-tiny", "--yes", "--store-too")
    assert code == 2 and "delete it by its URI" in err
    kfp.move(submitted, "FAILED")
    assert ehrmind("runs", "delete", "medcalc-tiny", "--yes")[1] == "deleted run medcalc-tiny; what it stored stays\n"
    assert submitted not in kfp.runs
    assert ehrmind("runs")[1] == f"no runs in experiment ehrmind of {kfp.address}\n"


def test_runs_of_all_experiments(kfp: Kfp, ehrmind, submitted: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EHRMIND_KFP_EXPERIMENT", "trials")
    ehrmind(*SUBMIT, "--name", "second")
    assert [r["name"] for r in json.loads(ehrmind("runs", "-o", "json")[1])] == ["second"]
    assert {r["name"] for r in json.loads(ehrmind("runs", "-A", "-o", "json")[1])} == {"second", "medcalc-tiny"}


def test_a_delete_whose_answer_got_lost_is_done(kfp: Kfp, ehrmind, submitted: dict) -> None:
    kfp.move(submitted, "FAILED")

    def gone(handler) -> bool:
        kfp.runs.clear()
        return cut(handler)

    kfp.fail(gone, where="DELETE")
    assert ehrmind("runs", "delete", "medcalc-tiny", "--yes")[0] == 0


def test_the_report_of_a_pipelines_run_is_on_its_page(kfp: Kfp, ehrmind, submitted: dict) -> None:
    code, _, err = ehrmind("report", "medcalc-tiny")
    assert code == 2 and f"in its node evaluate, at {kfp.address}/#/runs/details/{submitted['run_id']}" in err


def test_logs_without_a_kubeconfig_say_where_else_they_are(kfp: Kfp, ehrmind, submitted: dict) -> None:
    code, _, err = ehrmind("logs", "medcalc-tiny")
    assert code == 2
    assert "needs a kubeconfig" in err and f"{kfp.address}/#/runs/details/{submitted['run_id']}" in err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--set", "stages=[prepare]"], "stages: a pipeline always runs all stages"),
        (["--data", "notes.csv"], "data.uri: 'notes.csv' is a place on this machine, which pods cannot reach"),
        (["--store", "./runs"], "store: './runs' is a place on this machine"),
        (["--name", "7demo"], "found '7demo': a run's name starts with a letter"),
        (["--set", "rlvr.step=3"], "did you mean 'steps'?"),
    ],
)
def test_what_no_pipeline_could_run_is_refused_before_anybody_is_asked(kfp: Kfp, ehrmind, argv: list[str], sentence: str) -> None:
    code, out, err = ehrmind(*SUBMIT, *argv)
    assert (code, out, kfp.calls) == (2, "", []) and sentence in err


def test_a_value_that_the_server_refuses_is_not_repeated(kfp: Kfp, ehrmind) -> None:
    kfp.fail(says(400, {"code": 3, "message": "parameter b_data_uri: no s3://ward-7/patients here"}), where="POST /apis/v2beta1/runs")
    code, _, err = ehrmind(*SUBMIT, "--data", "s3://ward-7/patients")
    assert code == 2 and "parameter b_data_uri: no … here" in err and "ward-7" not in err


def test_neither_kfp_nor_a_cluster_is_said_with_both_ways_out(kfp: Kfp, ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EHRMIND_KFP_HOST")
    code, _, err = ehrmind(*SUBMIT)
    assert code == 2 and "EHRMIND_KFP_HOST names no KFP" in err and "no cluster is configured here" in err


def test_credentials_without_an_address_are_not_passed_over(kfp: Kfp, ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EHRMIND_KFP_HOST")
    monkeypatch.setenv("EHRMIND_KFP_TOKEN_FILE", "token")
    code, _, err = ehrmind(*SUBMIT)
    assert code == 2 and "EHRMIND_KFP_TOKEN_FILE is for a gateway: set EHRMIND_KFP_HOST" in err


def test_no_token_is_ever_printed(kfp: Kfp, ehrmind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TOKEN", "COOKIE"):
        (tmp_path / name).write_text(f"{name}={SECRET}")
        monkeypatch.setenv(f"EHRMIND_KFP_{name}_FILE", str(tmp_path / name))
    said = []
    faults = [says(401), says(403), says(302, "", location="/login"), says(500), says(400, {"code": 3, "message": "bad"}), cut]
    for fault in [None, *faults]:
        if fault:
            kfp.fail(fault, times=4)
        said += [*ehrmind(*SUBMIT)[1:], *ehrmind("status", "medcalc-tiny", "-o", "json")[1:], *ehrmind("doctor", "--backend", "local")[1:]]
        kfp.faults.clear()
    assert any(SECRET in call.headers["authorization"] for call in kfp.calls)
    assert SECRET not in "".join(said)


def test_doctor_says_what_is_there_and_what_is_not(kfp: Kfp, ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EHRMIND_KFP_IMAGE", "ehrmind:0.1.0")
    code, out, _ = ehrmind("doctor")
    assert code == 0 and f"ok   pipelines api         {kfp.address} answers, without users" in out
    assert "ehrmind is not there yet: the first submit makes it" in out
    assert "-> EHRMIND_KFP_IMAGE names the one in your registry" in out and "-> ehrmind pipeline upload" in out
    assert ehrmind(*SUBMIT)[0] == 0
    monkeypatch.setenv("EHRMIND_KFP_IMAGE", "registry.example/ehrmind:0.1.0")
    assert ehrmind("pipeline", "upload")[0] == 0
    checks = json.loads(ehrmind("doctor", "-o", "json")[1])
    assert {c["name"]: c["state"] for c in checks}.items() >= {"experiment": "ok", "image of nodes": "ok", "pipeline": "ok"}.items()


def test_doctor_ends_at_what_leaves_nothing_to_ask(kfp: Kfp, ehrmind, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp.multi_user = True
    code, out, _ = ehrmind("doctor")
    assert code == 2 and "fail your namespace" in out and "-> --namespace NAME" in out and "ok   experiment" not in out
    kfp.fail(says(403, {"error": "no", "code": 7, "message": "no"}), where="/experiments")
    code, out, _ = ehrmind("doctor", "--namespace", "team-b")
    assert code == 2 and "fail experiment" in out and "team-b" in out and "warn pipeline" not in out
    kfp.fail(says(302, location="/dex/auth"))
    code, out, _ = ehrmind("doctor", "--namespace", "team-b")
    assert code == 2 and "fail pipelines api" in out and "login page" in out
    monkeypatch.setenv("EHRMIND_KFP_HOST", "http://127.0.0.1:9")
    code, out, _ = ehrmind("doctor")
    assert code == 2 and "fail pipelines api" in out


def test_submit_loads_neither_kfp_nor_torch_nor_the_client_of_kubernetes_in_a_second(kfp: Kfp, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, resource\nfrom ehrmind_k8s import cli\nfrom ehrmind_k8s.backends.kfp import document\n"
        f"document.PLACES = (pathlib.Path({str(COMPILED)!r}),)\nsys.argv = ['ehrmind', *{SUBMIT!r}]\n"
        "try: cli.main()\nfinally:\n usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        " print([m for m in ('kfp', 'torch', 'kubernetes') if m in sys.modules], usage.ru_utime + usage.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    loaded, _, seconds = done.stdout.splitlines()[-1].rpartition(" ")
    assert loaded == "[]" and len(kfp.runs) == 1
    assert float(seconds) < 1, "seconds of CPU time"
