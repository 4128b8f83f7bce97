"""Memory for dirty data: who waits for it, and how it becomes less.

INVARIANT V3: memory for dirty data is bounded by `dirty_pool_bytes`: beyond it files are staged or spooled, and writers wait.

What can be cut by content is staged as soon as it is long; files filled in random order are not (they would become many small chunks), but
go to the spool when memory is short, as long as that has room; then they are staged, too.
"""
from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import trio

from s3cfs import limits
from s3cfs.doors import Doors
from s3cfs.errors import S3cfsError

from .dirty import PIECE_BYTES, Account, Piece, Spooled
from .spool import Spool
from .state import Due, FileState

log = logging.getLogger(__name__)

SPOOL_AT_ONCE_BYTES = 8 * limits.MIB
SPOOL_PIECE_BYTES = 4 * PIECE_BYTES      # smaller pieces cost as much in memory when they are in the spool


class Pool:
    """`states`: the files; `ready`: of them, those that are closed and not staged. `stage(states, whole)` raises what went wrong."""

    def __init__(self, doors: Doors, spool: Spool, states: Mapping[int, FileState], ready: Mapping[int, FileState],
                 stage: Callable[[list[FileState], bool], Awaitable[None]], *, pool_bytes: int, stage_open_s: float) -> None:
        self._doors, self._spool, self._states, self._ready, self._stage = doors, spool, states, ready, stage
        self._pool_bytes, self._stage_open_s = pool_bytes, stage_open_s
        self.account = Account()
        self._ready_bytes = 0
        self._queue = trio.Lock()                     # fair: those who wait for room
        self._relief = trio.Event()                   # memory became less
        self._pressure = trio.Event()                 # somebody should stage or spool

    # ---------------------------------------------------------------- what files report

    @property
    def full(self) -> bool:
        return self.account.ram_bytes >= self._pool_bytes or self._queue.locked()

    async def wait_for_room(self, check: Callable[[], None]) -> None:
        """One after another, as they came: or a stream would take all room that comes, and a small file beside it would starve.
        `check` raises when writing has ended: nothing will become less then."""
        async with self._queue:
            while self.account.ram_bytes >= self._pool_bytes:
                check()
                self._pressure.set()
                with trio.move_on_after(1.0):
                    await self._relief.wait()

    def written(self, state: FileState) -> None:
        if state.dirty.bytes >= state.look_at_bytes or self.account.ram_bytes > self._pool_bytes // 2:
            self._pressure.set()

    def closed(self, state: FileState) -> None:
        """It is among the ready ones now."""
        self._ready_bytes += state.dirty.bytes
        if self._many_ready():
            self._pressure.set()

    def relieved(self) -> None:
        """Something was staged, spooled or thrown away: others may go on."""
        self._ready_bytes = sum(state.dirty.bytes for state in self._ready.values())
        self._spool.settle(self.account.spooled_bytes)
        event, self._relief = self._relief, trio.Event()
        event.set()

    # ---------------------------------------------------------------- background

    async def run(self) -> None:
        """Stage long runs and closed files early, old open files in time, and spool when memory is short. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._age)
            while True:
                await self._pressure.wait()
                self._pressure = trio.Event()
                if not await self._done(self._relieve):
                    self.relieved()
                    await self._doors.clock.sleep(1.0)

    async def _done(self, action: Callable[[], Awaitable[None]]) -> bool:
        """Whether it went well. Whose file it was learns it by `state.error`; whether writing goes on is decided by a transaction."""
        try:
            await action()
        except Exception as exc:
            log.error("staging failed: %s", exc, exc_info=not isinstance(exc, (S3cfsError, OSError)))
            return False
        return True

    def _many_ready(self) -> bool:
        bounds = self._doors.limits
        return self._ready_bytes >= bounds.ready_bytes or len(self._ready) >= bounds.ready_files

    async def _relieve(self) -> None:
        if self._many_ready() or (self._ready and self.account.ram_bytes > self._pool_bytes // 2):
            await self._stage(list(self._ready.values()), True)
        for state in [state for state in self._states.values() if state.due and state.dirty.bytes >= state.look_at_bytes]:
            if self._has_long_run(state):
                await self._stage([state], False)
            state.look_at_bytes = state.dirty.bytes + self._doors.limits.stage_run_bytes     # scattered ones are not counted at every write
        while self.account.ram_bytes > self._pool_bytes * 3 // 4:
            largest = max(self._states.values(), key=lambda s: s.dirty.ram_bytes, default=None)
            if largest is None or not largest.dirty:
                break                                               # all of it is being staged
            if self._has_long_run(largest):
                await self._stage([largest], False)
            elif not await self._spool_some(largest):
                await self._stage([largest], True)

    def _has_long_run(self, state: FileState) -> bool:
        return any(end - start >= self._doors.limits.stage_run_bytes for start, end in state.dirty.runs())

    async def _age(self) -> None:
        while True:
            await self._doors.clock.sleep(self._stage_open_s / 3)
            await self._done(self._stage_old)

    async def _stage_old(self) -> None:
        old = self._doors.clock.monotonic() - self._stage_open_s
        await self._stage([state for state in self._states.values() if state.due is not Due.NOT and state.dirty_since < old], True)

    # ---------------------------------------------------------------- the spool

    async def _spool_some(self, state: FileState) -> bool:
        """Move pieces of the file to the spool, a few MiB; False when there are none for it, or no room."""
        if not self._spool.has_room:
            return False
        chosen: list[tuple[int, Piece]] = []
        size = 0
        for at, piece in state.dirty.items():
            if not isinstance(piece[0], Spooled) and piece[2] >= SPOOL_PIECE_BYTES:
                chosen.append((at, piece))
                size += piece[2]
                if size >= SPOOL_AT_ONCE_BYTES:
                    break
        if not chosen:
            return False
        dirty = state.dirty                           # it may be taken away meanwhile
        with self._spool.pinned():
            try:
                spooled = await self._doors.threads.run(self._put, [piece for _, piece in chosen])
            except OSError as exc:
                log.warning("the spool takes nothing more: %s", exc)
                self._spool.close_entrance()
                return False
            for (at, piece), there in zip(chosen, spooled, strict=True):
                dirty.replace_piece(at, piece, (there, 0, there.size))
        self.relieved()
        return True

    def _put(self, pieces: list[Piece]) -> list[Spooled]:
        out = []
        for buffer, inner, length in pieces:
            assert not isinstance(buffer, Spooled)
            out.append(self._spool.put(memoryview(buffer)[inner:inner + length]))
        return out
