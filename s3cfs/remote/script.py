"""The bare backend for a blocking script in a thread: each call has the patience of `Remote`, and passes no layer."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import trio

from s3cfs.backends.base import PROBE_ROUNDS, Body, Degraded, ObjectInfo
from s3cfs.backends.wrapper import Wrapper

from .errand import never, retryable, surely_not_carried_out
from .remote import Remote

T = TypeVar("T")


class Script(Wrapper):
    """Made on the event loop; called from any other thread."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(remote.backend)
        self._remote, self._loop = remote, trio.lowlevel.current_trio_token()

    def _ask(self, operation: str, key: str, function: Callable[[], T], may_repeat: Callable[..., bool] = retryable) -> T:
        return trio.from_thread.run(self._remote.of_backend, operation, key, function, may_repeat, trio_token=self._loop)

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        return self._ask("get", key, lambda: self.inner.get(key, offset, size))

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        return self._ask("put", key, lambda: self.inner.put(key, data, only_if_absent),
                         surely_not_carried_out if only_if_absent else retryable)

    def stat(self, key: str) -> ObjectInfo:
        return self._ask("stat", key, lambda: self.inner.stat(key))

    def delete(self, key: str) -> None:
        self._ask("delete", key, lambda: self.inner.delete(key))

    def delete_many(self, keys: Sequence[str]) -> None:
        self._ask("delete", keys[0] if keys else "", lambda: self.inner.delete_many(keys))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self._ask("list", prefix, lambda: [*self.inner.list(prefix)]))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._ask("list", prefix, lambda: [*self.inner.folders(prefix)]))

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return self._ask("probe", "probe/", lambda: self.inner.probe_create_only(rounds), never)

    def check(self) -> None:
        self._ask("check", "", self.inner.check)
