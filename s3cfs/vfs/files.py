"""File content as its users see it: writes into memory, truncation, fsync, open and release. Reads are in reading.py.

A write is accepted into memory and reported as done; it is kept (staged) when the file is closed, on fsync, when a run is long enough to be
cut, when memory is short (pool.py), or after `stage_open_file_s`. What cannot be kept is reported by the next write, flush or fsync of that
file, never dropped in silence.
"""
from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

from s3cfs import limits
from s3cfs.blocks.blockstore import BlockStore
from s3cfs.doors import Doors
from s3cfs.errors import DataError, FileTooLarge, NoSpace, S3cfsError, StaleInode
from s3cfs.meta import Inode, Meta

from .dirty import DirtyMap
from .pool import Pool
from .reading import Reader
from .spool import Spool
from .stage import Stager
from .state import EVERYTHING, Due, FileState

AWAITED_S = 1.0                         # an empty file that was changed less than this ago is about to be written


class Files:
    """Content of all files. One instance a mount; everything runs on the event-loop thread."""

    def __init__(self, doors: Doors, meta: Meta, blocks: BlockStore, spool: Spool, *, kernel_times: bool,
                 pool_bytes: int | None = None, stage_open_s: float | None = None) -> None:
        """`kernel_times`: the kernel caches writes and sends the times itself. `stage_open_s`: when a file that stays open is staged."""
        self._doors, self._meta, self._kernel_times = doors, meta, kernel_times
        self._reader = Reader(doors, meta, blocks, spool)
        self._states: dict[int, FileState] = {}
        self._ready: dict[int, FileState] = {}        # closed and not staged: what the next transaction waits for
        self._pool = Pool(doors, spool, self._states, self._ready, self._stage,
                          pool_bytes=doors.limits.dirty_pool_bytes if pool_bytes is None else pool_bytes,
                          stage_open_s=doors.limits.stage_open_file_s if stage_open_s is None else stage_open_s)
        self.run = self._pool.run                     # background work
        self.relieved = self._pool.relieved
        self._stager: Stager | None = None
        self._durable: Callable[[], Awaitable[None]] | None = None
        self._note: Callable[[], None] = lambda: None

    def use(self, stager: Stager, durable: Callable[[], Awaitable[None]], note: Callable[[], None]) -> None:
        """`durable`: everything staged so far is in a transaction on disk. `note`: something changes; it may refuse."""
        self._stager, self._durable, self._note = stager, durable, note

    # ---------------------------------------------------------------- what there is

    @property
    def ram_bytes(self) -> int:
        """What dirty data costs in memory, what is being staged included."""
        return self._pool.account.ram_bytes

    @property
    def pending_bytes(self) -> int:
        """Written and in no row, in memory or in the spool."""
        return self._pool.account.bytes

    @property
    def dirty(self) -> bool:
        """Whether anything written is not staged."""
        return any(state.due for state in self._states.values())

    def oldest_change(self) -> float | None:
        """Monotonic time of the oldest unstaged change."""
        return min((state.dirty_since for state in self._states.values() if state.due), default=None)

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
            state = self._states[ino] = FileState(ino, row.size, row.data, DirtyMap(self._pool.account), blank=row.size == 0,
                                                  look_at_bytes=self._doors.limits.stage_run_bytes)
            if state.blank and self._doors.clock.time_ns() - row.ctime_ns < AWAITED_S * 1e9:
                state.awaited_until = self._doors.clock.monotonic() + AWAITED_S
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
        """A closed file is ready to be staged, or let go when there is nothing to stage."""
        if self._states.get(state.ino) is not state:
            return                                    # it was removed meanwhile
        if state.opens:
            self._ready.pop(state.ino, None)          # opened again; what was closed still goes into the next transaction
        elif state.pending:
            state.promise()
            self._ready[state.ino] = state
            self._pool.closed(state)
        else:
            self._ready.pop(state.ino, None)
            del self._states[state.ino]

    def forget(self, ino: int) -> None:
        """The inode is being dropped: what is unstaged of it is nobody's."""
        state = self._states.pop(ino, None)
        self._ready.pop(ino, None)
        if state is not None:
            state.forget()
            self._pool.relieved()

    # ---------------------------------------------------------------- writing

    async def write(self, ino: int, offset: int, data: bytes | bytearray | memoryview) -> int:
        if offset + len(data) > limits.FILE_MAX_BYTES:
            raise FileTooLarge(f"a file holds at most {limits.FILE_MAX_BYTES} bytes")
        if self._pool.full:
            await self._pool.wait_for_room(self._note)
        state = self._states.get(ino) or await self._state(ino)
        self._raise_error(state)
        self._begin_change(state)
        if state.blank:
            state.due = Due.NEXT                      # no file shall come back empty that was written to
        state.dirty.write(offset, data)
        state.size = max(state.size, offset + len(data))
        if not self._kernel_times:
            state.mtime_ns = state.ctime_ns = self._doors.clock.time_ns()
        self._pool.written(state)
        return len(data)

    async def truncate(self, ino: int, size: int, now_ns: int) -> None:
        if size > limits.FILE_MAX_BYTES:
            raise FileTooLarge(f"a file holds at most {limits.FILE_MAX_BYTES} bytes")
        state = await self._state(ino)
        self._begin_change(state)
        if size < state.size:
            state.dirty.cut(size, EVERYTHING)
            state.valid_to = min(state.valid_to, size)
            self._pool.relieved()
        state.size = size
        state.mtime_ns = state.ctime_ns = now_ns
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
        if state.due is Due.NOT:
            self._note()
            state.due = Due.LATER
            state.dirty_since = self._doors.clock.monotonic()
        if state.inline is not None:              # what lives in the row is staged again together with the change
            content = DirtyMap()
            content.write(0, state.inline)
            state.take_back(content)
            state.inline = None

    def _raise_error(self, state: FileState) -> None:
        if state.error is not None:
            error, state.error = state.error, None
            if isinstance(error, S3cfsError):
                raise error
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(f"inode {state.ino}: {error}") from error
            raise DataError(f"inode {state.ino}: {error}") from error

    # ---------------------------------------------------------------- fsync and its kin

    async def fsync(self, ino: int) -> None:
        """Data, size, times, and every operation done before, are in a transaction on disk (in the store under --sync=remote)."""
        state = self._states.get(ino)
        if state is not None:
            if state.pending:
                try:
                    await self._stage([state], True)
                except Exception:
                    self._raise_error(state)          # told here, and not once more
                    raise
            self._raise_error(state)
        assert self._durable is not None
        await self._durable()

    async def flush(self, ino: int) -> None:
        """At every close of a descriptor: report what could not be kept. What was written goes into the next transaction."""
        state = self._states.get(ino)
        if state is not None:
            state.promise()
            self._raise_error(state)

    async def before_replace(self, ino: int) -> None:
        """The file is renamed over another: its content goes into the same transaction as the new name, though it is open."""
        state = self._states.get(ino)
        if state is not None:
            state.promise()

    async def stage_ready(self) -> None:
        """For a transaction: all closed files, and of the open ones those whose content must not lag behind their name. A cut, taken once:
        what is written meanwhile is for the next one."""
        await self._stage([state for state in self._states.values() if state.due_next], True)

    async def stage_all(self) -> None:
        """Everything that was written, open files too."""
        await self._stage([state for state in self._states.values() if state.pending], True)

    def awaits_content(self) -> bool:
        """Whether a file was made just now and its content has not come yet."""
        now = self._doors.clock.monotonic()
        return any(state.blank and state.opens and not state.size and now < state.awaited_until for state in self._states.values())

    async def _stage(self, states: list[FileState], whole: bool) -> None:
        assert self._stager is not None
        try:
            await self._stager.stage(states, whole=whole)
        finally:
            for state in states:
                self._settle(state)
            self._pool.relieved()

    # ---------------------------------------------------------------- reading

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; fewer only at the end of the file. DataError for a range that cannot be read."""
        state = self._states.get(ino) or await self._state(ino)
        end = min(offset + size, state.size)
        return await self._reader.read(state, offset, end) if offset < end else b""
