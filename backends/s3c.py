"""S3 and everything that speaks like it, through boto3: `s3c://host[:port]/bucket/prefix/` and, for AWS, `s3://region/bucket/prefix/`.

Tuned, since boto3 as it comes costs ten times the CPU: one client with a pool, path style where the store allows it, no parameter
validation, no automatic checksums. The payload is signed (9 ms for 16 MiB) where the store is not AWS behind TLS, which is sent a CRC32:
over plain HTTP nothing else would notice a change on the way, and there are servers (versitygw 1.8) that keep what came of a body whose
sender died, unless something says what all of it is.
A body is never copied: `Reader` (s3_body.py) hands out slices of the caller's buffer. It does so in pieces because a socket's
time-out counts for the whole of one send: a pack over a slow uplink would run into it while bytes flow.
The SDK does not retry (`Remote` does, and knows which puts may be repeated) and does not follow a bucket to
its region (each process would pay for it; WrongRegion names the region instead).
"""
from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, ClassVar, NamedTuple

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError
from botocore.parsers import ResponseParserError

from s3cfs.backends import s3_errors
from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Listing, ObjectInfo
from s3cfs.backends.probe import probe
from s3cfs.backends.progress import moved
from s3cfs.backends.s3_body import CHECKSUMS, Reader, checksum, md5_of, received
from s3cfs.backends.s3_options import COMMON, CONSISTENCY, put_arguments
from s3cfs.backends.s3_sdk import Sdk, session_of
from s3cfs.backends.s3_tls import ca_bundle
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import ConfigError, Corrupt, Exists, NotFound, StoreError, Temporary, Unsupported
from s3cfs.limits import DEFAULTS, GIB, MIB

PARALLEL = 8                       # requests at once, of each direction, that every server bears
POOL_CONNECTIONS = 2 * PARALLEL + 8        # and records, claims, probes beside them
PAGE_KEYS = 1000                   # in one answer to a listing, at most
BATCH_DELETE = 1000                # keys in one DeleteObjects
LARGEST_PUT_BYTES = 5 * GIB
EXPECT_MIN_BYTES = 1 * MIB         # larger bodies wait for "100 Continue": a refusal then costs no upload
READ_BACK_MAX_BYTES = 1 * MIB      # a create-only put that broke off is sent again up to this size; a taken key is then read back
DEFAULT_REGION = "us-east-1"

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d{1,2}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Page(NamedTuple):
    """One answer to a listing."""

    objects: Sequence[ObjectInfo]
    folders: Sequence[str]             # names, where they were asked for
    following: str | None              # the token of the next page; None after the last


class _Pages(Listing):
    """A listing page by page, by the store's token only; a page that failed is asked for again by the next `next`."""

    def __init__(self, backend: S3Backend, prefix: str) -> None:
        self._backend, self._prefix = backend, prefix
        self._token: str | None = None
        self._page: Iterator[ObjectInfo] = iter(())
        self._last = False

    def __next__(self) -> ObjectInfo:
        while True:
            for info in self._page:
                return info
            if self._last:
                raise StopIteration
            page = self._backend.list_page(self._prefix, self._token)
            self._page, self._token, self._last = iter(page.objects), page.following, page.following is None


class S3Backend(Backend):
    """Objects in a bucket, below a prefix."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        **COMMON,
        "no-ssl": "plain HTTP instead of HTTPS",
        "sig-region": f"the store's region, for signatures (default {DEFAULT_REGION})",
        "region": "the same as sig-region",
    }
    AWS: ClassVar[bool] = False
    TIMEOUT_S: ClassVar[float] = DEFAULTS.store_timeout_s
    BELIEVED: ClassVar[str] = "unknown"            # the default of the option `consistency`
    CONNECTIONS: ClassVar[int] = POOL_CONNECTIONS
    CONNECTION_S: ClassVar[float | None] = None    # no connection is used for longer, nor after an error of any kind; None: no such rule

    def __init__(self, url: StoreUrl, options: Options, credentials: Credentials) -> None:
        self._url = url
        self._bucket, self._prefix = url.bucket_and_prefix()
        endpoint, region = self._where(url, options)
        timeout = options.seconds("tcp-timeout", self.TIMEOUT_S)
        self._expect = not options.flag("disable-expect100")
        options.flag("dumb-copy")
        self._put_arguments = put_arguments(options)
        signing = options.choice("payload-signing", ("auto", "on", "off"))
        plain = endpoint is not None and endpoint.startswith("http:")
        self._signed = signing == "on" or (signing == "auto" and (plain or not self.AWS))
        self._checksum = options.choice("upload-checksum", CHECKSUMS)
        self._create_only: bool | None = None
        self._linearizable = CONSISTENCY[options.choice("consistency", (self.BELIEVED, *CONSISTENCY))]
        self._batch_delete = BATCH_DELETE          # 1 once the server has said that it cannot
        self._delimiters = True                    # False once it has hidden folders from a listing by delimiter
        self._ranged_reads = True                  # False once it has answered a range with everything
        self._ca = ca_bundle(options.text("ssl-ca-path"))
        style: Any = {"addressing_style": self._addressing(options), "payload_signing_enabled": self._signed}
        try:
            session = session_of(credentials, options.text("session-token"))
            config = Config(
                signature_version="s3v4",
                s3=style,
                retries={"total_max_attempts": 1, "mode": "standard"},
                connect_timeout=timeout, read_timeout=timeout, max_pool_connections=self.CONNECTIONS, tcp_keepalive=True,
                parameter_validation=False, request_checksum_calculation="when_required", response_checksum_validation="when_required",
                user_agent_extra="s3cfs")

            def make() -> Any:
                made = session.client("s3", region_name=region, endpoint_url=endpoint, verify=self._ca.path, config=config)
                made.meta.events.register_last("before-call.s3", self._before_call)
                return made

            self._sdk = Sdk(make, self.CONNECTION_S)
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"{url}: {' '.join(str(error).split())}") from error
        host = url.host if not self.AWS else self._sdk.endpoint.partition("://")[2]
        self._place = s3_errors.Place(host, self._bucket, region, timeout, tls=not plain)

    @classmethod
    def from_url(cls, url: StoreUrl, options: Options, credentials: Credentials) -> Backend:
        return cls(url, options, credentials)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            create_only=self._create_only, linearizable=self._linearizable, batch_delete=self._batch_delete,
            ranged_reads=self._ranged_reads, delimiters=self._delimiters, parallel_reads=PARALLEL, parallel_writes=PARALLEL,
            largest_object_bytes=LARGEST_PUT_BYTES)

    @property
    def location(self) -> str:
        return f"{self._url.scheme}://{self._url.host}/{self._bucket}/{self._prefix}"

    def _name(self, key: str) -> str:
        """The object's name in the bucket."""
        return self._prefix + key

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if offset < 0 or (size is not None and size < 0):
            raise ValueError("negative offset or size")
        if size == 0:
            self.stat(key)
            return b""
        ranged = offset > 0 or size is not None
        arguments = {"Range": f"bytes={offset}-{'' if size is None else offset + size - 1}"} if ranged else {}
        with self._errors("get", key):
            try:
                answer = self._sdk("get_object", Bucket=self._bucket, Key=self._name(key), **arguments)
            except ClientError as error:
                if s3_errors.status_of(error) == 416:
                    return b""
                raise
            with closing(answer["Body"]) as body:
                data = received(body)
        part = answer.get("ContentRange", "")                          # the header decides: some answer a range with 200
        if not part and answer["ResponseMetadata"]["HTTPStatusCode"] == 200:
            expected = answer.get("ContentLength", len(data))
            if len(data) == expected and ranged:                       # a store may ignore Range
                wanted = data[offset:] if size is None else data[offset:offset + size]
                self._ranged_reads = self._ranged_reads and len(wanted) == len(data)
                return wanted
        else:
            expected = self._part_length(key, part, offset, size)
        if len(data) != expected:
            raise Corrupt("get", key, f"{self._place.host} sent {len(data)} bytes instead of {expected}")
        return data

    def _part_length(self, key: str, content_range: str, offset: int, size: int | None) -> int:
        """How long the answer to a ranged get must be by its own header; Corrupt when it is not the range that was asked for."""
        found = _CONTENT_RANGE.fullmatch(content_range)
        if not found:
            raise Corrupt("get", key, f"{self._place.host} sent a part without saying which")
        first, last = int(found[1]), int(found[2])
        wanted = None if size is None else offset + size - 1
        if found[3] != "*":
            end = int(found[3]) - 1
            wanted = end if wanted is None else min(wanted, end)
        if first != offset or last != (last if wanted is None else wanted):
            raise Corrupt("get", key, f"{self._place.host} sent the range {first}-{last}, not the one asked for")
        return last - first + 1

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        if only_if_absent and not self._create_only:
            why = "has none" if self._create_only is False else "was not probed for it"
            raise Unsupported("put", key, f"create-only put on a store that {why}")
        self._put(key, data, only_if_absent)

    def _put(self, key: str, data: Body, only_if_absent: bool) -> None:
        arguments: dict[str, Any] = {**self._put_arguments, **checksum(self._checksum, data, aws=self.AWS, signed=self._signed)}
        arguments |= {"Bucket": self._bucket, "Key": self._name(key), "Body": Reader(data)}
        if not only_if_absent:
            with self._errors("put", key):
                self._sdk("put_object", **arguments)
            return
        with self._errors("put", key):
            try:
                self._sdk.once("put_object", IfNoneMatch="*", **arguments)
                return
            except ConnectionClosedError:
                if len(data) > READ_BACK_MAX_BYTES:
                    raise
        arguments["Body"].seek(0)
        try:
            with self._errors("put", key):
                self._sdk.once("put_object", IfNoneMatch="*", **arguments)
        except Exists:
            try:
                own = self.get(key) == bytes(data)     # it was taken by our own first attempt
            except NotFound:
                raise Temporary("put", key, "the key is taken, and the store does not show yet by what") from None
            if not own:
                raise

    def stat(self, key: str) -> ObjectInfo:
        """HEAD. Its errors have no body, so after one the same is asked by a GET of one byte, whose error says why."""
        try:
            with self._errors("stat", key):
                answer = self._sdk("head_object", Bucket=self._bucket, Key=self._name(key))
                return ObjectInfo(key, int(answer["ContentLength"]), (at := answer.get("LastModified")) and at.timestamp())
        except Exception as error:
            if not isinstance(error.__cause__, ClientError) or s3_errors.code_of(error.__cause__):
                raise
            if s3_errors.status_of(error.__cause__) >= 429:
                raise
        with self._errors("stat", key):
            try:
                answer = self._sdk("get_object", Bucket=self._bucket, Key=self._name(key), Range="bytes=0-0")
            except ClientError as error:
                if s3_errors.status_of(error) == 416:
                    return ObjectInfo(key, 0)
                raise
            answer["Body"].close()
        found = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        return ObjectInfo(key, int(found[3]) if found and found[3] != "*" else int(answer["ContentLength"]))

    def delete(self, key: str) -> None:
        try:
            with self._errors("delete", key):
                self._sdk("delete_object", Bucket=self._bucket, Key=self._name(key))
        except NotFound:
            pass

    def delete_many(self, keys: Sequence[str]) -> None:
        """DeleteObjects; one by one where the server knows no such request, and what it did not say a word about.

        Of errors by key one is raised, rather one that trying again does not help.
        """
        left, errors = list(keys), list[StoreError]()
        if self._batch_delete > 1 and len(left) > 1:
            try:
                left, errors = self._delete_batch(left)
            except Unsupported:
                self._batch_delete = 1
        for key in left:
            self.delete(key)
            moved()
        if errors:
            raise min(errors, key=lambda error: error.retryable)

    def _delete_batch(self, keys: Sequence[str]) -> tuple[list[str], list[StoreError]]:
        """The keys that the answer does not name, and errors of others."""
        names = {self._name(key): key for key in keys}
        with self._errors("delete", keys[0]):
            answer = self._sdk("delete_objects", Bucket=self._bucket, Delete={"Objects": [{"Key": name} for name in names]})
        named = {names.get(item.get("Key", ""), "") for item in answer.get("Deleted", ())}
        errors: list[StoreError] = []
        for item in answer.get("Errors", ()):
            key = names.get(item.get("Key", ""), "")
            named.add(key)
            error = s3_errors.translate(ClientError({"Error": item}, "DeleteObjects"), "delete", key, self._place)
            if not isinstance(error, NotFound):
                errors.append(error)
        return [key for key in keys if key not in named], errors

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        return _Pages(self, prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        """By delimiter. None at all is not believed: a server that does not know delimiters (s3rver) would show an empty store."""
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        if not self._delimiters:
            return super().folders(prefix)
        token, found, objects = None, dict[str, None](), 0   # a store that pages by keys may name one twice
        while True:
            page = self.list_page(prefix, token, only_here=True)
            found |= dict.fromkeys(page.folders)
            objects, token = objects + len(page.objects), page.following
            if token is None:
                break
        if not found and objects < PAGE_KEYS:
            beyond = self.list_page(prefix, None).objects
            self._delimiters = not any("/" in info.key[len(prefix):] for info in beyond)
        return iter(found) if self._delimiters else super().folders(prefix)

    def list_page(self, prefix: str, token: str | None, *, only_here: bool = False) -> Page:
        """One request. `only_here`: what lies directly below `prefix`. Keys are as they lie in the bucket, below the place's prefix."""
        arguments = {"ContinuationToken": token} if token else {}
        if only_here:
            arguments["Delimiter"] = "/"
        with self._errors("list", prefix):
            answer = self._sdk("list_objects_v2", Bucket=self._bucket, Prefix=self._prefix + prefix, MaxKeys=PAGE_KEYS, **arguments)
        if not {"IsTruncated", "KeyCount", "Name"} & answer.keys():     # some other page, which must not pass for an empty listing
            raise Temporary("list", prefix, f"{self._place.host} {s3_errors.NOT_S3}")
        moved()
        skip = len(self._prefix)
        found = [ObjectInfo(item["Key"][skip:], int(item["Size"])) for item in answer.get("Contents", ())
                 if item["Key"].startswith(self._prefix + prefix)]
        folders = [item["Prefix"][skip + len(prefix):-1] for item in answer.get("CommonPrefixes", ())
                   if item["Prefix"].startswith(self._prefix + prefix)]
        following = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
        if answer.get("IsTruncated") and (not following or following == token):
            raise Corrupt("list", prefix, f"{self._place.host} announces a further page and does not say which")
        return Page(found, folders, following)

    def check(self) -> None:
        self.list_page("super/", None)

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        self._create_only = probe(lambda key, data: self._put(key, data, True), self.get, self.delete, secrets.token_hex(8), rounds)
        return self._create_only

    def assume_linearizable(self, holds: bool) -> None:
        self._linearizable = holds

    def assume_create_only(self, holds: bool) -> None:
        self._create_only = holds

    def close(self) -> None:
        self._sdk.close()
        self._ca.close()

    # ------------------------------------------------------------ how the client is made

    def _where(self, url: StoreUrl, options: Options) -> tuple[str | None, str]:
        """(endpoint, region)."""
        names = {options.text("sig-region", DEFAULT_REGION), options.text("region", options.text("sig-region", DEFAULT_REGION))}
        if "sig-region" in options.values and len(names) > 1:
            raise ConfigError("the backend options region and sig-region contradict each other: give one of them")
        if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", url.host):
            raise ConfigError(f"{url}: expected {url.scheme}://HOST[:PORT]/BUCKET/PREFIX/")
        scheme = "http" if options.flag("no-ssl") else "https"
        return f"{scheme}://{url.host}", options.text("region", options.text("sig-region", DEFAULT_REGION))

    def _addressing(self, options: Options) -> str:
        return options.choice("addressing", ("auto", "path", "virtual")).replace("auto", "path")

    def _before_call(self, model: Any, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        """The last word on a request: `Expect` only where it pays, and no redirection to other regions."""
        params["headers"].pop("Expect", None)
        if model.name == "PutObject" and self._expect and len(params["body"]) >= EXPECT_MIN_BYTES:
            params["headers"]["Expect"] = "100-continue"
        if model.name == "DeleteObjects" and not self.AWS:     # wants a checksum: the SDK's is CRC32, which only AWS is sure to know
            params["context"].pop("checksum", None)
            params["headers"]["Content-MD5"] = md5_of(params["body"])
        context.setdefault("s3_redirect", {})["redirected"] = True

    @contextmanager
    def _errors(self, operation: str, key: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            ours = isinstance(error, (BotoCoreError, ClientError, ResponseParserError, OSError))
            if not ours and not type(error).__module__.startswith("urllib3."):         # that one is from the body of an answer
                raise
            told = s3_errors.translate(error, operation, key, self._place)
            if told.retryable:
                self._sdk.trouble()
            raise told from error


class AwsBackend(S3Backend):
    """AWS itself: the region is the URL's host part, the endpoint follows from it (or from AWS_ENDPOINT_URL_S3)."""

    OPTIONS: ClassVar[Mapping[str, str]] = COMMON
    AWS: ClassVar[bool] = True
    BELIEVED: ClassVar[str] = "linearizable"

    def _where(self, url: StoreUrl, options: Options) -> tuple[str | None, str]:
        if not _REGION.fullmatch(url.host):
            raise ConfigError(f"{url}: expected s3://REGION/BUCKET/PREFIX/, and {url.host!r} is not a region of AWS")
        return None, url.host

    def _addressing(self, options: Options) -> str:
        """Virtual, as AWS wants it; a bucket with dots in its name does not fit the certificate and goes by path."""
        return options.choice("addressing", ("auto", "path", "virtual")).replace("auto", "path" if "." in self._bucket else "virtual")
