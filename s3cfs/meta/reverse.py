"""Looking things up against the grain: who uses these chunks, how these inodes are called.

No index serves such questions (they would cost every create), so each is one pass over a table, whatever the number of things asked
about: ask for many at once. For messages, fsck and repairs. A mount asks by connections of threads, which see the last commit().
"""
from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from s3cfs.meta.content import TRASH
from s3cfs.meta.types import Chunk, Extent

Ask = Callable[[str, Sequence[Any]], Awaitable[list[tuple[Any, ...]]]]


class Reverse:
    def __init__(self, ask: Ask) -> None:
        """`ask` answers a SELECT."""
        self._ask = ask

    async def users_of_many(self, chunks: Collection[int], limit: int) -> list[tuple[int, Extent]]:
        """(ino, extent) that name any of the chunks, in the order of inode and offset."""
        return [(row[0], Extent(*row[1:])) for row in await self._ask(
            f"SELECT ino, off, len, chunk, coff FROM extent AS e WHERE chunk IN (SELECT value FROM json_each(?)) AND NOT EXISTS ({TRASH}) "
            "ORDER BY ino, off LIMIT ?",
            (json.dumps(list(chunks)), limit))]

    async def names_of_many(self, inos: Collection[int]) -> dict[int, list[tuple[int, bytes]]]:
        """{ino: [(parent, name)]} of those that have a name."""
        found: dict[int, list[tuple[int, bytes]]] = {}
        for ino, parent, name in await self._ask("SELECT ino, parent, name FROM dentry WHERE ino IN (SELECT value FROM json_each(?))",
                                                 (json.dumps(list(inos)),)):
            found.setdefault(ino, []).append((parent, name))
        return found

    async def chunks_of_many(self, packs: Collection[int]) -> dict[int, list[Chunk]]:
        """{pack: its chunks in their order} of those that hold any. By an index."""
        found: dict[int, list[Chunk]] = {}
        for row in await self._ask("SELECT id, hash, pack, off, clen, len, refs FROM chunk WHERE pack IN (SELECT value FROM json_each(?)) "
                                   "ORDER BY pack, off", (json.dumps(list(packs)),)):
            found.setdefault(row[2], []).append(Chunk(*row))
        return found
