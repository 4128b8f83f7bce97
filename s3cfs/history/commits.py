"""From local transactions to commits in the store.

    transaction   every second while something changed, and on fsync: closed files are staged, the journal is synced FIRST, then COMMIT
                  (whose changeset goes into the outbox in the same COMMIT), then the WAL is synced while the next group fills
    commit        every few seconds while the outbox is not empty, and on flush: the open pack is finished, packs go up in parallel,
                  then the record with the merged changesets: only now commit n exists

INVARIANT C1: a COMMITted row names only bytes of packs that were synced before (the journal's sync and COMMIT share `apply_lock`).
INVARIANT C2: a record is put only after every pack that its rows name is in the store.
INVARIANT C3: the outbox loses a row only in the local transaction that notes the record which carried it.
"""
from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from s3cfs.blocks.blockstore import BlockStore
from s3cfs.blocks.journal import ClosedPack, Journal
from s3cfs.doors import Doors, ShortCalls
from s3cfs.errors import DataError, Deposed, NoSpace, S3cfsError
from s3cfs.formats import envelope
from s3cfs.formats.record import Kind
from s3cfs.history.checkpoints import Checkpoints
from s3cfs.history.health import Health, State
from s3cfs.history.log import Tip
from s3cfs.history.office import Tier, Writer
from s3cfs.history.replica import LocalTip, pending_name
from s3cfs.history.uploads import Uploads
from s3cfs.limits import DEFAULTS
from s3cfs.meta import Meta, Snapshot
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

JOURNAL_ROOM = 0.9                # of the journal's bound: beyond it writers begin to wait


class Content(Protocol):
    """What the commits need of the files (vfs/files.py)."""

    async def stage_ready(self) -> None: ...
    async def stage_all(self) -> None: ...
    def awaits_content(self) -> bool: ...
    def oldest_change(self) -> float | None: ...
    @property
    def pending_bytes(self) -> int: ...
    @property
    def dirty(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Options:
    sync_remote: bool = False
    transaction_interval_s: float = DEFAULTS.transaction_interval_s
    commit_interval_s: float = DEFAULTS.commit_interval_s
    max_lag_s: float | None = None
    journal_max_bytes: int = DEFAULTS.journal_max_bytes
    writer_wait_s: float = DEFAULTS.writer_wait_s
    release_after_idle_s: float = DEFAULTS.release_after_idle_s
    short_sync_s: float = DEFAULTS.short_sync_s


class Commits:
    """Transactions and commits of one mount. `run` does the periodic work; `durable` and `flush` are the barriers."""

    def __init__(self, doors: Doors, meta: Meta, journal: Journal, blocks: BlockStore, remote: Remote, writer: Writer | None,
                 content: Content, apply_lock: trio.Lock, options: Options, make_room: Callable[[], Awaitable[None]],
                 checkpoints: Checkpoints | None = None) -> None:
        self._doors, self._meta, self._journal, self._blocks, self._remote = doors, meta, journal, blocks, remote
        self._writer, self._content, self._apply_lock, self._options = writer, content, apply_lock, options
        self._make_room, self._checkpoints = make_room, checkpoints
        self.health = Health(read_only=writer is None)
        self._uploads = Uploads(doors, journal, remote, self.health, create_only=writer is not None and writer.tier is Tier.T1)
        self._transaction_lock = trio.Lock()
        self._commit_lock = trio.Lock()
        self._changed = trio.Event()              # something may have changed since the last transaction
        self._to_commit = trio.Event()            # the outbox may hold something
        self._gate: trio.Event | None = None      # while a transaction closes, changes wait here: no new file is caught empty
        self._dirty_since: float | None = None    # monotonic, of what no transaction holds yet
        self._waiting: deque[tuple[int, float, int]] = deque()   # outbox rows: id, time of their oldest change (monotonic), bytes
        self._outbox_bytes = 0
        self._flushes_wanted = self._flushes_done = 0
        self._snapshot: tuple[Snapshot, Tip] | None = None   # of the checkpoint that is being written
        self._checkpoint_wanted = trio.Event()
        self._last_append = doors.clock.monotonic()
        self._released = False
        self._syncs = ShortCalls(doors.threads, doors.clock, options.short_sync_s)
        self._begun = 0                           # transactions, the running one included
        self._durable = 0                         # of them, the newest that ended well
        self._kept: list[int] = []                # records whose bytes are kept locally
        self._room_checked = float("-inf")
        self._disk_has_room = True
        self.transactions = 0
        self.commits = 0
        self.last_commit_ns: int | None = None    # when the newest commit of this mount was in the store

    # ---------------------------------------------------------------- the way in: may anything be written?

    def check_writable(self) -> None:
        """Before every change. Cheap; no await. ReadOnly or NoSpace."""
        self.health.check()
        if self._dirty_since is None:
            self._dirty_since = self._doors.clock.monotonic()
            self._changed.set()

    def has_room(self) -> bool:
        """False: `await room()` first."""
        return self._gate is None and not self._full()

    def _full(self) -> bool:
        over = self._journal.bytes_total > self._options.journal_max_bytes * JOURNAL_ROOM
        late = self._options.max_lag_s is not None and self.lag_s() > self._options.max_lag_s
        return over or late or self._outbox_bytes > self._doors.limits.outbox_max_bytes or not self.disk_has_room()

    def disk_has_room(self) -> bool:
        """Whether the local disk has more than its reserve free; looked up a few times a second."""
        now = self._doors.clock.monotonic()
        if now - self._room_checked > 0.25:
            self._room_checked = now
            coming = self._content.pending_bytes                # accepted, and not on the disk yet
            self._disk_has_room = self._doors.disk.free_bytes() - coming > self._doors.limits.disk_reserve_bytes
        return self._disk_has_room

    async def room(self) -> None:
        """Wait until there is room for more changes; NoSpace after `writer_wait_s`. Also the few ms that a transaction takes to close."""
        while self._gate is not None:
            await self._gate.wait()
        if not self._full():
            return
        clock = self._doors.clock
        deadline = clock.monotonic() + self._options.writer_wait_s
        while self._full():
            self.check_writable()
            if not self.disk_has_room():
                await self._make_room()            # what is in the store too goes first
            if self.health.state in (State.OK, State.AWAY):
                self.health.enter(State.WAITING, "writers wait: " + (
                    "the queue of changes for the store is full" if self.disk_has_room() else "the local disk is full"))
            if clock.monotonic() >= deadline:
                raise NoSpace("no room for more changes: " + (
                    "the store does not take what is queued" if self.disk_has_room() else "the local disk is full"))
            self._to_commit.set()
            with trio.move_on_after(1.0):
                await self.health.wait()
        if self.health.state is State.WAITING:
            self.health.enter(State.OK)

    # ---------------------------------------------------------------- transactions

    async def durable(self) -> None:
        """Everything done before this call is in a transaction on the local disk (and, under --sync=remote, in the store)."""
        if self._options.sync_remote:
            with trio.move_on_after(self._doors.limits.store_deadline_s):
                await self.flush(files=False)
                return
            raise DataError(f"the store did not take the changes within {self._doors.limits.store_deadline_s:.0f} s; they are queued")
        self.health.refuse_if_ended()
        begun = self._begun
        async with self._transaction_lock:
            if self._durable > begun:
                return                     # one began after our call and is done
            self.health.refuse_if_ended()        # what it failed at may be what we were called for
            if self._uncommitted():
                await self._transaction()

    def _uncommitted(self) -> bool:
        return self._meta.dirty or self._content.dirty or self._dirty_since is not None

    async def _transaction(self, *, grace: bool = False, finish_pack: bool = False) -> None:
        """With `_transaction_lock` held. `grace`: wait a moment for new files to be filled. Raises when the local disk fails.

        Not cancelled half-way: whoever asked may go, others rely on it.
        """
        self.health.check()
        self._begun += 1
        number = self._begun
        try:
            if grace:
                await self._wait_for_fresh_files()
            with trio.CancelScope(shield=True):
                await self._close_transaction(finish_pack)
        except Exception as exc:
            self.health.fail(exc)
            raise
        self._durable = number

    async def _close_transaction(self, finish_pack: bool) -> None:
        await self._content.stage_ready()      # most of the work, while everything goes on
        await self._journal.sync()
        self._gate = trio.Event()              # and what came meanwhile
        try:
            await self._content.stage_ready()
            async with self._apply_lock:
                since, self._dirty_since = self._dirty_since, None
                if finish_pack:
                    await self._record_closed(await self._journal.close_current())
                else:
                    await self._journal.sync()
                    await self._record_closed(self._journal.take_closed())
                if self._content.dirty:
                    self._dirty_since = self._doors.clock.monotonic()     # open files that were left out
                made = self._meta.commit()
                if made is not None:
                    self._enqueue(made.id, since if since is not None else self._doors.clock.monotonic(), made.changeset_bytes)
                noted = [n for n in self._kept if n <= LocalTip.load(self._meta).n] if self._kept else []
        finally:
            gate, self._gate = self._gate, None
            gate.set()
        self.transactions += 1
        await self._syncs.run(self._meta.sync_wal)
        for n in noted:
            self._doors.disk.unlink(pending_name(n))
            self._kept.remove(n)

    def _enqueue(self, row: int, since: float, size: int) -> None:
        self._waiting.append((row, since, size))
        self._outbox_bytes += size
        self._to_commit.set()

    def _dequeue(self, upto: int) -> None:
        while self._waiting and self._waiting[0][0] <= upto:
            self._outbox_bytes -= self._waiting.popleft()[2]

    async def _wait_for_fresh_files(self) -> None:
        deadline = self._doors.clock.monotonic() + self._doors.limits.fresh_file_grace_s
        while self._content.awaits_content() and self._doors.clock.monotonic() < deadline:
            await self._doors.clock.sleep(0.005)

    async def _record_closed(self, packs: list[ClosedPack]) -> None:
        """Names of finished packs go into their rows; from now on they may be uploaded."""
        for pack in packs:
            await self._meta.close_pack(pack.pack_id, pack.name, pack.size)
            self._queue(pack)

    def _queue(self, pack: ClosedPack) -> None:
        self._meta.set_pack_file(pack.pack_id, "journal")
        self._uploads.queue(pack)

    def hurry(self) -> None:
        """The outbox may hold something from an earlier process: it goes first."""
        rows, size, oldest_ns = self._meta.outbox()
        if rows:
            age_s = (self._doors.clock.time_ns() - (oldest_ns or 0)) / 1e9
            self._enqueue(self._meta.last_outbox_id(), self._doors.clock.monotonic() - max(0.0, age_s), size)

    def adopt(self, packs: list[ClosedPack]) -> None:
        """Packs that an earlier process closed and did not upload."""
        for pack in packs:
            self._queue(pack)

    # ---------------------------------------------------------------- commits

    async def flush(self, *, files: bool = True) -> None:
        """Everything written before this call is in the store (`files`: open files too). Raises when it cannot be.

        The commit is made by the mount's own task: a caller that gives up leaves no half-made record behind.
        """
        if self._writer is None:
            return
        async with self._transaction_lock:
            if files and self.health.writable:
                await self._content.stage_all()
        self._flushes_wanted += 1
        ticket = self._flushes_wanted
        self._to_commit.set()
        while self._flushes_done < ticket:
            if not self.health.writable:
                raise self.health.error()
            await self.health.wait()

    async def _commit_loop(self) -> None:
        last = float("-inf")
        interval_s = min(self._options.commit_interval_s, (self._options.max_lag_s or math.inf) / 2)
        while True:
            await self._to_commit.wait()
            self._to_commit = trio.Event()
            while self._flushes_wanted == self._flushes_done and not self._full() and (wait := last + interval_s - self._now()) > 0:
                with trio.move_on_after(wait):
                    await self._to_commit.wait()
                    self._to_commit = trio.Event()
            last, ticket = self._now(), self._flushes_wanted
            while not await self._commit():
                pass
            self._flushes_done = ticket
            self.health.wake()

    async def _commit(self) -> bool:
        """Everything that is in a transaction now, as one record; False: all but what is too much for one. Only `_commit_loop` calls it."""
        writer = self._writer
        if writer is None:
            return True
        async with self._commit_lock:
            async with self._transaction_lock:
                if self._uncommitted() or self._journal.current is not None:
                    await self._transaction(finish_pack=True)
                # from here to the end of the block nothing suspends: the rows of the record are those whose packs are finished
                merged = self._meta.merge_outbox(envelope.PLAIN_MAX_BYTES)
                packs = self._uploads.known()
                whole = merged is None or merged[0] == self._meta.last_outbox_id()
                snapshot = self._begin_checkpoint() if whole else None      # the state this commit will have
            try:
                if merged is not None:
                    upto, changeset, count = merged
                    await self._wait_for_packs(packs, writer)
                    await self._append(writer, Kind.COMMIT, {"outbox": upto, "transactions": count}, changeset)
                    self._meta.drop_outbox(upto)
                    self._dequeue(upto)
                    self.commits += 1
                    self.last_commit_ns = self._doors.clock.time_ns()
                if snapshot is not None:
                    self._snapshot, snapshot = (snapshot, writer.tip), None
                    self._checkpoint_wanted.set()
                if merged is not None or self._uploads.arrived:
                    await self._retire(packs)
            finally:
                if snapshot is not None:
                    snapshot.close()
            if self._waiting:
                self._to_commit.set()
            if self.health.state in (State.AWAY, State.WAITING) and not self._full():
                self.health.enter(State.OK)
            self.health.wake()
        return whole

    def _begin_checkpoint(self) -> Snapshot | None:
        """If one is due and none is being written."""
        return self._checkpoints.begin() if self._checkpoints is not None and self._snapshot is None else None

    async def _checkpoint_loop(self) -> None:
        """Beside the commits: they do not wait for it."""
        try:
            while self._checkpoints is not None:
                await self._checkpoint_wanted.wait()
                self._checkpoint_wanted = trio.Event()
                if self._snapshot is not None:
                    await self._checkpoints.write(*self._snapshot)
                    self._snapshot = None
                    self.health.wake()
        finally:
            if self._snapshot is not None:
                self._snapshot[0].close()

    async def _retire(self, packs: list[int]) -> None:
        """Packs whose commit is in the store move to the cache, once the local database knows that it is."""
        done = self._uploads.retire(packs)
        for pack in done:
            self._meta.drop_pack_file(pack.pack_id)
        async with self._transaction_lock:
            await self._transaction()
        for pack in done:
            await self._blocks.uploaded(pack)
        if not self.disk_has_room():
            await self._make_room()

    async def _wait_for_packs(self, packs: list[int], writer: Writer) -> None:
        """C2. Meanwhile the log says now and then that this writer lives; and at once if it had signed off."""
        if self._released and self._uploads.busy_with(packs):
            await self._append(writer, Kind.COMMIT, {"outbox": 0, "transactions": 0}, b"")
        for pack in packs:
            while not await self._uploads.wait(pack, self._doors.limits.heartbeat_s):
                self.health.check()                   # nothing more to say when writing has ended: another may take over
                await self._heartbeat(writer)
        self.health.check()                           # one of them could not be uploaded: no record may name it

    async def _heartbeat(self, writer: Writer) -> None:
        """With `_commit_lock` held: an empty commit, if this writer has been silent for long."""
        if self._now() - self._last_append > self._doors.limits.heartbeat_s:
            await self._append(writer, Kind.COMMIT, {"outbox": 0, "transactions": 0}, b"")

    async def _append(self, writer: Writer, kind: Kind, info: dict[str, object], changeset: bytes = b"") -> Tip:
        try:
            tip = await writer.append(kind, info, changeset, keep=self._keep)
        except Exception as exc:
            self.health.fail(exc)
            raise
        self._last_append = self._doors.clock.monotonic()
        self._released = kind is Kind.RELEASE
        LocalTip.load(self._meta).advanced(tip, writer.last_size).save(self._meta)   # C3: with what follows, in the same transaction
        return tip

    async def _keep(self, n: int, data: bytes) -> None:
        """INVARIANT F2. The bytes go when a durable transaction notes that the record arrived."""
        self._kept.append(n)
        await self._doors.threads.run(self._keep_in_thread, n, data)

    def _keep_in_thread(self, n: int, data: bytes) -> None:
        disk = self._doors.disk
        file = disk.open(pending_name(n), create=True)
        try:
            file.pwrite(data, 0)
            file.fsync()
        finally:
            file.close()
        disk.sync_dir("journal")

    # ---------------------------------------------------------------- periodic work

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Errors end writing (`fail`), not the mount."""
        async with trio.open_nursery() as nursery:
            if self._writer is not None:
                for loop in (self._transaction_loop, self._commit_loop, self._uploads.run, self._checkpoint_loop, self._release_loop):
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

    async def _transaction_loop(self) -> None:
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            await self._doors.clock.sleep(self._options.transaction_interval_s)
            async with self._transaction_lock:
                if self._uncommitted():
                    await self._transaction(grace=True)
                    await self._doors.threads.run(self._meta.checkpoint_wal)
            if self._dirty_since is not None:
                self._changed.set()

    async def _release_loop(self) -> None:
        """Nothing to say for a while: say so once, and be silent."""
        while True:
            await self._doors.clock.sleep(self._options.release_after_idle_s / 4)
            idle = self._doors.clock.monotonic() - self._last_append >= self._options.release_after_idle_s
            if idle and not self._released and not self._meta.outbox()[0] and not self._uncommitted():
                await self.release(final=False)

    async def release(self, *, final: bool) -> None:
        """Sign off in the log: whoever comes next need not wait. `final`: the process ends, and a checkpoint begun is finished."""
        writer = self._writer
        while final and self._snapshot is not None and self.health.writable:
            await self.health.wait()
        if writer is None or not writer.epoch or not self.health.writable:
            return
        async with self._commit_lock:
            if not final and (self._meta.outbox()[0] or self._uncommitted()):
                return                     # it came while we waited
            try:
                await self._append(writer, Kind.RELEASE, {"final": final})
            except Deposed:
                if not final or self._meta.outbox()[0] or self._uncommitted():
                    raise
                log.info("another writer took over; everything of this one was in the store before")
                return
            async with self._transaction_lock:
                await self._transaction()

    # ---------------------------------------------------------------- figures

    def _now(self) -> float:
        return self._doors.clock.monotonic()

    def lag_s(self) -> float:
        """Age of the oldest change that is in no commit, seconds; 0 when everything is in the store."""
        oldest = [moment for moment in (self._waiting[0][1] if self._waiting else None, self._dirty_since, self._content.oldest_change())
                  if moment is not None]
        return max(0.0, self._doors.clock.monotonic() - min(oldest)) if oldest else 0.0

    def lag_bytes(self) -> int:
        """Bytes not yet in the store: dirty data, packs, outbox."""
        return self._content.pending_bytes + self._journal.bytes_total + self._outbox_bytes
