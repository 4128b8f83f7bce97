"""A store that somebody has, as a place for tests: every test gets an empty folder of its own below it, and nothing else is touched.

The place is named on the command line of `python -m tests.against`, which runs pytest in its own process: `use` and `current` are how tests
hear of it. The tests of tests/e2e that take a `store` run there, too.
"""
from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3cfs.backends.base import Backend, Body, Degraded, ObjectInfo
from s3cfs.backends.registry import open_backend
from s3cfs.backends.wrapper import Wrapper
from s3cfs.config import Settings
from s3cfs.errors import StoreError

DELETIONS_AT_ONCE = 8
WHOLE_BYTES = 32 << 20                 # the suite's largest object is smaller
WITHOUT_PROCESSES = ("memory",)        # stores that end with the process that holds them


class Counted(Wrapper):
    """`inner`, with every call counted by the place."""

    def __init__(self, inner: Backend, place: Place) -> None:
        super().__init__(inner)
        self.place = place

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        self.place.count()
        return self.inner.get(key, offset, size)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        self.place.count()
        return self.inner.put(key, data, only_if_absent)

    def stat(self, key: str) -> ObjectInfo:
        self.place.count()
        return self.inner.stat(key)

    def delete(self, key: str) -> None:
        self.place.count()
        self.inner.delete(key)

    def delete_many(self, keys: Sequence[str]) -> None:
        self.place.count()
        self.inner.delete_many(keys)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.place.count()
        return self.inner.list(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        self.place.count()
        return self.inner.folders(prefix)


@dataclass
class Place:
    """`requests`: calls of the store so far, as far as this process heard of them."""

    url: str
    options: Mapping[str, str] = field(default_factory=dict)
    login: str = ""
    password: str = field(default="", repr=False)
    create_only: bool = False              # what the probe found
    sole: bool = False                     # of neither tier: one machine writes, and others wait until it has settled
    requests: int = 0
    rounds: int = 3                        # of killing
    seed: int = 1
    short: bool = False
    made: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Place:
        login, password = settings.login or "", settings.password.reveal() if settings.password else ""
        options = dict(settings.backend_options)
        if not login and settings.url.startswith(("s3://", "s3c://", "storjs3://", "ipfs+s3://")):       # tests do without variables
            login, password, token = _aws_chain()
            options.update({"session-token": token} if token else {})
        return cls(settings.url, options, login, password)

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def has_processes(self) -> bool:
        """Whether other processes can use it."""
        return self.scheme not in WITHOUT_PROCESSES

    def count(self, calls: int = 1) -> None:
        with self.lock:
            self.requests += calls

    def fresh_url(self) -> str:
        """An empty place below the URL; it is removed at the end."""
        url = f"{self.url}{'' if self.url.endswith('/') else '/'}s3cfs-test-{secrets.token_hex(6)}/"
        self.made.append(url)
        return url

    def open(self, url: str = "") -> Backend:
        """A backend at a fresh place, unless a URL is given; as it is, for somebody who starts it (a filesystem does)."""
        return Counted(open_backend(url or self.fresh_url(), self.options, login=self.login, password=self.password), self)

    def seen(self, state: Path, url: str = "") -> Backend:
        """The same, to be used at once: where a store is nothing without its layers, as s3cfs sees it. `state`: for what it keeps here."""
        made = self.open(url)
        if not self.layered:
            return made
        from tests.backends.face import Face
        state.mkdir(parents=True, exist_ok=True)
        return Face(made, str(state))

    @functools.cached_property
    def layered(self) -> bool:
        known = self.open(self.url)
        largest = known.capabilities.largest_object_bytes
        return (known.keeps_state or known.capabilities.linearizable is False or (largest is not None and largest < WHOLE_BYTES)
                or bool(known.layers()))

    def remove(self, state: Path) -> list[str]:
        """Remove what was made, as far as the store lets us; what is left, in words."""
        left: list[str] = []
        for url in self.made:
            try:
                left += self._remove(url, state)
            except StoreError as error:
                left.append(f"{url}: {error}")
        self.made.clear()
        return list(dict.fromkeys(left))

    def _remove(self, url: str, state: Path) -> list[str]:
        if self.scheme == "local":
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(url.removeprefix("local://"))
            return []
        with contextlib.closing(self.seen(state, url)) as backend:
            if not backend.capabilities.may_delete:
                return [f"{self.url}: nothing can be deleted there"]
            keys = [info.key for info in backend.list("")]
            if batch := backend.capabilities.batch_delete - 1:
                for at in range(0, len(keys), batch + 1):
                    backend.delete_many(keys[at:at + batch + 1])
            else:
                with ThreadPoolExecutor(DELETIONS_AT_ONCE) as pool:
                    list(pool.map(backend.delete, keys))
        return []


def _aws_chain() -> tuple[str, str, str]:
    """The usual AWS variables, profile or role. All empty where there is nothing: the store will say what it wants."""
    import boto3
    found: Any = boto3.session.Session().get_credentials()
    if found is None:
        return "", "", ""
    keys = found.get_frozen_credentials()
    return keys.access_key, keys.secret_key, keys.token or ""


_current: list[Place] = []


def use(place: Place) -> None:
    """From now on tests run there."""
    _current[:] = [place]


def current() -> Place | None:
    return _current[-1] if _current else None


def here() -> Place:
    """For tests that make no sense anywhere else."""
    if not _current:
        raise RuntimeError("these tests run on a store that is named: make backends URL=... AUTHFILE=...")
    return _current[-1]
