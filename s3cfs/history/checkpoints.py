"""Writing checkpoints: all metadata at a commit, made beside the running mount.

The rows are read by a connection of its own, in the snapshot of the transaction that the commit ends with, and leave as changesets from an
empty database: one format and one way to apply it, for checkpoints and log alike. Parts first, the manifest last: a
checkpoint without its manifest does not exist. Nonces in the names keep two attempts at one commit apart.
"""
from __future__ import annotations

import logging
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


class Checkpoints:
    def __init__(self, doors: Doors, meta: Meta, remote: Remote, keyring: KeyRing, epoch: int, health: Health) -> None:
        self._doors, self._meta, self._remote, self._epoch, self._health = doors, meta, remote, epoch, health
        self._sealer = keyring.sealer("checkpoint", epoch)
        self._job: tuple[Snapshot, Tip, Sequence[Riding]] | None = None      # the one that is being written
        self._moved = Signal()
        health.on_change.append(self._moved.pulse)
        self.written = 0

    def due(self) -> bool:
        """Whether reading the log takes long enough by now that a checkpoint pays."""
        local = LocalTip.load(self._meta)
        limits = self._doors.limits
        bound = max(limits.checkpoint_min_log_bytes, int(limits.checkpoint_log_ratio * local.checkpoint_bytes))
        return local.log_bytes > bound or local.log_records >= limits.checkpoint_max_segments

    def begin(self) -> Snapshot | None:
        """With the transaction just ended: its state, if a checkpoint is due and none is being written. `want` it once the commit is in
        the store, or close it."""
        if self._job is not None or not self.due():
            return None
        try:
            return self._meta.snapshot()
        except CacheUnusable as exc:                  # another connection cannot be opened: the log has everything
            log.warning("no checkpoint: %s", exc)
            return None

    def want(self, snapshot: Snapshot, tip: Tip, ridden: Sequence[Riding] = ()) -> None:
        """`snapshot` is the state of `tip`, and ours from now on; `ridden`: packs that it names, and that went in records since."""
        self._job = (snapshot, tip, ridden)
        self._moved.pulse()

    async def run(self) -> None:
        """Beside the commits: they do not wait for it."""
        try:
            while True:
                if self._job is not None:
                    await self.write(*self._job)
                    self._job = None
                    self._moved.pulse()
                await self._moved.wait()
        finally:
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
        parts: list[checkpoint.Part] = []
        try:
            groups = self._groups(snapshot)
            while True:
                data = await self._doors.threads.run(self._next_part, groups, tip.n)
                if data is None:
                    break
                key = ids.checkpoint_key(tip.n, f"{nonce}-{len(parts) + 1}")
                await self._remote.put(key, data)
                parts.append(checkpoint.Part(key, len(data), object_hash(data).hex()))
            manifest = checkpoint.Manifest(tip.n, self._epoch, tip.hash.hex(), tip.key, parts, self._doors.clock.time_ns(),
                                           asdict(snapshot.counters), [*snapshot.riding(), *ridden])
            await self._remote.put(ids.checkpoint_key(tip.n, f"manifest-{nonce}"), checkpoint.encode_manifest(manifest, self._sealer))
        except StoreError as exc:
            log.warning("checkpoint at commit %d not written: %s", tip.n, exc)
            return
        finally:
            snapshot.close()
        self.written += 1
        local = LocalTip.load(self._meta)
        local.with_checkpoint(tip.n, sum(part.size for part in parts), local.log_bytes - log_bytes).save(self._meta)
        log.info("checkpoint at commit %d: %d parts", tip.n, len(parts))

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

    def _next_part(self, groups: Iterator[list[bytes]], commit: int) -> bytes | None:
        group = next(groups, None)
        return None if group is None else checkpoint.encode_part(group, commit, self._sealer)
