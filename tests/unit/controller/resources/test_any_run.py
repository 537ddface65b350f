"""Whatever a run and a profile say: pods satisfy `restricted`, and names and labels are ones that an API server takes."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ehrmind_k8s.controller.resources import document, network, rollout, templates, trainer, trainjob
from ehrmind_k8s.crd import Run
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.profile import Profile
from tests.unit.controller.resources import cases, standards
from tests.unit.controller.resources.cases import Object

names = st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
object_names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True)
quantities = st.sampled_from(["100m", "1", "1.5", "4", "64", "2k", "1e3", "16Gi", "500M"])
resources = st.fixed_dictionaries({}, optional={k: st.dictionaries(st.sampled_from(["cpu", "memory"]), quantities) for k in ("requests", "limits")})
label_values = st.from_regex(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?)?", fullmatch=True)
profiles = st.fixed_dictionaries(
    {},
    optional={
        "s3": st.fixed_dictionaries(
            {},
            optional={
                "endpoint_url": st.sampled_from(
                    ["http://10.0.0.1:9000", "https://s3.example", "http://minio", "http://s3.store.svc.cluster.local:80", "http://[fd00::1]:9000"]
                ),
                "secret": st.none() | object_names,
                "ca_config_map": st.none() | object_names,
            },
        ),
        "images": st.fixed_dictionaries({"pull_secrets": st.lists(object_names, max_size=2, unique=True)}),
        "trainer": st.fixed_dictionaries({"nodes": st.integers(1, 64), "gpus": st.integers(0, 16)}),
        "rollout_gpus": st.integers(0, 16),
        "resources": st.dictionaries(st.sampled_from(["prepare", "diagnose", "sft", "rlvr", "evaluate", "rollout"]), resources),
        "service_account": object_names,
        "runtime_class": object_names,
        "priority_class": object_names,
        "rollout_priority_class": object_names,
        "queue": object_names,
        "env": st.dictionaries(st.sampled_from(["HTTPS_PROXY", "HOME", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"]), st.text("abc/:", max_size=9)),
        "egress": st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8"]), unique=True),
        "pod_labels": st.dictionaries(st.sampled_from(["team", "example.com/cost-centre"]), label_values),
    },
).map(Profile.model_validate)


@st.composite
def runs(draw: Any) -> Run:
    overrides = [f"rollout.replicas={draw(st.integers(1, 256))}", f"rollout.engine={draw(st.sampled_from(['vllm', 'transformers']))}"]
    return cases.run(*overrides, name=draw(names), labels=draw(st.sampled_from([{}, {"kueue.x-k8s.io/queue-name": "q"}])))


def every_object(run: Run, profile: Profile, chosen: str, attempt: int) -> list[Object]:
    stages = [o for stage in run.spec.stages for o in cases.stage_objects(run, stage, profile, chosen, attempt)]
    return [document.render(run), *network.render(run, profile, "ehrmind-system"), *rollout.render(run, profile), *stages]


def check(objects: list[Object]) -> None:
    for o in objects:
        assert standards.NAME.fullmatch(o["metadata"]["name"])
        assert not standards.bad_labels(o["metadata"]["labels"])
        for template in standards.templates(o):
            assert not standards.violations(template)
            assert not standards.bad_labels(template["metadata"]["labels"])
            assert template["spec"]["automountServiceAccountToken"] is False
            (container,) = template["spec"]["containers"]
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            env = [entry["name"] for entry in container["env"]]
            assert len(env) == len(set(env)), "server-side apply refuses two entries of one name"
            assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in template["spec"]["volumes"]}


@settings(max_examples=40)
@given(runs(), profiles, st.sampled_from(["pytorchjob", "trainjob"]), st.integers(1, 99))
def test_objects_are_ones_that_an_api_server_takes_in_a_restricted_namespace(run: Run, profile: Profile, chosen: str, attempt: int) -> None:
    try:
        objects = every_object(run, profile, chosen, attempt)
    except SpecError as refused:
        assume(chosen == "trainjob")
        assert "too long for a TrainJob" in str(refused)
        with pytest.raises(SpecError):  # what would be refused later is refused when the run is taken on
            trainjob.check(run, [cases.step(run, stage, profile) for stage in run.spec.stages], profile)
        return
    check(objects)


@settings(max_examples=40)
@given(runs(), profiles, st.integers(1, 99))
def test_hosts_of_a_training_job_are_names_of_dns(run: Run, profile: Profile, attempt: int) -> None:
    for chosen in ("pytorchjob", "trainjob"):
        wanted = cases.step(run, "rlvr", profile)
        try:
            job = trainer.render(trainer.kind(run, wanted, profile, chosen), run, wanted, attempt, profile)[0]
        except SpecError:
            continue
        last = profile.trainer.nodes - 1
        hosts = {"PyTorchJob": [f"-worker-{last}", "-master-0"], "TrainJob": [f"-node-0-{last}-xxxxx"]}[job["kind"]]
        if trainer.holds_rollouts(run, wanted, profile, job["kind"]):
            hosts.append(f"-rollout-{run.spec.rollout.replicas - 1}-0-xxxxx")
        assert all(standards.NAME.fullmatch(job["metadata"]["name"] + host) for host in hosts)


@settings(max_examples=20)
@given(runs(), profiles)
def test_templates_for_people_keep_the_same_rules_and_belong_to_nobody(run: Run, profile: Profile) -> None:
    try:
        parts = templates.render(run.spec, profile, None)
    except SpecError as refused:
        assert "too long for a TrainJob" in str(refused)
        return
    objects = [o for part in parts for o in part.objects]
    check(objects)
    text = templates.text(parts)
    assert "ownerReferences" not in text
    assert "ehrmind-operator" not in text
    assert "namespace: " not in text


def test_the_rules_themselves_refuse_a_pod_that_breaks_them() -> None:
    context = {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "privileged": True, "runAsUser": 0}
    pod = {"hostNetwork": True, "volumes": [{"name": "a", "hostPath": {}}], "containers": [{"name": "c", "securityContext": context}]}
    assert len(standards.violations({"spec": pod})) == 7
    assert standards.bad_labels({"a/b/c": "x", "ok": "-no", "fine": "", "example.com/x": "y"}) == ["a/b/c", "ok"]
