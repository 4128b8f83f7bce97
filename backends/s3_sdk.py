"""The SDK: its session, its client, and a fresh one when the server closes connections behind its back.

Some servers (MinIO) answer a create-only PUT with 412 without reading its body, and close the connection right after. It is back in the
pool by then, and whether the next request on it notices in time is a matter of microseconds: "closed the connection in the middle of
the request". So such a request is sent once more, by a new client: its pool is empty, so its connection is fresh.

At other stores (Storj) connections die silently while they wait: a request is sent, and nothing comes until the time-out. There a client
is replaced after any error that is worth a second attempt, and in any case after a while: `connection_s`.
"""
from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import boto3
import botocore.session
from botocore.exceptions import ConnectionClosedError
from botocore.loaders import Loader, create_loader
from botocore.utils import parse_timestamp

from s3cfs.backends.progress import lost
from s3cfs.backends.url import Credentials
from s3cfs.errors import ConfigError


class Sdk:
    """Calls of one S3 client, by name. Thread-safe."""

    def __init__(self, make: Callable[[], Any], connection_s: float | None = None) -> None:
        """`connection_s`: for so long at most a connection is used, and none after `trouble`."""
        self._make, self._connection_s = make, connection_s
        self._client, self._made, self._number = make(), time.monotonic(), 0
        self._lock = threading.Lock()
        self._used = threading.local()
        self.endpoint: str = self._client.meta.endpoint_url

    def once(self, name: str, **arguments: Any) -> Any:
        """One request. A connection that was closed under it leaves a new client behind, and the error is raised."""
        if self._connection_s is not None and time.monotonic() - self._made > self._connection_s:
            self._renew(self._number)
        number = self._used.number = self._number
        client = self._client                  # that one or a newer
        try:
            return getattr(client, name)(**arguments)
        except ConnectionClosedError:
            lost()
            self._renew(number)
            raise

    def __call__(self, name: str, **arguments: Any) -> Any:
        """For requests that may be repeated: once more after such an error. A body must be able to `seek`."""
        try:
            return self.once(name, **arguments)
        except ConnectionClosedError:
            if "Body" in arguments:
                arguments["Body"].seek(0)
            return self.once(name, **arguments)

    def trouble(self) -> None:
        """What this thread asked last ended in an error, though it may be worth another attempt."""
        if self._connection_s is not None:
            self._renew(getattr(self._used, "number", -1))

    def _renew(self, worn: int) -> None:
        """Requests under way go on with the old one, which goes with the last of them."""
        with self._lock:
            if self._number == worn:
                self._client, self._made, self._number = self._make(), time.monotonic(), worn + 1

    def close(self) -> None:
        self._client.close()


def session_of(credentials: Credentials, token: str) -> boto3.session.Session:
    """Given login and password, else the usual AWS chain: environment, profile, instance role."""
    if bool(credentials.login) != bool(credentials.password):
        raise ConfigError("backend-login and backend-password are given together or not at all")
    if token and not credentials.login:
        raise ConfigError("the backend option session-token needs backend-login and backend-password")
    core = botocore.session.get_session()
    core.register_component("data_loader", _sdk_data())
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    return boto3.session.Session(aws_access_key_id=credentials.login or None, aws_secret_access_key=credentials.password or None,
                                 aws_session_token=token or None, botocore_session=core)


@functools.cache
def _sdk_data() -> Loader:
    """The SDK's description of S3 and of regions, read once a process: 50 ms for every further client otherwise."""
    return create_loader()


def _moment(text: Any) -> datetime:
    """The SDK's own reading of times takes 0.4 ms, and a page of a listing has a thousand of them, which nobody here wants."""
    try:
        return datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return parse_timestamp(text)
