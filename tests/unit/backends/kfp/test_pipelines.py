"""The pipeline in KFP's list, and runs of it on a schedule, by the command line."""

import json
from pathlib import Path

import pytest

from ehrmind_k8s import __version__
from ehrmind_k8s.backends.kfp import document, pipelines
from ehrmind_k8s.errors import SpecError
from tests.unit.backends.kfp.conftest import COMPILED
from tests.unit.backends.kfp.kfp_server import Kfp, cut, says

SCHEDULE = ("pipeline", "schedule", "--task", "medcalc", "--preset", "tiny")
VERSION = pipelines.version_name(document.read(COMPILED))


def test_a_version_is_named_by_the_package_and_the_file(tmp_path: Path) -> None:
    assert VERSION.startswith(f"{__version__}-") and len(VERSION) == len(__version__) + 9
    (tmp_path / "other.yaml").write_text(COMPILED.read_text() + "# changed\n")
    assert pipelines.version_name(document.read(tmp_path / "other.yaml")) != VERSION


def test_upload_makes_the_pipeline_with_its_first_version(kfp: Kfp, ehrmind) -> None:
    code, out, err = ehrmind("pipeline", "upload")
    pipeline, version = kfp.pipelines[0], kfp.versions[0]
    assert (code, out) == (0, f"pipeline ehrmind, version {VERSION}: uploaded\n  id  {pipeline['pipeline_id']}\n")
    assert err == f"  {kfp.address}/#/pipelines/details/{pipeline['pipeline_id']}/version/{version['pipeline_version_id']}\n"
    assert (pipeline["name"], pipeline["description"]) == ("ehrmind", "Diagnose, warm up, reinforce, evaluate.")
    assert version["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "ehrmind"


def test_the_same_version_again_is_said_and_no_error(kfp: Kfp, ehrmind) -> None:
    ehrmind("pipeline", "upload")
    code, out, _ = ehrmind("pipeline", "upload")
    assert code == 0 and f"version {VERSION}: is there already" in out and len(kfp.versions) == 1


def test_another_file_is_another_version_of_the_same_pipeline(kfp: Kfp, ehrmind, tmp_path: Path) -> None:
    ehrmind("pipeline", "upload")
    (tmp_path / "other.yaml").write_text(COMPILED.read_text() + "# changed\n")
    assert ehrmind("pipeline", "upload", "other.yaml")[0] == 0
    assert len(kfp.pipelines) == 1 and len({v["name"] for v in kfp.versions}) == 2


def test_another_name_is_another_pipeline_and_with_users_one_of_a_namespace(kfp: Kfp, ehrmind) -> None:
    kfp.multi_user = True
    assert ehrmind("pipeline", "upload")[0] == 0
    assert ehrmind("pipeline", "upload", "--name", "mine", "--namespace", "research")[0] == 0
    assert [(p["name"], p["namespace"]) for p in kfp.pipelines] == [("ehrmind", ""), ("mine", "research")]


def test_an_upload_that_broke_off_is_completed_by_the_next(kfp: Kfp, ehrmind) -> None:
    kfp.fail(cut, where="upload_version")
    code, _, err = ehrmind("pipeline", "upload")
    assert code == 75 and "the same command finds out" in err
    assert "uploaded" in ehrmind("pipeline", "upload")[1]
    assert (len(kfp.pipelines), len(kfp.versions)) == (1, 1)


def test_what_is_no_compiled_pipeline_is_not_uploaded(kfp: Kfp, ehrmind, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("task: medcalc\n")
    code, _, err = ehrmind("pipeline", "upload", "run.yaml")
    assert code == 2 and "no compiled pipeline" in err and kfp.calls == []


def test_a_schedule_runs_a_document_at_times_of_the_clock(kfp: Kfp, ehrmind) -> None:
    code, out, err = ehrmind(*SCHEDULE, "--cron", "0 0 2 * * *", "--set", "rlvr.steps=5")
    made = kfp.schedules[0]
    assert (code, out) == (0, f"schedule medcalc-tiny, cron 0 0 2 * * *: created\n  id  {made['recurring_run_id']}\n")
    assert err == f"  {kfp.address}/#/recurringrun/details/{made['recurring_run_id']}\n"
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert (made["mode"], made["max_concurrency"], made["no_catchup"]) == ("ENABLE", "1", True)
    assert made["runtime_config"]["parameters"]["e_rlvr_steps"] == 5
    assert kfp.runs == []


def test_a_schedule_runs_a_file_after_each_interval(kfp: Kfp, ehrmind, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{task: medcalc, preset: tiny, name: nightly}\n")
    out = ehrmind("pipeline", "schedule", "-f", "run.yaml", "--every", "24h")[1]
    assert out.startswith("schedule nightly, every 1d: created")
    assert kfp.schedules[0]["trigger"] == {"periodic_schedule": {"interval_second": "86400"}}


def test_the_same_schedule_again_is_said_and_another_is_refused(kfp: Kfp, ehrmind) -> None:
    ehrmind(*SCHEDULE, "--every", "24h")
    assert "every 1d: is there already" in ehrmind(*SCHEDULE, "--every", "1d")[1]
    code, _, err = ehrmind(*SCHEDULE, "--every", "90m", "--set", "seed=3")
    assert code == 2 and "  seed: None -> 3\n  when: every 1d -> every 90m\n" in err
    assert "ehrmind pipeline schedules delete medcalc-tiny" in err and len(kfp.schedules) == 1


def test_schedules_are_listed_and_deleted_by_name(kfp: Kfp, ehrmind) -> None:
    ehrmind(*SCHEDULE, "--every", "7d")
    out = ehrmind("pipeline", "schedules")[1]
    assert out.split() == ["medcalc-tiny", "every", "7d", "enabled", kfp.schedules[0]["recurring_run_id"]]
    assert json.loads(ehrmind("pipeline", "schedules", "-o", "json")[1])[0]["when"] == "every 7d"
    code, _, err = ehrmind("pipeline", "schedules", "delete", "medcalc-tin")
    assert code == 2 and "did you mean 'medcalc-tiny'?" in err
    assert ehrmind("pipeline", "schedules", "delete", "medcalc-tiny")[1] == "deleted schedule medcalc-tiny\n"
    assert ehrmind("pipeline", "schedules")[1] == f"no schedules in experiment ehrmind of {kfp.address}\n"


def test_before_the_first_submit_there_are_no_schedules(kfp: Kfp, ehrmind) -> None:
    code, _, err = ehrmind("pipeline", "schedules")
    assert code == 2 and "there is no experiment ehrmind" in err and "the first submit makes it" in err


@pytest.mark.parametrize("argv", [[], ["--cron", "@daily", "--every", "1d"]])
def test_a_schedule_has_one_time(kfp: Kfp, ehrmind, argv: list[str]) -> None:
    code, _, err = ehrmind(*SCHEDULE, *argv)
    assert code == 2 and "give one of --cron and --every" in err


@pytest.mark.parametrize("text", ["0 2 * * *", "@nightly", ""])
def test_a_cron_that_kfp_does_not_read_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="expected six fields, seconds first"):
        pipelines.cron(text)


@pytest.mark.parametrize("text", ["24", "0h", "1.5h", "h", "1w"])
def test_an_interval_is_a_number_and_a_unit(text: str) -> None:
    with pytest.raises(SpecError, match="expected a number and a unit"):
        pipelines.every(text)


def test_what_no_pipeline_could_run_is_not_scheduled(kfp: Kfp, ehrmind) -> None:
    code, _, err = ehrmind(*SCHEDULE, "--every", "1d", "--data", "notes.csv")
    assert code == 2 and "is a place on this machine" in err and kfp.calls == []


def test_another_backend_is_no_place_for_a_pipeline(kfp: Kfp, ehrmind) -> None:
    code, _, err = ehrmind("pipeline", "upload", "--backend", "local")
    assert code == 2 and "--backend local: a pipeline is of Kubeflow Pipelines" in err


def test_a_login_page_is_no_pipeline(kfp: Kfp, ehrmind) -> None:
    kfp.fail(says(302, "", location="/dex"))
    code, _, err = ehrmind("pipeline", "upload")
    assert code == 2 and "answers with a login page" in err
