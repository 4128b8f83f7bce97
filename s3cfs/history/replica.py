"""The history in the store read into a local database that is behind.

The way from what the database has to the tip is found backwards (way.py), then read forwards: several records are fetched at once, ahead of
a thread that opens them, compares each with the hash that its successor names, and applies it. So memory is bounded however much there
is, the event loop holds nothing of it, and a record is applied only when the next one has named it. How a new database begins with a
checkpoint, and when an old one had better be replaced, is in app/opening.py.

INVARIANT R1: the database's `tip` row changes in the same local transaction as the rows of the records up to it.
INVARIANT R2: records of others are never applied over local changes that are in no commit: the mount stops with Diverged.
"""
from __future__ import annotations

import logging
from collections.abc import Mapping

from s3cfs import ids
from s3cfs.doors import Doors
from s3cfs.errors import Damaged, Diverged, ObjectMissing, RolledBack, S3cfsError
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import Kind, record_hash
from s3cfs.history.localtip import LocalTip, drop_pending, pending
from s3cfs.history.log import Tip, find_tip, number_of
from s3cfs.history.restore import Progress
from s3cfs.history.way import LogReader, Read, Way, size_of
from s3cfs.history.window import fetched_in_order
from s3cfs.meta import Meta
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0                 # at a store whose answers may be old


class StartOver(Exception):
    """The database must be made anew (it holds nothing of its own). `cause`: the log does not lead on from it; None: what it has is in no
    history."""

    def __init__(self, cause: S3cfsError | None = None) -> None:
        super().__init__(str(cause or ""))
        self.cause = cause


class Replica:
    """Brings `meta` forward. While `catch_up` runs nobody else may use `meta`."""

    def __init__(self, doors: Doors, remote: Remote, keyring: KeyRing, meta: Meta, progress: Progress = lambda what, done, total: None,
                 known: Mapping[str, Read] | None = None) -> None:
        """`known`: records that cannot be read in the store, and what they are (retreat.py)."""
        self._doors, self._remote, self._meta, self._progress = doors, remote, meta, progress
        self._sealer = keyring.sealer("record", 0)
        self.reader = LogReader(remote, self._sealer, known)

    async def find_tip(self) -> Tip:
        """The newest record in the store. A store whose answers may be old is asked for what this machine has seen, by key."""
        waited_s = 0.0
        while True:
            tip = await find_tip(self._remote, self._sealer)
            local = LocalTip.load(self._meta)
            if tip.n >= local.n or self._remote.capabilities.linearizable is not False:
                return tip
            seen = await self._by_key(local.key)
            if seen is not None and seen.hash == local.hash:
                while (after := await self._by_key(ids.record_key(seen.folder, seen.n + 1))) is not None:
                    seen = after
                return seen
            if waited_s >= self._doors.limits.store_deadline_s / 2:
                return tip
            await self._doors.clock.sleep(LOOK_EVERY_S)
            waited_s += LOOK_EVERY_S

    async def _by_key(self, key: str) -> Tip | None:
        try:
            found, digest, _ = self.reader.open(key, await self.reader.fetch(key, named=False))
        except ObjectMissing:
            return None
        return Tip(found.n, key, digest, found.epoch, found.kind, found.info, found.writer, found.time_ns)

    async def catch_up(self, tip: Tip, *, in_office: bool) -> int:
        """Bring the database to `tip`, which was read from the store: how many records that took. RolledBack, Diverged, Damaged,
        ObjectMissing, StartOver. After an error it is at some record before `tip`, whole; close it.

        Only `in_office`, when the claim has shut out late arrivals, are kept bytes of unanswered PUTs given up.
        """
        local = LocalTip.load(self._meta)
        if local.n > tip.n:
            raise RolledBack(f"the store ends at commit {tip.n}, this machine has seen {local.n}: "
                             "the store was rolled back or is another copy")
        count = 0
        if local.n != tip.n or local.hash != tip.hash:
            unsent = bool(self._meta.last_outbox_id())
            if local.n == 0 and not unsent:
                drop_pending(self._doors.disk)           # of a database that is gone: they belong to no outbox
            try:
                way = await self.way(tip, local)
                await self._follow(way, tip, local)
                count = way.length
            except ObjectMissing as exc:
                if unsent:
                    raise Diverged("the store's log no longer reaches back to what this machine has, which still holds changes that are "
                                   f"in no commit ({exc})") from None
                raise StartOver(exc) if local.n else exc from None
            except Damaged as exc:
                raise StartOver(exc) if local.n and not unsent else exc from None
        if in_office:
            drop_pending(self._doors.disk)
        return count

    async def way(self, tip: Tip, local: LocalTip) -> Way:
        """The records after `local` up to `tip`, which the first of them says to follow. Diverged, StartOver; ObjectMissing, Damaged."""
        way = await self.reader.way(tip, local.n)
        key, digest = way.prev
        if digest == local.hash:
            return way
        if local.n and key and not self._meta.last_outbox_id() and await self._was_never_acknowledged(local, key):
            log.warning("commit %d, which this machine has read, was never acknowledged and is in no history: beginning anew", local.n)
            raise StartOver
        if way.skips:
            raise Diverged(f"a repair went back to commit {number_of(key)}, since records after it were damaged, "
                           f"and this machine has seen commit {local.n}: what it has of the commits between is in its cache folder only")
        raise Diverged(f"the store's history differs from what this machine has seen at commit {local.n}: "
                       "another copy of the bucket, or it was tampered with")

    async def _was_never_acknowledged(self, local: LocalTip, key: str) -> bool:
        """T2: whether what was read as the tip is the record that its writer was putting while it was deposed; `key` is in its place.

        The CLAIM there, of a later epoch, follows the same record. Nobody was told that the lost one is kept.
        """
        try:
            lost, there = await self.reader.read(local.key), (await self.reader.read(key)).record
        except (Damaged, ObjectMissing):
            return False
        return (lost.hash == local.hash and there.kind is Kind.CLAIM and there.n == lost.record.n
                and there.prev == lost.record.prev and there.epoch > lost.record.epoch)

    async def _follow(self, way: Way, tip: Tip, local: LocalTip) -> None:
        limits, run = self._doors.limits, self._doors.threads.run
        hand = _Hand(self._meta, self.reader, local, pending(self._doors.disk))
        async with fetched_in_order(way.keys(), self.reader.fetch, size_of, at_once=limits.downloads_at_once, ahead=limits.follow_records,
                                    ahead_bytes=limits.follow_bytes) as window:
            total = way.length
            done = 0
            while fetched := await window.take(limits.follow_records, limits.follow_bytes // 4):
                await run(hand.take, fetched)
                done += len(fetched)
                self._progress("applying the log", done, total)
        await run(hand.finish, tip)


class _Hand:
    """What is done with each record, in a thread."""

    def __init__(self, meta: Meta, reader: LogReader, local: LocalTip, own: Mapping[int, bytes]) -> None:
        """`own`: bytes of this machine's records whose answer was lost."""
        self._meta, self._reader, self._local, self._own = meta, reader, local, own
        self._unsent = bool(meta.last_outbox_id())
        self._last: tuple[str, Read] | None = None       # opened, and not yet named by the next one

    def take(self, fetched: list[tuple[str, bytes | Read]]) -> None:
        for key, data in fetched:
            found = self._reader.open(key, data)
            self._named(found.record.prev)
            self._last = key, found
        self._end_slice()

    def finish(self, tip: Tip) -> None:
        """No more of them come."""
        self._named(tip.hash)
        self._last = None
        self._meta.tidy_riding()
        self._end_slice()
        self._meta.sync_wal()

    def _named(self, digest: ids.ObjectHash) -> None:
        """What comes next names the hash of the last one."""
        if self._last is None:
            return
        key, found = self._last
        if found.hash != digest:
            raise Damaged(f"log record {key} is damaged: its hash is not the one that the next record names")
        self._apply(key, found)

    def _apply(self, key: str, read: Read) -> None:
        """One's own record, whose answer was lost, is recognised by its bytes."""
        found = read.record
        if (own := self._own.get(found.n)) is not None and record_hash(own) == read.hash:
            self._meta.drop_outbox(int(found.info.get("outbox", 0)))     # a RELEASE carries none
            self._unsent = bool(self._meta.last_outbox_id())
            log.info("record %d had arrived", found.n)
        elif found.kind is Kind.COMMIT and found.changeset:
            if self._unsent:
                raise Diverged(f"the store has commit {found.n} of another writer, and this machine holds changes "
                               "that are in no commit; they are kept in its cache folder")
            self._meta.apply(found.changeset)
        for rider, base in found.bases():
            self._meta.note_riding(rider.pack, key, base)
        self._local = self._local.advanced(Tip(found.n, key, read.hash), read.size)

    def _end_slice(self) -> None:
        self._local.save(self._meta)                     # R1: same transaction as the rows
        self._meta.commit()
        self._meta.checkpoint_wal()
        self._meta.restart_wal()
