"""A backend that stands before another and passes everything on; those that do something derive from it (recorder, faulty)."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Degraded, ObjectInfo
from s3cfs.backends.layer import Layer


class Wrapper(Backend):
    """`inner`, as it is."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    @property
    def location(self) -> str:
        return self.inner.location

    @property
    def keeps_state(self) -> bool:
        return self.inner.keeps_state

    def start(self, folder: str) -> None:
        self.inner.start(folder)

    def layers(self) -> Sequence[Layer]:
        return self.inner.layers()

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        return self.inner.get(key, offset, size)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        return self.inner.put(key, data, only_if_absent)

    def stat(self, key: str) -> ObjectInfo:
        return self.inner.stat(key)

    def examine(self, key: str) -> str | None:
        return self.inner.examine(key)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def delete_many(self, keys: Sequence[str]) -> None:
        self.inner.delete_many(keys)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        return self.inner.folders(prefix)

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return self.inner.probe_create_only(rounds)

    def probe_linearizable(self, rounds: int = PROBE_ROUNDS) -> bool:
        return self.inner.probe_linearizable(rounds)

    def assume_create_only(self, holds: bool) -> None:
        self.inner.assume_create_only(holds)

    def assume_linearizable(self, holds: bool) -> None:
        self.inner.assume_linearizable(holds)

    def create(self) -> None:
        self.inner.create()

    def check(self) -> None:
        self.inner.check()

    def close(self) -> None:
        self.inner.close()
