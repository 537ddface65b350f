"""The frozen document: what pods read is what the run was taken on with, and nobody changes it afterwards."""

from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.controller.resources import document
from tests.unit.controller.resources.cases import UID, a_profile, run, stage_objects


def test_pods_read_the_resolved_document_with_the_uid_of_the_object() -> None:
    given = run("rlvr.steps=7")
    found = RunDocument.parse(document.render(given)["data"]["spec.json"].encode(), "here")
    assert (found.spec, found.uid) == (given.spec, UID.replace("-", "")[:12])
    assert found.recipe_hash == given.spec.recipe_hash()


def test_it_cannot_be_changed_and_is_where_the_pods_look_for_it() -> None:
    config_map = document.render(run())
    assert config_map["immutable"] is True
    pod = stage_objects(run(), "prepare", a_profile())[0]["spec"]["template"]["spec"]
    (volume,) = [v for v in pod["volumes"] if "configMap" in v]
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == volume["name"]]
    env = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    assert env["EHRMIND_SPEC_FILE"] == f"{mount['mountPath']}/{next(iter(config_map['data']))}"


def test_its_labels_say_whose_it_is_and_its_owner_takes_it_along() -> None:
    meta = document.render(run())["metadata"]
    (owner,) = meta["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("EHRMindRun", "demo", UID, True)
    assert meta["labels"]["ehrmind.dev/role"] == "run"
