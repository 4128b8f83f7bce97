"""Reading in threads: what would take long on the event loop, or touches what may not be in memory.

Each connection is used by one thread at a time and sees the last commit(), not the open transaction. A query holds the WAL only as long
as it takes (wal.py), so a long one is asked in slices. Errors of these connections say nothing about the open transaction: the engine
goes on.
"""
from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from s3cfs.errors import CacheUnusable
from s3cfs.meta.changes import OUTBOX, merge_changesets
from s3cfs.meta.content import BAD_IN_USE
from s3cfs.meta.database import connect, translate
from s3cfs.meta.engine import Engine
from s3cfs.meta.types import OutboxSlice, Totals

CACHE_KIB = 512                 # of pages, each
IDLE_MAX = 8
SLICE_IDS = 200_000             # chunks or packs in one query: some 50 ms


class Beside:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._idle: list[apsw.Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    # ------------------------------------------------------------ in a thread

    @contextlib.contextmanager
    def connection(self) -> Iterator[apsw.Connection]:
        """CacheUnusable, Damaged for what goes wrong within."""
        path, found = self._engine.path, None
        try:
            with self._lock:
                found = self._idle.pop() if self._idle else None
            if found is None:
                found = connect(self._engine.doors, path, self._engine.key)
                found.pragma("cache_size", -CACHE_KIB)
                found.pragma("query_only", 1)
            yield found
        except (apsw.Error, OSError) as error:
            if found is not None:
                found.close(True)
            raise translate(error, path) or CacheUnusable(f"{path}: {error}") from error
        with self._lock:
            if not self._closed and len(self._idle) < IDLE_MAX:
                self._idle.append(found)
                return
        found.close()

    def all(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.connection() as found:
            return found.execute(sql, args).fetchall()

    def totals(self) -> Totals:
        """What Meta.totals() says, a slice at a time: of a filesystem at work the sum of somewhat different moments."""
        ends = self._engine.counters.next_chunk, self._engine.counters.next_pack
        sums = []
        for end, sql in zip(ends, ("SELECT count(*), coalesce(sum(len), 0), coalesce(sum(clen), 0) FROM chunk "
                                   "WHERE id >= ? AND id < ? AND refs > 0",
                                   "SELECT count(*), coalesce(sum(size), 0) FROM pack WHERE id >= ? AND id < ? AND state = 'closed'"),
                            strict=True):
            parts = [self.all(sql, (start, start + SLICE_IDS))[0] for start in range(0, end, SLICE_IDS)]
            sums += [sum(column) for column in zip(*parts, strict=True)]
        return Totals(self._engine.counters.inodes, self._engine.counters.used_bytes, *sums)

    def bad_in_use(self) -> int:
        """What Meta.bad_in_use() says."""
        return int(self.all(BAD_IN_USE)[0][0])

    def outbox(self) -> tuple[int, int, int | None]:
        """What Meta.outbox() says."""
        rows, size, oldest_ns = self.all(OUTBOX)[0]
        return rows, size, oldest_ns

    def merged(self, part: OutboxSlice) -> bytes:
        """Its transactions as one changeset."""
        with self.connection() as found:
            rows: list[Any] = [found.execute("SELECT changeset FROM outbox WHERE id = ?", (id,)).fetchone() for id in part.rows]
        return merge_changesets([row[0] for row in rows])

    # ------------------------------------------------------------ on the loop

    async def merge(self, part: OutboxSlice) -> bytes:
        """Its transactions as one changeset, read in a thread; or here, by the files that are open, when somebody removed the folder."""
        threads = self._engine.doors.threads
        try:
            return await threads.run(self.merged, part)
        except CacheUnusable:
            rows = [self._engine.one("SELECT changeset FROM outbox WHERE id = ?", (id,)) for id in part.rows]
            return await threads.run(merge_changesets, [row[0] for row in rows if row is not None])

    async def ask(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows, from a thread."""
        return await self._engine.doors.threads.run(self.all, sql, args)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for found in idle:
            found.close()
