"""The local database as a mount needs it: at the newest commit, whatever was there before.

A new one, and one so old that the log since then is more to read than a checkpoint, is filled beside what is there and takes its place when
it is whole and at the newest commit: a crash in the middle leaves what was there, and a half-loaded database is never used.
"""
from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import aclosing

import trio

from s3cfs.doors import Doors
from s3cfs.errors import CacheFull, CacheUnusable, Damaged, Diverged, ObjectMissing, S3cfsError
from s3cfs.formats.checkpoint import Manifest
from s3cfs.formats.keys import KeyRing
from s3cfs.history import restore
from s3cfs.history.localtip import LocalTip, drop_pending
from s3cfs.history.log import Tip
from s3cfs.history.replica import Replica, StartOver
from s3cfs.history.restore import Progress
from s3cfs.history.retreat import Retreat
from s3cfs.history.way import Read
from s3cfs.meta import Meta
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

DATABASE = "meta.db"
FRESH = "fresh.db"                 # being filled
WRITER = "writer"                  # local value: who wrote here last
FILES = ("", "-wal", "-shm")


async def load_meta(doors: Doors, remote: Remote, keyring: KeyRing, progress: Progress,
                    retreat: Retreat | None = None) -> tuple[Meta, Replica, Tip]:
    """The local database, brought forward to the newest commit; made anew where it holds nothing of its own and that is less to read.

    With `retreat`: to the newest whole state; the tip is what office is taken after.
    """
    opening = _Opening(doors, remote, keyring, progress, retreat.known if retreat is not None else None)
    meta = await opening.open(DATABASE)
    try:
        replica = opening.replica(meta)
        tip = retreat.base if retreat is not None else await replica.find_tip()
        fresh = await opening.newer(meta, tip)
        if fresh is None:
            try:
                await replica.catch_up(tip, in_office=False)
            except StartOver as again:
                fresh = await opening.anew(meta, tip, again.cause)
    except BaseException:
        meta.close()
        raise
    if fresh is not None:
        meta = await opening.replace(meta, fresh)
    return meta, opening.replica(meta), retreat.tip if retreat is not None else tip


class _Opening:
    def __init__(self, doors: Doors, remote: Remote, keyring: KeyRing, progress: Progress, known: Mapping[str, Read] | None) -> None:
        self._doors, self._remote, self._keyring, self._progress, self._known = doors, remote, keyring, progress, known

    async def open(self, name: str) -> Meta:
        meta = await self._doors.threads.run(Meta.open, self._doors, name, self._keyring.database_key())
        try:
            known = meta.local_get("fs_id")
            if known is not None and known != self._keyring.fs_id:
                raise Diverged("the local state belongs to another filesystem")
            if meta.missing_indexes():
                self._progress("building an index of the local metadata", 0, 0)
                await self._doors.threads.run(meta.build_indexes)
            meta.local_set("fs_id", self._keyring.fs_id)
        except BaseException:
            meta.close()
            raise
        return meta

    def replica(self, meta: Meta) -> Replica:
        return Replica(self._doors, self._remote, self._keyring, meta, self._progress, self._known)

    async def newer(self, meta: Meta, tip: Tip) -> Meta | None:
        """A database made anew from a checkpoint, if `meta` has nothing yet, or has nothing unsent and the log since is more to read."""
        local = LocalTip.load(meta)
        if meta.last_outbox_id() or tip.n <= local.n:
            return None
        if not local.n:
            return await self._from_checkpoint(tip, 0, None)
        if meta.unsent() or self._cost(tip.n - local.n) <= max(local.checkpoint_bytes, self._doors.limits.checkpoint_min_log_bytes):
            return None                                                  # what is known here is enough to see that it does not pay
        try:
            return await self._from_checkpoint(tip, local.n, self._cost(tip.n - local.n))
        except (Damaged, Diverged, ObjectMissing, CacheFull) as exc:
            log.warning("the local state is %d records old, and making it anew failed: %s", tip.n - local.n, exc)
            return None

    def _cost(self, requests: int) -> int:
        """Of the log: what so many requests are worth in bytes. Records are small."""
        return requests * self._remote.capabilities.request_bytes

    async def anew(self, meta: Meta, tip: Tip, cause: S3cfsError | None) -> Meta:
        """`meta`, which holds nothing of its own, does not lead to `tip`. With a `cause` it may be the last whole copy of what it has, and
        is kept unless a newer checkpoint and the log after it are whole: else the cause is raised."""
        try:
            fresh = await self._from_checkpoint(tip, LocalTip.load(meta).n if cause is not None else 0, None)
        except (Damaged, Diverged, ObjectMissing):
            if cause is None:
                raise
            fresh = None
        if fresh is None and cause is None:
            fresh = await self._filled(tip, None)
        if fresh is None:
            assert cause is not None
            raise cause from None
        return fresh

    async def _from_checkpoint(self, tip: Tip, above: int, most_bytes: int | None) -> Meta | None:
        """From the newest one after commit `above` that verifies; None when there is none, or it is not worth it.

        What is wrong with the log after it is raised: older ones need the same records.
        """
        async with aclosing(restore.manifests(self._remote)) as newest_first:
            async for key, commit in newest_first:
                if commit > tip.n:
                    continue
                if commit <= above:
                    return None
                try:
                    manifest = await restore.read_manifest(self._remote, self._keyring, key)
                except (Damaged, ObjectMissing) as exc:
                    log.error("checkpoint %d cannot be used: %s", commit, exc)
                    continue
                size = sum(part.size for part in manifest.parts) + self._cost(len(manifest.parts) + tip.n - commit)
                if most_bytes is not None and size >= most_bytes:
                    return None
                if (fresh := await self._filled(tip, manifest)) is not None:
                    return fresh
        return None

    async def _filled(self, tip: Tip, manifest: Manifest | None) -> Meta | None:
        """A database beside the other, from a checkpoint or from the log alone, at `tip`. None: the checkpoint cannot be used."""
        drop_pending(self._doors.disk)                   # nothing is unsent: they belong to no outbox
        self._remove_fresh()
        fresh = await self.open(FRESH)
        try:
            if manifest is None or await self._filled_from(fresh, tip, manifest):
                await self.replica(fresh).catch_up(tip, in_office=False)
                return fresh
        except BaseException:
            fresh.close()
            self._remove_fresh()
            raise
        fresh.close()
        self._remove_fresh()
        return None

    async def _filled_from(self, fresh: Meta, tip: Tip, manifest: Manifest) -> bool:
        try:
            await self.replica(fresh).way(tip, restore.base_of(manifest))       # before much is read
        except (Diverged, StartOver):
            log.error("checkpoint %d cannot be used: it is of another history", manifest.commit)
            return False
        try:
            await restore.fill(self._doors, self._remote, self._keyring, fresh, manifest, self._progress)
        except (Damaged, Diverged, ObjectMissing) as exc:
            log.error("checkpoint %d cannot be used: %s", manifest.commit, exc)
            return False
        return True

    def _remove_fresh(self) -> None:
        for suffix in FILES:
            self._doors.disk.unlink(FRESH + suffix)

    async def replace(self, meta: Meta, fresh: Meta) -> Meta:
        """`fresh` takes the place of `meta`. Closes both, whatever happens."""
        with trio.CancelScope(shield=True):
            await self._doors.threads.run(self._replace, meta, fresh)
        return await self.open(DATABASE)

    def _replace(self, meta: Meta, fresh: Meta) -> None:
        disk = self._doors.disk
        try:
            former = meta.local_get(WRITER)
            if former:
                fresh.local_set(WRITER, former)
            fresh.commit()
        finally:
            try:
                meta.close()
            finally:
                fresh.close()
        if any(disk.exists(f"{name}-wal") for name in (DATABASE, FRESH)):
            raise CacheUnusable("the local metadata could not be closed")
        file = disk.open(FRESH)
        try:
            file.fsync()
        finally:
            file.close()
        disk.sync_dir("")                # a log of the old one that came back after a power cut would be played into the new one
        disk.rename(FRESH, DATABASE)
        disk.sync_dir("")
