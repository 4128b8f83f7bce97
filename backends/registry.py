"""From a URL to a backend: the one place that knows which scheme is which class.

Modules are imported only when their scheme is asked for (boto3 alone takes a third of a second). A third party joins by an entry
point in the group "s3cfs.backends": its name is the scheme, its object a class with `OPTIONS` and `from_url` as in
`BackendType`. A scheme of s3cfs itself cannot be taken over that way.
"""
from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Protocol, cast

from s3cfs.backends.base import Backend
from s3cfs.backends.consistency import guard
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import ConfigError

ENTRY_POINTS = "s3cfs.backends"

OWN: Mapping[str, tuple[str, str]] = {
    "memory": ("s3cfs.backends.memory", "MemoryBackend"),
    "local": ("s3cfs.backends.local", "LocalBackend"),
    "s3c": ("s3cfs.backends.s3c", "S3Backend"),
    "s3": ("s3cfs.backends.s3c", "AwsBackend"),
    "ipfs+s3": ("s3cfs.backends.ipfs.s3", "IpfsS3Backend"),
    "zdb": ("s3cfs.backends.zdb.backend", "ZdbBackend"),
    "storjs3": ("s3cfs.backends.storj", "StorjBackend"),
    "ipfs+rpc": ("s3cfs.backends.ipfs.kubo", "KuboBackend"),
}


class BackendType(Protocol):
    """What a backend's class offers beside the contract."""

    @property
    def OPTIONS(self) -> Mapping[str, str]:
        """Every option it knows, with one line of help each. One that every backend has (consistency/guard.py) it may take for itself.

        A class may have `GUARDED` too: whether the consistency lock and the checker are on when nobody says.
        """

    def from_url(self, url: StoreUrl, options: Options, credentials: Credentials) -> Backend:
        """Make one; ConfigError for what is wrong in URL and options. Makes no request."""


def schemes() -> list[str]:
    """Every scheme that `open_backend` understands, sorted."""
    return sorted({*OWN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def backend_type(scheme: str) -> BackendType:
    """The class behind a scheme; ConfigError when there is none or it cannot be loaded."""
    if scheme in OWN:
        module, name = OWN[scheme]
        return cast(BackendType, getattr(importlib.import_module(module), name))
    for point in entry_points(group=ENTRY_POINTS, name=scheme):
        try:
            return cast(BackendType, point.load())
        except Exception as error:  # whatever a stranger's module does when it is imported is a matter of configuration here
            raise ConfigError(f"backend {scheme}:// ({point.value}) cannot be loaded: {error}") from error
    raise ConfigError(f"no backend for {scheme}:// (known: {', '.join(schemes())})")


def open_backend(url: str, options: Mapping[str, str] | None = None, *, login: str = "", password: str = "") -> Backend:
    """The backend at `url`, bare: patience is `Remote`'s. Makes no request to the store.

    Unknown schemes and options are refused by name with ConfigError.
    """
    place = StoreUrl.parse(url)
    kind = backend_type(place.scheme)
    values = dict(options or {})
    Options(place, values).refuse_unknown({**guard.OPTIONS, **kind.OPTIONS})
    own = {name: value for name, value in values.items() if name in kind.OPTIONS or name not in guard.OPTIONS}
    backend = kind.from_url(place, Options(place, own), Credentials(login, password))
    general = {name: value for name, value in values.items() if name not in own}
    return guard.guarded(backend, place, general, default=getattr(kind, "GUARDED", False))
