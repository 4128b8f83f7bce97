"""Writing checkpoints: all metadata at a commit, made beside the running mount.

The rows are read by a connection of its own, in the snapshot of the transaction that the commit ends with, and leave as changesets from an
empty database: one format and one way to apply it, for checkpoints and log alike. Parts first, the manifest last: a
checkpoint without its manifest does not exist. Nonces in the names keep two attempts at one commit apart.

While the snapshot lives SQLite's own log can only grow. So the parts are made as fast as the machine can, sealed as they will be in
the store, and wait in files of the local state for their turn on the line; where the disk has no room for them a part goes up at once.
And a snapshot whose commit takes long (an outage began) is given up when the log has grown much: the next commit takes another.
"""
from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from s3cfs import ids
from s3cfs.doors import Doors
from s3cfs.errors import CacheUnusable, StoreError
from s3cfs.formats import checkpoint
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import object_hash
from s3cfs.history.health import Health
from s3cfs.history.localtip import LocalTip
from s3cfs.history.log import Tip
from s3cfs.history.signal import Signal
from s3cfs.meta import Meta, Riding, Snapshot
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

FOLDER = "checkpoint"              # local: parts that wait to be put
ROOM = 4                           # times the reserve of the disk that must be free for them
LOOK_S = 5.0                       # how often SQLite's log is looked at while a snapshot waits for its commit


class Checkpoints:
    def __init__(self, doors: Doors, meta: Meta, remote: Remote, keyring: KeyRing, epoch: int, health: Health) -> None:
        self._doors, self._meta, self._remote, self._epoch, self._health = doors, meta, remote, epoch, health
        self._sealer = keyring.sealer("checkpoint", epoch)
        self._begun: Snapshot | None = None           # waits for its commit
        self._begun_pages = 0                         # of SQLite's log, then
        self._job: tuple[Snapshot, Tip, Sequence[Riding]] | None = None      # the one that is being written
        self._moved = Signal()
        health.on_change.append(self._moved.pulse)
        self.written = 0

    def due(self) -> bool:
        """Whether reading the log takes long enough by now that a checkpoint pays."""
        local = LocalTip.load(self._meta)
        limits = self._doors.limits
        bound = max(limits.checkpoint_min_log_bytes, int(limits.checkpoint_log_ratio * local.checkpoint_bytes))
        return local.log_bytes + local.log_records * limits.checkpoint_record_bytes > bound

    def begin(self) -> None:
        """With the transaction just ended: take its state, if a checkpoint is due and none is being written. `want` it once the commit is
        in the store, or `drop` it."""
        if self._job is not None or not self.due():
            return
        try:
            self._begun, self._begun_pages = self._meta.snapshot(), self._meta.wal_pages
        except CacheUnusable as exc:                  # another connection cannot be opened: the log has everything
            log.warning("no checkpoint: %s", exc)
        self._moved.pulse()

    def want(self, tip: Tip, ridden: Sequence[Riding] = ()) -> None:
        """What was begun, if it was, is the state of `tip`; `ridden`: packs that it names, and that went in records since."""
        if self._begun is not None:
            self._job, self._begun = (self._begun, tip, ridden), None
            self._moved.pulse()

    def drop(self) -> None:
        """What was begun and not wanted, if there is something: it will be due again."""
        if self._begun is not None:
            self._begun.close()
            self._begun = None

    async def run(self) -> None:
        """Beside the commits: they do not wait for it."""
        self._tidy()
        try:
            while True:
                if self._job is not None:
                    await self.write(*self._job)
                    self._job = None
                    self._moved.pulse()
                await self._moved.wait(LOOK_S if self._begun is not None else math.inf)
                if self._begun is not None and self._meta.wal_pages - self._begun_pages > self._doors.limits.snapshot_wal_pages:
                    log.info("no checkpoint for now: its commit takes long, and SQLite's log has grown by %d pages meanwhile",
                             self._meta.wal_pages - self._begun_pages)
                    self.drop()
        finally:
            self.drop()
            if self._job is not None:
                self._job[0].close()

    async def finished(self) -> None:
        """The one that is being written is, or writing has ended."""
        while self._job is not None and self._health.writable:
            await self._moved.wait()

    async def write(self, snapshot: Snapshot, tip: Tip, ridden: Sequence[Riding] = ()) -> None:
        """See `want`. A checkpoint that cannot be written now is made later: the log has everything."""
        log_bytes = LocalTip.load(self._meta).log_bytes
        nonce = self._doors.random.bytes(8).hex()
        try:
            parts: list[checkpoint.Part] = []
            try:
                counters, riding = asdict(snapshot.counters), [(one.pack, one.key, one.base) for one in (*snapshot.riding(), *ridden)]
                groups = self._groups(snapshot)
                while (made := await self._doors.threads.run(self._next_part, groups, tip.n, nonce, len(parts) + 1)) is not None:
                    part, data = made
                    parts.append(part)
                    if data is not None:
                        await self._remote.put(part.key, data)
            finally:
                snapshot.close()
            for number, part in enumerate(parts, 1):
                await self._put(number, part)
            manifest = checkpoint.Manifest(tip.n, self._epoch, tip.hash.hex(), tip.key, parts, self._doors.clock.time_ns(), counters,
                                           riding)
            await self._remote.put(ids.checkpoint_key(tip.n, f"manifest-{nonce}"), checkpoint.encode_manifest(manifest, self._sealer))
        except (StoreError, OSError) as exc:
            log.warning("checkpoint at commit %d not written: %s", tip.n, exc)
            return
        finally:
            self._tidy()
        self.written += 1
        local = LocalTip.load(self._meta)
        local.with_checkpoint(tip.n, sum(part.size for part in parts), local.log_bytes - log_bytes).save(self._meta)
        log.info("checkpoint at commit %d: %d parts", tip.n, len(parts))

    async def _put(self, number: int, part: checkpoint.Part) -> None:
        """From its file, if it is in one. OSError, StoreError."""
        data = await self._doors.threads.run(self._waiting, number, part)
        if data is not None:
            await self._remote.put(part.key, data)

    def _waiting(self, number: int, part: checkpoint.Part) -> bytes | None:
        disk, name = self._doors.disk, f"{FOLDER}/{number}"
        if not disk.exists(name):
            return None
        file = disk.open(name)
        try:
            data = file.pread(file.size(), 0)
        finally:
            file.close()
        disk.unlink(name)
        if object_hash(data).hex() != part.hash:
            raise OSError(f"{name} is not what was written")
        return data

    def _tidy(self) -> None:
        """Files of an attempt that has ended, also one of an earlier process."""
        disk = self._doors.disk
        try:
            for name in disk.listdir(FOLDER) if disk.exists(FOLDER) else []:
                disk.unlink(f"{FOLDER}/{name}")
        except OSError as exc:
            log.warning("parts of a checkpoint stay in the local state for now: %s", exc)

    def _groups(self, snapshot: Snapshot) -> Iterator[list[bytes]]:
        part_bytes = self._doors.limits.checkpoint_part_bytes
        group: list[bytes] = []
        for changeset in snapshot.changesets(part_bytes // 4):
            group.append(changeset)
            if sum(map(len, group)) >= part_bytes // 2:
                yield group
                group = []
        if group:
            yield group

    def _next_part(self, groups: Iterator[list[bytes]], commit: int, nonce: str,
                   number: int) -> tuple[checkpoint.Part, bytes | None] | None:
        """The part, and its bytes where there was no room for them on the disk."""
        group = next(groups, None)
        if group is None:
            return None
        data = checkpoint.encode_part(group, commit, self._sealer)
        part = checkpoint.Part(ids.checkpoint_key(commit, f"{nonce}-{number}"), len(data), object_hash(data).hex())
        return part, None if self._keep(f"{FOLDER}/{number}", data) else data

    def _keep(self, name: str, data: bytes) -> bool:
        """Write it to the disk, if there is room to spare. What a crash leaves of it is of no use, so nothing is synced."""
        disk = self._doors.disk
        try:
            if disk.free_bytes() < ROOM * self._doors.limits.disk_reserve_bytes + len(data):
                return False
            disk.makedirs(FOLDER)
            file = disk.open(name, create=True)
            try:
                file.pwrite(data, 0)
            finally:
                file.close()
        except OSError as exc:
            log.warning("a part of a checkpoint goes up at once, since it cannot be written to the disk: %s", exc)
            disk.unlink(name)
            return False
        return True
