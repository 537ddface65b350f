"""What the API server can answer besides yes, mapped once, here.

    ApiError                          the server refused; `reason` is its own code (`Forbidden`, `Invalid`, ...)
    ├── Refused         401, 403   2  these credentials are not accepted, or may not do this
    ├── NotFound        404        2  the object, or its kind, is not there
    ├── Invalid         400, 422   2  the object is not valid: the schema, a rule of it, or an admission webhook says why
    ├── AlreadyExists   409        2  the name is taken
    ├── Conflict        409       75  somebody wrote the object since we read it: read again
    ├── Gone            410       75  the resource version is too old to watch from: list again
    └── Unavailable               75  no answer, 429 or a 5xx: the same call later may succeed (`retry_after_s` when the server named a time)

The second column is the exit code of a command that ends with it. Messages of the server name objects, quantities and fields of manifests;
they carry no data of a run.
"""

import json
from collections.abc import Mapping
from typing import Any

from ehrmind_k8s.errors import EhrmindError, SpecError, TryAgain

LONGEST = 2000  # characters kept of a server's message
LONGEST_PAUSE_S = 30.0  # what a server may ask us to wait: a proxy that says an hour must not silence an operator for one


class ApiError(EhrmindError):
    """The API server refused a call. `causes` are (field, sentence) of an object that is not valid."""

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after_s: float | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{message} ({status} {reason})" if status else message)
        self.status, self.reason, self.message, self.retry_after_s = status, reason, message, retry_after_s
        found = (details or {}).get("causes") or ()
        self.causes = tuple((str(c.get("field") or ""), str(c.get("message") or "")) for c in found)
        self.codes = frozenset(str(c.get("reason")) for c in found)


class Refused(ApiError, SpecError):
    """401 or 403."""


class NotFound(ApiError, SpecError):
    """404."""


class Invalid(ApiError, SpecError):
    """400 or 422."""


class AlreadyExists(ApiError, SpecError):
    """409: an object of this name is there."""


class Conflict(ApiError, TryAgain):
    """409: the resource version is not the newest, or a precondition does not hold."""


class Gone(ApiError, TryAgain):
    """410: the resource version has been compacted away, or a list's continue token has expired."""


class Unavailable(ApiError, TryAgain):
    """No answer within the time, too many requests, or an error inside the server."""


_KINDS: dict[int, type[ApiError]] = {
    **dict.fromkeys((400, 422), Invalid),
    **dict.fromkeys((401, 403), Refused),
    404: NotFound,
    409: Conflict,
    410: Gone,
    429: Unavailable,
}


def from_response(status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """The error for an answer other than 2xx. `body` is a Status object of the API, or anything a proxy may say instead."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return from_status(found if isinstance(found, dict) else {}, status, retry_after)


def from_status(found: Mapping[str, Any], status: int = 0, retry_after: str | None = None) -> ApiError:
    """The error for a Status object, as a failed call or an ERROR event of a watch carries it."""
    code = int(found.get("code") or status)
    details = found.get("details") or {}
    seconds = retry_after or details.get("retryAfterSeconds")
    reason = str(found.get("reason") or "Unknown")
    message = " ".join(str(found.get("message") or "the server gave no reason").split())[:LONGEST]
    text = str(seconds or "")
    wait = min(float(text), LONGEST_PAUSE_S) if text.isascii() and text.isdigit() else None
    return _kind(code, reason)(code, reason, message, retry_after_s=wait, details=details)


def _kind(code: int, reason: str) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    return Unavailable if code >= 500 else _KINDS.get(code, ApiError)
