"""What rode in records is packed together later, so that it costs a reader no request for each small commit.

When many packs ride, or some and nothing else is going on, those of their chunks that files use are copied, sealed as they are, into the
journal's open pack, by rows of the next transaction; the others are forgotten, and the rows of the old packs go with it. The new pack is
put like any other (and rides itself when it is small; where no fewer packs came of it, they stay as they are). Dead before the
transaction is durable: nothing happened; after it: it did.

Whoever holds a place in an old pack finds its bytes there still, since objects stay; or, once this process forgot where that was, looks
the chunk up again. Whoever found a forgotten chunk, to refer to it, looks again under `apply_lock` (vfs/stage.py). A pack that is not whole
stays where it is, for reads and fsck to find.
"""
from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from s3cfs.blocks.blockstore import BlockStore
from s3cfs.blocks.cache import PackCache
from s3cfs.blocks.handles import read_fully
from s3cfs.blocks.journal import Journal
from s3cfs.doors import Doors
from s3cfs.errors import Damaged, NotFound, S3cfsError, StoreError
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.history.admission import Kind
from s3cfs.history.commits import Commits
from s3cfs.meta import Chunk, Meta, Pack
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

LOOK_S = 5.0
QUIET_LOOKS = 2                 # in which nothing went to the store, nor has to
QUIET_SHARE = 8                 # then it is due with a so many times smaller number
ROWS_AT_ONCE = 64               # between two looks at what else is to be done


@dataclass(frozen=True, slots=True)
class _Load:
    pack: Pack
    sealed: dict[int, bytes]                       # by chunk, of those that files use


class Packing:
    """`run` it beside the commits of a mount that writes."""

    def __init__(self, doors: Doors, meta: Meta, journal: Journal, cache: PackCache, blocks: BlockStore, remote: Remote,
                 codec: ChunkCodec, commits: Commits, apply_lock: trio.Lock, epoch: int) -> None:
        """`apply_lock`: held while rows come to point at bytes in the journal."""
        self._doors, self._meta, self._journal, self._cache, self._remote = doors, meta, journal, cache, remote
        self._blocks, self._codec, self._commits, self._apply_lock, self._epoch = blocks, codec, commits, apply_lock, epoch
        self._aside: set[int] = set()              # packs that stay: they cannot be had whole, or packing them anew gained nothing
        self.packed = 0                            # packs that rode, since the start

    async def run(self) -> None:
        """Until cancelled, or writing has ended."""
        commits, quiet = -1, 0
        while self._commits.health.writable:
            await self._doors.clock.sleep(LOOK_S)
            still = self._commits.commits == commits and not self._commits.busy
            commits, quiet = self._commits.commits, quiet + 1 if still else 0
            try:
                if self.due(quiet=quiet >= QUIET_LOOKS) and self._commits.has_room(Kind.GROW):
                    await self.step()
            except StoreError as error:
                log.info("packing waits: %s", error)
            except S3cfsError as error:        # writing has ended, and the next transaction says so
                log.info("packing ends: %s", error)
                return

    def due(self, *, quiet: bool) -> bool:
        count, size = self._meta.riding_totals()
        if self._aside:
            riding = {place.pack for place in self._meta.riding()}
            self._aside = {pack for pack in self._aside if pack in riding or self._journal.has(pack)}
            for pack in self._aside & riding:
                count, size = count - 1, size - self._meta.pack_of(pack).size
        limits, share = self._doors.limits, QUIET_SHARE if quiet else 1
        return count > 1 and (count * share >= limits.ride_packs or size * share >= limits.ride_total_bytes)       # one alone stays

    async def step(self) -> int:
        """Move what rides now, the oldest first, as much as is due at a time; how many packs it was."""
        loads: list[_Load] = []
        size = 0
        for place in self._meta.riding():
            if len(loads) >= self._doors.limits.ride_packs or size >= self._doors.limits.ride_total_bytes:
                break
            if place.pack in self._aside or self._journal.has(place.pack):        # its record is being noted
                continue
            load = await self._load(self._meta.pack_of(place.pack))
            if load is None:
                self._aside.add(place.pack)
                continue
            loads.append(load)
            size += load.pack.size
        if loads:
            await self._move(loads)
        return len(loads)

    # ---------------------------------------------------------------- reading

    async def _load(self, pack: Pack) -> _Load | None:
        """Its chunks that files use, opened once to see that they are whole; None: they are not."""
        rows = [row for row in await self._meta.chunks_of(pack.id) if row.refs]
        if not rows:
            return _Load(pack, {})
        for read in (self._from_cache, self._from_store):
            data = await read(pack)
            sealed = await self._doors.threads.run(self._open_in_thread, data, rows)
            if sealed is not None:
                return _Load(pack, sealed)
        log.warning("pack %s in %s is not whole: it is not packed anew", pack.name, pack.key)
        return None

    async def _from_cache(self, pack: Pack) -> bytes:
        assert pack.name is not None
        handle = self._cache.lease(pack.name, 0, pack.size)
        if handle is None:
            return b""
        try:
            return await self._doors.threads.run(read_fully, handle.file, pack.size, 0)
        except OSError:
            return b""
        finally:
            self._cache.give_back(handle)

    async def _from_store(self, pack: Pack) -> bytes:
        try:
            return await self._remote.get(pack.key, pack.base, pack.size, named=True)
        except NotFound:
            return b""

    def _open_in_thread(self, data: bytes, rows: Sequence[Chunk]) -> dict[int, bytes] | None:
        found: dict[int, bytes] = {}
        for row in rows:
            sealed = data[row.off:row.off + row.clen]
            try:
                self._codec.decode(row.hash, sealed, row.len)
            except Damaged:
                return None
            found[row.id] = sealed
        return found

    # ---------------------------------------------------------------- moving

    async def _move(self, loads: Sequence[_Load]) -> None:
        async with self._apply_lock:
            self._commits.check_writable()
            moving: list[tuple[Chunk, bytes]] = []
            gone: list[Pack] = []
            for load in loads:
                rows = await self._meta.chunks_of(load.pack.id)
                if all(row.id in load.sealed for row in rows if row.refs):         # else a file came to use one meanwhile
                    gone.append(load.pack)
                    moving += [(row, load.sealed[row.id]) for row in rows if row.refs]
                    for row in rows:
                        if not row.refs:
                            await self._meta.forget_chunk(row.id)
                await trio.lowlevel.checkpoint()
            places = await self._journal.append(self._new_pack, [(row.hash, sealed, row.len) for row, sealed in moving])
            for number, ((row, _), (pack, offset)) in enumerate(zip(moving, places, strict=True), 1):
                await self._meta.move_chunk(row.id, pack, offset)
                if number % ROWS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            for old in gone:
                self._blocks.remember(old)
                await self._meta.drop_pack(old.id)
                await trio.lowlevel.checkpoint()
        made = {pack for pack, _ in places}
        if len(made) >= len(gone):
            self._aside |= made
        self.packed += len(gone)
        log.info("%d packs that rode in records go; %d chunks of them are used, and lie in another pack now", len(gone), len(moving))
        await self._cache.discard([old.name for old in gone if old.name is not None])

    async def _new_pack(self) -> int:
        return await self._meta.new_pack(self._epoch)
