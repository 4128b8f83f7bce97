"""When an inode without a name goes.

It stays (nlink 0, with an orphan row) while it is open or while the kernel knows it: an O_PATH descriptor, a working
directory, or a late SETATTR of the write-back cache still refer to it. With the last release *and* the last forget it is
dropped. A crash leaves the orphan rows; the next mount drops what they name.

The kernel counts its look-ups of an inode and reports them back in FORGET, often several times and behind later requests, so
the sum has to be kept per inode; asking only once nlink is 0 cannot work (a late FORGET of an earlier life looks like the last one).
A dict of counts is 74 MB per million inodes. Inode numbers are handed out in order and what the kernel knows at one
time was mostly made together, so the counts lie in pages of 256 bytes, one byte an inode: 1.6 MB per million, at
worst (one known inode per page) 400 bytes each. The rare count past 254 goes to a dict.
"""
from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from s3cfs.errors import FsError
from s3cfs.ids import ROOT_INO
from s3cfs.vfs.content import Content, Gate, Kind

if TYPE_CHECKING:
    from s3cfs.meta import Meta

_SHIFT = 8
_MASK = (1 << _SHIFT) - 1
_EMPTY = bytes(1 << _SHIFT)
_OVER = 255                     # the count is in the dict
RECOVERED_AT_ONCE = 1000
DROPPED_AT_ONCE = 20            # without giving way


class LookupCounts:
    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._over: dict[int, int] = {}

    def add(self, ino: int) -> None:
        page = self._pages.get(ino >> _SHIFT)
        if page is None:
            page = self._pages[ino >> _SHIFT] = bytearray(_EMPTY)
        count = page[ino & _MASK]
        if count < _OVER - 1:
            page[ino & _MASK] = count + 1
        else:
            page[ino & _MASK] = _OVER
            self._over[ino] = self._over.get(ino, count) + 1

    def get(self, ino: int) -> int:
        page = self._pages.get(ino >> _SHIFT)
        count = page[ino & _MASK] if page is not None else 0
        return count if count != _OVER else self._over[ino]

    def subtract(self, ino: int, count: int) -> int:
        """What is left, never below 0."""
        page = self._pages.get(ino >> _SHIFT)
        if page is None:
            return 0
        left = max(0, self.get(ino) - count)
        if left >= _OVER:
            self._over[ino] = left
            return left
        self._over.pop(ino, None)
        page[ino & _MASK] = left
        if not left and page == _EMPTY:
            del self._pages[ino >> _SHIFT]
        return left

    def clear(self) -> None:
        self._pages.clear()
        self._over.clear()


class Lifetimes:
    def __init__(self, meta: Meta, content: Content, gate: Gate) -> None:
        self._meta, self._content, self._gate = meta, content, gate
        self._known = LookupCounts()
        self._orphans: set[int] = set()     # of this mount; each is open or known to the kernel
        self.remember = self._known.add

    def in_use(self, ino: int) -> bool:
        return self._known.get(ino) > 0 or self._content.is_open(ino)

    async def unlinked(self, ino: int, now_ns: int) -> None:
        """The last name went: nlink becomes 0 and, when nobody uses it, the inode goes at once. Never suspends."""
        if ino == ROOT_INO:
            raise AssertionError("the root has no name to lose")
        if self.in_use(ino):
            await self._meta.update_inode(ino, nlink=0, ctime_ns=now_ns)
            await self._meta.add_orphan(ino)
            self._orphans.add(ino)
        else:
            await self._drop(ino)

    async def unused(self, ino: int) -> None:
        """Somebody let go of it. Never suspends."""
        if ino in self._orphans and not self.in_use(ino):
            self._orphans.discard(ino)
            with suppress(FsError):         # where writing has ended it goes from here all the same, and from the store at the next mount
                self._gate.check()          # a change, of which nobody else tells the transactions
            await self._drop(ino)

    async def forget(self, ino: int, count: int) -> None:
        if not self._known.subtract(ino, count) and ino in self._orphans:
            await self.unused(ino)

    async def forget_all(self) -> None:
        """The kernel knows nothing any more (unmounted)."""
        self._known.clear()
        for ino in list(self._orphans):
            await self.unused(ino)

    async def recover(self) -> int:
        """Drop what a crash left behind; how many. Before anything is open."""
        left = [ino for ino in await self._meta.orphans() if ino not in self._orphans]
        for number, ino in enumerate(left):
            if number % RECOVERED_AT_ONCE == 0:
                await self._gate.enter(Kind.SHRINK)     # so many do not go in one transaction
            await self._drop(ino)
            if number % DROPPED_AT_ONCE == DROPPED_AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
        return len(left)

    async def _drop(self, ino: int) -> None:
        self._content.forget(ino)
        await self._meta.drop_inode(ino)
