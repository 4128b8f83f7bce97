"""File content as its users see it: reads through dirty data, staging data and extents; writes into a bounded pool.

A write is accepted into memory and reported as done; it is kept (staged) when the file is closed, on fsync, when a run is long enough to be
cut, when memory is short, or after STAGE_OPEN_FILE_S. What cannot be kept is reported by the next write, flush or fsync of that
file, never dropped in silence.

INVARIANT V2: a read returns the newest bytes, whatever is being staged beside it.
INVARIANT V3: memory for dirty data is bounded by DIRTY_POOL_BYTES: beyond it data is staged or spooled, and writers wait.
"""
from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio

from s3cfs import limits
from s3cfs.blocks.blockstore import BlockStore
from s3cfs.doors import Doors
from s3cfs.errors import DataError, FileTooLarge, S3cfsError, StaleInode
from s3cfs.meta import Chunk, Extent, Inode, Meta

from .dirty import DirtyMap, Piece, Spooled
from .readahead import ReadAhead
from .spool import Spool
from .stage import Stager
from .state import EVERYTHING, FileState

log = logging.getLogger(__name__)

FRESH_S = 1.0                           # a file made less than this ago and still empty is about to be written


class Files:
    """Content of all files. One instance a mount; everything runs on the event-loop thread."""

    def __init__(self, doors: Doors, meta: Meta, blocks: BlockStore, spool: Spool, *, kernel_times: bool,
                 pool_bytes: int | None = None, stage_open_s: float | None = None) -> None:
        """`kernel_times`: the kernel caches writes and sends the times itself. `stage_open_s`: when a file that stays open is staged."""
        self._doors, self._meta, self._blocks, self._spool = doors, meta, blocks, spool
        self._kernel_times = kernel_times
        self._pool_bytes = doors.limits.dirty_pool_bytes if pool_bytes is None else pool_bytes
        self._stage_open_s = doors.limits.stage_open_file_s if stage_open_s is None else stage_open_s
        self._readahead = ReadAhead(meta, blocks, doors.limits.readahead_max_bytes)
        self._stager: Stager | None = None
        self._durable: Callable[[], Awaitable[None]] | None = None
        self._note: Callable[[], None] = lambda: None
        self._states: dict[int, FileState] = {}
        self._ready: dict[int, FileState] = {}        # closed and not staged: what the next transaction waits for
        self._ready_bytes = 0
        self._ram_bytes = 0
        self._relief = trio.Event()                   # memory became less
        self._pressure = trio.Event()                 # somebody should stage or spool
        self._spooling = False
        self._spool_readers = 0                       # reads that may be about to look into the spool

    def use(self, stager: Stager, durable: Callable[[], Awaitable[None]], note: Callable[[], None]) -> None:
        """`durable`: everything staged so far is in a transaction on disk. `note`: something changes; it may refuse."""
        self._stager, self._durable, self._note = stager, durable, note

    # ---------------------------------------------------------------- what there is

    @property
    def ram_bytes(self) -> int:
        return self._ram_bytes

    @property
    def dirty(self) -> bool:
        """Whether anything written is not staged."""
        return any(state.changed for state in self._states.values())

    def oldest_change(self) -> float | None:
        """Monotonic time of the oldest unstaged change."""
        return min((state.dirty_since for state in self._states.values() if state.changed), default=None)

    @property
    def pending_bytes(self) -> int:
        return sum(state.pending_bytes for state in self._states.values())

    def overlay(self, inode: Inode) -> Inode:
        state = self._states.get(inode.ino)
        return inode if state is None else state.over(inode)

    def is_open(self, ino: int) -> bool:
        state = self._states.get(ino)
        return state is not None and state.opens > 0

    # ---------------------------------------------------------------- open and release

    async def _state(self, ino: int) -> FileState:
        state = self._states.get(ino)
        if state is None:
            row = await self._meta.get(ino)
            if row is None:
                raise StaleInode(f"inode {ino} is gone")
            state = self._states[ino] = FileState(ino, row.size, row.data, look_at_bytes=self._doors.limits.stage_run_bytes)
            if row.size == 0 and not row.alloc and self._doors.clock.time_ns() - row.ctime_ns < FRESH_S * 1e9:
                state.fresh, state.fresh_until = True, self._doors.clock.monotonic() + FRESH_S
        return state

    async def open(self, ino: int, flags: int) -> None:
        (await self._state(ino)).opens += 1

    async def release(self, ino: int) -> None:
        state = self._states.get(ino)
        if state is None:
            return
        state.opens = max(0, state.opens - 1)
        if not state.opens:
            state.error = None
            self._settle(state)

    def _settle(self, state: FileState) -> None:
        """A closed file is ready to be staged, or forgotten when there is nothing to stage."""
        if state.opens:
            if self._ready.pop(state.ino, None) is not None and state.pending:
                state.must_stage = True               # opened again: what was closed still goes into the next transaction
        elif state.pending:
            self._ready[state.ino] = state
            self._ready_bytes += state.dirty.bytes
            if self._ready_bytes >= self._doors.limits.ready_bytes or len(self._ready) >= self._doors.limits.ready_files:
                self._pressure.set()
        else:
            self._ready.pop(state.ino, None)
            if self._states.get(state.ino) is state:
                del self._states[state.ino]

    def forget(self, ino: int) -> None:
        """The inode is being dropped: what is unstaged of it is nobody's."""
        state = self._states.pop(ino, None)
        self._ready.pop(ino, None)
        if state is not None:
            self._ram_bytes -= state.dirty.ram_bytes
            state.dirty = DirtyMap()
            state.changed = False
            self._relief_now()

    # ---------------------------------------------------------------- writing

    async def write(self, ino: int, offset: int, data: bytes | bytearray | memoryview) -> int:
        state = self._states.get(ino) or await self._state(ino)
        if state.error is not None:
            self._raise_error(state)
        if offset + len(data) > limits.FILE_MAX_BYTES:
            raise FileTooLarge(f"a file holds at most {limits.FILE_MAX_BYTES} bytes")
        if self._ram_bytes >= self._pool_bytes:
            await self._wait_for_room()
        before = state.dirty.ram_bytes
        self._begin_change(state)
        state.dirty.write(offset, data)
        self._ram_bytes += state.dirty.ram_bytes - before
        state.size = max(state.size, offset + len(data))
        if not self._kernel_times:
            state.mtime_ns = state.ctime_ns = self._doors.clock.time_ns()
        if state.dirty.bytes >= state.look_at_bytes or self._ram_bytes > self._pool_bytes // 2:
            self._pressure.set()
        return len(data)

    async def truncate(self, ino: int, size: int, now_ns: int) -> None:
        if size > limits.FILE_MAX_BYTES:
            raise FileTooLarge(f"a file holds at most {limits.FILE_MAX_BYTES} bytes")
        state = await self._state(ino)
        before = state.dirty.ram_bytes
        self._begin_change(state)
        if size < state.size:
            state.dirty.cut(size, EVERYTHING)
            state.valid_to = min(state.valid_to, size)
        state.size = size
        state.mtime_ns = state.ctime_ns = now_ns
        self._ram_bytes += state.dirty.ram_bytes - before
        self._settle(state)

    async def set_times(self, ino: int, *, mtime_ns: int | None = None, ctime_ns: int | None = None) -> None:
        """The row was given these times: those of unstaged changes become these as well."""
        state = self._states.get(ino)
        if state is None or not state.pending:
            return
        if mtime_ns is not None:
            state.mtime_ns = mtime_ns
        if ctime_ns is not None:
            state.ctime_ns = ctime_ns

    def _begin_change(self, state: FileState) -> None:
        if not state.changed:
            self._note()
            state.changed = True
            state.dirty_since = self._doors.clock.monotonic()
        if state.inline is not None:              # what lives in the row is staged again together with the change
            before = state.dirty.ram_bytes
            if state.inline and state.size:
                state.dirty.put_under(0, (state.inline, 0, min(len(state.inline), state.size)))
            state.inline = None
            self._ram_bytes += state.dirty.ram_bytes - before

    def _raise_error(self, state: FileState) -> None:
        error, state.error = state.error, None
        if error is not None:
            if isinstance(error, S3cfsError):
                raise error
            raise DataError(f"inode {state.ino}: {error}") from error

    async def _wait_for_room(self) -> None:
        while self._ram_bytes >= self._pool_bytes:
            self._note()                              # refuses when writing has ended: nothing will become less then
            self._pressure.set()
            with trio.move_on_after(1.0):
                await self._relief.wait()

    def _relief_now(self) -> None:
        event, self._relief = self._relief, trio.Event()
        event.set()

    # ---------------------------------------------------------------- fsync and its kin

    async def fsync(self, ino: int) -> None:
        """Data, size, times, and every operation done before, are in a transaction on disk (in the store under --sync=remote)."""
        state = self._states.get(ino)
        if state is not None:
            if state.pending:
                await self._stage([state])
            self._raise_error(state)
        assert self._durable is not None
        await self._durable()

    async def flush(self, ino: int) -> None:
        """At every close of a descriptor: report what could not be kept. What was written goes into the next transaction."""
        state = self._states.get(ino)
        if state is not None:
            state.must_stage = state.pending
            self._raise_error(state)

    async def before_replace(self, ino: int) -> None:
        """The file is renamed over another: its content goes into the same transaction as the new name, though it is open."""
        state = self._states.get(ino)
        if state is not None and state.pending:
            state.must_stage = True

    async def stage_ready(self) -> None:
        """For a transaction: all closed files, and of the open ones those whose content must not lag behind their name."""
        while True:
            states = [state for state in self._states.values() if state.pending and (
                state.ino in self._ready or state.must_stage or (state.fresh and state.pending_bytes))]
            if not states:
                return
            await self._stage(states)

    async def stage_all(self) -> None:
        """Everything that was written, open files too."""
        await self._stage([state for state in self._states.values() if state.pending])

    def has_fresh_open(self) -> bool:
        """Whether a file was made just now and its content has not come yet."""
        now = self._doors.clock.monotonic()
        return any(state.fresh and state.opens and not state.size and now < state.fresh_until for state in self._states.values())

    async def _stage(self, states: list[FileState]) -> None:
        assert self._stager is not None
        try:
            await self._stager.stage(states, final=True)
        finally:
            self.on_staged(states)

    def on_staged(self, states: Iterable[FileState]) -> None:
        for state in states:
            self._settle(state)

    def recount(self) -> None:
        """After staging: what is in memory now, and who may go on."""
        self._ram_bytes = sum(state.dirty.ram_bytes + (state.staging.ram_bytes if state.staging else 0)
                              for state in self._states.values())
        self._ready_bytes = sum(state.dirty.bytes for state in self._ready.values())
        if not self._spooling and not self._spool_readers:
            self._spool.settle(self._spooled_bytes())
        self._relief_now()

    def _spooled_bytes(self) -> int:
        maps = [m for state in self._states.values() for m in (state.dirty, state.staging) if m is not None]
        return sum(m.bytes - m.ram_bytes for m in maps)

    # ---------------------------------------------------------------- background

    async def run(self) -> None:
        """Stage long runs and closed files early, old open files in time, and spool when memory is short. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._age)
            while True:
                await self._pressure.wait()
                self._pressure = trio.Event()
                try:
                    await self._relieve()
                except Exception as exc:
                    log.error("staging failed: %s", exc, exc_info=not isinstance(exc, (S3cfsError, OSError)))
                    self._relief_now()
                    await self._doors.clock.sleep(1.0)

    async def _relieve(self) -> None:
        assert self._stager is not None
        if self._ready_bytes >= self._doors.limits.ready_bytes or len(self._ready) >= self._doors.limits.ready_files or (
                self._ready and self._ram_bytes > self._pool_bytes // 2):
            await self._stage(list(self._ready.values()))
        run_bytes = self._doors.limits.stage_run_bytes
        for state in [state for state in self._states.values() if state.changed and state.dirty.bytes >= state.look_at_bytes]:
            if any(end - start >= run_bytes for start, end in state.dirty.runs()):
                await self._stager.stage([state], final=False)
            state.look_at_bytes = state.dirty.bytes + run_bytes     # scattered pieces are not counted at every write
        while self._ram_bytes > self._pool_bytes * 3 // 4:
            if not await self._spool_largest():
                break

    async def _age(self) -> None:
        while True:
            await self._doors.clock.sleep(self._stage_open_s / 3)
            old = self._doors.clock.monotonic() - self._stage_open_s
            states = [state for state in self._states.values() if state.changed and state.dirty_since < old]
            if states:
                try:
                    await self._stage(states)
                except Exception as exc:
                    log.error("staging failed: %s", exc, exc_info=not isinstance(exc, (S3cfsError, OSError)))

    async def _spool_largest(self) -> bool:
        """Move pieces of the file that has most in memory to the spool, up to a few MiB; False when there is nothing to move."""
        state = max(self._states.values(), key=lambda s: s.dirty.ram_bytes, default=None)
        if state is None or not state.dirty.ram_bytes:
            return False
        chosen: list[tuple[int, Piece]] = []
        size = 0
        for at, piece in state.dirty.items():
            if not isinstance(piece[0], Spooled):
                chosen.append((at, piece))
                size += piece[2]
                if size >= 8 * limits.MIB:
                    break
        self._spooling = True
        try:
            spooled = await self._doors.threads.run(self._spool_pieces, [piece for _, piece in chosen])
        finally:
            self._spooling = False
        moved = 0
        for (at, piece), there in zip(chosen, spooled, strict=True):
            if state.dirty.replace_piece(at, piece, (there, 0, there.size)):
                moved += there.size
        self._ram_bytes -= moved
        self._relief_now()
        return True

    def _spool_pieces(self, pieces: list[Piece]) -> list[Spooled]:
        out = []
        for buffer, inner, length in pieces:
            assert not isinstance(buffer, Spooled)
            out.append(self._spool.put(memoryview(buffer)[inner:inner + length]))
        return out

    # ---------------------------------------------------------------- reading

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; fewer only at the end of the file. DataError for a range that cannot be read."""
        state = self._states.get(ino) or await self._state(ino)
        end = min(offset + size, state.size)
        if offset >= end:
            return b""
        if state.inline is not None and not state.changed:
            return _padded(state.inline[offset:end], end - offset)
        if state.pending:
            return await self._read_layers(state, offset, end)
        await self._readahead.note(state, offset, end)
        found = await self._meta.extents(ino, offset, end)
        if len(found) == 1:
            extent, chunk = found[0]
            if extent.off <= offset and extent.off + extent.len >= end:
                data = self._blocks.cached(chunk.id) or await self._blocks.chunk(chunk)
                at = extent.coff + offset - extent.off
                return bytes(data[at:at + end - offset])
        out = bytearray(end - offset)
        await self._fill(out, offset, end, found)
        return bytes(out)

    async def _read_layers(self, state: FileState, offset: int, end: int) -> bytes:
        self._spool_readers += 1
        try:
            return await self._read_layers_pinned(state, offset, end)
        finally:
            self._spool_readers -= 1

    async def _read_layers_pinned(self, state: FileState, offset: int, end: int) -> bytes:
        while True:
            out = bytearray(end - offset)
            staging, valid_to = state.staging, state.extents_valid_to
            top = [(at, piece) for at, piece in state.dirty.within(offset, end)]
            middle = [(at, piece) for at, piece in staging.within(offset, end)] if staging is not None else []
            if not state.dirty.covers(offset, end) and offset < valid_to:
                found = await self._meta.extents(state.ino, offset, min(end, valid_to))
                await self._fill(out, offset, min(end, valid_to), found)
            for at, piece in middle:
                if at < state.valid_to:
                    await self._lay(out, offset, min(end, state.valid_to), at, piece)
            for at, piece in top:
                await self._lay(out, offset, end, at, piece)
            if state.staging is staging and state.extents_valid_to == valid_to:
                return bytes(out)
            # what was being staged became extents while we waited for a chunk: look again

    async def _lay(self, out: bytearray, offset: int, end: int, at: int, piece: Piece) -> None:
        buffer, inner, length = piece
        low, high = max(at, offset), min(at + length, end)
        if low >= high:
            return
        plain = await self._doors.threads.run(self._spool.read, buffer) if isinstance(buffer, Spooled) else buffer
        out[low - offset:high - offset] = memoryview(plain)[inner + low - at:inner + high - at]

    async def _fill(self, out: bytearray, offset: int, end: int, found: Sequence[tuple[Extent, Chunk]]) -> None:
        """Lay extents into `out`; what is not at hand is fetched together."""
        plain = await self._blocks.chunks([chunk for _, chunk in found])
        for (extent, _), data in zip(found, plain, strict=True):
            low, high = max(extent.off, offset), min(extent.off + extent.len, end)
            at = extent.coff + low - extent.off
            out[low - offset:high - offset] = memoryview(data)[at:at + high - low]


def _padded(data: bytes, size: int) -> bytes:
    return data if len(data) == size else data + bytes(size - len(data))
