"""Whether a change may begin now, has to wait, or is refused. State and timed waits only: nothing here writes, syncs or sends.

Three reasons to wait:
- *the gate*: a transaction is being closed, so that no file is caught between its making and its content. Some ms; everybody waits.
- *the open transaction is large*: a changeset is bounded, so the next change belongs into the next transaction. Everybody waits, not long.
- *no room*: the journal, the outbox, the disk or the lag is at its bound. Who waits and for how long is a matter of its `Kind`.

INVARIANT A1: pages that the kernel accepted are never refused for lack of room: it would drop them without a word to their writer.
INVARIANT A2: what makes room, and what takes next to none, is never refused for lack of it (but for the last quarter of the disk's reserve,
which the database needs to end well).
INVARIANT A3: a wait here costs nothing but time: it starts no commit and no transaction that has nothing to carry.
"""
from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import trio

from s3cfs.blocks.journal import Journal
from s3cfs.doors import Doors
from s3cfs.errors import NoSpace
from s3cfs.history.backlog import Backlog
from s3cfs.history.health import Health, State
from s3cfs.history.options import Options
from s3cfs.history.signal import Signal

JOURNAL_ROOM = 0.9                # of the journal's bound: beyond it changes begin to wait
LOOK_AT_DISK_S = 0.25
OVERLONG = 4                       # times the size that ends a transaction: changes wait for its end
LOOK_AGAIN_S = 1.0                # while waiting for room


class Kind(enum.Enum):
    """What a change does to the room, and whether anybody can be told that there is none."""

    GROW = "grow"                 # takes room, and its caller can be told: NoSpace when nothing has moved for `writer_wait_s`
    PAGES = "pages"               # accepted by the kernel, its writer gone: waits for as long as it takes, as on a hard NFS mount
    SHRINK = "shrink"             # removes, or changes a row: goes


class Pending(Protocol):
    """Of the files: what was accepted and is not on the disk yet."""

    @property
    def pending_bytes(self) -> int: ...


class Admission:
    """`full` is cheap enough to be asked before every change. `on_full` is called when changes begin to wait for room."""

    def __init__(self, doors: Doors, options: Options, health: Health, journal: Journal, backlog: Backlog, files: Pending, *,
                 open_share: Callable[[], float], lag_s: Callable[[], float], store_silent: Callable[[], bool],
                 make_room: Callable[[], Awaitable[None]], on_full: Callable[[], None]) -> None:
        self._doors, self._options, self._health = doors, options, health
        self._journal, self._backlog, self._files = journal, backlog, files
        self._open_share, self._lag_s, self._store_silent = open_share, lag_s, store_silent
        self._make_room, self._on_full = make_room, on_full
        self._gate: trio.Event | None = None
        self._reopened = Signal()
        self._moved = Signal()                    # room may have come
        self._full_since: float | None = None     # monotonic
        self._moved_at = -math.inf
        self._disk_seen = -math.inf
        self._disk_left = 0                       # bytes free, less what was accepted and will take some

    # ---------------------------------------------------------------- the gate

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """No change begins within this block."""
        gate = self._gate = trio.Event()
        try:
            yield
        finally:
            self._gate = None
            gate.set()
            self._reopened.pulse()

    # ---------------------------------------------------------------- room

    def open_to(self, kind: Kind) -> bool:
        """False: `enter` would wait."""
        return self._gate is None and not self._overlong() and not self.full(kind)

    def _overlong(self) -> bool:
        return self._open_share() > OVERLONG

    def full(self, kind: Kind = Kind.GROW) -> bool:
        if kind is Kind.SHRINK:
            return self._left() < self._doors.limits.disk_reserve_bytes // 4
        full = self._why() is not None
        if not full:
            self._full_since = None
            if self._health.state is State.WAITING:
                self._health.settle()
        elif self._full_since is None:
            self._full_since = self._doors.clock.monotonic()
        return full

    def _why(self) -> str | None:
        over = self._journal.bytes_total > self._options.journal_max_bytes * JOURNAL_ROOM
        if over or self._backlog.bytes > self._doors.limits.outbox_max_bytes:
            return "the queue of changes for the store is full"
        if self._options.max_lag_s is not None and self._lag_s() > self._options.max_lag_s:
            return "the store is further behind than --max-lag allows"
        return None if self.disk_has_room() else "the local disk is full"

    def disk_has_room(self) -> bool:
        """Whether the local disk has more than its reserve free; looked up a few times a second."""
        return self._left() > self._doors.limits.disk_reserve_bytes

    def _left(self) -> int:
        now = self._doors.clock.monotonic()
        if now - self._disk_seen > LOOK_AT_DISK_S:
            self._disk_seen = now
            self._disk_left = self._doors.disk.free_bytes() - self._files.pending_bytes
        return self._disk_left

    def moved(self) -> None:
        """Something went to the store, so there may be room."""
        self._moved_at = self._doors.clock.monotonic()
        self.full()
        self._moved.pulse()

    async def enter(self, kind: Kind) -> None:
        """Wait until a change of this kind may begin. NoSpace; ReadOnly when writing has ended meanwhile."""
        waited = False
        while not self.open_to(kind):              # all of it at one moment: room may come while the gate is closed
            self._health.check()
            if self._gate is not None:
                await self._gate.wait()
            elif self._overlong():
                await self._reopened.wait(LOOK_AGAIN_S)     # the transaction that ends it is on its way
            elif kind is Kind.SHRINK:
                raise NoSpace("the local disk is full to the last")
            else:
                if not waited:
                    self._on_full()
                    waited = True
                await self._wait_for_room(kind)

    async def _wait_for_room(self, kind: Kind) -> None:
        """One look."""
        if not self.disk_has_room():
            await self._make_room()                # what is in the store too goes first
            self._disk_seen = -math.inf
        why = self._why()
        if why is None:
            return
        if self._health.state in (State.OK, State.AWAY):
            self._health.enter(State.WAITING, f"writers wait: {why}")
        if kind is Kind.GROW and self.hopeless():
            raise NoSpace(f"no room for more changes: {why}")
        await self._moved.wait(LOOK_AGAIN_S)

    async def run(self) -> None:
        """Its own clock: the state is right again though nobody asks any more."""
        while True:
            await self._doors.clock.sleep(LOOK_AGAIN_S)
            if self._health.state is State.WAITING:
                self.full()

    def hopeless(self) -> bool:
        """Full, and nothing has moved for so long, nor is anything on its way, that whoever can be told is told at once."""
        if self._full_since is None or (self.disk_has_room() and not self._store_silent()):
            return False                           # a slow store is no reason to give up
        return self._doors.clock.monotonic() >= max(self._full_since, self._moved_at) + self._options.writer_wait_s
