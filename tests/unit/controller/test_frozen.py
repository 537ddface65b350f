"""What a run was taken on with stays, whoever edits profiles, upgrades the operator or writes ConfigMaps."""

import json
from typing import Any

import pytest

from ehrmind_k8s import crd
from ehrmind_k8s.controller.resources import document, frozen, pod
from ehrmind_k8s.profile import Images, Profile
from tests.unit.controller.runs import Run, a_run
from tests.unit.controller.world import NAME, NAMESPACE, Object

OPEN = {"profile.json": '{"store": "s3://bucket/{namespace}", "service_account": "admin", "egress": ["0.0.0.0/0"]}'}
CLOSED = Profile(store="s3://bucket/runs", allowed_namespaces=("other",))


def vouch(run: Run, **hashes: str) -> None:
    """Write hashes into the status, as only an operator can."""
    assert run.world.run
    resolved = {**run.world.status["resolved"], **hashes}
    run.world.put({**run.world.run, "status": {**run.world.status, "resolved": resolved}})


def kept_profile(run: Run) -> Object:
    """The ConfigMap with the profile that the run has now."""
    return run.world.objects["ConfigMap", frozen.name(NAME, run.world.status["resolved"]["frozenProfile"])]


def forge(run: Run, name: str, data: dict[str, str]) -> None:
    """Somebody writes a ConfigMap that names the run as its owner."""
    assert run.world.run
    labels = {crd.LABEL_RUN_UID: run.world.run["metadata"]["uid"], crd.LABEL_MANAGED_BY: crd.MANAGED_BY, crd.LABEL_INSTANCE: NAME}
    owner = {"apiVersion": crd.API_VERSION, "kind": crd.KIND, "name": NAME, "uid": run.world.run["metadata"]["uid"], "controller": True}
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": [owner]}
    run.world.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})


def template(run: Run) -> Any:
    return run.world.objects["Deployment", "demo-rollout"]["spec"]["template"]


@pytest.mark.parametrize("name", ["demo-profile-1", "demo-profile-", frozen.name(NAME, frozen.digest(OPEN))])
def test_nobody_gives_a_run_a_profile_by_writing_a_config_map(name: str) -> None:
    run = a_run(profile=CLOSED)
    forge(run, name, OPEN)
    run.go(3)
    assert run.message == "Waiting: profile 'default' is not for namespace team-a; choose another, or ask its owners"
    assert run.names("Job", "NetworkPolicy") == []


def test_a_config_map_that_is_not_as_the_operator_wrote_it_stops_what_comes_next_and_is_told() -> None:
    run = a_run().until("sft")
    kept = kept_profile(run)
    run.world.remove(("ConfigMap", kept["metadata"]["name"]))
    forge(run, kept["metadata"]["name"], OPEN)
    run.until("sft", "succeeded").go(3)
    assert run.message.startswith(f"RLVR: ConfigMap {kept['metadata']['name']} does not hold what this run was taken on with")
    assert (run.condition("Progressing"), run.stage("rlvr")["attempt"]) == (("False", "NameConflict"), 0)
    assert "admin" not in str(run.world.of("NetworkPolicy", "Deployment"))
    run.world.remove(("ConfigMap", kept["metadata"]["name"]))
    assert run.end().state == "succeeded"


def test_a_document_that_was_there_before_the_run_was_taken_on_is_not_believed() -> None:
    first, run = a_run({"seed": 2}).go(1), a_run()
    forge(run, "demo-spec", first.world.objects["ConfigMap", "demo-spec"]["data"])
    run.go(2)
    assert (run.state, run.condition("Accepted"), run.names("Job")) == ("pending", ("False", "NameConflict"), [])
    run.world.remove(("ConfigMap", "demo-spec"))
    assert run.end().state == "succeeded"


def test_a_document_that_was_exchanged_is_not_believed() -> None:
    first, run = a_run({"seed": 2}).go(1), a_run().until("sft")
    run.world.edit(run.world.objects["ConfigMap", "demo-spec"], data=first.world.objects["ConfigMap", "demo-spec"]["data"])
    run.until("sft").go(2)
    assert run.message.startswith("SFT: ConfigMap demo-spec does not hold what this run was taken on with")


def test_the_hash_of_a_document_leaves_out_what_may_change_and_nothing_else() -> None:
    run = a_run()
    first = run.look().creates[0]["data"]["spec.json"]
    scaled, reseeded = json.loads(first), json.loads(first)
    scaled["spec"]["rollout"]["replicas"] = 7
    del scaled["spec"]["cancel"]
    reseeded["spec"]["policy"]["retries"] = 7
    assert document.digest(json.dumps(scaled)) == document.digest(first) == run.world.status["resolved"]["frozenSpec"]
    assert document.digest(json.dumps(reseeded)) != document.digest(first)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"spec": 3}', "[" * 100_000, '{"spec": {"policy": 3}}'])
def test_what_is_no_document_has_a_hash_too(text: str) -> None:
    assert len(document.digest(text)) == 32


def test_an_edited_or_vanished_profile_changes_no_run_under_way() -> None:
    run = a_run().until("sft")
    servers = run.world.objects["Deployment", "demo-rollout"]
    run.world.profile = Profile(store="s3://bucket/runs", allowed_namespaces=("team-a",), images=Images(rollout="another:1", trainer="another:1"))
    run.until("sft", "succeeded").go(2)
    assert run.world.objects["Deployment", "demo-rollout"]["spec"]["template"] == servers["spec"]["template"]
    run.world.profile = None  # type: ignore[assignment]
    assert run.end().state == "succeeded"
    assert "another:1" not in str(run.world.objects["PyTorchJob", "demo-rlvr-1"])


def test_an_operator_that_renders_servers_in_another_way_restarts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run().until("rlvr")
    run.world.store["rlvr"].done = -50  # a long one
    before, render = template(run), pod.GRACE_S
    monkeypatch.setattr(pod, "GRACE_S", {**render, "rollout": 61})
    run.world.user(rollout={"replicas": 3})
    run.go(3)
    assert (template(run), len(run.world.pods("rollout"))) == (before, 3)
    assert before["spec"]["terminationGracePeriodSeconds"] == 60


def test_a_profile_of_a_newer_operator_stops_nothing_and_is_told() -> None:
    run = a_run().until("rlvr")
    run.world.store["rlvr"].done = -50  # a long one
    before, data = template(run), {"profile.json": '{"a_key_of_tomorrow": 1}'}
    forge(run, frozen.name(NAME, frozen.digest(data)), data)
    vouch(run, frozenProfile=frozen.digest(data))
    decision = run.look()
    assert (decision.deletes, decision.applies, template(run), run.stage("rlvr")["state"]) == ((), (), before, "running")
    run.world.end(run.pod(), 137)
    run.go(15)
    assert (run.stage("rlvr")["attempt"], run.condition("Progressing")) == (1, ("False", "ProfileUnreadable"))
    run.world.user(cancel=True)
    run.go(2)
    assert (run.state, run.names("Deployment")) == ("cancelled", [])


def test_an_attempt_raised_while_the_run_works_leaves_its_profile() -> None:
    run = a_run().until("rlvr")
    run.world.store["rlvr"].done = -50  # a long one
    before, hashes = template(run), run.world.status["resolved"]
    run.world.profile = run.world.profile.model_copy(update={"images": Images(rollout="another:1", trainer="another:1")})
    run.world.user(attempt=2)
    run.go(3)
    assert (run.world.status["attempt"], template(run), run.world.status["resolved"]) == (2, before, hashes)


def test_a_run_that_begins_anew_waits_for_the_profile_of_then() -> None:
    run = a_run({"policy": {"retries": 0}}, ends_with={"sft": ("StoreUnavailable", 75)}).end()
    profile, run.world.profile = run.world.profile, CLOSED
    run.world.ends_with = {}
    run.world.user(attempt=2)
    run.go(3)
    assert (run.condition("Progressing"), run.stage("sft")["attempt"]) == (("False", "ProfileForbidden"), 1)
    run.world.profile = profile
    assert run.end().state == "succeeded"


def test_a_raised_attempt_takes_up_the_profile_as_it_is_then() -> None:
    run = a_run({"policy": {"retries": 0}}, ends_with={"sft": ("StoreUnavailable", 75)}).end()
    assert run.world.profile
    run.world.profile, run.world.ends_with = run.world.profile.model_copy(update={"images": Images(trainer="another:1")}), {}
    run.world.user(attempt=2)
    run.look()
    assert run.end().state == "succeeded"
    assert "another:1" in str(run.world.objects["PyTorchJob", "demo-sft-2"])
    assert run.world.status["resolved"]["profileHash"] == run.world.profile.digest()


def test_a_deleted_document_is_made_again_or_asked_for_but_never_another() -> None:
    run = a_run().until("sft")
    run.world.remove(("ConfigMap", "demo-spec"))
    run.look()
    assert "demo-spec" in run.names("ConfigMap")
    run.world.remove(("ConfigMap", "demo-spec"))
    vouch(run, specHash="of another operator's presets")
    run.until("sft", "succeeded").go(2)
    assert run.message.startswith("RLVR: ConfigMap demo-spec is gone, and this operator reads another recipe from the document")
    assert "demo-spec" not in run.names("ConfigMap")


def test_a_document_of_a_newer_operator_stops_nothing_and_is_told() -> None:
    run = a_run().until("sft")
    kept = run.world.objects["ConfigMap", "demo-spec"]
    newer = kept["data"]["spec.json"].replace('"format": 1', '"format": 99')
    run.world.edit(kept, data={"spec.json": newer})
    vouch(run, frozenSpec=document.digest(newer))
    decision = run.look()
    assert "SFT: ConfigMap demo-spec: format 99 is newer than this version reads" in run.message
    assert (decision.deletes, run.condition("Accepted")[0]) == ((), "True")
    run.world.edit(kept)
    vouch(run, frozenSpec=document.digest(kept["data"]["spec.json"]))
    assert run.end().state == "succeeded"


def test_a_run_whose_document_is_damaged_can_be_cancelled() -> None:
    run = a_run().until("rlvr")
    run.world.edit(run.world.objects["ConfigMap", "demo-spec"], data={"spec.json": "{"})
    run.world.user(cancel=True)
    run.look()
    assert (run.state, run.names("Deployment")) == ("cancelled", [])
    assert not run.world.working()
