"""Read-ahead: what was refused is asked for again, soon enough and not at every read."""
from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from s3cfs.ids import ChunkId
from s3cfs.limits import KIB, MIB
from s3cfs.meta import Chunk, Extent
from s3cfs.vfs.dirty import DirtyMap
from s3cfs.vfs.readahead import ReadAhead
from s3cfs.vfs.state import FileState

from .world import drive

CHUNK, READ, SIZE = 512 * KIB, 128 * KIB, 64 * MIB


class Rows:
    warmth = SimpleNamespace(wary=False)

    async def extents(self, ino: int, start: int, end: int, limit: int) -> list[tuple[Extent, Chunk]]:
        return [(Extent(n * CHUNK, CHUNK, n, 0), Chunk(n, ChunkId(b""), 1, 0, CHUNK, CHUNK, 1))
                for n in range(start // CHUNK, -(-end // CHUNK))][:limit]


class Budget:
    """So many chunks may be on their way; those that were read have arrived."""

    def __init__(self, chunks: int) -> None:
        self.chunks, self.asked, self.read = chunks, 0, 0
        self.taken: list[int] = []

    async def prefetch(self, chunks: Sequence[Chunk]) -> int:
        self.asked += 1
        under_way = sum(1 for id in self.taken if id > self.read)
        new = [chunk.id for chunk in chunks if chunk.id not in self.taken][:max(0, self.chunks - under_way)]
        self.taken += new
        return sum(1 for chunk in chunks if chunk.id in self.taken)


def read_through(budget: Budget) -> list[int]:
    """Front to back; the chunks that a read came to before read-ahead did, the first MiB apart."""
    ahead = ReadAhead(cast(Any, Rows()), cast(Any, budget), 32 * MIB)
    state = FileState(2, SIZE, None, DirtyMap())
    late = []
    for at in range(0, SIZE, READ):
        budget.read = at // CHUNK
        drive(ahead.note(state, at, at + READ))
        if at >= MIB and at // CHUNK not in budget.taken:
            late.append(at // CHUNK)
    return late


def test_what_was_refused_is_asked_for_again() -> None:
    for chunks in (2, 3, 8, 40):
        budget = Budget(chunks)
        assert read_through(budget) == [] and sorted(budget.taken)[-1] == SIZE // CHUNK - 1
        assert budget.asked <= SIZE // READ / 2, "not at every read"


def test_nothing_is_asked_for_twice_without_need() -> None:
    budget = Budget(1000)
    assert read_through(budget) == [] and budget.asked < 20
