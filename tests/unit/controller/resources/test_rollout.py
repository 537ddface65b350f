"""The rollout servers: found before they are ready, restarted by no retry, moved one at a time."""

from typing import Any

from ehrmind_k8s.controller.resources import rollout
from tests.unit.controller.resources.cases import a_profile, run, stage_objects


def made(*overrides: str, **labels: str) -> tuple[Any, Any, Any]:
    deployment, service, budget = rollout.render(run(*overrides, labels=labels), a_profile())
    return deployment, service, budget


def test_the_service_names_every_pod_of_the_deployment_ready_or_not_and_no_other() -> None:
    deployment, service, budget = made()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    trainer = stage_objects(run(), "rlvr", a_profile())[0]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]["labels"]
    for selector in (service["spec"]["selector"], deployment["spec"]["selector"]["matchLabels"], budget["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items()
        assert not selector.items() <= trainer.items()
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert rollout.urls(run()) == f"dns://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_a_retry_or_another_number_of_servers_changes_no_pod() -> None:
    first, more, later = made()[0]["spec"], made("rollout.replicas=3")[0]["spec"], made("attempt=2")[0]["spec"]
    assert (first["replicas"], more["replicas"]) == (1, 3)
    assert first["template"] == more["template"] == later["template"]


def test_servers_never_ask_for_more_than_the_quota_of_their_number() -> None:
    deployment = made()[0]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_server_is_given_time_to_wait_for_prepare_and_to_load() -> None:
    deployment = made("rollout.wait_s=3600")[0]["spec"]
    (server,) = deployment["template"]["spec"]["containers"]
    startup, live = server["startupProbe"], server["livenessProbe"]
    patience_s = startup["periodSeconds"] * startup["failureThreshold"]
    assert patience_s >= 3600 + 1200
    assert deployment["progressDeadlineSeconds"] > patience_s
    assert live["periodSeconds"] * live["failureThreshold"] >= 60
    assert {server[p]["httpGet"]["path"] for p in ("startupProbe", "readinessProbe", "livenessProbe")} == {"/health"}


def test_a_drain_of_a_node_is_never_blocked() -> None:
    assert made()[2]["spec"]["maxUnavailable"] == 1


def test_servers_end_their_requests_before_they_are_killed() -> None:
    from ehrmind_k8s.rollout.server.__main__ import SHUTDOWN_S

    assert made()[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= SHUTDOWN_S + 30


def test_in_a_queue_the_deployment_waits_in_it_and_what_stands_beside_it_does_not() -> None:
    objects = rollout.render(run(labels={"kueue.x-k8s.io/queue-name": "gpus"}), a_profile())
    assert [o["kind"] for o in objects if "kueue" in str(o["metadata"]["labels"])] == ["Deployment"]
    assert "kueue" not in str(objects[0]["spec"])
