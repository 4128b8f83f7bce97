"""How changes become commits: the parts of this floor, wired.

    admission.py      may a change begin now, has it to wait, is it refused
    transactions.py   every second, and on fsync: a cut of what is there goes into the local database and its outbox
    pipeline.py       every few seconds, and on flush: the outbox becomes records in the log; only now commit n exists
    uploads.py        finished packs on their way to the store
    riders.py         small ones, which go in the record itself
    presence.py       signs of life in the log, and signing off
    logbook.py        the end of the log: one append at a time, and what is noted of it
    checkpoints.py    all metadata at one commit, now and then

Each of those that do something by themselves has a clock of its own and is one task; none waits in another's loop. They share
`Health` (may anything be written?) and `Backlog` (what is in no record yet), and wake one another by name (signal.py).
"""
from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from s3cfs.blocks.blockstore import BlockStore
from s3cfs.blocks.journal import ClosedPack, Journal
from s3cfs.doors import Doors
from s3cfs.errors import DataError, Deposed, S3cfsError
from s3cfs.formats.keys import KeyRing
from s3cfs.history.admission import Admission, Kind
from s3cfs.history.backlog import Backlog
from s3cfs.history.checkpoints import Checkpoints
from s3cfs.history.health import Health
from s3cfs.history.logbook import Logbook
from s3cfs.history.office import Tier, Writer
from s3cfs.history.options import Options
from s3cfs.history.pipeline import Pipeline
from s3cfs.history.presence import Presence, promised_s
from s3cfs.history.riders import Riders
from s3cfs.history.transactions import Content, Transactions
from s3cfs.history.uploads import Uploads
from s3cfs.meta import Meta
from s3cfs.remote import Remote

__all__ = ["Commits", "Options"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Writing:
    """What only a writer has."""

    logbook: Logbook
    pipeline: Pipeline
    presence: Presence
    checkpoints: Checkpoints


class Commits:
    """Transactions and commits of one mount. `run` does the periodic work; `durable` and `flush` are the barriers."""

    def __init__(self, doors: Doors, meta: Meta, journal: Journal, blocks: BlockStore, remote: Remote, keyring: KeyRing,
                 writer: Writer | None, content: Content, apply_lock: trio.Lock, options: Options,
                 make_room: Callable[[], Awaitable[None]], salvage: Callable[[ClosedPack], Awaitable[bool]] | None = None) -> None:
        self._doors, self._meta, self._journal, self._content, self._options = doors, meta, journal, content, options
        self._patience = remote.patience
        self.health = Health(read_only=writer is None)
        self.backlog = Backlog()
        self.uploads = Uploads(doors, journal, remote, self.health, create_only=writer is not None and writer.tier is Tier.T1,
                               salvage=salvage)
        self.admission = Admission(doors, options, self.health, journal, self.backlog, content, open_share=lambda: meta.open_share,
                                   lag_s=self.lag_s, make_room=make_room, on_full=self._look,
                                   store_silent=lambda: self.health.store_silent or remote.away_since is not None)
        self.uploads.on_arrival = self._arrived
        riders = Riders(doors, journal, self.uploads)
        logbook = Logbook(doors, meta, writer, self.health, self.backlog) if writer is not None else None
        self.local = Transactions(doors, meta, journal, content, apply_lock, options, self.health, self.admission, self.backlog,
                                  riders, logbook, self._look)
        self.durable_here = self.local.durable    # the local barrier, whatever --sync=remote says
        self.writing: _Writing | None = None
        if writer is not None and logbook is not None:
            checkpoints = Checkpoints(doors, meta, remote, keyring, writer.epoch, self.health)
            pipeline = Pipeline(doors, meta, journal, blocks, content, options, self.health, self.admission, self.backlog, self.local,
                                self.uploads, riders, logbook, checkpoints, make_room)
            every_s = promised_s(options.commit_interval_s, doors.limits.heartbeat_s)
            presence = Presence(doors, self.health, logbook, lambda: self.busy, every_s=every_s,
                                release_after_idle_s=options.release_after_idle_s)
            self.writing = _Writing(logbook, pipeline, presence, checkpoints)

    def _arrived(self) -> None:
        """A pack is in the store: there may be more room, and something to retire."""
        self.admission.moved()
        self._look()

    def _look(self) -> None:
        if self.writing is not None:
            self.writing.pipeline.look()

    @property
    def busy(self) -> bool:
        """Whether there is anything to say in the log, or soon will be."""
        return bool(self.backlog) or self.local.uncommitted() or (self.writing is not None and self.writing.pipeline.busy)

    # ---------------------------------------------------------------- the way in: may anything be written?

    def check_writable(self) -> None:
        """Before every change. Cheap; no await. ReadOnly."""
        self.health.check()
        self.local.note_change()

    def has_room(self, kind: Kind = Kind.GROW) -> bool:
        """False: `await room(kind)` first."""
        return self.admission.open_to(kind)

    def would_wait(self, kind: Kind) -> bool:
        """Whether such a change would have to wait for more than a closing transaction."""
        return self.admission.full(kind)

    async def room(self, kind: Kind = Kind.GROW) -> None:
        """Wait until a change of this kind may begin. NoSpace, as admission.py says."""
        await self.admission.enter(kind)

    # ---------------------------------------------------------------- barriers

    async def durable(self) -> None:
        """Everything done before this call is in a transaction on the local disk (and in the store, where that is what durable means)."""
        if self._options.sync_remote or self.health.volatile:
            end = self._patience.now() + self._doors.limits.store_deadline_s
            if not await self._patience.within(lambda now: end - now, lambda: self.flush(files=False)):
                raise DataError(f"the store did not take the changes within {self._doors.limits.store_deadline_s:.0f} s; they are queued")
            return
        unsent = self.busy
        await self.local.durable()
        if unsent and self.writing is not None:
            await self.writing.presence.confirm()

    async def flush(self, *, files: bool = True) -> None:
        """Everything written before this call is in the store (`files`: open files too). Raises when it cannot be."""
        if self.writing is not None:
            await self.writing.pipeline.flush(files=files)

    # ---------------------------------------------------------------- the beginning and the end

    async def take_over(self) -> None:
        """The outbox may hold something from an earlier process. Before `run`."""
        rows, size, oldest_ns = await self._doors.threads.run(self._meta.beside.outbox)
        if rows:
            age_s = (self._doors.clock.time_ns() - (oldest_ns or 0)) / 1e9
            self.backlog.add(self._meta.last_outbox_id(), self._doors.clock.monotonic() - max(0.0, age_s), size, rows)

    def hurry(self) -> None:
        """What an earlier process left goes first."""
        if self.backlog:
            self._look()

    def adopt(self, packs: list[ClosedPack]) -> None:
        """Packs that an earlier process closed and did not upload."""
        for pack in packs:
            self._meta.note_unsent(pack.pack_id)
            if self._meta.pack_of(pack.pack_id).record is not None:       # it went in a record whose answer was lost
                self.uploads.arrive(pack)
            else:
                self.uploads.queue(pack, perhaps_there=True)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Errors end writing (`fail`), not the mount."""
        async with trio.open_nursery() as nursery:
            if self.writing is not None:
                for loop in (self.admission.run, self.local.run, self.local.tidy, self.writing.pipeline.run, self.uploads.run,
                             self.writing.checkpoints.run, self.writing.presence.run):
                    nursery.start_soon(self._guarded, loop)
            task_status.started()
            await trio.sleep_forever()

    async def _guarded(self, loop: Callable[[], Awaitable[None]]) -> None:
        try:
            await loop()
        except Exception as exc:
            if self.health.writable and not isinstance(exc, S3cfsError):
                log.exception("unexpected trouble in the background")
            self.health.fail(exc)

    async def sign_off(self) -> None:
        """At the end, with everything in the store: whoever comes next need not wait. A checkpoint begun is finished."""
        if self.writing is None:
            return
        await self.writing.checkpoints.finished()
        if not self.writing.logbook.in_office:
            return
        try:
            await self.writing.logbook.sign_off(final=True)
        except Deposed:
            if self.busy:
                raise
            log.info("another writer took over; everything of this one was in the store before")
            return
        async with self.local.lock:
            await self.local.close()

    # ---------------------------------------------------------------- figures

    @property
    def transactions(self) -> int:
        return self.local.count

    @property
    def commits(self) -> int:
        return self.writing.pipeline.commits if self.writing is not None else 0

    @property
    def last_commit_ns(self) -> int | None:
        """When the newest commit of this mount was in the store."""
        return self.writing.pipeline.last_commit_ns if self.writing is not None else None

    def lag_s(self) -> float:
        """Age of the oldest change that is in no commit, seconds; 0 when everything is in the store."""
        oldest = [moment for moment in (self.backlog.oldest, self.local.dirty_since, self._content.oldest_change()) if moment is not None]
        return max(0.0, self._doors.clock.monotonic() - min(oldest)) if oldest else 0.0

    def lag_bytes(self) -> int:
        """Bytes not yet in the store: dirty data, packs, outbox."""
        return self._content.pending_bytes + self._journal.bytes_total + self.backlog.bytes
