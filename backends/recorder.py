"""Remembers every call: tests assert the exact requests (an idle mount makes none, an unchanged flush puts nothing).

Wrapped around the bare backend it sees each attempt. A listing is one call, noted when
it is asked for; so is a listing of folders ("list").
"""
from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Degraded, ObjectInfo
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import StoreError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `size` is what was asked for (get) or sent (put); `error` the name of the error's class, "" when it went well."""

    operation: str
    key: str
    offset: int = 0
    size: int | None = None
    only_if_absent: bool = False
    error: str = ""

    @property
    def kind(self) -> str:
        """First part of the key: pack, log, checkpoint, super ..."""
        return self.key.partition("/")[0]


class RecorderBackend(Wrapper):
    """`inner`, with a list of the calls in the order in which they ended."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    @property
    def calls(self) -> list[Call]:
        """A copy."""
        with self._lock:
            return list(self._calls)

    def take(self) -> list[Call]:
        """The calls since the last `take`, which are then forgotten."""
        with self._lock:
            taken, self._calls = self._calls, []
            return taken

    def counts(self) -> Counter[tuple[str, str]]:
        """How many calls by (operation, kind of object)."""
        return Counter((call.operation, call.kind) for call in self.calls)

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        return self._noted("get", key, lambda: self.inner.get(key, offset, size), offset=offset, size=size)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        return self._noted("put", key, lambda: self.inner.put(key, data, only_if_absent), size=len(data), only_if_absent=only_if_absent)

    def stat(self, key: str) -> ObjectInfo:
        return self._noted("stat", key, lambda: self.inner.stat(key))

    def delete(self, key: str) -> None:
        self._noted("delete", key, lambda: self.inner.delete(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._noted("list", prefix, lambda: self.inner.list(prefix))

    def delete_many(self, keys: Sequence[str]) -> None:
        self._noted("delete", keys[0] if keys else "", lambda: self.inner.delete_many(keys))

    def folders(self, prefix: str) -> Iterator[str]:
        return self._noted("list", prefix, lambda: self.inner.folders(prefix))

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return self._noted("probe", "probe/", lambda: self.inner.probe_create_only(rounds))

    def create(self) -> None:
        self._noted("create", "", self.inner.create)

    def check(self) -> None:
        self._noted("check", "", self.inner.check)

    def _noted(self, operation: str, key: str, call: Callable[[], T], *, offset: int = 0, size: int | None = None,
               only_if_absent: bool = False) -> T:
        failure = ""
        try:
            return call()
        except StoreError as error:
            failure = type(error).__name__
            raise
        finally:
            with self._lock:
                self._calls.append(Call(operation, key, offset, size, only_if_absent, failure))
