"""Staging: dirty ranges of files become chunks in the journal and extents in the database.

    freeze -> for each slice: cut and hash (thread) -> look up (event loop) -> compress, seal, append (thread) -> rows (event loop, one go)

A file is frozen once: what it has at that moment is taken away from its dirty map (`state.Away`) and staged slice by slice; writers go on
into the next dirty map, so staging ends however fast they are. What is away stays registered with the file and in the account until rows
have it: reads, truncations, removals and the spool see it. The last step of a slice holds `apply_lock`, which a transaction
holds from the sync of the journal to its COMMIT: so no committed row names bytes that are not on disk.

How a slice is cut is in cutting.py. Files up to `inline_max_bytes` live in their row. A short tail chunk, when it is at hand, is cut
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
from .state import EVERYTHING, Away, Due, FileState

log = logging.getLogger(__name__)

INLINE_WORK_BYTES = 64 * limits.KIB      # so little is not worth a hop to a thread
GROUP_FILES = 128                         # staged together
ROWS_AT_ONCE = 32                        # between two looks at the request queue


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

    async def stage(self, states: Iterable[FileState], *, whole: bool) -> None:
        """Stage what these files have now. Not `whole`: only long runs, and not their undecided end.

        Small files are taken together, large ones slice by slice. An error stays with the file as `state.error` and is raised.
        """
        todo = [state for state in states if state.pending]
        while todo:
            group: list[FileState] = []
            weight = 0
            while todo and weight < self._doors.limits.stage_slice_bytes and len(group) < GROUP_FILES:
                group.append(todo.pop())
                weight += group[-1].dirty.bytes
            await self._stage_group(group, whole)

    async def _stage_group(self, group: list[FileState], whole: bool) -> None:
        locked: list[FileState] = []
        taken: list[FileState] = []
        failed: BaseException | None = None
        try:
            for state in sorted(group, key=lambda s: s.ino):   # one order for all, so that two groups never wait for each other
                await _acquire(state.lock)
                locked.append(state)
            for state in locked:
                if await self._freeze(state, whole):
                    taken.append(state)
                await _now_and_then(len(taken))
            while slices := await self._next_slices(taken):
                await self._stage_slices(slices)
        except BaseException as exc:
            failed = exc
            raise
        finally:
            for state in taken:
                if state.away is not None and isinstance(failed, Exception):
                    state.error = failed
                state.come_back(failed=failed is not None)      # nothing, where all of it is in rows
            for state in locked:
                state.lock.release()
            self._on_change()

    async def _freeze(self, state: FileState, whole: bool) -> bool:
        """Take from a file what is to be staged; False when there is nothing."""
        if state.due is Due.NOT:
            return False
        if not whole:
            row = await self._meta.get(state.ino)
            whole = row is not None and row.data is not None     # what lives in the row leaves it in one go with all the rest
        run_bytes = self._doors.limits.stage_run_bytes
        if whole:
            data, state.dirty = state.dirty, DirtyMap(state.dirty.account)
        else:
            data = DirtyMap(state.dirty.account)
            for start, end in state.dirty.runs():
                if end - start >= run_bytes:
                    state.dirty.move_to(data, start, end)
            if not data:
                return False
        state.away = Away(data, state.size, state.valid_to, whole, state.due)
        state.valid_to = EVERYTHING
        if data:
            state.blank = False
        if whole:
            state.due, state.look_at_bytes = Due.NOT, run_bytes
        return True

    async def _next_slices(self, taken: Sequence[FileState]) -> list[Slice]:
        slices: list[Slice] = []
        for number, state in enumerate(taken, 1):
            part = await self._next_slice(state)
            if part is not None:
                slices.append(part)
            await _now_and_then(number)
        return slices

    async def _next_slice(self, state: FileState) -> Slice | None:
        away = state.away
        if away is None or away.sliced:
            return None
        left = max(self._doors.limits.stage_slice_bytes, 4 * self._cutter.chunker.max_bytes)      # more than any undecided end
        data, open_ends = DirtyMap(), set[int]()
        away.sliced = True
        for start, end in away.data.runs():
            if end <= away.sliced_to:                   # an undecided end
                continue
            stop = min(end, start + left)
            if stop < end:
                away.sliced = False
                if data and stop - start < 2 * self._cutter.chunker.max_bytes:
                    break
            if stop < end or not away.whole:
                open_ends.add(stop)
            data.put_all(away.data.part(start, stop))
            left -= stop - start
            away.sliced_to = stop
        if not data and not away.whole:
            return None
        part = Slice(state, data, away.sliced and away.whole, frozenset(open_ends), away.valid_to, away.size)
        if part.final:
            part.tail = await self._short_tail(part)
        return part

    async def _short_tail(self, part: Slice) -> tuple[int, bytes] | None:
        """The last chunk of the file, if it is short, at hand, and the slice appends to it. It is stored once more, so beyond some KiB it
        must not be longer than what is appended: else a log that grows by a line every few seconds sends many times its size."""
        runs = part.data.runs()
        if len(runs) != 1 or runs[0][1] < part.size or runs[0][0] == 0 or part.valid_to < runs[0][0]:
            return None
        start, end = runs[0]
        found = await self._meta.extents(part.state.ino, start - 1, start)
        if not found:
            return None
        extent, chunk = found[0]
        whole = not extent.coff and extent.len == chunk.len < self._cutter.chunker.min_bytes
        if not whole or not start <= extent.off + extent.len <= end or chunk.len > max(end - start, self._doors.limits.tail_max_bytes):
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
        if self._meta.warmth.cold or (self._meta.warmth.wary and len(cut.pieces) > ROWS_AT_ONCE):
            await self._meta.warmth.chunks([piece.id for piece in cut.pieces])
            await self._meta.warmth.extents([(part.state.ino, *_reach(part)) for part in slices])
        new = await self._look_up(cut.pieces)
        if new:
            if weight <= INLINE_WORK_BYTES:
                self._seal(new)
            else:
                await self._doors.threads.run(self._seal, new)
        await _acquire(self.apply_lock)
        try:
            new = [piece for piece in new if not await self._is_known(piece)]      # another file may have brought it meanwhile
            new += await self._forgotten(cut.pieces)
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
            else:
                first[piece.id] = piece
        new: list[Piece] = []
        for number, piece in enumerate(first.values(), 1):
            if not await self._is_known(piece):
                new.append(piece)
            await _now_and_then(number)
        return new

    async def _is_known(self, piece: Piece) -> bool:
        chunk = await self._meta.find_chunk(piece.id)
        if chunk is None:
            return False
        piece.row = chunk.id
        self.dedup_bytes += len(piece.data)
        return True

    async def _forgotten(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Those that were found, of no file then, and went since (history/packing.py). With `apply_lock`; sealed now."""
        gone = [piece for piece in pieces if piece.row and await self._meta.chunk(piece.row) is None and not await self._is_known(piece)]
        self._seal(gone)
        return gone

    def _seal(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            piece.sealed = self._codec.encode(piece.id, piece.data)

    async def _add_chunks(self, new: Sequence[Piece], places: Sequence[tuple[int, int]]) -> None:
        for number, (piece, (pack, offset)) in enumerate(zip(new, places, strict=True), 1):
            await _now_and_then(number)                   # apply_lock is held: no transaction ends here
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
        row = await meta.get(ino)          # as it is now
        assert row is not None
        if not part.final:
            await meta.update_inode(ino, size=size, data=data)
            return None
        state = part.state
        mtime_ns = state.mtime_ns if state.mtime_ns is not None else row.mtime_ns
        await meta.update_inode(ino, size=part.size, data=data, mtime_ns=mtime_ns, ctime_ns=max(row.ctime_ns, state.ctime_ns or 0))
        return data

    def _finish(self, part: Slice, undecided: Sequence[tuple[int, memoryview]], inline: bytes | None) -> None:
        """The rows have a slice, but for its undecided ends."""
        state, away = part.state, part.state.away
        assert away is not None
        open_from = {offset + len(view): offset for offset, view in undecided}
        for start, end in part.data.runs():
            away.data.cut(start, open_from.get(end, end))
        away.valid_to = EVERYTHING
        if not part.final:
            return
        state.come_back(failed=False)
        if state.due is Due.NOT:
            state.mtime_ns = state.ctime_ns = None
            state.inline = inline
        elif inline:                      # written to meanwhile: what is in the row is staged again together with that
            content = DirtyMap()
            content.write(0, inline)
            state.take_back(content)


async def _now_and_then(number: int) -> None:
    """Give way to requests."""
    if number % ROWS_AT_ONCE == 0:
        await trio.lowlevel.checkpoint()


def _reach(part: Slice) -> tuple[int, int]:
    """From the first to the last byte that it changes."""
    runs = part.data.runs()
    return (min(runs[0][0], part.valid_to), max(runs[-1][1], part.size)) if runs else (min(part.size, part.valid_to), part.size + 1)


async def _acquire(lock: trio.Lock) -> None:
    """Without a pass of the scheduler when it is free. Waiters are served in their order."""
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
