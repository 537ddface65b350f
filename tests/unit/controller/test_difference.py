"""Whether what is there has what we want: additions by others do not count, everything else does."""

import copy
from typing import Any

import pytest

from ehrmind_k8s import crd
from ehrmind_k8s.controller.difference import lacks, stamped

WANTED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "demo-rollout", "namespace": "ns", "labels": {"a": "b"}},
    "spec": {
        "replicas": 2,
        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "template": {
            "spec": {
                "enableServiceLinks": False,
                "nodeSelector": {},
                "containers": [
                    {
                        "name": "rollout",
                        "args": ["--port", "8000"],
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
                        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"nvidia.com/gpu": 1}},
                    }
                ],
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "20Gi"}}, {"name": "tmp", "emptyDir": {}}],
            }
        },
    },
}


def live() -> dict[str, Any]:
    """As the API server gives it back: defaults filled in, quantities rewritten, what is empty left out, labels of Kueue added."""
    body = copy.deepcopy(WANTED)
    body["metadata"] |= {"uid": "u", "resourceVersion": "9", "generation": 1}
    body["status"] = {"readyReplicas": 2}
    pod = body["spec"]["template"]["spec"]
    body["spec"]["template"]["metadata"] = {"labels": {"kueue.x-k8s.io/managed": "true"}}
    container = pod["containers"][0]
    container |= {
        "terminationMessagePath": "/dev/termination-log",
        "env": [{"name": "Z", "value": "mesh"}, {"name": "B"}, {"name": "A", "value": "1"}],
    }
    container["resources"] = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "1"}}
    del pod["nodeSelector"]
    pod["containers"].insert(0, {"name": "sidecar"})
    return body


def test_what_the_server_and_others_add_is_no_difference() -> None:
    assert not lacks(live(), WANTED)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a replica count set by hand", lambda b: b["spec"].update(replicas=5)),
        ("a zero turned into one", lambda b: b["spec"]["strategy"]["rollingUpdate"].update(maxSurge=1)),
        ("an argument more", lambda b: b["spec"]["template"]["spec"]["containers"][1]["args"].append("-v")),
        ("an environment variable gone", lambda b: b["spec"]["template"]["spec"]["containers"][1]["env"].pop(2)),
        ("an empty value filled in", lambda b: b["spec"]["template"]["spec"]["containers"][1]["env"][1].update(value="x")),
        ("more memory", lambda b: b["spec"]["template"]["spec"]["containers"][1]["resources"]["requests"].update(memory="2Gi")),
        ("a toleration more", lambda b: b["spec"]["template"]["spec"]["tolerations"].append({"operator": "Exists"})),
        ("a volume gone", lambda b: b["spec"]["template"]["spec"]["volumes"].pop()),
        ("a label gone", lambda b: b["metadata"].pop("labels")),
        ("service links switched on", lambda b: b["spec"]["template"]["spec"].update(enableServiceLinks=True)),
    ],
)
def test_a_change_of_what_we_want_is_a_difference(what: str, change: Any) -> None:
    body = live()
    change(body)
    assert lacks(body, WANTED), what


def test_an_empty_selector_that_is_not_there_is_a_difference_only_when_something_else_is() -> None:
    assert not lacks({"spec": {"podSelector": {}}}, {"spec": {"podSelector": {}}})
    assert lacks({"spec": {"ingress": [{"ports": []}]}}, {"spec": {"ingress": []}})


def test_what_we_no_longer_want_shows_in_the_stamp() -> None:
    before = stamped(WANTED)
    less = copy.deepcopy(WANTED)
    del less["spec"]["template"]["spec"]["tolerations"]
    assert not lacks(before, WANTED)
    assert lacks(before, stamped(less))
    assert before["metadata"]["annotations"][crd.ANNOTATION_PLAN] == stamped(WANTED)["metadata"]["annotations"][crd.ANNOTATION_PLAN]
    assert "annotations" not in WANTED["metadata"]


@pytest.mark.parametrize(("one", "other"), [("1", "1000m"), ("0.5", "500m"), (1, "1"), ("1e3", "1k"), ("1.5Gi", "1536Mi"), (".5", "500m")])
def test_amounts_are_compared_as_amounts(one: Any, other: Any) -> None:
    assert not lacks({"x": one}, {"x": other})
    assert not lacks({"x": other}, {"x": one})


@pytest.mark.parametrize(("one", "other"), [("1", "1k"), ("a", "b"), (True, "1"), ("1Gi", "1G"), (None, "1")])
def test_other_values_differ(one: Any, other: Any) -> None:
    assert lacks({"x": one}, {"x": other})
