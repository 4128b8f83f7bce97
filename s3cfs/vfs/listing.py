"""Positions in a directory that is being read: the same for every handle, after a remount, and whatever happens to the directory.

Entries come in the order of a hash of their names (meta/places.py), and that is the cookie of an entry. So nothing is kept between two
calls, and a cookie means "what comes behind this place" for whoever brings it: seekdir after a reopen, an NFS server that opens the
directory for each request. A name that existed throughout is seen exactly once by everybody who reads on, whatever is removed, made
or renamed over it; a new one is seen when its place is still to come.

Should names share a place, the cookie of all but the last is the place before them: who reads on there sees them twice, and never misses
one.

Entries themselves are never kept: the kernel caches what READDIRPLUS says for an hour, so a kept inode or a removed name
would be believed. Each call reads the rows anew, about as many as the last reply took.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from s3cfs.meta.places import place
from s3cfs.meta.types import Inode

if TYPE_CHECKING:
    from s3cfs.meta import Meta

FIRST_WINDOW, LAST_WINDOW = 64, 512

Entry = tuple[bytes, Inode, int]


class Listing:
    """One open directory being read; what it keeps is only how many entries a reply takes. No method suspends."""

    def __init__(self, meta: Meta, ino: int) -> None:
        self._meta, self.ino = meta, ino
        self._window = FIRST_WINDOW
        self._given: list[int] = []         # cookies of the last call

    async def read(self, cookie: int, limit: int) -> list[Entry]:
        """Up to `limit` entries behind `cookie` (0: from the start); [] only at the end."""
        wanted = max(1, min(limit, self._adapt(cookie)))
        while True:
            rows = await self._meta.children(self.ino, cookie, wanted + 1)
            placed = [(place(name), name, inode) for name, inode in rows]
            if len(placed) > wanted:        # others may share the place of the last one
                last = placed[-1][0]
                placed = [entry for entry in placed if entry[0] != last]
            if placed or not rows:
                break
            wanted *= 2
        self._given = [at for at, _, _ in placed]
        return _entries(cookie, placed)

    def _adapt(self, cookie: int) -> int:
        """How many rows to read: what the last reply had room for and a few; twice as many when it took all."""
        if cookie in self._given:
            taken = self._given.index(cookie) + 1
            self._window = taken + taken // 8 + 2 if taken < len(self._given) else min(2 * self._window, LAST_WINDOW)
        return self._window


def _entries(cookie: int, placed: list[tuple[int, bytes, Inode]]) -> list[Entry]:
    entries: list[Entry] = []
    for number, (at, name, inode) in enumerate(placed, 1):
        if number == len(placed) or placed[number][0] != at:
            cookie = at
        entries.append((name, inode, cookie))
    return entries
