"""A blocking face over layers, so that what is written for backends (the suite, faults) runs through a whole stack of them.

`Face(backend, folder)` is what s3cfs sees of a store: `Remote` with its patience, the project's layers, the backend's own.
`Layered(backend, layers)` is these layers alone, one attempt a call.
Either lives on an event loop of its own, in a thread of its own, until `close`.
"""
from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import trio

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Degraded, ObjectInfo
from s3cfs.backends.layer import Call, Lane, Layer, Store
from s3cfs.backends.progress import Progress
from s3cfs.backends.wrapper import Wrapper
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import StoreError, Unsupported
from s3cfs.limits import DEFAULTS
from s3cfs.remote import Remote
from s3cfs.remote.lines import Lines

T = TypeVar("T")


class NoDisk(SystemDisk):
    def __init__(self) -> None:
        pass


class NoPauses(SystemRandomness):
    """Jitter that makes each pause the shortest there may be: none."""

    def uniform(self, low: float, high: float) -> float:
        return low


def some_doors(folder: str | None = None, **limits: Any) -> Doors:
    return Doors(SystemClock(), NoPauses(), TrioThreads(), SystemDisk(folder) if folder else NoDisk(), replace(DEFAULTS, **limits))


def a_call(lane: Lane = Lane.READ) -> Call:
    return Call(lane, time.monotonic() + 100.0, Progress(time.monotonic))


def stacked(backend: Backend, layers: Sequence[Layer], doors: Doors) -> Store:
    """The topmost of `layers` (topmost first) on `backend`."""
    top: Store = Lines(backend, doors)
    for layer in reversed(layers):
        layer.stand_on(top, doors, "")
        top = layer
    return top


class Small(Wrapper):
    """`inner`, which takes no object above `largest`."""

    def __init__(self, inner: Backend, largest: int, may_delete: bool = True) -> None:
        super().__init__(inner)
        self.largest, self.may_delete, self.degraded = largest, may_delete, dict[str, Degraded]()

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, largest_object_bytes=self.largest, may_delete=self.may_delete)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        assert len(data) <= self.largest, f"{key} has {len(data)} bytes"
        self.inner.put(key, data, only_if_absent)
        return next((answer for end, answer in self.degraded.items() if key.endswith(end)), None)

    def delete(self, key: str) -> None:
        if not self.may_delete:
            raise Unsupported("delete", key, "these credentials may not delete")
        self.inner.delete(key)

    def delete_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.delete(key)


class _Blocking(Wrapper):
    """Calls from any thread, carried out on the event loop of `_open`."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        started = threading.Event()

        async def main() -> None:
            self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
            async with self._open():
                started.set()
                await self._stop.wait()

        self._thread = threading.Thread(target=trio.run, args=(main,))
        self._thread.start()
        assert started.wait(10)

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        yield

    def ask(self, function: Callable[[], Awaitable[T]]) -> T:
        try:
            return trio.from_thread.run(function, trio_token=self._token)
        except StoreError as error:
            if isinstance(error.__cause__, ValueError):            # the caller's fault, which Remote takes for a bug below it
                raise error.__cause__ from None
            raise

    def close(self) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()


class Layered(_Blocking):
    """See the module's text."""

    def __init__(self, backend: Backend, layers: Sequence[Layer]) -> None:
        self._layers = layers
        super().__init__(backend)

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        self.top = stacked(self.inner, self._layers, some_doors())
        yield
        self.inner.close()

    @property
    def capabilities(self) -> Capabilities:
        return self.top.capabilities

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        return self.ask(lambda: self.top.get(key, offset, size, a_call()))

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        return self.ask(lambda: self.top.put(key, data, only_if_absent, a_call(Lane.BULK)))

    def stat(self, key: str) -> ObjectInfo:
        return self.ask(lambda: self.top.stat(key, a_call()))

    def delete(self, key: str) -> None:
        self.delete_many([key])

    def delete_many(self, keys: Sequence[str]) -> None:
        self.ask(lambda: self.top.delete(keys, a_call()))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self.ask(lambda: self.top.list(prefix, a_call())))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self.ask(lambda: self.top.folders(prefix, a_call())))


class Face(_Blocking):
    """See the module's text. `folder`: for what the backend keeps."""

    def __init__(self, backend: Backend, folder: str | None = None) -> None:
        self.remote = Remote(backend, some_doors(folder))
        super().__init__(backend)

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        async with self.remote.running():
            yield

    @property
    def capabilities(self) -> Capabilities:
        return self.remote.capabilities

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        return self.ask(lambda: self.remote.get(key, offset, size))

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self.ask(lambda: self.remote.put(key, bytes(data), only_if_absent))        # its bodies never change, the suite's do

    def stat(self, key: str) -> ObjectInfo:
        return self.ask(lambda: self.remote.stat(key))

    def delete(self, key: str) -> None:
        self.ask(lambda: self.remote.delete(key))

    def delete_many(self, keys: Sequence[str]) -> None:
        self.ask(lambda: self.remote.delete_many(keys))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self.ask(lambda: self.remote.list(prefix)))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self.ask(lambda: self.remote.folders(prefix)))

    def create(self) -> None:
        self.ask(self.remote.create)

    def check(self) -> None:
        self.ask(self.remote.check)

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return self.ask(lambda: self.remote.probe_create_only(rounds))
