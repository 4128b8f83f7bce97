"""A blocking face over layers, so that what is written for backends (the suite, faults) runs through a whole stack of them.

The layers live on an event loop of their own, in a thread of their own, until `close`.
"""
from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar, cast

import trio

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Degraded, ObjectInfo
from s3cfs.backends.layer import Call, Lane, Layer, Store
from s3cfs.backends.wrapper import Wrapper
from s3cfs.doors import Disk, Doors, SystemClock, SystemRandomness, TrioThreads

T = TypeVar("T")
CALL = Call(Lane.READ, math.inf)


class Bottom(Store):
    """A backend, a thread a call."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._limiter = trio.CapacityLimiter(16)

    @property
    def capabilities(self) -> Capabilities:
        return self.backend.capabilities

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        return await self._run(self.backend.get, key, offset, size)

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        return await self._run(self.backend.put, key, data, only_if_absent)

    async def stat(self, key: str, call: Call) -> ObjectInfo:
        return await self._run(self.backend.stat, key)

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        await self._run(self.backend.delete_many, keys)

    async def folders(self, prefix: str, call: Call) -> list[str]:
        return await self._run(lambda: list(self.backend.folders(prefix)))

    async def list(self, prefix: str, call: Call) -> list[ObjectInfo]:
        return await self._run(lambda: list(self.backend.list(prefix)))


def stacked(bottom: Store, layers: Sequence[Layer], doors: Doors, folder: str = "") -> Store:
    """The topmost of `layers` (topmost first) on `bottom`."""
    top = bottom
    for layer in reversed(layers):
        layer.stand_on(top, doors, folder)
        top = layer
    return top


class Face(Wrapper):
    """`backend` with `layers` above it. To be closed."""

    def __init__(self, backend: Backend, layers: Sequence[Layer], folder: str = "/nonexistent") -> None:
        super().__init__(backend)
        self._started, self._stop = threading.Event(), trio.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main, layers, folder))
        self._thread.start()
        self._started.wait()

    async def _main(self, layers: Sequence[Layer], folder: str) -> None:
        self._token = trio.lowlevel.current_trio_token()
        doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), cast(Disk, None))
        self.top = stacked(Bottom(self.inner), layers, doors, folder)
        async with trio.open_nursery() as nursery:
            for layer in layers:
                nursery.start_soon(layer.run)
            self._started.set()
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    def _ask(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        return trio.from_thread.run(lambda: function(*args, CALL), trio_token=self._token)

    @property
    def capabilities(self) -> Capabilities:
        return self.top.capabilities

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        return self._ask(self.top.get, key, offset, size)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        return self._ask(self.top.put, key, data, only_if_absent)

    def stat(self, key: str) -> ObjectInfo:
        return self._ask(self.top.stat, key)

    def delete(self, key: str) -> None:
        self._ask(self.top.delete, [key])

    def delete_many(self, keys: Sequence[str]) -> None:
        self._ask(self.top.delete, keys)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self._ask(self.top.list, prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._ask(self.top.folders, prefix))

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return self.inner.probe_create_only(rounds)

    def close(self) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()
        self.inner.close()
