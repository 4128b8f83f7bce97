"""A Vfs over real metadata, with file content in memory, a clock that ticks, and doors that can be shut."""
from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from s3cfs.doors import Doors, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import StaleInode
from s3cfs.meta import Inode, Meta
from s3cfs.vfs.content import Kind
from s3cfs.vfs.core import Caller, Vfs

T = TypeVar("T")
ROOT = Caller(0, 0)
ALICE = Caller(1000, 1000, groups=frozenset({1000, 2000}))


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end what must not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("the operation gave way to other tasks")


class TickingClock:
    """Each look at it is a microsecond later."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000 * 10**9

    def time_ns(self) -> int:
        self.now_ns += 1000
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("vfs does not sleep")


class MemoryContent:
    """Content in byte arrays; size and times stay pending over the row until `stage`."""

    def __init__(self, meta: Meta, clock: TickingClock) -> None:
        self.meta, self.clock = meta, clock
        self.data: dict[int, bytearray] = {}
        self.pending: dict[int, dict[str, int]] = {}
        self.users: dict[int, int] = {}
        self.replaced: list[int] = []
        self.forgotten: list[int] = []
        self.wait: Callable[[str], Awaitable[None]] | None = None       # called where the real one may wait

    async def _wait(self, where: str) -> None:
        if self.wait is not None:
            await self.wait(where)

    def overlay(self, inode: Inode) -> Inode:
        pending = self.pending.get(inode.ino)
        if pending is None:
            return inode
        return Inode(inode.ino, inode.mode, inode.nlink, inode.uid, inode.gid, inode.rdev, pending["size"], inode.alloc, inode.atime_ns,
                     pending["mtime_ns"], pending["ctime_ns"], inode.parent, inode.target, inode.data)

    def is_open(self, ino: int) -> bool:
        return ino in self.users

    async def open(self, ino: int, flags: int) -> None:
        self.users[ino] = self.users.get(ino, 0) + 1

    async def release(self, ino: int) -> None:
        await self._wait("release")
        self.users[ino] -= 1
        if not self.users[ino]:
            del self.users[ino]

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        return bytes(self.data.get(ino, b"")[offset:offset + size])

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        content = self.data.setdefault(ino, bytearray())
        content.extend(bytes(max(0, offset - len(content))))
        content[offset:offset + len(data)] = data
        self._changed(ino, self.clock.time_ns())
        return len(data)

    async def truncate(self, ino: int, size: int, now_ns: int) -> None:
        await self._wait("truncate")
        if await self.meta.get(ino) is None:
            raise StaleInode(f"inode {ino} is gone")
        content = self.data.setdefault(ino, bytearray())
        del content[size:]
        content.extend(bytes(size - len(content)))
        self._changed(ino, now_ns)

    def _changed(self, ino: int, now_ns: int) -> None:
        self.pending[ino] = {"size": len(self.data[ino]), "mtime_ns": now_ns, "ctime_ns": now_ns}

    async def stage(self, ino: int) -> None:
        if ino in self.pending:
            pending = self.pending.pop(ino)
            await self.meta.update_inode(ino, size=pending["size"], mtime_ns=pending["mtime_ns"], ctime_ns=pending["ctime_ns"])

    async def fsync(self, ino: int) -> None:
        await self.stage(ino)

    async def flush(self, ino: int) -> None: ...

    async def before_replace(self, ino: int) -> None:
        await self._wait("before_replace")
        self.replaced.append(ino)
        await self.stage(ino)

    async def set_times(self, ino: int, *, mtime_ns: int | None = None, ctime_ns: int | None = None) -> None:
        pending = self.pending[ino]
        pending.update({key: value for key, value in (("mtime_ns", mtime_ns), ("ctime_ns", ctime_ns)) if value is not None})

    def forget(self, ino: int) -> None:
        self.forgotten.append(ino)
        self.data.pop(ino, None)
        self.pending.pop(ino, None)


class SwitchedTransactions:
    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.full = False
        self.waited = 0
        self.durables = 0
        self.when_full: Callable[[], None] = lambda: None

    def check_writable(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def has_room(self, kind: Kind) -> bool:
        return not self.full

    def would_wait(self, kind: Kind) -> bool:
        return self.full

    async def room(self, kind: Kind) -> None:
        self.waited += 1
        self.when_full()

    async def durable(self) -> None:
        self.durables += 1


class World:
    def __init__(self, folder: str, *, read_only: bool = False) -> None:
        self.clock = TickingClock()
        doors = Doors(self.clock, SystemRandomness(), TrioThreads(), SystemDisk(os.path.join(folder, "state")))
        self.meta = Meta.open(doors, "meta.db", None)
        self.content = MemoryContent(self.meta, self.clock)
        self.transactions = SwitchedTransactions()
        self.vfs = Vfs(self.meta, self.content, self.transactions, self.clock, read_only=read_only)

    def restarted(self, *, read_only: bool = False) -> Vfs:
        """As a mount after a crash sees it: nothing in memory."""
        self.content = MemoryContent(self.meta, self.clock)
        return Vfs(self.meta, self.content, self.transactions, self.clock, read_only=read_only)

    def close(self) -> None:
        self.meta.close()
