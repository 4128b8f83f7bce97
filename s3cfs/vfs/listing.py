"""Positions in a directory that is being read, stable whatever happens to the directory meanwhile.

Entries come in the order of their names. A listing is the sequence of names handed out so far; cookie n (plus a base) stands for
"after the n-th of them". It only grows: a name keeps its cookie, also when it is removed; going back to a cookie
and reading on gives the entries that still exist the cookies they had. Names that were inserted behind the furthest
point read are not shown until the listing is rewound (POSIX leaves that open), names before it are all shown: nothing that
existed throughout is ever lost, so "remove what was listed, read on" sees everything.

Entries themselves are never kept: the kernel caches what READDIRPLUS says for an hour, so a kept inode or a removed name
would be believed. Each call reads the rows anew, about as many as the last reply took.

Memory: the names of the last few blocks of 512; of an older block 4 bytes an entry (CRC-32 of the name) and the name before it.
Going back to such a block reads its names again and aligns them with the checksums, in order; a name that is gone leaves a
gap. A collision within one block can repeat an entry to somebody who seeks back, never hide one.
"""
from __future__ import annotations

from array import array
from typing import TYPE_CHECKING
from zlib import crc32

from s3cfs.meta.types import Inode

if TYPE_CHECKING:
    from s3cfs.meta import Meta

BLOCK = 512
KEPT_BLOCKS = 4
FIRST_WINDOW = 64

Entry = tuple[bytes, Inode, int]


class _Block:
    __slots__ = ("after", "names", "sums")

    def __init__(self, after: bytes) -> None:
        self.after = after                              # the name before its first
        self.names: list[bytes | None] | None = []      # None: only the sums are kept; None inside: removed since
        self.sums: array[int] | None = None


class Listing:
    """One open directory being read. Not for use by two tasks at once between awaits (no method suspends)."""

    def __init__(self, meta: Meta, ino: int) -> None:
        self._meta, self.ino = meta, ino
        self._base = 0                      # cookies up to here belong to earlier passes
        self._count = 0
        self._last_name = b""
        self._blocks: list[_Block] = []
        self._kept: dict[int, None] = {}    # blocks with names, least recently used first; not the last one
        self._window, self._from, self._given = FIRST_WINDOW, 0, 0

    async def read(self, cookie: int, limit: int) -> list[Entry]:
        """Up to `limit` entries after `cookie` (0: from the start, anew); [] only at the end."""
        if cookie == 0:
            self._rewind()
        index = cookie - self._base
        if not 0 <= index <= self._count:
            index = 0                       # of an earlier pass: show everything again rather than lose something
        wanted = max(1, min(limit, self._adapt(index)))
        entries: list[Entry] = []
        while not entries and index < self._count:
            entries = await self._again(index, wanted)
            index = min(self._count, (index // BLOCK + 1) * BLOCK)
        if not entries:
            entries = [self._append(name, inode) for name, inode in await self._meta.children(self.ino, self._last_name, wanted)]
        self._given = len(entries)
        return entries

    def _adapt(self, index: int) -> int:
        """How many rows to read: what the last reply had room for and a few; twice as many when it took all."""
        taken = index - self._from
        if 0 < taken < self._given:
            self._window = taken + taken // 8 + 2
        elif taken and taken == self._given:
            self._window = min(2 * self._window, BLOCK)
        self._from = index
        return self._window

    def _rewind(self) -> None:
        self._base += self._count
        self._count, self._last_name = 0, b""
        self._blocks.clear()
        self._kept.clear()
        self._from = self._given = 0

    def _append(self, name: bytes, inode: Inode) -> Entry:
        if self._count % BLOCK == 0:
            self._blocks.append(_Block(self._last_name))
            if self._count:
                self._keep(len(self._blocks) - 2)
        names = self._blocks[-1].names
        assert names is not None            # of the last block they are always kept
        names.append(name)
        self._last_name = name
        self._count += 1
        return name, inode, self._base + self._count

    async def _again(self, index: int, wanted: int) -> list[Entry]:
        """Entries after the `index`-th that were handed out before and still exist, to the end of that one's block (and past it
        when that is the last one)."""
        at = index // BLOCK
        names = await self._names(at)
        start, here = at * BLOCK, index - at * BLOCK
        last = at == len(self._blocks) - 1
        after = next((name for name in reversed(names[:here]) if name is not None), self._blocks[at].after)
        entries: list[Entry] = []
        while True:
            rows = await self._meta.children(self.ino, after, wanted)
            for name, inode in rows:
                if last and name > self._last_name:
                    entries.append(self._append(name, inode))
                    continue
                while here < len(names) and ((known := names[here]) is None or known < name):
                    here += 1
                if here == len(names):
                    return entries
                if known == name:
                    here += 1
                    entries.append((name, inode, self._base + start + here))
            if entries or len(rows) < wanted:
                return entries
            after = rows[-1][0]

    async def _names(self, at: int) -> list[bytes | None]:
        block = self._blocks[at]
        if block.names is None:
            block.names = await self._align(block, self._blocks[at + 1].after)
        if at != len(self._blocks) - 1:
            self._keep(at)
        return block.names

    async def _align(self, block: _Block, end: bytes) -> list[bytes | None]:
        sums = block.sums
        assert sums is not None
        names: list[bytes | None] = [None] * len(sums)
        here, after = 0, block.after
        while True:
            rows = await self._meta.children(self.ino, after, BLOCK)
            for name, _ in rows:
                if name > end:
                    return names
                try:
                    found = sums.index(crc32(name), here)
                except ValueError:
                    continue                # inserted since
                names[found] = name
                here = found + 1
            if len(rows) < BLOCK:
                return names
            after = rows[-1][0]

    def _keep(self, at: int) -> None:
        self._kept.pop(at, None)
        self._kept[at] = None
        if len(self._kept) > KEPT_BLOCKS:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            block = self._blocks[oldest]
            if block.sums is None and block.names is not None:
                block.sums = array("I", [crc32(name or b"") for name in block.names])
            block.names = None
