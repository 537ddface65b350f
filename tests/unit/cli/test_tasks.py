"""`ehrmind tasks`."""

import json

from click.testing import CliRunner

from ehrmind_k8s.cli.tasks import command
from ehrmind_k8s.tasks import registry


def test_every_installed_task_is_listed_with_labels_and_layouts() -> None:
    output = CliRunner().invoke(command).output
    assert all(name in output for name in registry.names())
    assert "original, recomputed, corrected-887" in output and "14 columns" in " ".join(output.split())


def test_json_lists_what_a_script_needs() -> None:
    tasks = {t["name"]: t for t in json.loads(CliRunner().invoke(command, ["--json"]).output)}
    assert set(tasks) == set(registry.names())
    assert tasks["medcalc"]["primary_metric"] == "accuracy" and "recomputed" in tasks["medcalc"]["label_sets"]
