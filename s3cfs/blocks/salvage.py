"""A finished pack that was not sent yet, and that the local disk damaged: what is whole in it is saved.

Its name vouches for bytes that are no more, so it can never be put. Every chunk that is still whole moves into the journal's open pack, by
rows of the next transaction; the others are marked as damaged, and named with their files. The damaged file goes once those rows are
durable; dying before that, the next process finds it as it was and does the same again.

Damage is bytes that are wrong. A file that cannot be read is none: it may be readable tomorrow, on another cable, so nothing is marked,
and writing ends until the next mount. Whoever knows better says so (`give_up`, as fsck --full --repair does): what is unreadable is lost.

Whoever commits must know: records that were cut before name the old pack (`Meta.void_cuts`).
"""
from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from s3cfs.blocks.damage import Damage
from s3cfs.blocks.handles import read_fully
from s3cfs.blocks.journal import ClosedPack, Journal
from s3cfs.doors import DiskFile, Doors
from s3cfs.errors import CacheUnusable, Damaged, NotFound
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.ids import pack_key
from s3cfs.meta import Chunk, Meta
from s3cfs.remote import Remote

log = logging.getLogger(__name__)


class Salvage:
    """Call it with the pack whose `Journal.load` raised Damaged or OSError."""

    def __init__(self, doors: Doors, meta: Meta, journal: Journal, remote: Remote, codec: ChunkCodec, damage: Damage,
                 apply_lock: trio.Lock, epoch: int, *, give_up: bool = False) -> None:
        """`apply_lock`: held while rows come to point at bytes in the journal, as for staging."""
        self._doors, self._meta, self._journal, self._remote = doors, meta, journal, remote
        self._codec, self._damage, self._apply_lock, self._epoch, self._give_up = codec, damage, apply_lock, epoch, give_up
        self._durable: Callable[[], Awaitable[None]] | None = None

    def use(self, durable: Callable[[], Awaitable[None]]) -> None:
        """`durable` returns when all that was changed before is in a transaction on the local disk."""
        self._durable = durable

    async def __call__(self, pack: ClosedPack) -> bool:
        """True: the store has the pack already, nothing was changed. False: nothing names it any more but chunks that are lost.

        StoreError when the store cannot be asked (then again, later), CacheUnusable when the file cannot be read, and what the journal and
        the metadata raise. The caller holds no lock.
        """
        if await self._in_store(pack):
            return True
        rows = await self._meta.chunks_of(pack.pack_id)
        whole, lost = await self._sort(pack, rows)
        log.error("pack %s was damaged by the local disk before it was in the store: %d of its %d chunks are whole, and go into a new pack",
                  pack.name, len(whole), len(rows))
        async with self._apply_lock:
            self._damage.begin()
            here = {row.id for row in await self._meta.chunks_of(pack.pack_id)}          # a repair may have moved some meanwhile
            whole, lost = [one for one in whole if one[0].id in here], [one for one in lost if one[0].id in here]
            places = await self._journal.append(self._new_pack, [(row.hash, sealed, row.len) for row, sealed in whole])
            for (row, _), (number, offset) in zip(whole, places, strict=True):
                await self._meta.move_chunk(row.id, number, offset)
            for row, why in lost:
                self._damage.bad(row, pack.name, "damaged", f"chunk {row.id} ({row.hash.hex()[:16]}) of pack {pack.name}: {why}")
            self._meta.forget_unsent(pack.pack_id)
            if not lost and any(other.id == pack.pack_id for other in await self._meta.packs(pack.pack_id - 1, 1)):
                await self._meta.drop_pack(pack.pack_id)
            self._meta.void_cuts()
        if self._durable is not None:
            await self._durable()
            self._journal.forget(pack.pack_id)
            with contextlib.suppress(OSError):                   # the next start removes it, too
                await self._doors.threads.run(self._doors.disk.unlink, pack.path)
        return False

    async def _in_store(self, pack: ClosedPack) -> bool:
        try:
            return (await self._remote.stat(pack_key(pack.name))).size == pack.size
        except NotFound:
            return False

    async def _new_pack(self) -> int:
        return await self._meta.new_pack(self._epoch)

    async def _sort(self, pack: ClosedPack, rows: Sequence[Chunk]) -> tuple[list[tuple[Chunk, bytes]], list[tuple[Chunk, str]]]:
        """(chunks that are whole, with their sealed bytes; the others, and why)."""
        try:
            return await self._journal.in_file(pack.pack_id, self._sort_in_thread, rows)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return [], [(row, "its file is gone") for row in rows]
            raise CacheUnusable(f"{pack.path} cannot be read: {error}; "
                                "s3cfs fsck --full --repair gives up what stays unreadable") from error

    def _sort_in_thread(self, file: DiskFile, rows: Sequence[Chunk]) -> tuple[list[tuple[Chunk, bytes]], list[tuple[Chunk, str]]]:
        whole: list[tuple[Chunk, bytes]] = []
        lost: list[tuple[Chunk, str]] = []
        for row in rows:
            try:
                sealed = read_fully(file, row.clen, row.off)
                plain = self._codec.decode(row.hash, sealed, row.len)
            except Damaged as error:
                lost.append((row, str(error).partition(": ")[2] or str(error)))
            except OSError as error:
                if error.errno != errno.EIO or not self._give_up:
                    raise
                lost.append((row, f"the local disk: {error}"))
            else:
                if self._codec.verify(row.hash, plain):
                    whole.append((row, sealed))
                else:
                    lost.append((row, "its content is not what its id was made from"))
        return whole, lost
