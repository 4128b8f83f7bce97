"""Local transactions: every second while something changed, on fsync, and when one grows large.

    stage what is due        while everything goes on: most of the work, once
    close the gate           no change begins any more (admission.py)
    stage what came          in the meantime, once: so both passes are bounded by what there was when they began
    sync the journal         under `apply_lock`, so that no staging writes rows between this and
    COMMIT                   whose changeset goes into the outbox in the same COMMIT
    open the gate, sync the WAL   the next one fills meanwhile

INVARIANT C1: a COMMITted row names only bytes of packs that were synced before (the journal's sync and COMMIT share `apply_lock`).
INVARIANT C4: a transaction takes a cut: what is written while it runs belongs to the next one. Nothing that goes on beside it can
lengthen it.
INVARIANT C5: a changeset is bounded (`transaction_max_bytes`, or `_rows`, and what one operation adds to four times that), and within
`record_max_bytes` of outbox there is a transaction that closed its packs: a place where a record may end.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import trio

from s3cfs.blocks.journal import ClosedPack, Journal
from s3cfs.doors import Doors, ShortCalls
from s3cfs.history.admission import Admission
from s3cfs.history.backlog import Backlog
from s3cfs.history.health import Health
from s3cfs.history.logbook import Logbook
from s3cfs.history.options import Options
from s3cfs.history.riders import Riders
from s3cfs.history.signal import Signal
from s3cfs.meta import Meta

RESTART_TRIES = 5


class Content(Protocol):
    """What a transaction needs of the files (vfs/files.py)."""

    async def stage_ready(self) -> None:
        """What is due now, each file as it is now, once: returns however much is written meanwhile."""

    async def stage_all(self) -> None: ...
    def awaits_content(self) -> bool: ...
    def oldest_change(self) -> float | None: ...
    @property
    def pending_bytes(self) -> int: ...
    @property
    def dirty(self) -> bool: ...


class Transactions:
    """`durable` is the barrier; `close` with `lock` held ends the open transaction; `run` does so every second. `tidy`: SQLite's log."""

    def __init__(self, doors: Doors, meta: Meta, journal: Journal, content: Content, apply_lock: trio.Lock, options: Options,
                 health: Health, admission: Admission, backlog: Backlog, riders: Riders, logbook: Logbook | None,
                 on_row: Callable[[], None]) -> None:
        """`on_row`: the outbox has one more."""
        self._doors, self._meta, self._journal, self._content = doors, meta, journal, content
        self._apply_lock, self._options, self._health, self._admission = apply_lock, options, health, admission
        self._backlog, self._riders, self._logbook, self._on_row = backlog, riders, logbook, on_row
        self._syncs = ShortCalls(doors.threads, doors.clock, options.short_sync_s)
        self.lock = trio.Lock()
        self.dirty_since: float | None = None     # monotonic, of what no transaction holds yet
        self._changed = Signal()
        self._begun = 0                           # transactions, the running one included
        self._durable = 0                         # of them, the newest that ended well
        self._incomplete_bytes = 0                # in the outbox since a transaction that closed its packs
        self._hurry = Signal()
        self._much_log = Signal()
        self.count = 0

    def note_change(self) -> None:
        """Something is about to change."""
        if self.dirty_since is None:
            self.dirty_since = self._doors.clock.monotonic()
            self._changed.pulse()
        if self._large():
            self._hurry.pulse()

    def _large(self) -> bool:
        return self._meta.open_share > 1

    def uncommitted(self) -> bool:
        return self._meta.dirty or self._content.dirty or self.dirty_since is not None

    async def durable(self) -> None:
        """Everything done before this call is in a transaction on the local disk."""
        self._health.refuse_if_ended()
        begun = self._begun
        async with self.lock:
            if self._durable > begun:
                return                            # one began after our call and is done
            self._health.refuse_if_ended()        # what it failed at may be what we were called for
            if self.uncommitted():
                await self.close()

    async def close(self, *, grace: bool = False, finish_pack: bool = False, restart_log: bool = False) -> None:
        """With `lock` held. `grace`: wait a moment for new files to be filled; `restart_log`: SQLite's own begins anew, if it can. Raises
        when the local disk fails.

        Not cancelled half-way: whoever asked may go, others rely on it.
        """
        self._health.check()
        self._begun += 1
        number = self._begun
        try:
            if grace:
                await self._wait_for_content()
            with trio.CancelScope(shield=True):
                await self._close(finish_pack, restart_log)
        except Exception as exc:
            self._health.fail(exc)
            raise
        self._durable = number

    async def _wait_for_content(self) -> None:
        deadline = self._doors.clock.monotonic() + self._doors.limits.fresh_file_grace_s
        while self._content.awaits_content() and self._doors.clock.monotonic() < deadline:
            await self._doors.clock.sleep(0.005)

    async def _close(self, finish_pack: bool, restart_log: bool) -> None:
        if self._incomplete_bytes + self._meta.open_bytes > self._doors.limits.record_max_bytes // 2:
            finish_pack = True                    # C5
        await self._content.stage_ready()
        await self._journal.sync()
        with self._admission.closed():
            await self._content.stage_ready()
            async with self._apply_lock:
                since, self.dirty_since = self.dirty_since, None
                if finish_pack:
                    await self._name(await self._journal.close_current())
                else:
                    await self._journal.sync()
                    await self._name(self._journal.take_closed())
                now = self._doors.clock.monotonic()
                if self._content.dirty:
                    self.dirty_since = now                # open files that were left out
                noted = self._logbook.noted() if self._logbook is not None else []
                self._commit(since if since is not None else now)
                if restart_log:
                    await self._restart_log()
        self.count += 1
        if self._meta.wal_is_long or self._meta.wal_rest >= self._doors.limits.wal_copy_pages:
            self._much_log.pulse()
        await self._syncs.run(self._meta.sync_wal)
        if self._logbook is not None:
            self._logbook.let_go(noted)

    def _commit(self, since: float) -> None:
        """COMMIT, and the next BEGIN. `since`: monotonic, of the oldest change."""
        made = self._meta.commit()
        if made is not None:
            self._backlog.add(made.id, since, made.changeset_bytes)
            self._incomplete_bytes = 0 if made.complete else self._incomplete_bytes + made.changeset_bytes
            self._on_row()

    async def _name(self, packs: list[ClosedPack]) -> None:
        """Finished packs get their names into their rows; from now on they may be uploaded."""
        for pack in packs:
            await self._meta.close_pack(pack.pack_id, pack.name, pack.size)
            self._meta.note_unsent(pack.pack_id)
            self._riders.offer(pack)

    async def run(self) -> None:
        """Its own clock: a second after the first change, or when the changeset is large."""
        while True:
            if self.dirty_since is None:
                await self._changed.wait()
            if not self._large():
                await self._hurry.wait(self._options.transaction_interval_s)
            async with self.lock:
                if self.uncommitted():
                    await self.close(grace=not self._large())

    # ---------------------------------------------------------------- SQLite's own log (meta/wal.py)

    async def tidy(self) -> None:
        """Its own clock: after a transaction that made the log long enough. Copying goes on beside the next ones, in a thread."""
        limits = self._doors.limits
        while True:
            await self._much_log.wait()
            rest = math.inf
            while self._meta.wal_rest < rest:             # the next pass has less to do, or there is no point in it
                rest = self._meta.wal_rest
                await self._doors.threads.run(self._meta.checkpoint_wal)
                enough = self._meta.wal_rest <= limits.wal_rest_pages or self._meta.wal_pages >= limits.wal_anyhow_pages
                if enough and self._meta.wal_is_long:
                    async with self.lock:
                        await self.close(restart_log=True)
                    break

    async def _restart_log(self) -> None:
        """With the gate closed, right after COMMIT: a thread copies what is left, then the log can begin anew. A few rows that pass no gate
        (forgotten inodes, notes of records) may come in between: they are committed, and once more."""
        for _ in range(RESTART_TRIES):
            await self._doors.threads.run(self._meta.checkpoint_wal)
            if not self._meta.wal_is_long or self._meta.restart_wal():
                return
            self._commit(self._doors.clock.monotonic())
