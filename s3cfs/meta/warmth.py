"""Bringing pages of the database into the system's memory before the event loop asks for them.

A query on the loop that must read the disk holds up everybody: nothing to speak of on a fast disk, 5-20 ms on a slow one, for each page.
So what is about to be asked is asked in a thread first, on a connection of its own, and its answer thrown away; then the operation begins
as ever, and finds the pages in memory. Nothing else changes: not what an operation sees, nor where it may not be interrupted.

That costs a hop to a thread, so it is done as long as it saves the loop more (`cold`): while what they take in threads to read from the
medium, where that is slow, is more than a hop in the mean. A few quick answers end it, at the start too; from then on it costs an
operation a look at a flag. A slow query on the loop that read from the medium brings it back. What asks for many rows at once, where a
hop is nothing and a cold page costs as often, goes on for an hour after the last slow one (`wary`).
"""
from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import apsw
import trio

from s3cfs.errors import CacheFull, CacheUnusable, Damaged
from s3cfs.ids import ChunkId
from s3cfs.meta.beside import Beside
from s3cfs.meta.engine import Engine

HOP_S = 0.0002                  # to a thread and back
WEIGHT = 0.1                    # of the newest answer in the mean
FIRST_S = 0.0005                # the mean at the start, and after a slow query on the loop: nine quick answers end it
CERTAIN = 10                    # times `slow_query_s`: no processor is that busy
WARY_S = 3600.0
FRESH_S = 60.0                  # for which what was brought is not brought again
AT_ONCE = 8                     # queries in threads
KNOWN = 8192                    # names and inodes of which that is remembered
ROWS = 8192                     # of one question

Query = tuple[str, Sequence[Any]]

_INODE = "SELECT sum(mode + length(coalesce(data, target, x''))) FROM inode WHERE ino = ?1"
_XATTR = "SELECT sum(length(value)) FROM (SELECT value FROM xattr WHERE ino = ?1 LIMIT 16)"
_NAME = """SELECT sum(i.mode + length(coalesce(i.data, i.target, x''))) FROM dentry AS d CROSS JOIN inode AS i ON i.ino = d.ino
    WHERE d.parent = ?1 AND d.name = ?2"""
_PLACE = "SELECT count(*) FROM dentry INDEXED BY dentry_by_place WHERE parent = ?1 AND place(name) = place(?2)"
_BELOW = "SELECT 1 FROM dentry WHERE parent = (SELECT ino FROM dentry WHERE parent = ?1 AND name = ?2) LIMIT 1"
_CHILDREN = """SELECT sum(i.mode) FROM (SELECT ino FROM dentry INDEXED BY dentry_by_place WHERE parent = ?1 AND place(name) > ?2
    ORDER BY place(name) LIMIT ?3) AS d CROSS JOIN inode AS i ON i.ino = d.ino"""
_EXTENTS = f"""SELECT sum(c.refs + p.size) FROM (SELECT chunk FROM extent WHERE ino = ?1 AND off < ?3
        AND off >= coalesce((SELECT max(off) FROM extent WHERE ino = ?1 AND off <= ?2), ?2) LIMIT {ROWS}) AS e
    CROSS JOIN chunk AS c ON c.id = e.chunk CROSS JOIN pack AS p ON p.id = c.pack"""
_CONTENT = f"""SELECT sum(c.refs) FROM (SELECT chunk FROM extent WHERE ino = (SELECT ino FROM dentry WHERE parent = ?1 AND name = ?2)
    LIMIT {ROWS}) AS e CROSS JOIN chunk AS c ON c.id = e.chunk"""
_TRASH = f"""SELECT sum(c.refs) FROM (SELECT e.chunk FROM (SELECT * FROM trash LIMIT 1) AS t CROSS JOIN extent AS e
    ON e.ino = t.ino AND e.off >= t.off AND e.off < t.stop LIMIT {ROWS}) AS e CROSS JOIN chunk AS c ON c.id = e.chunk"""
_CHUNK = "SELECT sum(refs) FROM chunk WHERE hash = ?1"


class Warmth:
    """Ask `cold` (of one row) or `wary` (of many) first: while they are false, nothing here need be awaited."""

    def __init__(self, engine: Engine, beside: Beside) -> None:
        self._engine, self._beside, self._doors = engine, beside, engine.doors
        self._slow_s = engine.doors.limits.slow_query_s
        self.cold = self.wary = False
        self._mean_s = FIRST_S                    # of reading from the medium, an answer
        self._seen = (0, 0)                       # pages that SQLite did not have, blocks that the system did not have: when last slow
        self._wary_until = -math.inf
        self._known: OrderedDict[tuple[Any, ...], float] = OrderedDict()       # when it was brought
        self._turns = trio.Semaphore(AT_ONCE)

    def start(self) -> None:
        """From now on it looks how long queries take. Whoever has not called this has everything on the loop."""
        self.cold = self.wary = True
        self._seen = (0, self._doors.disk.blocks_read())
        self._engine.time_statements(self._slow_s, self._was_slow)

    def _was_slow(self, took_s: float) -> None:
        """A statement on the loop. Was it for the disk?"""
        misses = self._engine.connection.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0]
        before, self._seen = self._seen, (misses, self._doors.disk.blocks_read())
        if self._seen[0] != before[0] and self._is_slow(took_s, self._seen[1] - before[1]):
            self.cold = self.wary = True
            self._mean_s = max(self._mean_s, FIRST_S)

    def _is_slow(self, took_s: float, blocks: int) -> bool:
        """What took long may have waited for a busy processor, or the interpreter: unless it read the medium, or took very long."""
        return took_s >= self._slow_s and (blocks > 0 or took_s >= CERTAIN * self._slow_s)

    # ------------------------------------------------------------ what is about to be asked

    async def name(self, parent: int, name: bytes, *, removes: bool = False) -> None:
        """An entry, its inode and its directory; `removes`: all that goes when it was the last name."""
        queries = [(_NAME, (parent, name)), (_PLACE, (parent, name)), (_INODE, (parent,))]
        if removes:
            queries += [(_BELOW, (parent, name)), (_CONTENT, (parent, name))]
        await self._bring(queries, ("name", parent, name, removes))

    async def inode(self, ino: int) -> None:
        await self._bring([(_INODE, (ino,)), (_XATTR, (ino,))], ("inode", ino))

    async def children(self, ino: int, after: int, limit: int) -> None:
        await self._bring([(_CHILDREN, (ino, after, limit))])

    async def extents(self, ranges: Sequence[tuple[int, int, int]]) -> None:
        """(inode, start, end): with chunks and packs."""
        await self._bring([query for one in ranges for query in ((_INODE, one[:1]), (_EXTENTS, one))])

    async def chunks(self, hashes: Sequence[ChunkId]) -> None:
        """To be looked up, and perhaps put in."""
        await self._bring([(_CHUNK, (hash,)) for hash in hashes])

    async def trash(self) -> None:
        """What the next sweep drops."""
        await self._bring([(_TRASH, ())])

    # ------------------------------------------------------------ how

    async def _bring(self, queries: Sequence[Query], key: tuple[Any, ...] | None = None) -> None:
        now = self._doors.clock.monotonic()
        if key is not None and now < self._known.get(key, -math.inf) + FRESH_S:
            return
        async with self._turns:
            try:
                took_s, blocks = await self._doors.threads.run(self._read, queries)
            except (CacheFull, CacheUnusable, Damaged):
                return                            # who asks on the loop meets it as well, and says so
        self._learn(took_s, blocks, len(queries))
        if key is not None:
            self._known.pop(key, None)
            self._known[key] = now
            while len(self._known) > KNOWN or next(iter(self._known.values())) + FRESH_S < now:
                self._known.popitem(last=False)

    def _read(self, queries: Sequence[Query]) -> tuple[float, int]:
        """(seconds, blocks that came from the medium)"""
        with self._beside.connection() as found:
            began, blocks = self._doors.clock.monotonic(), self._doors.disk.blocks_read()
            for sql, args in queries:
                found.execute(sql, args).fetchall()
            return self._doors.clock.monotonic() - began, self._doors.disk.blocks_read() - blocks

    def _learn(self, took_s: float, blocks: int, queries: int = 1) -> None:
        """Of one hop."""
        each_s = took_s / max(1, queries)
        slow = self._is_slow(each_s, blocks)
        self._mean_s = (1 - WEIGHT) * self._mean_s + WEIGHT * (took_s if slow else 0.0)
        now = self._doors.clock.monotonic()
        if slow:
            self._wary_until = now + WARY_S
        self.cold = self._mean_s >= HOP_S or not self._slow_s
        self.wary = self.cold or now < self._wary_until
        if not self.cold:
            self._known.clear()
