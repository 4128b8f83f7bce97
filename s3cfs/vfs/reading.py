"""Reading a file: what is dirty over what is away over extents.

INVARIANT V2: a read returns the newest bytes, whatever is being staged beside it. It looks at the three layers in one moment, and
waits (for chunks, for the spool) only after that: what it then lays together is the file as it was in that moment.
"""
from __future__ import annotations

from collections.abc import Sequence

from s3cfs.blocks.blockstore import BlockStore
from s3cfs.doors import Doors
from s3cfs.meta import Chunk, Extent, Meta

from .dirty import Piece, Spooled
from .readahead import ReadAhead
from .spool import Spool
from .state import FileState


class Reader:
    def __init__(self, doors: Doors, meta: Meta, blocks: BlockStore, spool: Spool) -> None:
        self._doors, self._meta, self._blocks, self._spool = doors, meta, blocks, spool
        self._readahead = ReadAhead(meta, blocks, doors.limits.readahead_max_bytes)

    async def read(self, state: FileState, offset: int, end: int) -> bytes:
        """[offset, end), which lies within the file. DataError for a range that cannot be read."""
        if state.inline is not None:
            data = state.inline[offset:end]
            return data if len(data) == end - offset else data + bytes(end - offset - len(data))
        if state.pending:
            with self._spool.pinned():
                return await self._read_layers(state, offset, end)
        await self._readahead.note(state, offset, end)
        found = await self._meta.extents(state.ino, offset, end)
        if len(found) == 1:
            extent, chunk = found[0]
            if extent.off <= offset and extent.off + extent.len >= end:
                plain = self._blocks.cached(chunk.id) or await self._blocks.chunk(chunk)
                at = extent.coff + offset - extent.off
                return bytes(plain[at:at + end - offset])
        out = bytearray(end - offset)
        await self._fill(out, offset, end, found)
        return bytes(out)

    async def _read_layers(self, state: FileState, offset: int, end: int) -> bytes:
        out = bytearray(end - offset)
        top = list(state.dirty.within(offset, end))
        middle = list(state.away.data.within(offset, end)) if state.away is not None else []
        middle_end, found_end = min(end, state.valid_to), min(end, state.extents_valid_to)
        found: Sequence[tuple[Extent, Chunk]] = []
        if offset < found_end and not state.dirty.covers(offset, end):
            found = await self._meta.extents(state.ino, offset, found_end)
        # up to here nothing has suspended, and from here on nobody looks at `state`
        await self._fill(out, offset, found_end, found)
        for at, piece in middle:
            await self._lay(out, offset, middle_end, at, piece)
        for at, piece in top:
            await self._lay(out, offset, end, at, piece)
        return bytes(out)

    async def _lay(self, out: bytearray, offset: int, end: int, at: int, piece: Piece) -> None:
        buffer, inner, length = piece
        low, high = max(at, offset), min(at + length, end)
        if low >= high:
            return
        plain = await self._doors.threads.run(self._spool.read, buffer) if isinstance(buffer, Spooled) else buffer
        out[low - offset:high - offset] = memoryview(plain)[inner + low - at:inner + high - at]

    async def _fill(self, out: bytearray, offset: int, end: int, found: Sequence[tuple[Extent, Chunk]]) -> None:
        """Lay extents into `out`; what is not at hand is fetched together."""
        plain = await self._blocks.chunks([chunk for _, chunk in found]) if found else []
        for (extent, _), data in zip(found, plain, strict=True):
            low, high = max(extent.off, offset), min(extent.off + extent.len, end)
            at = extent.coff + low - extent.off
            out[low - offset:high - offset] = memoryview(data)[at:at + high - low]
