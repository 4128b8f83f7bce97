"""What the tests of the block floor share: a disk that forgets what was not synced, a store that counts, and a house of real parts."""
from __future__ import annotations

import errno
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from s3cfs.backends.base import Backend, Body, Capabilities, ObjectInfo
from s3cfs.backends.progress import moved
from s3cfs.blocks.blockstore import BlockStore
from s3cfs.blocks.cache import PackCache
from s3cfs.blocks.journal import ClosedPack, Journal
from s3cfs.doors import DiskFile, Doors, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import Damaged, NotFound, Temporary
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.formats.keys import KeyRing
from s3cfs.ids import ChunkId, PackName, pack_key
from s3cfs.limits import DEFAULTS, GIB
from s3cfs.meta.types import Chunk, Pack
from s3cfs.remote import Remote

FS_ID, MASTER = bytes(range(16)), bytes(range(32))


class HandClock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, 0.0
        self.on_sleep: Callable[[], None] = lambda: None

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.now += seconds
        self.slept += seconds
        self.on_sleep()


class ForgetfulFile:
    def __init__(self, disk: ForgetfulDisk, path: str) -> None:
        self.disk, self.node, self.path = disk, disk.names[path], path

    def pread(self, size: int, offset: int) -> bytes:
        self.disk.may_fail("pread")
        if any(path == self.path and offset <= at < offset + size for path, at in self.disk.bad_sectors):
            raise OSError(errno.EIO, "a bad sector")
        return bytes(self.node["now"][offset:offset + size])

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self.disk.may_fail("pwrite")
        now = self.node["now"]
        if len(now) < offset:
            now.extend(bytes(offset - len(now)))
        now[offset:offset + len(data)] = data

    def truncate(self, size: int) -> None:
        now = self.node["now"]
        now[size:] = bytes(max(0, size - len(now)))

    def fsync(self) -> None:
        self.disk.fsyncs += 1
        snapshot = bytearray(self.node["now"])
        assert self.disk.fsync_gate.wait(20)
        self.disk.may_fail("fsync")
        self.node["kept"] = snapshot

    def size(self) -> int:
        return len(self.node["now"])

    def close(self) -> None:
        pass


class ForgetfulDisk:
    """In memory; `crash()` leaves only content that was fsynced, under names that were synced. Errors by operation on demand."""

    sqlite_vfs: str | None = None

    def __init__(self) -> None:
        self.names: dict[str, dict[str, bytearray]] = {}
        self.kept_names: dict[str, dict[str, bytearray]] = {}
        self.failing: dict[str, int] = {}
        self.bad_sectors: set[tuple[str, int]] = set()      # (path, offset) that cannot be read
        self.fsync_gate = threading.Event()      # a test may hold an fsync; it keeps what was written when it began
        self.fsync_gate.set()
        self.free, self.fsyncs, self.dir_syncs = GIB, 0, 0

    def may_fail(self, operation: str) -> None:
        if operation in self.failing:
            raise OSError(self.failing[operation], "made to fail")

    def crash(self) -> None:
        self.names = dict(self.kept_names)
        for node in self.names.values():
            node["now"] = bytearray(node["kept"])

    def open(self, path: str, *, create: bool = False) -> DiskFile:
        self.may_fail("open")
        if create:
            self.names[path] = {"now": bytearray(), "kept": bytearray()}
        elif path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "absent", path)
        return ForgetfulFile(self, path)

    def rename(self, old: str, new: str) -> None:
        self.may_fail("rename")
        self.names[new] = self.names.pop(old)

    def unlink(self, path: str) -> None:
        self.may_fail("unlink")
        self.names.pop(path, None)

    def exists(self, path: str) -> bool:
        return path in self.names

    def size(self, path: str) -> int:
        return len(self.names[path]["now"])

    def listdir(self, path: str) -> list[str]:
        self.may_fail("listdir")
        return sorted(name[len(path) + 1:] for name in self.names if name.startswith(path + "/"))

    def makedirs(self, path: str) -> None:
        pass

    def sync_dir(self, path: str) -> None:
        self.dir_syncs += 1
        self.may_fail("sync_dir")
        for name in [name for name in self.kept_names if name.startswith(path + "/")]:
            del self.kept_names[name]
        self.kept_names.update({name: node for name, node in self.names.items() if name.startswith(path + "/")})

    def blocks_read(self) -> int:
        return 0

    def free_bytes(self) -> int:
        return self.free

    def real_path(self, path: str) -> str:
        return path


class CountingStore(Backend):
    """In memory. Records every GET; can be shut (`gate`) so that a test decides when requests go on; can be away."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.gets: list[tuple[str, int, int | None]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0
        self.away = False
        self.flip_next = 0                       # so many answers get a flipped bit in the middle of each 4 KiB: a bad transfer
        self._lock = threading.Lock()
        self._pieces = self._arrived = 0         # of answers at the gate

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(False)

    @property
    def location(self) -> str:
        return "counting:"

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        with self._lock:
            self.gets.append((key, offset, size))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            flip = self.flip_next > 0
            self.flip_next -= flip
        try:
            self._at_the_gate()
            if self.away:
                raise Temporary("get", key, "no route to host")
            if key not in self.objects:
                raise NotFound("get", key)
            data = bytearray(self.objects[key][offset:None if size is None else offset + size])
            if flip:
                for at in range(100, len(data), 4096):
                    data[at] ^= 1
            return bytes(data)
        finally:
            with self._lock:
                self.at_once -= 1

    def _at_the_gate(self) -> None:
        mine = self._pieces
        for _ in range(20_000):
            if self.gate.wait(0.001):
                return
            if mine != self._pieces:
                mine += 1
                moved()
                with self._lock:
                    self._arrived += 1
        raise AssertionError("nobody opened the gate")

    async def flow(self) -> None:
        """A piece of each answer that waits at the gate comes."""
        self._arrived = 0
        self._pieces += 1
        await until(lambda: self._arrived == self.at_once)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        self.objects[key] = bytes(data)

    def stat(self, key: str) -> ObjectInfo:
        if key not in self.objects:
            raise NotFound("stat", key)
        return ObjectInfo(key, len(self.objects[key]))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter([ObjectInfo(key, len(data)) for key, data in self.objects.items() if key.startswith(prefix)])

    def probe_create_only(self, rounds: int = 1) -> bool:
        return False


class Finds:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.damaged: list[Chunk] = []
        self.sound: list[Chunk] = []

    def bad(self, chunk: Chunk, name: PackName | None, what: str, text: str) -> None:
        self.damaged.append(chunk)

    def whole(self, chunk: Chunk) -> None:
        self.sound.append(chunk)


class House:
    """Journal, cache and block store on one disk and one store, with the rows a database would keep."""

    def __init__(self, disk: SystemDisk | ForgetfulDisk, *, epoch: int = 1, cache_bytes: int = GIB, decoded_bytes: int = 64 << 20,
                 store: CountingStore | None = None, downloads: int = 8, clock: HandClock | None = None) -> None:
        self.disk, self.store, self.clock = disk, store or CountingStore(), clock or HandClock()
        self.doors = Doors(self.clock, SystemRandomness(), TrioThreads(), disk, replace(DEFAULTS, downloads_at_once=downloads))
        keys = KeyRing(FS_ID, MASTER, self.doors.random)
        self.keys, self.index_sealer = keys, keys.sealer("index", epoch)
        self.codec = ChunkCodec(keys, epoch, 1)
        self.journal = Journal(self.doors, self.index_sealer, epoch)
        self.cache = PackCache(self.doors, cache_bytes)
        self.cache.load()
        self.packs: dict[int, Pack] = {}
        self.rows: dict[int, Chunk] = {}
        self.finds = Finds()
        self.epoch, self.next_pack = epoch, 1
        self.remote = Remote(self.store, self.doors)
        self.blocks = BlockStore(self.doors, self.remote, self.journal, self.cache, self.codec, self.pack_of, chunk_of=self.chunk_of,
                                 finds=self.finds, decoded_bytes=decoded_bytes)

    async def pack_of(self, pack_id: int) -> Pack:
        if pack_id not in self.packs:
            raise Damaged(f"the metadata names pack {pack_id}, which is not in it")
        return self.packs[pack_id]

    async def chunk_of(self, chunk_id: int) -> Chunk | None:
        return self.rows.get(chunk_id)

    async def new_pack(self) -> int:
        pack_id, self.next_pack = self.next_pack, self.next_pack + 1
        self.packs[pack_id] = Pack(pack_id, self.epoch, None, 0, "open")
        return pack_id

    def seal(self, plain: bytes) -> tuple[ChunkId, bytes, int]:
        chunk_id = self.keys.chunk_id(plain)
        return chunk_id, self.codec.encode(chunk_id, plain), len(plain)

    async def write(self, plains: list[bytes]) -> list[Chunk]:
        """Stage: seal, append, make rows."""
        sealed = [self.seal(plain) for plain in plains]
        places = await self.journal.append(self.new_pack, sealed)
        made = []
        for (chunk_id, data, length), (pack_id, offset) in zip(sealed, places, strict=True):
            row = Chunk(len(self.rows) + 1, chunk_id, pack_id, offset, len(data), length, 1)
            self.rows[row.id] = row
            made.append(row)
        return made

    def record(self, closed: list[ClosedPack]) -> None:
        for pack in closed:
            self.packs[pack.pack_id] = Pack(pack.pack_id, self.epoch, pack.name, pack.size, "closed")

    async def commit(self, *, keep: bool = True) -> list[ClosedPack]:
        """Close, upload; `keep` in the cache, else gone from this machine."""
        closed = await self.journal.close_current()
        self.record(closed)
        for pack in closed:
            await self.remote.put(pack_key(pack.name), await self.journal.load(pack.pack_id))
            await self.blocks.uploaded(pack)
        if not keep:
            await self.cache.drop_all()
        self.blocks.drop_decoded()
        return closed


def noise(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def play(test: Callable[[House, trio.Nursery], Coroutine[Any, Any, None]], house: House) -> None:
    """Run a test with the block store's background work going on beside it."""
    async def main() -> None:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(house.blocks.run)
                await test(house, nursery)
                nursery.cancel_scope.cancel()

    trio.run(main)


def run(function: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(30):
            await function()

    trio.run(main)


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks and threads go on until it holds (the test's deadline is the bound)."""
    while not condition():
        await trio.lowlevel.checkpoint()


def disk_in(folder: Path) -> SystemDisk:
    return SystemDisk(str(folder / "state"))
