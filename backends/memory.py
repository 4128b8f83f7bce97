"""A store in this process's memory: for tests, the simulator and experiments. It goes when the process does.

`memory://` is new at every call, `memory://NAME` is the same store for the whole process (mount, forget the local state, mount again).
"""
from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, ObjectInfo
from s3cfs.backends.probe import probe
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import Exists, NotFound, Unsupported

_named: dict[str, MemoryBackend] = {}


class MemoryBackend(Backend):
    """Objects in a dict. `create_only=False` makes it a store without create-only puts (tier T2)."""

    OPTIONS: ClassVar[Mapping[str, str]] = {"no-create-only": "be a store without create-only puts (tier T2)"}

    def __init__(self, name: str = "", *, create_only: bool = True) -> None:
        self._name, self._create_only = name, create_only
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_url(cls, url: StoreUrl, options: Options, credentials: Credentials) -> Backend:
        name = (url.host + url.path).rstrip("/")
        create_only = not options.flag("no-create-only")
        if not name:
            return cls(create_only=create_only)
        return _named.setdefault(name, cls(name, create_only=create_only))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=self._create_only, linearizable=True, batch_delete=1000)

    @property
    def location(self) -> str:
        return f"memory://{self._name}"

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if offset < 0 or (size is not None and size < 0):
            raise ValueError("negative offset or size")
        try:
            data = self._objects[key]
        except KeyError:
            raise NotFound("get", key, "no such object") from None
        return data[offset:] if size is None else data[offset:offset + size]

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        if only_if_absent and not self._create_only:
            raise Unsupported("put", key, "this store has no create-only put")
        self._put(key, data, only_if_absent)

    def _put(self, key: str, data: Body, only_if_absent: bool) -> None:
        copy = bytes(data)
        with self._lock:
            if only_if_absent and self._create_only and key in self._objects:
                raise Exists("put", key, "the key is taken")
            self._objects[key] = copy

    def stat(self, key: str) -> ObjectInfo:
        try:
            return ObjectInfo(key, len(self._objects[key]))
        except KeyError:
            raise NotFound("stat", key, "no such object") from None

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)

    def delete_many(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                self._objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        with self._lock:
            found = [ObjectInfo(key, len(data)) for key, data in self._objects.items() if key.startswith(prefix)]
        return iter(found)

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return probe(lambda key, data: self._put(key, data, True), self.get, self.delete, secrets.token_hex(8), rounds)
