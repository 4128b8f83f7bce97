"""Staging: dirty ranges of files become chunks in the journal and extents in the database.

    freeze a slice -> cut and hash (thread) -> look up (event loop) -> compress, seal, append (thread) -> rows (event loop, one go)

Nothing is locked while threads work but the file's own staging; writers go on into the file's next dirty map. The last step holds
`apply_lock`, which a transaction holds from the sync of the journal to its COMMIT: so no committed row names bytes that are not on disk.

How a slice is cut is in cutting.py. Files up to INLINE_MAX_BYTES live in their row. A short tail chunk, when it is at hand, is cut
again together with what is appended to it.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import trio

from s3cfs import limits
from s3cfs.blocks.blockstore import BlockStore
from s3cfs.blocks.journal import Journal
from s3cfs.doors import Doors
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.ids import ChunkId
from s3cfs.meta import Extent, Meta

from .cutting import Cut, Cutter, Piece, Slice
from .dirty import DirtyMap, Spooled
from .state import EVERYTHING, FileState

log = logging.getLogger(__name__)

INLINE_WORK_BYTES = 64 * limits.KIB      # so little is not worth a hop to a thread
ROWS_AT_ONCE = 256                        # between two looks at the request queue


class Stager:
    """Stages files. `on_change` is called when bytes in memory became fewer."""

    def __init__(self, doors: Doors, meta: Meta, journal: Journal, blocks: BlockStore, codec: ChunkCodec, cutter: Cutter, *,
                 epoch: int, on_change: Callable[[], None]) -> None:
        self._doors, self._meta, self._journal, self._blocks = doors, meta, journal, blocks
        self._codec, self._cutter = codec, cutter
        self._epoch, self._on_change = epoch, on_change
        self.apply_lock = trio.Lock()
        self.new_chunk_bytes = 0
        self.dedup_bytes = 0

    # ---------------------------------------------------------------- entry points

    async def stage(self, states: Iterable[FileState], *, final: bool) -> None:
        """Stage what these files have now. Not `final`: only long runs, and not their undecided end.

        Small files are taken together, large ones slice by slice. An error stays with the file as `state.error` and is raised.
        """
        todo = [state for state in states if state.pending]
        while todo:
            group: list[FileState] = []
            weight = 0
            while todo and weight < self._doors.limits.stage_slice_bytes and len(group) < 512:
                group.append(todo.pop())
                weight += group[-1].dirty.bytes
            await self._stage_group(group, final)

    async def _stage_group(self, group: list[FileState], final: bool) -> None:
        locked: list[FileState] = []
        try:
            for state in sorted(group, key=lambda s: s.ino):   # one order for all, so that two groups never wait for each other
                try:
                    state.lock.acquire_nowait()
                except trio.WouldBlock:
                    await state.lock.acquire()
                locked.append(state)
            todo = locked
            while slices := [part for state in todo if (part := await self._freeze(state, final))]:
                try:
                    await self._stage_slices(slices)
                except BaseException as exc:
                    self._thaw(slices, exc)
                    raise
                todo = [part.state for part in slices if not part.final]   # what was written meanwhile is for another time
        finally:
            for state in locked:
                state.lock.release()

    async def _freeze(self, state: FileState, final: bool) -> Slice | None:
        """Take the next slice of a file; None when there is nothing (more) to do."""
        if not state.changed:
            return None
        if not final:
            row = await self._meta.get(state.ino)
            final = row is not None and row.data is not None     # what lives in the row leaves it in one go with all the rest
        dirty, taken = state.dirty, DirtyMap()
        left = self._doors.limits.stage_slice_bytes
        whole = True
        open_ends: set[int] = set()
        for start, end in dirty.runs():
            stop = min(end, start + left)
            if not final and end - start < self._doors.limits.stage_run_bytes:
                whole = False
                continue
            if stop < end and taken and stop - start < 2 * self._cutter.chunker.max_bytes:
                whole = False
                break
            if stop < end or not final:
                whole = False
                open_ends.add(stop)
            for at, piece in dirty.take(start, stop).items():
                taken.put(at, piece)
            left -= stop - start
        if not taken and not final:
            return None
        last = final and whole
        part = Slice(state, taken, last, frozenset(open_ends), state.valid_to, state.size, state.mtime_ns, state.ctime_ns)
        state.staging, state.staging_valid_to, state.valid_to = taken, state.valid_to, EVERYTHING
        if last:
            state.changed = False                    # a write from now on sets it again
            part.tail = await self._short_tail(part)
        return part

    def _thaw(self, slices: Sequence[Slice], exc: BaseException) -> None:
        """Staging failed or was cancelled: everything goes back under what was written since."""
        for part in slices:
            state = part.state
            for at, piece in part.data.items():
                if at < state.valid_to:
                    state.dirty.put_under(at, piece)
            state.dirty.cut(state.size, EVERYTHING)
            state.valid_to = min(state.valid_to, part.valid_to)
            state.staging, state.staging_valid_to = None, EVERYTHING
            if state.mtime_ns is None:
                state.mtime_ns = part.mtime_ns
            if state.ctime_ns is None:
                state.ctime_ns = part.ctime_ns
            state.changed = True
            if isinstance(exc, Exception):
                state.error = exc

    async def _short_tail(self, part: Slice) -> tuple[int, bytes] | None:
        """The last chunk of the file, if it is short, at hand, and the slice appends to it."""
        runs = part.data.runs()
        if len(runs) != 1 or runs[0][1] < part.size or runs[0][0] == 0 or part.valid_to < runs[0][0]:
            return None
        start, end = runs[0]
        found = await self._meta.extents(part.state.ino, start - 1, start)
        if not found:
            return None
        extent, chunk = found[0]
        whole = not extent.coff and extent.len == chunk.len < self._cutter.chunker.min_bytes
        if not whole or not start <= extent.off + extent.len <= end:
            return None
        data = self._blocks.cached(chunk.id)
        return (extent.off, bytes(data[:start - extent.off])) if data is not None else None

    # ---------------------------------------------------------------- one round

    async def _stage_slices(self, slices: list[Slice]) -> None:
        inline = [part for part in slices if await self._fits_inline(part)]
        rest = [part for part in slices if part not in inline]
        weight = sum(part.data.bytes for part in rest)
        if weight <= INLINE_WORK_BYTES and not any(isinstance(p[0], Spooled) for part in rest for p in part.data.pieces):
            cut = self._cutter.cut(rest)
        else:
            cut = await self._doors.threads.run(self._cutter.cut, rest)
        new = await self._look_up(cut.pieces)
        if new:
            if weight <= INLINE_WORK_BYTES:
                self._seal(new)
            else:
                await self._doors.threads.run(self._seal, new)
        await _acquire(self.apply_lock)
        try:
            if new:
                places = await self._journal.append(self._new_pack, [(piece.id, piece.sealed, len(piece.data)) for piece in new])
                await self._add_chunks(new, places)
            await self._write_rows(slices, inline, cut)
        finally:
            self.apply_lock.release()
        self._on_change()

    async def _new_pack(self) -> int:
        return await self._meta.new_pack(self._epoch)

    async def _fits_inline(self, part: Slice) -> bool:
        if not part.final or part.size > self._doors.limits.inline_max_bytes:
            return False
        if part.data.covers(0, part.size):
            return True
        return not await self._meta.extents(part.state.ino, 0, min(part.valid_to, part.size))

    async def _look_up(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Find chunks that exist; returns the new ones, each once."""
        first: dict[ChunkId, Piece] = {}
        for piece in pieces:
            known = first.get(piece.id)
            if known is not None:
                known.targets += piece.targets
                piece.targets = []
                self.dedup_bytes += len(piece.data)
                continue
            first[piece.id] = piece
            chunk = await self._meta.find_chunk(piece.id)
            if chunk is not None:
                piece.row = chunk.id
                self.dedup_bytes += len(piece.data)
        return [piece for piece in first.values() if not piece.row]

    def _seal(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            piece.sealed = self._codec.encode(piece.id, piece.data)

    async def _add_chunks(self, new: Sequence[Piece], places: Sequence[tuple[int, int]]) -> None:
        for piece, (pack, offset) in zip(new, places, strict=True):
            there = await self._meta.find_chunk(piece.id)      # another file may have brought it meanwhile
            if there is not None:
                piece.row = there.id
                continue
            piece.row = await self._meta.add_chunk(piece.id, pack, offset, len(piece.sealed), len(piece.data))
            piece.sealed = b""
            self.new_chunk_bytes += len(piece.data)
            if len(piece.data) < self._cutter.chunker.min_bytes:
                self._blocks.put_decoded(piece.row, bytes(piece.data))

    async def _write_rows(self, slices: Sequence[Slice], inline: Sequence[Slice], cut: Cut) -> None:
        extents: dict[int, list[tuple[int, int, list[Extent]]]] = {id(part): [] for part in slices}
        for piece in cut.pieces:
            for part, offset, inner, length in piece.targets:
                extents[id(part)].append((offset, offset + length, [Extent(offset, length, piece.row, inner)]))
        for part, low, high in cut.holes:
            extents[id(part)].append((low, high, []))
        undecided: dict[int, list[tuple[int, memoryview]]] = {}
        for part, offset, view in cut.undecided:
            undecided.setdefault(id(part), []).append((offset, view))
        count = 0
        for part in slices:
            ranges = _joined_ranges(extents[id(part)])
            data = await self._write_rows_of(part, part in inline, ranges)
            self._finish(part, undecided.get(id(part), []), data)
            count += 1 + len(ranges)
            if count >= ROWS_AT_ONCE:
                count = 0
                await trio.lowlevel.checkpoint()

    async def _write_rows_of(self, part: Slice, inline: bool, ranges: Sequence[tuple[int, int, list[Extent]]]) -> bytes | None:
        """Rows of one slice; returns the content that went into the row, if it did. The inode may be gone: then nothing."""
        ino, meta = part.state.ino, self._meta
        row = await meta.get(ino)
        if row is None:
            return None
        size = min(row.size, part.valid_to)
        if part.valid_to < row.size:
            await meta.truncate(ino, part.valid_to)
        data = row.data[:part.valid_to] if row.data is not None else None
        if inline:
            await meta.truncate(ino, 0)
            data = self._cutter.whole(part)
        else:
            for number, (start, end, extents) in enumerate(ranges, 1):
                await meta.replace(ino, start, end, extents)
                size = max(size, end)
                if start == 0 or part.final:
                    data = None
                if number % ROWS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()      # requests go on; a transaction does not: apply_lock is held
                    if await meta.get(ino) is None:
                        return None
            if part.final:
                data = None
        if not part.final:
            await meta.update_inode(ino, size=size, data=data)
            return None
        state = part.state       # times that were set while this slice was away count more than its own
        mtime_ns = next((t for t in (state.mtime_ns, part.mtime_ns) if t is not None), row.mtime_ns)
        ctime_ns = max(row.ctime_ns, state.ctime_ns or 0, part.ctime_ns or 0)
        await meta.update_inode(ino, size=part.size, data=data, mtime_ns=mtime_ns, ctime_ns=ctime_ns)
        return data

    def _finish(self, part: Slice, undecided: Sequence[tuple[int, memoryview]], inline: bytes | None) -> None:
        state = part.state
        for offset, view in undecided:
            if offset < state.valid_to:
                state.dirty.put_under(offset, (bytes(view), 0, len(view)))     # a view would hold the whole slice in memory
        if undecided:
            state.dirty.cut(state.size, EVERYTHING)
            state.changed = True
        state.staging, state.staging_valid_to = None, EVERYTHING
        if not part.final:
            return
        state.look_at_bytes = self._doors.limits.stage_run_bytes
        if not state.changed:
            state.fresh = state.must_stage = False
        if not state.changed:
            state.mtime_ns = state.ctime_ns = None
        if inline and state.changed:          # written to meanwhile: what is in the row counts as dirty again, below that
            state.dirty.put_under(0, (inline, 0, min(len(inline), state.valid_to)))
            state.dirty.cut(state.size, EVERYTHING)
        else:
            state.inline = inline


async def _acquire(lock: trio.Lock) -> None:
    """Without a pass of the scheduler when it is free."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()


def _joined_ranges(ranges: list[tuple[int, int, list[Extent]]]) -> list[tuple[int, int, list[Extent]]]:
    """Neighbouring ranges as one, so that each contiguous run is one `replace`."""
    out: list[tuple[int, int, list[Extent]]] = []
    for start, end, extents in sorted(ranges, key=lambda r: r[0]):
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], end, out[-1][2] + extents)
        else:
            out.append((start, end, list(extents)))
    return out
