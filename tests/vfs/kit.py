"""A whole node on a real folder, whose threads can be stopped at the door."""
from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import trio

from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.base import Backend
from s3cfs.doors import Doors, OwnThreads, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.formats import superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.limits import Limits
from s3cfs.vfs.types import ROOT_CALLER

T = TypeVar("T")
KIB, MIB = 1 << 10, 1 << 20
SUPERBLOCK = superblock.create("test", SystemRandomness(), True, 4 * KIB, 16 * KIB, 64 * KIB, None, now_ns=0)[0]
KEYRING = KeyRing(SUPERBLOCK.fs_id, bytes(range(32)), SystemRandomness())
BOUNDS = Limits(stage_run_bytes=256 * KIB, stage_slice_bytes=256 * KIB, overlay_run_max_bytes=3000, pack_target_bytes=1 * MIB)


class Hold:
    """One call that stops: `reached` says that it did, `open` lets it go on."""

    def __init__(self, after: bool, error: Exception | None) -> None:
        self.after, self.error = after, error
        self.reached, self._opened = trio.Event(), trio.Event()

    def open(self) -> None:
        self._opened.set()

    async def stop(self) -> None:
        self.reached.set()
        with trio.CancelScope(shield=True), trio.fail_after(30):
            await self._opened.wait()
        if self.error is not None:
            raise self.error


class Gates(TrioThreads):
    """Threads; the next one that is to run a function of a name that was given to `hold` stops."""

    def __init__(self) -> None:
        super().__init__()
        self._holds: dict[str, Hold] = {}

    def hold(self, name: str, *, after: bool = False, error: Exception | None = None) -> Hold:
        """`after` its work; or `error` is raised instead of it."""
        self._holds[name] = Hold(after, error)
        return self._holds[name]

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return await self._held(function, lambda: super(Gates, self).run(function, *args))

    async def _held(self, function: Callable[..., T], go: Callable[[], Awaitable[T]]) -> T:
        hold = self._holds.pop(getattr(function, "__name__", ""), None)
        if hold is None:
            return await go()
        if not hold.after:
            await hold.stop()
            return await go()
        result = await go()
        await hold.stop()
        return result


class StoreGates(OwnThreads):
    """The same for calls of the store."""

    def __init__(self, gates: Gates) -> None:
        super().__init__()
        self._gates = gates

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        return await self._gates._held(function, lambda: super(StoreGates, self).run(function, *args, ended=ended))


@contextlib.asynccontextmanager
async def node_at(path: Path, backend: Backend, threads: TrioThreads | None = None, *, pool_bytes: int = 16 * MIB,
                  bounds: Limits = BOUNDS, **changed: Any) -> AsyncIterator[Node]:
    """Whatever is tried, it ends within a minute."""
    doors = Doors(SystemClock(), SystemRandomness(), threads or TrioThreads(), SystemDisk(str(path)), replace(bounds, **changed),
                  StoreGates(threads) if isinstance(threads, Gates) else OwnThreads())
    with trio.fail_after(60):
        async with open_node(doors, backend, KEYRING, SUPERBLOCK, NodeOptions(pool_bytes=pool_bytes)) as node:
            yield node


async def new_file(node: Node, name: bytes) -> int:
    return (await node.vfs.create(1, name, 0o644, ROOT_CALLER)).ino


async def write(node: Node, ino: int, offset: int, data: bytes, piece: int = 64 * KIB) -> None:
    """As the kernel does: in pieces."""
    for at in range(0, len(data), piece):
        await node.vfs.write(ino, offset + at, data[at:at + piece])


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await trio.lowlevel.checkpoint()
