"""What a refusal of the API server means for a retry and for an exit code."""

import pytest

from ehrmind_k8s import kubeapi
from ehrmind_k8s.errors import SpecError, TryAgain
from ehrmind_k8s.kubeapi import errors


@pytest.mark.parametrize(
    ("code", "reason", "kind", "exit_code"),
    [
        (401, "Unauthorized", kubeapi.Refused, 2),
        (403, "Forbidden", kubeapi.Refused, 2),
        (404, "NotFound", kubeapi.NotFound, 2),
        (409, "AlreadyExists", kubeapi.AlreadyExists, 2),
        (409, "Conflict", kubeapi.Conflict, 75),
        (410, "Expired", kubeapi.Gone, 75),
        (422, "Invalid", kubeapi.Invalid, 2),
        (429, "TooManyRequests", kubeapi.Unavailable, 75),
        (503, "ServiceUnavailable", kubeapi.Unavailable, 75),
        (418, "Teapot", kubeapi.ApiError, 1),
    ],
)
def test_a_refusal_has_its_class_and_exit_code(code: int, reason: str, kind: type, exit_code: int) -> None:
    error = errors.from_status({"code": code, "reason": reason, "message": "no"})
    assert (type(error), error.exit_code, str(error)) == (kind, exit_code, f"no ({code} {reason})")


def test_what_is_worth_another_try_is_caught_as_such() -> None:
    assert issubclass(kubeapi.Unavailable, TryAgain) and not issubclass(kubeapi.Refused, TryAgain)
    assert issubclass(kubeapi.Invalid, SpecError)


def test_an_answer_that_is_not_a_status_keeps_its_code() -> None:
    error = errors.from_response(502, b"<html>Bad Gateway</html>", "7")
    assert (type(error), error.status, error.retry_after_s) == (kubeapi.Unavailable, 502, 7.0)


def test_the_fields_that_are_not_valid_are_kept_apart() -> None:
    causes = [{"reason": "FieldValueInvalid", "field": "spec.rlvr", "message": "must be a multiple"}]
    error = errors.from_status({"code": 422, "reason": "Invalid", "message": "x is invalid", "details": {"causes": causes}})
    assert error.causes == (("spec.rlvr", "must be a multiple"),) and error.codes == {"FieldValueInvalid"}


@pytest.mark.parametrize(("said", "waits"), [("7", 7.0), ("3600", 30.0), ("9" * 40, 30.0), ("\u00b2", None), ("-1", None), ("Wed, 21 Oct", None)])
def test_a_server_cannot_silence_us_for_long(said: str, waits: float | None) -> None:
    assert errors.from_response(429, b"", said).retry_after_s == waits
    assert errors.from_status({"code": 429, "details": {"retryAfterSeconds": said}}).retry_after_s == waits
