"""The boto3 client, tuned for S3-compatible servers, and what its errors mean.

Checksums are sent only `when_required`: since 2025 boto3's default trailer is refused (411) by servers that hospitals run. Integrity is
ours instead: Content-MD5 on the way, SHA-256 of whole files in the manifests. Every wait is bounded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions as boto
import botocore.session
from botocore.config import Config

from ehrmind_k8s.errors import EhrmindError, SpecError, StoreRefused, StoreUnavailable
from ehrmind_k8s.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 8
"""Tries of one request, with a growing pause between them: six seconds in all against a server that refuses, so that its restart passes unseen."""

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
"""Silence on a connection, in either direction, after which it counts as dead. A slow line that moves is waited for."""

CONNECTIONS = 16
"""At most this many sockets to one server: the part workers and the small transfers of `artifacts`."""

MISSING = ("404", "NoSuchKey", "NotFound")
# XAdminUserNotFound is versitygw's name for a key it does not know.
CREDENTIALS = ("InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired")
RIGHTS = ("AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem")
ADDRESS = ("AuthorizationHeaderMalformed", "PermanentRedirect", "301", "InvalidBucketName", "IllegalLocationConstraintException")
FULL = ("InsufficientStorage", "507", "XMinioStorageFull", "QuotaExceeded")
BUSY = ("SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "429")
PASSING = (*BUSY, "BadDigest", "XAmzContentSHA256Mismatch", "RequestTimeout", "408", "OperationAborted", "ConditionalRequestConflict", "NoSuchUpload")


def connect(settings: Settings) -> "S3Client":
    """A client (thread-safe, shared by all stores of one server) for what `settings` name."""
    secret = settings.s3_secret_access_key.get_secret_value() if settings.s3_secret_access_key else None
    token = settings.s3_session_token.get_secret_value() if settings.s3_session_token else None
    if bool(settings.s3_access_key_id) != bool(secret):
        missing = "EHRMIND_S3_SECRET_ACCESS_KEY" if not secret else "EHRMIND_S3_ACCESS_KEY_ID"
        raise SpecError(f"S3 credentials: {missing} is not set; set both EHRMIND_S3_ACCESS_KEY_ID and EHRMIND_S3_SECRET_ACCESS_KEY, or neither")
    try:
        return _client(
            settings.s3_endpoint_url or None,
            settings.s3_access_key_id,
            secret,
            token,
            settings.s3_region,
            settings.s3_ca_bundle,
            settings.s3_addressing,
        )
    except (ValueError, boto.BotoCoreError) as error:
        raise SpecError(f"S3 settings (EHRMIND_S3_*, EHRMIND_S3_ENDPOINT_URL={settings.s3_endpoint_url!r}): {error}") from None


@lru_cache(maxsize=8)
def _client(
    endpoint: str | None, access: str | None, secret: str | None, token: str | None, region: str, ca: str | None, addressing: str
) -> "S3Client":
    addressing_style: Any = {"addressing_style": addressing}  # the stubs want all keys of it
    session = botocore.session.get_session()
    # Without keys boto3 would ask a metadata address that only EC2 machines answer, and hang elsewhere.
    session.get_component("credential_provider").remove("iam-role")
    return boto3.Session(botocore_session=session).client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        aws_session_token=token,
        region_name=region,
        verify=ca,
        config=Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3=addressing_style,
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
        ),
    )


@contextmanager
def errors(where: str, endpoint: str) -> Iterator[None]:
    """Every failure of boto3, mapped once. `where` is the s3:// address; a missing key is a KeyError of it."""
    try:
        yield
    except boto.ClientError as error:
        raise _refused(error, where, endpoint) from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.ProfileNotFound) as error:
        raise StoreRefused(
            f"{where}: no S3 credentials ({error}); set EHRMIND_S3_ACCESS_KEY_ID and EHRMIND_S3_SECRET_ACCESS_KEY (or the usual AWS_ variables)"
        ) from None
    except boto.SSLError as error:
        raise StoreRefused(
            f"{where}: the certificate of {endpoint} is not accepted ({_reason(error)}); set EHRMIND_S3_CA_BUNDLE to the PEM file of its authority"
        ) from None
    except boto.ParamValidationError:
        raise SpecError(f"{where}: not an address that S3 can have; a bucket's name is letters, digits, dots and hyphens") from None
    except boto.BotoCoreError as error:
        raise StoreUnavailable(
            f"{where}: no answer from {endpoint} ({_reason(error)}); check that the server runs and that EHRMIND_S3_ENDPOINT_URL names it"
        ) from None


def code(error: boto.ClientError) -> str:
    """The S3 error code of a refusal, or its HTTP status as text where the answer had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refused(error: boto.ClientError, where: str, endpoint: str) -> EhrmindError | KeyError:
    name, status = code(error), int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{endpoint} answers {name or status} to {error.operation_name}"
    if name in MISSING:
        return KeyError(where)
    if name == "NoSuchBucket":
        return StoreRefused(f"{where}: {said}: there is no such bucket; create it, or correct the store URI")
    if name in CREDENTIALS:
        return StoreRefused(f"{where}: {said}: wrong S3 credentials; check EHRMIND_S3_ACCESS_KEY_ID and EHRMIND_S3_SECRET_ACCESS_KEY")
    if name == "RequestTimeTooSkewed":
        return StoreRefused(f"{where}: {said}: the clocks of this machine and of the server differ; set this machine's clock")
    if name in FULL:
        return StoreUnavailable(f"{where}: {said}: the store is full; free some space and run the same command again")
    if name in RIGHTS:
        return StoreRefused(
            f"{where}: {said}: these credentials are wrong or may not do that; check EHRMIND_S3_ACCESS_KEY_ID and "
            "EHRMIND_S3_SECRET_ACCESS_KEY, or let them list, read, write and delete below this address"
        )
    if name in ADDRESS:
        return StoreRefused(f"{where}: {said}; check the bucket, EHRMIND_S3_REGION and EHRMIND_S3_ENDPOINT_URL")
    if name in PASSING or status >= 500 or status == 0:
        doubt = "" if name and name != str(status) else ", and check that EHRMIND_S3_ENDPOINT_URL is an S3 server"
        return StoreUnavailable(f"{where}: {said}; try again later{doubt}")
    return StoreRefused(f"{where}: {said} (HTTP {status}), which this package does not expect; check EHRMIND_S3_ENDPOINT_URL")


def _reason(error: Exception) -> str:
    """The innermost cause, without the request's address: `ConnectionRefusedError`, `gaierror: Name or service not known`."""
    cause: BaseException = getattr(error, "kwargs", {}).get("error") or error
    while isinstance(inner := (cause.__cause__ or cause.__context__), OSError):
        cause = inner
    return type(cause).__name__ + (f": {cause.strerror}" if isinstance(cause, OSError) and cause.strerror else "")
