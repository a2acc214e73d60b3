"""What went wrong between us and a store, in one sentence that names the true cause and its fix."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.exceptions import SSLError as TLSError

from boneseg.errors import StoreError
from boneseg.storage.retry import StoreAwayError, answered

HANDLED = (HTTPError, MinioException, ParseError, UnicodeDecodeError)
"""What requests of minio raise where the store or the way to it is at fault."""
PROBE_SECONDS = 2.0
FULL_BYTES = 16 * 2**20
ABSENT = ("NoSuchKey", "NoSuchObject", "NoSuchVersion")
_BUSY = (
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "ServiceUnavailable",
    "RequestTimeout",
    "XMinioServerNotInitialized",
)
_SENTENCES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "Forbidden", "AllAccessDisabled"),
        "{endpoint} refuses the credentials for bucket {bucket} ({code}): check AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY",
    ),
    (
        ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"),
        "{endpoint} says that the session token does not hold ({code}): get a new AWS_SESSION_TOKEN",
    ),
    (
        ("RequestTimeTooSkewed",),
        "{endpoint} has another time than this machine ({code}): set the clock of this machine",
    ),
    (
        ("AuthorizationHeaderMalformed", "InvalidRegion"),
        "{endpoint} keeps bucket {bucket} in another region ({code}): set store.region",
    ),
    (
        ("XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"),
        "{endpoint} has no room for {object} ({code}): free some space there",
    ),
)
_PASSING = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_UNTRUSTED, _EXPIRED_CERTIFICATE, _NOT_YET, _OTHER_NAME = (2, 18, 19, 20, 21), 10, 9, (62, 64)


class ObjectMissingError(StoreError):
    """The object is not in the bucket."""


class BucketMissingError(StoreError):
    """The bucket is not there."""


class LostRaceError(StoreError):
    """The object is not what the condition of a write wants it to be."""


def explain(error: BaseException, endpoint: str, bucket: str, name: str, disk: Path | None = None) -> StoreError:
    """Return the sentence for a failure.

    Args:
        error: one of ``HANDLED``.
        endpoint: URL of the store.
        bucket: asked for.
        name: key or prefix asked for.
        disk: folder where a store on this machine keeps its data.
    """
    if isinstance(error, S3Error):
        return _explain_answer(error, endpoint, bucket, name, disk)
    if isinstance(error, ServerError):
        return _explain_status(int(error.status_code), endpoint, bucket, name, disk)
    if isinstance(error, MinioException | ParseError | UnicodeDecodeError):
        return _explain_foreign(error, endpoint)
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error
    return _explain_connection(reason, endpoint)


def is_full(disk: Path | None) -> bool:
    """Say whether the disk under a folder has no room."""
    if disk is None:
        return False
    try:
        usage = shutil.disk_usage(disk)
    except OSError:
        return False
    return usage.free < max(FULL_BYTES, usage.total // 100)  # the server wants one percent to stay free


def no_bucket(endpoint: str, bucket: str) -> BucketMissingError:
    """Return the error that names a missing bucket."""
    return BucketMissingError(f"bucket {bucket} does not exist at {endpoint}; create it or set store.bucket")


def _explain_answer(error: S3Error, endpoint: str, bucket: str, name: str, disk: Path | None) -> StoreError:
    code, status = str(error.code), int(error.response.status)
    object_name = f"s3://{bucket}/{name}"
    if code in ABSENT:
        return ObjectMissingError(f"{object_name} is not there")
    if code == "NoSuchBucket":
        return no_bucket(endpoint, bucket)
    if code == "PreconditionFailed" or status in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT):
        return LostRaceError(f"{object_name} was changed by others meanwhile")
    for codes, sentence in _SENTENCES:
        if code in codes:
            said = sentence.format(endpoint=endpoint, bucket=bucket, object=object_name, code=code)
            return StoreError(said)
    if code in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _explain_status(status, endpoint, bucket, name, disk, str(error.message or code))
    foreign = _speaks_tls(endpoint) if status == HTTPStatus.BAD_REQUEST else None
    return foreign or StoreError(f"{endpoint} answered {code} for {object_name}: {error.message}")


def _explain_status(
    status: int, endpoint: str, bucket: str, name: str, disk: Path | None, said: str = ""
) -> StoreError:
    told = f"HTTP status {status}{f', {said}' if said else ''}"
    if is_full(disk):
        return StoreError(f"{endpoint} cannot keep s3://{bucket}/{name}: the disk of {disk} is full; free some space")
    if status in _PASSING:
        return StoreAwayError(f"{endpoint} does not answer requests now ({told}): look at the store's log")
    foreign = _speaks_tls(endpoint) if status == HTTPStatus.BAD_REQUEST else None
    return foreign or StoreError(
        f"{endpoint} keeps failing on s3://{bucket}/{name} ({told}): look at the store's log; its disk may be full"
    )


def _explain_foreign(error: BaseException, endpoint: str) -> StoreError:
    status = error._code if isinstance(error, InvalidResponseError) else None
    if status in _PASSING:
        return StoreAwayError(
            f"{endpoint} does not answer requests now (HTTP status {status}): look at the store's log"
        )
    told = f" (HTTP status {status})" if status else ""
    return _speaks_tls(endpoint) or StoreError(
        f"{endpoint} answers{told}, but not as an S3 store does: check host and port of store.endpoint"
    )


def _explain_connection(reason: BaseException, endpoint: str) -> StoreError:
    if isinstance(reason, TLSError):
        return _explain_tls(reason, endpoint)
    if not answered(endpoint) and not isinstance(reason, NewConnectionError | ConnectTimeoutError):
        speaks = _speaks_tls(endpoint)
        if speaks is not None:
            return speaks
    check = "check store.endpoint"
    if _is_loopback(endpoint):
        check += ", or start the embedded store with 'boneseg store start'"
    host = urlsplit(endpoint).hostname
    if isinstance(reason, NameResolutionError):
        return StoreAwayError(f"{endpoint} does not answer (no machine is known by the name {host}): {check}")
    causes: list[tuple[tuple[type[BaseException], ...], str]] = [
        ((ConnectionRefusedError,), "connection refused: nothing listens at that port"),
        ((ReadTimeoutError,), "it takes connections and then says nothing"),
        ((NewConnectionError,), "no way to that machine"),
        ((ConnectTimeoutError,), "no connection in time: a firewall, or no such machine"),
        ((http.client.IncompleteRead, http.client.HTTPException, ConnectionError), "it breaks connections off"),
    ]
    chain = [reason, reason.__cause__, reason.__context__, *reason.args]
    for kinds, cause in causes:
        if any(isinstance(link, kinds) for link in chain):
            return StoreAwayError(f"{endpoint} does not answer ({cause}): {check}")
    return StoreAwayError(f"{endpoint} does not answer ({type(reason).__name__}): {check}")


def _explain_tls(error: BaseException, endpoint: str) -> StoreError:
    cause = next((link for link in (*error.args, error.__cause__) if isinstance(link, ssl.SSLError)), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StoreError(_certificate_sentence(cause, endpoint))
    said = cause.reason if cause is not None else str(error)
    if not answered(endpoint) and _speaks_plainly(endpoint):
        return StoreError(f"{endpoint} does not speak TLS: write http:// instead of https:// in store.endpoint")
    return StoreAwayError(f"{endpoint} does not answer (TLS failed: {said}): check store.endpoint")


def _certificate_sentence(error: ssl.SSLCertVerificationError, endpoint: str) -> str:
    if error.verify_code == _EXPIRED_CERTIFICATE:
        return f"the certificate of {endpoint} has expired: renew it there (or set the clock of this machine)"
    if error.verify_code == _NOT_YET:
        return f"the certificate of {endpoint} does not hold yet: set the clock of this machine (or renew it there)"
    if error.verify_code in _OTHER_NAME or "mismatch" in error.verify_message:
        return (
            f"the certificate of {endpoint} is for another name ({error.verify_message}): use the name that it is for "
            "in store.endpoint, or have the certificate made for this one"
        )
    if error.verify_code in _UNTRUSTED:
        return (
            f"the certificate of {endpoint} is signed by nobody that this machine trusts ({error.verify_message}): if "
            "it is the right one, put it, or that of its authority, into a PEM file and name the file in SSL_CERT_FILE"
        )
    return f"the certificate of {endpoint} does not hold ({error.verify_message}): have it made anew"


def _address(endpoint: str) -> tuple[str, int]:
    parts = urlsplit(endpoint)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host == "localhost" or host.startswith("127.")


def _speaks_tls(endpoint: str) -> StoreError | None:
    """Return the error for a port that wants TLS and was spoken to without."""
    if urlsplit(endpoint).scheme != "http":
        return None
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(_address(endpoint), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=urlsplit(endpoint).hostname),
        ):
            return StoreError(f"{endpoint} speaks TLS: write https:// instead of http:// in store.endpoint")
    except OSError:
        return None


def _speaks_plainly(endpoint: str) -> bool:
    host, port = _address(endpoint)
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
