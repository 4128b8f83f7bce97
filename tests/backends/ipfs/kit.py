"""A bucket in memory with a clock of its own, and what lies in it."""
from __future__ import annotations

import random
from dataclasses import replace

from s3cfs.backends.base import Body, Capabilities, ObjectInfo
from s3cfs.backends.ipfs.crowd import Crowd
from s3cfs.backends.ipfs.dag import Block, blocks_of
from s3cfs.backends.ipfs.datastore import Datastore
from s3cfs.backends.ipfs.objects import IpfsBackend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import StoreError

DAY_S = 86400
MIB = 1 << 20


class Bucket(MemoryBackend):
    """Knows when each object was put. `fails`: names (parts of them) whose next put or get fails; `calls`: what was asked."""

    def __init__(self, *, create_only: bool = True, linearizable: bool = True) -> None:
        super().__init__(create_only=create_only)
        self.time = 1_000_000_000.0
        self.times: dict[str, float] = {}
        self.linearizable = linearizable
        self.fails: dict[tuple[str, str], StoreError] = {}
        self.calls: list[tuple[str, str]] = []

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, linearizable=self.linearizable)

    @property
    def objects(self) -> dict[str, bytes]:
        return self._objects

    def _called(self, operation: str, key: str) -> None:
        self.calls.append((operation, key))
        for (of, part), error in list(self.fails.items()):
            if of == operation and part in key:
                del self.fails[of, part]
                raise error

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        self._called("get", key)
        return super().get(key, offset, size)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self._called("put", key)
        super().put(key, data, only_if_absent)
        self.times[key] = self.time

    def stat(self, key: str) -> ObjectInfo:
        self._called("stat", key)
        return replace(super().stat(key), modified=self.times[key])

    def blocks(self) -> set[str]:
        return {key for key in self._objects if not key.startswith("s3cfs.names/")}


def opened(bucket: Bucket, table: str = "main", root: str = "node", mountpoint: str = "/blocks",
           crowd: Crowd | None = None) -> IpfsBackend:
    return IpfsBackend(Datastore(bucket, root, mountpoint, crowd), table, "ipfs+memory://bucket", lambda: bucket.time)


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def block_names(backend: IpfsBackend, data: bytes) -> list[str]:
    """The names in the bucket of all blocks of an object."""
    return [backend.datastore.object_of(backend.datastore.block(block.digest)) for block in list_of(data)]


def list_of(data: bytes) -> list[Block]:
    return list(blocks_of(data)[1])
