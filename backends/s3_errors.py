"""What an S3 server, the network below it or the SDK answered, as one error of the contract with one line that says what to change.

One table of codes, since stores agree on the codes far more than on the statuses. A status alone decides only where no code
came: HEAD has no body, proxies and gateways answer without one. No text here holds a key or a secret; the server's own
message is shortened to one line.
"""
from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError

from s3cfs.errors import (
    BucketMissing,
    ClockSkew,
    Corrupt,
    Denied,
    Exists,
    NotFound,
    StoreError,
    StoreFull,
    Temporary,
    Throttled,
    Unsupported,
    WrongRegion,
)

MESSAGE_MAX_CHARS = 160
NOT_S3 = "does not answer as an S3 store does: is this the address of one, and nothing (a proxy, a login page) in between?"

_CREDENTIALS = (sdk.PartialCredentialsError, sdk.CredentialRetrievalError, sdk.TokenRetrievalError, sdk.UnauthorizedSSOTokenError,
                sdk.SSOTokenLoadError, sdk.ConfigNotFound, sdk.ProfileNotFound, sdk.InvalidConfigError)

_BAD_KEY = frozenset(("InvalidAccessKeyId", "InvalidAccessKey", "InvalidClientTokenId", "AuthFailure", "NotSignedUp", "AccountProblem"))
_BAD_SECRET = frozenset(("SignatureDoesNotMatch", "InvalidSignature", "InvalidSecurity"))
_BAD_TOKEN = frozenset(("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException"))
_NO_RIGHT = frozenset(("AccessDenied", "Forbidden", "AccessForbidden"))
_SKEW = frozenset(("RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"))
_REGION = frozenset(("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException",
                     "IllegalLocationConstraint", "InvalidRegion", "InvalidLocationConstraint"))
_NO_BUCKET = frozenset(("NoSuchBucket", "InvalidBucketName", "AllAccessDisabled"))
_FULL = frozenset(("QuotaExceeded", "StorageLimitExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded",
                   "XMinioBackendDown.StorageFull", "StorageFull", "InsufficientCapacity", "BucketQuotaExceeded", "CapExceeded",
                   "XAmzStorageFull", "NoSpaceLeft", "ExceededBucketQuota", "UserQuotaExceeded"))
_REFUSED = frozenset(("SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "TooManyRequestsException", "Throttling",
                      "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded", "RequestThrottled", "XMinioServerNotReady"))
_DAMAGED = frozenset(("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidChecksum"))
_AGAIN = frozenset(("RequestTimeout", "IncompleteBody", "InternalError", "OperationAborted", "ConditionalRequestConflict",
                    "ServiceUnavailable", "Busy", "RequestAborted", "TemporaryRedirect", "Redirect"))


@dataclass(frozen=True, slots=True)
class Place:
    """What the texts name: never a secret."""

    host: str
    bucket: str
    region: str
    timeout_s: float
    tls: bool = True


def translate(error: BaseException, operation: str, key: str, place: Place) -> StoreError:
    """The contract's error for whatever boto3 raised."""
    if isinstance(error, sdk.ClientError):
        told = _answered(error, operation, key, place)
        told.status = status_of(error) or None
        return told
    if isinstance(error, (sdk.NoCredentialsError, sdk.NoAuthTokenError)):
        return Denied(operation, key, "no credentials found: give backend-login and backend-password, or the AWS variables or profile")
    if isinstance(error, _CREDENTIALS):
        return Denied(operation, key, f"the AWS credentials are unusable: {_line(str(error))}")
    if isinstance(error, sdk.IncompleteReadError) or _caused_by(error, ("IncompleteRead",)):
        return Corrupt(operation, key, f"{place.host} sent less than it announced")
    if isinstance(error, ResponseParserError):
        return Temporary(operation, key, f"{place.host} {NOT_S3}")
    if isinstance(error, (sdk.ConnectionError, sdk.HTTPClientError, OSError)):
        return Temporary(operation, key, _network(error, place))
    if isinstance(error, sdk.BotoCoreError):
        return Unsupported(operation, key, _line(str(error)))
    return Temporary(operation, key, f"{type(error).__name__}: {_line(str(error))}")


def status_of(error: sdk.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: sdk.ClientError) -> str:
    """S3's code; "" when no body came (the SDK then puts the status in its place)."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return "" if code.isdigit() else code


def _answered(error: sdk.ClientError, operation: str, key: str, place: Place) -> StoreError:
    body: Mapping[str, Any] = error.response.get("Error", {})
    headers: Mapping[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    code, status, message = code_of(error), status_of(error), _line(str(body.get("Message", "")))
    said = f"{code or f'HTTP {status}'}{f' ({message})' if message and message != code else ''}"

    if code in _NO_BUCKET:
        return BucketMissing(operation, key, f"there is no bucket {place.bucket!r} at {place.host}: make it, or correct the storage URL")
    if code in _FULL or status == 507:
        return StoreFull(operation, key, f"the store takes no more: {said}")
    if code in _SKEW:
        return ClockSkew(operation, key, _skew(body, headers))
    told = str(body.get("Region") or headers.get("x-amz-bucket-region") or "")
    if code in _REGION or status == 301 or (status in (307, 400) and not code and told not in ("", place.region)):
        told = told or _quoted_region(message, place.region)
        endpoint = _line(str(body.get("Endpoint", "")))
        right = f"its address is {endpoint}" if endpoint else f"the store said {said}"
        if told and told != place.region:
            right = f"it is in {told!r}"
        return WrongRegion(operation, key, f"bucket {place.bucket!r} is not in region {place.region!r}: {right}; set the option sig-region"
                                           " (s3c://) or the region in the URL (s3://)")
    if code in _BAD_KEY:
        return Denied(operation, key, f"{place.host} does not know this access key: check backend-login")
    if code in _BAD_SECRET:
        return Denied(operation, key, "the secret key does not fit the access key: check backend-password (and the option sig-region)")
    if code in _BAD_TOKEN:
        return Denied(operation, key, f"the session token is expired or not valid here ({code}): get a new one")
    if status == 429 or code in _REFUSED or (status == 503 and code in ("", "ServiceUnavailable")):
        return Throttled(operation, key, f"{place.host} asks for fewer requests: {said}", _retry_after(headers), refused=code in _REFUSED)
    if code in _DAMAGED:
        return Corrupt(operation, key, f"the bytes were damaged on their way to {place.host}: {said}")
    if code in ("PreconditionFailed", "ObjectAlreadyExists", "FileAlreadyExists") or status == 412:
        return Exists(operation, key, "the key is taken")
    if code in _AGAIN or status in (307, 408, 409):
        return Temporary(operation, key, f"{place.host} answered {said}")
    if code == "NoSuchKey" or (status == 404 and operation != "list"):
        return NotFound(operation, key, "no such object")
    if status == 404:
        return BucketMissing(operation, key, f"{place.host} answered {said}: no bucket {place.bucket!r} there, or not an S3 endpoint")
    if status == 407:
        return Denied(operation, key, "the proxy wants a login: check HTTP_PROXY and HTTPS_PROXY")
    if status in (401, 403) or code in _NO_RIGHT:
        return Denied(operation, key, f"the store refuses this to these credentials ({said}): they need the right to read, write, list and"
                                      f" delete objects in bucket {place.bucket!r}")
    if code == "NotImplemented" or status in (501, 405):
        return Unsupported(operation, key, f"{place.host} cannot do this: {said}")
    if status == 500 and not code and "html" in headers.get("content-type", ""):     # also a page sent with 200: the SDK makes it 500
        return Temporary(operation, key, f"{place.host} {NOT_S3}")
    if status >= 500:
        return Temporary(operation, key, f"{place.host} answered {said}")
    if status == 400 and "HTTPS" in message:
        return Temporary(operation, key, f"{place.host} speaks TLS on this port: leave out the option no-ssl")
    return Unsupported(operation, key, f"{place.host} refuses the request: {said}")


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_MAX_CHARS else text[:MESSAGE_MAX_CHARS - 1] + "…"


def _quoted_region(message: str, wrong: str) -> str:
    """Some stores tell the right region in their message only: "...the region 'x' is wrong; expecting 'y'"."""
    found = re.search(r"expecting '([a-z0-9-]+)'", message)
    return found[1] if found and found[1] != wrong else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or from a date against the answer's own date (no clock of ours is asked)."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (ValueError, TypeError):
        return None


def _skew(body: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    ours = _moment(str(body.get("RequestTime", "")))
    theirs = _moment(str(body.get("ServerTime", "")) or headers.get("date", ""))
    if ours is None or theirs is None:
        return "this machine's clock is wrong: set it (timedatectl, NTP) and try again"
    minutes = (ours - theirs).total_seconds() / 60
    way = "ahead of" if minutes > 0 else "behind"
    return f"this machine's clock is {abs(minutes):.0f} minutes {way} the store's: set it (timedatectl, NTP) and try again"


_READINGS: tuple[Callable[[str], datetime], ...] = (
    lambda text: datetime.strptime(text + "+0000", "%Y%m%dT%H%M%SZ%z"),
    lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")),
    parsedate_to_datetime,
)


def _moment(text: str) -> datetime | None:
    for reading in _READINGS:
        try:
            moment = reading(text)
        except (ValueError, TypeError):
            continue
        if moment.tzinfo is not None:
            return moment
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from: urllib3 and botocore wrap the system's own words in four layers."""
    seen: set[int] = set()
    todo: list[BaseException] = [error]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [one.__cause__, one.__context__, getattr(one, "reason", None), getattr(one, "kwargs", {}).get("error")]
        todo += [item for item in (*one.args, *inner) if isinstance(item, BaseException)]


def _caused_by(error: BaseException, names: tuple[str, ...]) -> bool:
    return any(type(one).__name__ in names for one in _chain(error))


def _network(error: BaseException, place: Place) -> str:
    host = place.host
    if isinstance(error, sdk.ProxyConnectionError):
        return f"no connection to {host} through the proxy: check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
    causes = list(_chain(error))
    for one in causes:
        if isinstance(one, ssl.SSLCertVerificationError):
            return (f"TLS failure: the certificate of {host} is not accepted ({_line(one.verify_message)});"
                    " the option ssl-ca-path names the file or folder of CA certificates")
        if isinstance(one, ssl.SSLError):
            plain = one.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
            hint = ": the server speaks plain HTTP on this port? then the option is no-ssl" if plain else ""
            return f"TLS failure with {host} ({one.reason or _line(str(one))}){hint}"
        if isinstance(one, socket.gaierror):
            return f"the name {host} cannot be resolved ({one.strerror}): check the storage URL and the network"
        if isinstance(one, ConnectionRefusedError):
            return f"{host} refuses the connection: is the server running, is the port right?"
    if isinstance(error, sdk.SSLError):
        return f"TLS failure with {host}: {_line(str(error))}"
    if isinstance(error, sdk.ConnectTimeoutError):
        return f"{host} cannot be reached: no connection within {place.timeout_s:g} s"
    if isinstance(error, sdk.ReadTimeoutError) or any(isinstance(one, TimeoutError) for one in causes):
        return f"{host} was silent for {place.timeout_s:g} s (option tcp-timeout)"
    if isinstance(error, sdk.ConnectionClosedError) or any(isinstance(one, ConnectionError) for one in causes):
        hint = "" if place.tls else "; perhaps it wants TLS (no-ssl is set)"
        return f"{host} closed the connection in the middle of the request{hint}"
    last = next((one for one in causes if isinstance(one, OSError) and one.strerror), None)
    return f"no connection to {host}: {last.strerror}" if last else f"the network failed on the way to {host}: {type(error).__name__}"
