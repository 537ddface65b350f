"""What the API server refuses becomes a code and a sentence that the status can show; the rest is tried again."""

import json

import pytest

from ehrmind_k8s.controller.refusals import Refusals, refusal
from ehrmind_k8s.kubeapi.errors import from_response


def said(status: int, reason: str, message: str, **details: object) -> str:
    body = {"kind": "Status", "code": status, "reason": reason, "message": message, "details": details}
    return refusal(from_response(status, json.dumps(body).encode()), "Job", "demo-prepare-1")


def test_a_quota_is_told_with_its_numbers() -> None:
    message = 'jobs.batch "demo-prepare-1" is forbidden: exceeded quota: small, requested: count/jobs.batch=1, used: 2, limited: 2'
    assert said(403, "Forbidden", message) == f"QuotaExceeded Job/demo-prepare-1: {message}"


@pytest.mark.parametrize(
    ("status", "reason", "message", "code"),
    [
        (403, "Forbidden", 'jobs.batch is forbidden: User "x" cannot create resource "jobs"', "Forbidden"),
        (403, "Forbidden", 'admission webhook "policy.example" denied the request: no', "WebhookDenied"),
        (400, "BadRequest", 'admission webhook "policy.example" denied the request: no', "WebhookDenied"),
        (500, "InternalError", 'failed calling webhook "policy.example": connection refused', "WebhookUnavailable"),
        (422, "Invalid", "spec.replicas: Invalid value", "Invalid"),
        (413, "RequestEntityTooLarge", "limit is 3145728", "Invalid"),
        (404, "NotFound", "the server could not find the requested resource", "NotServed"),
        (409, "AlreadyExists", "there already", "NameTaken"),
    ],
)
def test_what_a_person_can_mend_has_a_code(status: int, reason: str, message: str, code: str) -> None:
    assert said(status, reason, message).startswith(f"{code} Job/demo-prepare-1: ")


def test_a_namespace_that_goes_away_is_told_as_that() -> None:
    message = "unable to create new content in namespace team-a because it is being terminated"
    assert said(403, "Forbidden", message, causes=[{"reason": "NamespaceTerminating"}]).startswith("NamespaceTerminating ")


@pytest.mark.parametrize("status", [409, 410, 429, 500, 502, 503, 504])
def test_what_time_mends_is_no_refusal(status: int) -> None:
    assert said(status, "Whatever", "later") == ""


def test_a_proxy_that_answers_with_a_page_is_no_reason_to_fail() -> None:
    assert refusal(from_response(503, b"<html>"), "Job", "a") == ""


def test_a_long_sentence_is_cut() -> None:
    assert len(said(422, "Invalid", "x" * 5000)) < 400


KEY, JOB, SERVER = ("ns", "demo"), ("Job", "demo-sft-1"), ("Deployment", "demo-rollout")


def test_what_was_not_tried_again_stays_refused_while_it_is_counted_on() -> None:
    refusals = Refusals()
    assert refusals.remember(KEY, {JOB: "QuotaExceeded"}, {JOB})
    assert refusals.remember(KEY, {}, {JOB})
    assert refusals.remember(KEY, {SERVER: "Forbidden"}, {JOB})
    assert refusals.of(KEY) == ("QuotaExceeded", "Forbidden")


@pytest.mark.parametrize(("tried", "awaited"), [({JOB: ""}, {JOB}), ({}, set())])
def test_what_was_taken_or_is_wanted_no_more_is_not_refused(tried: dict[tuple[str, str], str], awaited: set[tuple[str, str]]) -> None:
    refusals = Refusals()
    refusals.remember(KEY, {JOB: "QuotaExceeded"}, {JOB})
    assert not refusals.remember(KEY, tried, awaited)
    assert refusals.of(KEY) == ()
