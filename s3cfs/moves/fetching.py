"""Bytes on their way from a source: how much of them is in memory, and how those that occur several times are fetched once."""
from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

import trio

from s3cfs.doors import Doors
from s3cfs.errors import FsError
from s3cfs.limits import MIB
from s3cfs.vfs.core import Vfs

from .source import Extent, Source

RECENT_BYTES = 16 * MIB            # fetched just now, and wanted by others at the same time
PLACES = 500_000                   # of bytes that may be wanted again; 100 MB of memory at worst


class Budget:
    """Of memory. Who takes more than there is waits; one that is larger than all of it has all of it."""

    def __init__(self, total: int) -> None:
        self._total = self._left = total
        self._changed = trio.Event()

    def free(self, size: int) -> bool:
        return self._left >= min(size, self._total)

    async def take(self, size: int) -> None:
        while not self.free(size):
            await self._changed.wait()
        self._left -= min(size, self._total)

    def give(self, size: int) -> None:
        self._left += min(size, self._total)
        self._changed.set()
        self._changed = trio.Event()


@dataclass(slots=True)
class _Place:
    ino: int
    offset: int


@dataclass(slots=True)
class _One:
    """Bytes that several want; one of them fetches."""

    lock: trio.Lock = field(default_factory=trio.Lock)
    users: int = 0


class Shared:
    """`fetch` of extents; those with a sha256 come from memory, or from where they were planted, when they have come before."""

    def __init__(self, doors: Doors, vfs: Vfs, source: Source) -> None:
        self._doors, self._vfs, self._source = doors, vfs, source
        self._wanted: dict[bytes, _One] = {}
        self._recent: OrderedDict[bytes, bytes] = OrderedDict()
        self._recent_bytes = 0
        self._places: OrderedDict[bytes, _Place] = OrderedDict()

    async def fetch(self, ino: int, extent: Extent) -> bytes:
        """Lost."""
        if extent.sha256 is None:
            return await self._source.read(ino, extent)
        one = self._wanted.setdefault(extent.sha256, _One())
        one.users += 1
        try:
            async with one.lock:
                data = self._recent.get(extent.sha256)
                if data is None:
                    data = await self._planted(extent.sha256, extent.length)
                if data is None:
                    data = await self._source.read(ino, extent)
                    self._remember(extent.sha256, data)
                return data
        finally:
            one.users -= 1
            if not one.users:
                del self._wanted[extent.sha256]

    def planted(self, extent: Extent, ino: int, length: int) -> None:
        """`length` bytes of it are in a file of the target now."""
        if extent.sha256 is None or length < extent.length:
            return
        self._places[extent.sha256] = _Place(ino, extent.offset)
        if len(self._places) > PLACES:
            self._places.popitem(last=False)

    async def _planted(self, sha256: bytes, length: int) -> bytes | None:
        place = self._places.get(sha256)
        if place is None:
            return None
        try:
            data = await self._vfs.read(place.ino, place.offset, length)
        except FsError:
            return None
        if (await self._doors.threads.run(hashlib.sha256, data)).digest() == sha256:
            return data
        del self._places[sha256]
        return None

    def _remember(self, sha256: bytes, data: bytes) -> None:
        self._recent[sha256] = data
        self._recent_bytes += len(data)
        while self._recent_bytes > RECENT_BYTES:
            self._recent_bytes -= len(self._recent.popitem(last=False)[1])
