"""S3QL's objects behind the interface of our own stores, read-only, so that `Remote` brings them (patience, threads, counters).

    data/<n>         the object s3ql_data_<n>
    meta/<name>      any other, by S3QL's name
    list("meta/")    those of the second kind, as far as the store can list them without going through all of the first

What `get` returns is the object as envelope.py has it, also where a store keeps the header apart, in the object's user metadata.
"""
from __future__ import annotations

import base64
import binascii
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NoReturn

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from s3cfs.backends import s3_errors
from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Listing, ObjectInfo
from s3cfs.backends.progress import moved
from s3cfs.backends.s3_body import received
from s3cfs.backends.s3_sdk import Sdk, session_of
from s3cfs.backends.s3_tls import ca_bundle
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import BucketMissing, ConfigError, Corrupt, Denied, NotFound, StoreError, Temporary, Unsupported
from s3cfs.limits import DEFAULTS

from .envelope import pack
from .place import Access, Place

DATA, META = "data/", "meta/"
READS = 24                         # objects are a MiB or less
LISTINGS = ("auto", "folder")
METADATA = "s3ql_metadata_"
LOCAL_ESCAPES = {"=": "=3D", "/": "=2F", "#": "=23"}


class S3qlStore(Backend):
    """What all of them have: nothing can be changed."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=False, linearizable=True, may_delete=False, parallel_reads=READS)

    def _refuse(self, operation: str, key: str) -> NoReturn:
        raise Unsupported(operation, key, "a filesystem of S3QL is only read")

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self._refuse("put", key)

    def delete(self, key: str) -> None:
        self._refuse("delete", key)

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return False

    def check(self) -> None:
        try:
            self.stat(f"{META}s3ql_params")
        except NotFound:
            pass


def s3ql_name(key: str) -> str:
    """S3QL's own name of an object, from ours."""
    kind, _, name = key.partition("/")
    return f"s3ql_data_{name}" if kind + "/" == DATA else name


def open_s3ql(place: Place, access: Access, listing: str = "auto") -> S3qlStore:
    """Makes no request. ConfigError."""
    return LocalStore(place) if place.scheme == "local" else BucketStore(place, access, listing)


class LocalStore(S3qlStore):
    def __init__(self, place: Place) -> None:
        self._root = place.prefix

    @property
    def location(self) -> str:
        return f"local://{self._root}"

    def _path(self, key: str) -> str:
        name = "".join(LOCAL_ESCAPES.get(c, c) for c in s3ql_name(key))
        if not key.startswith(DATA):
            return os.path.join(self._root, name)
        digits = key[len(DATA):]
        return os.path.join(self._root, "s3ql_data_", *(digits[:end] for end in range(3, len(digits), 3)), name)

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        try:
            with open(self._path(key), "rb") as file:
                data = file.read()
        except OSError as error:
            raise self._error("get", key, error) from None
        moved()
        return data[offset:] if size is None else data[offset:offset + size]

    def stat(self, key: str) -> ObjectInfo:
        try:
            return ObjectInfo(key, os.stat(self._path(key)).st_size)
        except OSError as error:
            raise self._error("stat", key, error) from None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        try:
            names = os.listdir(self._root)
        except OSError as error:
            raise self._error("list", prefix, error) from None
        for name in names:
            if name.startswith(METADATA) and "#" not in name:
                yield ObjectInfo(META + name, 0)

    def _error(self, operation: str, key: str, error: OSError) -> StoreError:
        if not os.path.isdir(self._root):
            return BucketMissing(operation, key, f"there is no folder {self._root}")
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            return NotFound(operation, key, "no such object")
        kind = Denied if isinstance(error, PermissionError) else Temporary
        return kind(operation, key, f"{self._root}: {error.strerror}")


class BucketStore(S3qlStore):
    """By way of the S3 protocol. Headers are user metadata `000`, `001` ... (seen through the gateway of B2: `meta-000` ...)."""

    def __init__(self, place: Place, access: Access, listing: str) -> None:
        self._bucket, self._prefix, self._storj, self._listing = place.bucket, place.prefix, place.scheme == "storjs3", listing
        self._url = place.url
        aws = place.scheme == "s3"
        options = Options(StoreUrl(place.scheme, place.host, ""), access.options)
        plain = options.flag("no-ssl")
        timeout = options.seconds("tcp-timeout", DEFAULTS.store_timeout_s)
        region = place.host if aws else options.text("sig-region", options.text("region", "us-east-1"))
        endpoint = None if aws else f"{'http' if plain else 'https'}://{place.host}"
        self._ca = ca_bundle(options.text("ssl-ca-path"))
        try:
            session = session_of(Credentials(access.login, access.password.reveal() if access.password else ""), "")
            config = Config(
                signature_version="s3v4", s3={"addressing_style": "auto" if aws else "path"},
                retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=timeout, read_timeout=timeout,
                max_pool_connections=READS + 4, tcp_keepalive=True, parameter_validation=False,
                request_checksum_calculation="when_required", response_checksum_validation="when_required", user_agent_extra="s3cfs")
            self._sdk = Sdk(lambda: session.client("s3", region_name=region, endpoint_url=endpoint, verify=self._ca.path, config=config))
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"{place.url}: {' '.join(str(error).split())}") from None
        host = self._sdk.endpoint.partition("://")[2]
        self._place = s3_errors.Place(host, place.bucket, region, timeout, tls=not plain)

    @property
    def location(self) -> str:
        return self._url

    def close(self) -> None:
        self._sdk.close()
        self._ca.close()

    def _name(self, key: str) -> str:
        name = s3ql_name(key)
        if not self._storj:
            return self._prefix + name
        if key.startswith(DATA):
            return f"{self._prefix}s3ql_data/{key[len(DATA):]}"
        return f"{self._prefix}s3ql_other/{base64.urlsafe_b64encode(name.encode()).decode()}"

    def _ask(self, operation: str, key: str, call: str, **arguments: Any) -> Any:
        try:
            return self._sdk(call, Bucket=self._bucket, **arguments)
        except (ClientError, BotoCoreError, ResponseParserError, OSError) as error:
            raise s3_errors.translate(error, operation, key, self._place) from error

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        answer = self._ask("get", key, "get_object", Key=self._name(key))
        try:
            with closing(answer["Body"]) as body:
                data = received(body)
        except (BotoCoreError, ResponseParserError, OSError) as error:
            raise s3_errors.translate(error, "get", key, self._place) from error
        if len(data) != answer.get("ContentLength", len(data)):
            raise Corrupt("get", key, f"{self._place.host} sent {len(data)} bytes instead of {answer['ContentLength']}")
        return pack(_header(answer.get("Metadata", {})), data)

    def stat(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, int(self._ask("stat", key, "head_object", Key=self._name(key))["ContentLength"]))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """By the beginning of the names, one request for a thousand. Where the store has only listings by folders (Storj), by that of the
        prefix, and then everything in it goes by."""
        return _Names(self, [f"{self._prefix}s3ql_other/"] if self._storj else [self._folder] if self._listing == "folder" else
                      [f"{self._prefix}{METADATA}", self._folder])

    @property
    def _folder(self) -> str:
        return self._prefix[:self._prefix.rfind("/") + 1]

    def page(self, prefix: str, token: str | None) -> tuple[Sequence[ObjectInfo], str | None]:
        arguments = {"ContinuationToken": token} if token else {}
        answer = self._ask("list", prefix, "list_objects_v2", Prefix=prefix, MaxKeys=1000, **arguments)
        if not {"IsTruncated", "KeyCount", "Name"} & answer.keys():
            raise Temporary("list", prefix, f"{self._place.host} {s3_errors.NOT_S3}")
        moved()
        names = [self._s3ql_name(item["Key"]) for item in answer.get("Contents", ())]
        following = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
        return [ObjectInfo(META + name, 0) for name in names if name.startswith(METADATA)], following

    def _s3ql_name(self, name: str) -> str:
        """"" where it is none of this filesystem."""
        mine = self._prefix + ("s3ql_other/" if self._storj else "")
        if not name.startswith(mine):
            return ""
        try:
            return base64.urlsafe_b64decode(name[len(mine):]).decode() if self._storj else name[len(mine):]
        except (binascii.Error, ValueError):
            return ""


class _Names(Listing):
    """A listing by the first of some prefixes that the store lists by."""

    def __init__(self, store: BucketStore, prefixes: list[str]) -> None:
        self._store, self._prefixes = store, prefixes
        self._token: str | None = None
        self._page: Iterator[ObjectInfo] = iter(())
        self._last = False

    def __next__(self) -> ObjectInfo:
        while True:
            for info in self._page:
                return info
            if self._last:
                raise StopIteration
            try:
                page, self._token = self._store.page(self._prefixes[0], self._token)
            except Unsupported:
                if len(self._prefixes) == 1:
                    raise
                del self._prefixes[0]
                continue
            self._page, self._last = iter(page), self._token is None


def _header(metadata: Mapping[str, str]) -> str:
    """The dict's text, from its pieces. A bucket that was copied without its metadata has none, which no parser takes."""
    form = "" if "000" in metadata else "meta-"
    pieces: list[str] = []
    while (piece := metadata.get(f"{form}{len(pieces):03}")) is not None:
        pieces.append(piece)
    return "{" + urllib.parse.unquote("".join(pieces)) + "}"
