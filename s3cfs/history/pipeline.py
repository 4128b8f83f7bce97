"""From transactions to commits in the store, by a clock of its own: every few seconds while the outbox is not empty, and on flush.

    stage      what happens                                                          next
    IDLE       nothing to say, or the interval is not over                           CUT
    CUT        a transaction that closes the open pack: a record may end here        MERGE, RETIRE: nothing to say
    MERGE      the oldest transactions up to a cut become one changeset (C5)         UPLOAD
    UPLOAD     C2: every pack that its rows name arrives, or will ride in it         APPEND, CUT: one was salvaged
    APPEND     the record: kept here (F2), put, acknowledged: the commit exists      RETIRE
    RETIRE     a transaction with the note of the record (C3); then the files of
               its packs move from the journal to the cache                          MERGE: more of the cut, IDLE

In every stage an error or a deposition may end writing (health.py); the next process takes up what is left, from the outbox and the
journal alone.

INVARIANT C2: a record is put only after every pack that its rows name is in the store; or it rides in it (riders.py).
INVARIANT C6: a flush that returned covers everything that was done before it was called.
"""
from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable

from s3cfs.blocks.blockstore import BlockStore
from s3cfs.blocks.journal import Journal
from s3cfs.doors import Doors
from s3cfs.errors import CacheUnusable
from s3cfs.history.admission import Admission
from s3cfs.history.backlog import Backlog
from s3cfs.history.checkpoints import Checkpoints
from s3cfs.history.health import Health
from s3cfs.history.logbook import Logbook
from s3cfs.history.options import Options
from s3cfs.history.riders import Passenger, Riders
from s3cfs.history.signal import Signal
from s3cfs.history.transactions import Content, Transactions
from s3cfs.history.uploads import Uploads
from s3cfs.meta import Meta, OutboxSlice, Riding


class Stage(enum.StrEnum):
    IDLE = "idle"
    CUT = "cut"
    MERGE = "merge"
    UPLOAD = "upload"
    APPEND = "append"
    RETIRE = "retire"


#: the transitions; see the table above
NEXT = {
    Stage.IDLE: {Stage.CUT},
    Stage.CUT: {Stage.MERGE, Stage.RETIRE},
    Stage.MERGE: {Stage.UPLOAD},
    Stage.UPLOAD: {Stage.APPEND, Stage.CUT},
    Stage.APPEND: {Stage.RETIRE},
    Stage.RETIRE: {Stage.MERGE, Stage.IDLE},
}


class Pipeline:
    """One task runs it; whoever flushes waits for it and may give up waiting: no record is left half-made."""

    def __init__(self, doors: Doors, meta: Meta, journal: Journal, blocks: BlockStore, content: Content, options: Options, health: Health,
                 admission: Admission, backlog: Backlog, transactions: Transactions, uploads: Uploads, riders: Riders, logbook: Logbook,
                 checkpoints: Checkpoints, make_room: Callable[[], Awaitable[None]]) -> None:
        self._doors, self._meta, self._journal, self._blocks, self._content = doors, meta, journal, blocks, content
        self._health, self._admission, self._backlog, self._transactions = health, admission, backlog, transactions
        self._uploads, self._riders, self._logbook = uploads, riders, logbook
        self._checkpoints, self._make_room = checkpoints, make_room
        self._interval_s = min(options.commit_interval_s, (options.max_lag_s or math.inf) / 2)
        self._wanted = Signal()                   # it may be time
        self._ended = Signal()                    # a round, or writing
        self._flushes_wanted = self._flushes_done = 0
        self.stage = Stage.IDLE
        self.commits = 0
        self.last_commit_ns: int | None = None    # when the newest commit of this mount was in the store
        health.on_change.append(self._ended.pulse)

    def look(self) -> None:
        """The outbox has more, or changes wait for room: perhaps it is time."""
        self._wanted.pulse()

    @property
    def busy(self) -> bool:
        return self.stage is not Stage.IDLE or self._flushes_wanted > self._flushes_done

    async def flush(self, *, files: bool = True) -> None:
        """Everything written before this call is in the store (`files`: open files too). Raises when it cannot be."""
        async with self._transactions.lock:
            if files and self._health.writable:
                await self._content.stage_all()
        self._flushes_wanted += 1
        ticket = self._flushes_wanted
        self._wanted.pulse()
        while self._flushes_done < ticket:
            if not self._health.writable:
                raise self._health.error()
            await self._ended.wait()

    # ---------------------------------------------------------------- the clock

    async def run(self) -> None:
        last = -math.inf
        while True:
            await self._until_due(last)
            last, ticket = self._doors.clock.monotonic(), self._flushes_wanted
            while not await self._round():
                pass
            self._flushes_done = ticket
            self._ended.pulse()

    async def _until_due(self, last: float) -> None:
        while self._flushes_wanted == self._flushes_done:
            left_s = math.inf
            if self._backlog or self._uploads.all_arrived:
                left_s = last + self._interval_s - self._doors.clock.monotonic()
                if left_s <= 0 or self._admission.full():        # with nothing to send a commit makes no room: it is not begun (A3)
                    return
            await self._wanted.wait(left_s)

    # ---------------------------------------------------------------- one round

    def _go(self, stage: Stage) -> None:
        assert stage in NEXT[self.stage], f"{self.stage} -> {stage}"
        self.stage = stage

    async def _round(self) -> bool:
        """Everything that is in a transaction when the cut is made. False: the cut is void, since one of its packs had to be salvaged."""
        self._go(Stage.CUT)
        ridden: list[Riding] = []                         # since the cut
        try:
            async with self._transactions.lock:
                if self._transactions.uncommitted() or self._journal.current is not None:
                    await self._transactions.close(finish_pack=True)
                # nothing suspends to the end of the block: all this is of the state of the cut
                goal, tip, salvaged = self._meta.last_outbox_id(), self._logbook.tip, self._uploads.salvaged
                self._checkpoints.begin()
                part = self._next_part()
            nothing = part is None
            if nothing:
                self._checkpoints.want(tip)
            while part is not None:
                self._go(Stage.MERGE)
                changeset = await self._meta.beside.merge(part)
                self._go(Stage.UPLOAD)
                aboard = await self._wait_for_packs(part.packs)
                if self._uploads.salvaged != salvaged:
                    return False
                self._go(Stage.APPEND)
                tip = await self._logbook.commit(part.upto, len(part.rows), changeset, aboard)
                self._riders.landed(aboard)
                ridden += self._places(aboard)
                self.commits += 1
                self.last_commit_ns = self._doors.clock.time_ns()
                if part.upto == goal:                             # beyond it, it would not be the state of `tip`
                    self._checkpoints.want(tip, ridden)
                self._go(Stage.RETIRE)
                await self._retire(part.packs)
                part = self._next_part() if part.upto < goal else None
        finally:
            self._checkpoints.drop()
        if nothing:                                       # but packs, perhaps, of a process that died before it retired them
            self._go(Stage.RETIRE)
            if self._uploads.arrived:
                await self._retire(self._uploads.newest)
        self._go(Stage.IDLE)
        return True

    def _next_part(self) -> OutboxSlice | None:
        """What the next record carries; None: the outbox is empty."""
        part = self._meta.outbox_slice(self._doors.limits.record_max_bytes)
        if part is None and self._meta.last_outbox_id():
            raise CacheUnusable("the local state holds changes after which no record can end")
        return part

    async def _wait_for_packs(self, upto: int) -> list[Passenger]:
        """C2. Those that are not in the store then, and ride."""
        aboard = await self._riders.board(upto)
        await self._uploads.wait(upto)
        return aboard

    def _places(self, aboard: list[Passenger]) -> list[Riding]:
        packs = {one.pack.pack_id for one in aboard}
        return [place for place in self._meta.riding() if place.pack in packs] if packs else []

    async def _retire(self, upto: int) -> None:
        """Packs whose commit is in the store move to the cache, once the local database knows that it is."""
        done = self._uploads.retire(upto)
        for pack in done:
            self._meta.forget_unsent(pack.pack_id)
        async with self._transactions.lock:
            await self._transactions.close()
        for pack in done:
            await self._blocks.uploaded(pack)
        if not self._admission.disk_has_room():
            await self._make_room()
        self._admission.moved()
