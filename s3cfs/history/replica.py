"""The history in the store read into a local database: checkpoints, then records.

Two ways lead to the same state: an existing database that is behind is brought forward, an empty one starts from the newest
checkpoint that verifies. Either way every record applied is in the chain that leads back from the tip, hash by hash.

INVARIANT R1: the database's `tip` row changes in the same local transaction as the rows of the records up to it.
INVARIANT R2: records of others are never applied over local changes that are in no commit: the mount stops with Diverged.
"""
from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from s3cfs import ids
from s3cfs.doors import Doors
from s3cfs.errors import Damaged, Diverged, NotFound, ObjectMissing, RolledBack
from s3cfs.formats import checkpoint, record
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import Kind, Record
from s3cfs.formats.seal import Seals
from s3cfs.history.log import Tip, find_tip, folders_newest_first, list_whole_log, number_of, read_record
from s3cfs.ids import ObjectHash
from s3cfs.meta import Meta
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]   # what, done, of how many


@dataclass(frozen=True, slots=True)
class LocalTip:
    """What the database knows of the history; kept in it as JSON under `tip`."""

    n: int = 0
    key: str = ""
    hash: ObjectHash = ids.ZERO_HASH
    log_bytes: int = 0                 # of the records since the last checkpoint
    log_records: int = 0
    checkpoint_commit: int = 0
    checkpoint_bytes: int = 0

    def advanced(self, tip: Tip, size: int) -> LocalTip:
        return LocalTip(tip.n, tip.key, tip.hash, self.log_bytes + size, self.log_records + 1, self.checkpoint_commit,
                        self.checkpoint_bytes)

    def with_checkpoint(self, commit: int, size: int, log_bytes: int) -> LocalTip:
        """`log_bytes`: of the records that came while it was being written."""
        return LocalTip(self.n, self.key, self.hash, log_bytes, self.n - commit, commit, size)

    def save(self, meta: Meta) -> None:
        meta.local_set("tip", json.dumps({**{name: getattr(self, name) for name in
                       ("n", "key", "log_bytes", "log_records", "checkpoint_commit", "checkpoint_bytes")},
                       "hash": self.hash.hex()}).encode())

    @classmethod
    def load(cls, meta: Meta) -> LocalTip:
        raw = meta.local_get("tip")
        if raw is None:
            return cls()
        found = json.loads(raw)
        found["hash"] = ObjectHash(bytes.fromhex(found["hash"]))
        return cls(**found)


class Read(NamedTuple):
    """A record with its hash and the size of its head."""

    record: Record
    hash: ObjectHash
    size: int


@dataclass(frozen=True, slots=True)
class _Step:
    tip: Tip
    found: Record
    size: int


@dataclass(slots=True)
class Restored:
    """What `catch_up` did."""

    records: int = 0
    checkpoint: int = 0                # commit of the checkpoint it started from; 0: none was needed
    tip: Tip = field(default_factory=Tip)


def pending_name(n: int) -> str:
    """Local file with the bytes of a record whose PUT may have begun (INVARIANT F2)."""
    return f"journal/segment-{n}"


class Replica:
    """Reads the history of one filesystem from its store into `meta`."""

    def __init__(self, doors: Doors, remote: Remote, keyring: KeyRing, meta: Meta, progress: Progress = lambda what, done, total: None,
                 unusable: frozenset[str] = frozenset(), known: Mapping[str, Read] | None = None) -> None:
        """`known`: records that cannot be read in the store, and what they are (retreat.py)."""
        self._known = known or {}
        self._unusable = unusable          # manifests of checkpoints that were tried and are damaged
        self._restored = ""                # the one that this database was filled from
        self._doors, self._remote, self._keyring, self._meta, self._progress = doors, remote, keyring, meta, progress
        self._sealer: Seals = keyring.sealer("record", 0)

    async def find_tip(self) -> Tip:
        return await find_tip(self._remote, self._sealer)

    async def catch_up(self, tip: Tip, *, in_office: bool) -> Restored:
        """Bring the database to `tip`, which was read from the store. RolledBack, Diverged, Damaged, ObjectMissing, StartOver.

        Only `in_office`, when the claim has shut out late arrivals, are kept bytes of unanswered PUTs given up.
        """
        local = LocalTip.load(self._meta)
        done = Restored(tip=tip)
        if local.n > tip.n:
            raise RolledBack(f"the store ends at commit {tip.n}, this machine has seen {local.n}: "
                             "the store was rolled back or is another copy")
        if local.n == tip.n and local.hash == tip.hash:
            if in_office:
                self._drop_pending()
            return done
        if local.n == 0 and not self._meta.outbox()[0]:
            self._drop_pending()                         # of a database that is gone: they belong to no outbox
            done.checkpoint = await self._restore_checkpoint(tip)       # a new machine: the log of all times may be long
            local = LocalTip.load(self._meta)
        try:
            steps = await self._chain(tip, local)
        except (Damaged, ObjectMissing) as exc:
            if self._meta.outbox()[0] and isinstance(exc, ObjectMissing):
                raise Diverged("the store's log no longer reaches back to what this machine has, which still holds changes that are "
                               f"in no commit ({exc})") from None
            if local.n and not done.checkpoint and not self._meta.outbox()[0] and await self._can_start_over(tip, local):
                raise StartOver from None
            raise
        except Diverged as exc:
            if not done.checkpoint:
                raise
            log.error("checkpoint %d cannot be used: it is of another history", done.checkpoint)
            raise StartOver(self._restored) from exc
        await self._apply(steps, local)
        if in_office:
            self._drop_pending()
        done.records = len(steps)
        return done

    async def _chain(self, tip: Tip, local: LocalTip) -> list[_Step]:
        """Records after `local` up to `tip`, oldest first. ObjectMissing when the log does not reach back so far."""
        base = local.n
        folders = await list_whole_log(self._remote)
        wanted = [key for folder in folders.values() for n, key in folder.items() if base < n <= tip.n]
        fetched: dict[str, Read | Exception] = {}

        async def fetch(keys: list[str]) -> None:
            while keys:
                key = keys.pop()
                try:
                    found, data = await read_record(self._remote, key, self._sealer)
                    fetched[key] = Read(found, record.record_hash(data), found.head_bytes)
                except (Damaged, ObjectMissing) as exc:
                    fetched[key] = exc
                self._progress("reading the log", len(fetched), len(wanted))

        queue = sorted(wanted, reverse=True)
        if queue:
            async with trio.open_nursery() as nursery:
                for _ in range(self._doors.limits.downloads_at_once):
                    nursery.start_soon(fetch, queue)
        steps: list[_Step] = []
        key, expected = tip.key, tip.hash
        while key and number_of(key) > base:
            answer = self._known.get(key) or fetched.get(key)
            if answer is None:
                raise ObjectMissing(f"log record {key} is missing from the store")
            if isinstance(answer, Exception):
                raise answer
            found, digest, size = answer
            if digest != expected:
                raise Damaged(f"log record {key} is damaged: its hash is not the one that the next record names")
            steps.append(_Step(Tip(found.n, key, digest, found.epoch, found.kind, found.info, found.writer, found.time_ns), found, size))
            key, expected = str(found.info.get("prev_key", "")), found.prev
        if expected != local.hash:
            if base and key and not self._meta.outbox()[0] and await self._was_never_acknowledged(local, key):
                log.warning("commit %d, which this machine has read, was never acknowledged and is in no history: beginning anew", base)
                raise StartOver
            if steps and steps[-1].found.info.get("skips"):
                raise Diverged(f"a repair went back to commit {number_of(key)}, since records after it were damaged, "
                               f"and this machine has seen commit {base}: what it has of the commits between is in its cache folder only")
            raise Diverged(f"the store's history differs from what this machine has seen at commit {base}: "
                           "another copy of the bucket, or it was tampered with")
        steps.reverse()
        return steps

    async def _was_never_acknowledged(self, local: LocalTip, key: str) -> bool:
        """T2: whether what was read as the tip is the record that its writer was putting while it was deposed; `key` is in its place.

        The CLAIM there, of a later epoch, follows the same record. Nobody was told that the lost one is kept.
        """
        try:
            lost, data = await read_record(self._remote, local.key, self._sealer)
            there, _ = await read_record(self._remote, key, self._sealer)
        except (Damaged, ObjectMissing):
            return False
        return (record.record_hash(data) == local.hash and there.kind is Kind.CLAIM and there.n == lost.n
                and there.prev == lost.prev and there.epoch > lost.epoch)

    async def _apply(self, steps: list[_Step], local: LocalTip) -> None:
        """Apply records in order. One's own record, whose answer was lost, is recognised by its bytes."""
        own = self._pending()
        for number, step in enumerate(steps, 1):
            if own.get(step.tip.n) is not None and record.record_hash(own[step.tip.n]) == step.tip.hash:
                self._meta.drop_outbox(int(step.found.info.get("outbox", 0)))     # a RELEASE carries none
                log.info("record %d had arrived", step.tip.n)
            elif step.found.kind is Kind.COMMIT and step.found.changeset:
                if self._meta.outbox()[0]:
                    raise Diverged(f"the store has commit {step.tip.n} of another writer, and this machine holds changes "
                                   "that are in no commit; they are kept in its cache folder")
                self._meta.apply(step.found.changeset)
            for rider, base in step.found.bases():
                self._meta.note_riding(rider.pack, step.tip.key, base)
            local = local.advanced(step.tip, step.size)
            local.save(self._meta)                       # R1: same transaction as the rows
            if number % 50 == 0 or number == len(steps):
                self._meta.tidy_riding()
                self._meta.commit()
                self._progress("applying the log", number, len(steps))
                await trio.lowlevel.checkpoint()
        self._meta.commit()
        await self._doors.threads.run(self._meta.sync_wal)

    def _pending(self) -> dict[int, bytes]:
        disk, found = self._doors.disk, {}
        for name in disk.listdir("journal") if disk.exists("journal") else []:
            kind, _, n = name.partition("-")
            if kind == "segment" and n.isdigit():
                file = disk.open(f"journal/{name}")
                try:
                    found[int(n)] = file.pread(file.size(), 0)
                finally:
                    file.close()
        return found

    def _drop_pending(self) -> None:
        for n in self._pending():
            self._doors.disk.unlink(pending_name(n))

    # ---------------------------------------------------------------- checkpoints

    async def _restore_checkpoint(self, tip: Tip) -> int:
        """Fill the empty database from the newest checkpoint that verifies; its commit, 0 when there is none: the log has everything."""
        async with aclosing(self.manifests()) as newest_first:
            async for key, commit in newest_first:
                if commit > tip.n or key in self._unusable:
                    continue
                try:
                    await self._load_checkpoint(key)
                except (Damaged, Diverged, ObjectMissing, NotFound) as exc:
                    log.error("checkpoint %d cannot be used: %s", commit, exc)
                    raise StartOver(key) from exc
                self._restored = key
                return commit
        return 0

    async def _can_start_over(self, tip: Tip, local: LocalTip) -> bool:
        """Whether a newer checkpoint and the log after it are whole: else what is here may be the last whole copy, and is kept."""
        async with aclosing(self.manifests()) as newest_first:
            async for key, commit in newest_first:
                if commit <= local.n:
                    break
                if commit > tip.n:
                    continue
                try:
                    manifest = await self.read_manifest(key)
                    for part in manifest.parts:
                        await self.read_part(manifest, part)
                    await self._chain(tip, LocalTip(commit, manifest.record_key, ObjectHash(bytes.fromhex(manifest.record_hash))))
                    return True
                except (Damaged, Diverged, ObjectMissing, NotFound) as exc:
                    log.error("checkpoint %d cannot be used: %s", commit, exc)
        return False

    async def manifests(self) -> AsyncGenerator[tuple[str, int], None]:
        """(key, commit) of every checkpoint manifest, newest first; four requests for the first, however many there are."""
        prefix = ids.checkpoint_prefix()
        for million in await folders_newest_first(self._remote, prefix):
            for thousand in await folders_newest_first(self._remote, f"{prefix}{million}/"):
                for commit in await folders_newest_first(self._remote, f"{prefix}{million}/{thousand}/"):
                    for info in sorted(await self._remote.list(f"{prefix}{million}/{thousand}/{commit}/"), key=lambda info: info.key):
                        with contextlib.suppress(ValueError):
                            n, part = ids.parse_checkpoint_key(info.key)
                            if part.startswith("manifest-"):
                                yield info.key, n

    async def read_manifest(self, key: str) -> checkpoint.Manifest:
        data = await self._remote.get(key)
        try:
            return checkpoint.decode_manifest(data, self._keyring.sealer("checkpoint", 0), ids.parse_checkpoint_key(key)[0])
        except Damaged as exc:
            raise Damaged(f"checkpoint {key} is damaged: {exc}") from None

    async def read_part(self, manifest: checkpoint.Manifest, part: checkpoint.Part) -> list[bytes]:
        data = await self._remote.get(part.key)
        if record.object_hash(data).hex() != part.hash:
            raise Damaged(f"checkpoint part {part.key} is damaged")
        return checkpoint.decode_part(data, manifest.commit, self._keyring.sealer("checkpoint", 0))

    async def _load_checkpoint(self, key: str) -> None:
        manifest = await self.read_manifest(key)
        for number, part in enumerate(manifest.parts, 1):
            for changeset in await self.read_part(manifest, part):
                self._meta.apply(changeset)
            self._progress("reading the checkpoint", number, len(manifest.parts))
        for pack, place, base in manifest.riding:
            self._meta.note_riding(pack, place, base)
        LocalTip(manifest.commit, manifest.record_key, ObjectHash(bytes.fromhex(manifest.record_hash)), 0, 0, manifest.commit,
                 sum(part.size for part in manifest.parts)).save(self._meta)     # committed once the log is known to lead there


class StartOver(Exception):
    """The database must be made anew (it holds nothing of its own): too old for the log, or half filled from a damaged checkpoint.

    `unusable` is the manifest not to try again, or empty.
    """

    def __init__(self, unusable: str = "") -> None:
        super().__init__(unusable)
        self.unusable = unusable
