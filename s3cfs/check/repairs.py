"""Repairs. Each is plain data, says in a line what it came to, and leaves nothing half done: what it changes is one commit.

Nothing in the store is overwritten or deleted. A pack with damage is emptied (its chunks go, byte for byte, into a new one) and its row
dropped; a damaged record or checkpoint is made superfluous by a new checkpoint and then noted as such.
"""
from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from s3cfs import ids
from s3cfs.check.context import note_given_up
from s3cfs.check.examine import chunk_trouble
from s3cfs.check.problems import Outcome
from s3cfs.check.workshop import Workshop
from s3cfs.errors import Damaged, NotFound, S3cfsError
from s3cfs.formats import superblock
from s3cfs.formats.pack import verify_name
from s3cfs.ids import pack_key
from s3cfs.limits import MIB
from s3cfs.meta import Chunk, Extent, Pack

log = logging.getLogger(__name__)

APPEND_BYTES = 8 * MIB
USERS_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class DropLocalState:
    """The local database goes, since the store has everything (`app` does it before the node is opened)."""

    order: int = 0

    async def mend(self, shop: Workshop) -> Outcome:
        left = sum(1 for _ in shop.meta.audit.problems()) + len(shop.meta.quick_check())
        return Outcome(not left, f"the local metadata was made again from the store{f', {left} problems are left' if left else ''}")


@dataclass(frozen=True, slots=True)
class MendRows:
    order: int = 1

    async def mend(self, shop: Workshop) -> Outcome:
        shop.begin()
        found = list(shop.meta.audit.repair())
        await shop.flush()
        left = list(shop.meta.audit.problems())
        able = sum(1 for problem in found if problem.repairable)
        stuck = [problem for problem in left if problem.repairable]
        return Outcome(not stuck, f"rows: {able} problems mended" + (f", {len(stuck)} not" if stuck else ""))


@dataclass(frozen=True, slots=True)
class RewritePack:
    """Every chunk of a pack is looked for: in the store, in the journal, in the cache, in another pack that holds the same content."""

    pack: int
    order: int = 2

    async def mend(self, shop: Workshop) -> Outcome:
        try:
            pack = await shop.meta.pack(self.pack)
        except Damaged:
            return Outcome(True, f"pack {self.pack} is not needed any more")
        shop.begin()
        rows = await shop.meta.chunks_of(pack.id)
        stored = await _stored(shop, pack)
        whole: list[Chunk] = []
        healed: list[Chunk] = []
        lost: list[Chunk] = []
        for row in rows:
            if row.refs == 0 and await shop.meta.drop_chunk(row.id):
                continue
            if not await _trouble(shop, stored, row):
                whole.append(row)
            elif await _local(shop, pack, row) is not None:
                healed.append(row)
            elif not await self._repoint(shop, row):
                lost.append(row)
        for row in [*whole, *healed]:
            shop.meta.unmark_bad(row.id)
        if not lost and not healed and pack.name is not None and stored and verify_name(pack_key(pack.name), stored):
            await shop.flush()
            return Outcome(True, f"pack {pack.name}: all of it is whole")
        move = [*whole, *healed] if not lost else healed          # a pack with losses stays: its row says where they were
        await _move(shop, pack, stored, sorted(move, key=lambda row: row.off))
        name = pack.name or str(pack.id)
        if not lost:
            await shop.meta.drop_pack(pack.id)
        await shop.flush()
        if lost:
            text = f"{len(lost)} of {len(rows)} chunks are lost (no intact copy in the store, the journal or the cache)"
            return Outcome(False, f"pack {name}: {text}; new files will not use them", frozenset(row.id for row in lost))
        return Outcome(True, f"pack {name}: " + (f"{len(move)} chunks are whole in a new pack" if move else "no file needs it any more"))

    async def _repoint(self, shop: Workshop, row: Chunk) -> bool:
        """Let the files that use a lost chunk use another row that has the same content, if one is whole. Marks what is bad."""
        meta = shop.meta
        meta.mark_bad(row.id)
        while (other := await meta.find_chunk(row.hash)) is not None:
            if other.len == row.len and await _is_whole(shop, other):
                break
            meta.mark_bad(other.id)
        if other is None:
            return False
        for ino, extent in await meta.users_of_many([row.id], USERS_MAX):
            await meta.replace(ino, extent.off, extent.off + extent.len, [Extent(extent.off, extent.len, other.id, extent.coff)])
        return await meta.drop_chunk(row.id)


async def _stored(shop: Workshop, pack: Pack) -> bytes:
    if pack.name is None:
        return b""
    try:
        return await shop.remote.get(pack.key, pack.base, pack.size)
    except NotFound:
        return b""


async def _trouble(shop: Workshop, data: bytes, row: Chunk) -> str:
    return await shop.doors.threads.run(chunk_trouble, data, row, shop.codec)


async def _local(shop: Workshop, pack: Pack, row: Chunk) -> bytes | None:
    """The sealed chunk from the local disk, whole, or None."""
    candidates: list[bytes | None] = []
    if shop.journal.has(pack.id):
        try:
            candidates.append(shop.journal.read(pack.id, row.off, row.clen))
        except (OSError, KeyError) as error:
            log.warning("journal: pack %d: %s", pack.id, error)
    if pack.name is not None:
        candidates.append(shop.cache.read(pack.name, row.off, row.clen))
    for sealed in candidates:
        if sealed is not None and await _opens(shop, sealed, row):
            return sealed
    return None


async def _is_whole(shop: Workshop, row: Chunk) -> bool:
    """A single chunk, wherever it is said to be."""
    try:
        pack = await shop.meta.pack(row.pack)
        if await _local(shop, pack, row) is not None:
            return True
        return pack.name is not None and await _opens(shop, await shop.remote.get(pack.key, pack.base + row.off, row.clen), row)
    except (Damaged, NotFound):
        return False


async def _opens(shop: Workshop, sealed: bytes, row: Chunk) -> bool:
    alone = Chunk(row.id, row.hash, row.pack, 0, row.clen, row.len, row.refs)
    return not await _trouble(shop, sealed, alone)


async def _move(shop: Workshop, pack: Pack, stored: bytes, rows: Sequence[Chunk]) -> None:
    """Copy the sealed bytes into the journal's open pack, and let the rows say so."""
    at = 0
    while at < len(rows):
        group: list[tuple[Chunk, bytes]] = []
        size = 0
        while at < len(rows) and size < APPEND_BYTES:
            row = rows[at]
            sealed = stored[row.off:row.off + row.clen]
            if len(sealed) != row.clen or not await _opens(shop, sealed, row):
                local = await _local(shop, pack, row)
                if local is None:
                    raise Damaged(f"chunk {row.hash.hex()[:16]} was whole a moment ago")
                sealed = local
            group.append((row, sealed))
            size += len(sealed)
            at += 1
        async with shop.lock:
            places = await shop.journal.append(lambda: shop.meta.new_pack(shop.epoch),
                                               [(row.hash, sealed, row.len) for row, sealed in group])
            for (row, _), (new, offset) in zip(group, places, strict=True):
                await shop.meta.move_chunk(row.id, new, offset)


@dataclass(frozen=True, slots=True)
class CopySuperblock:
    """One more copy of a superblock of which one is whole, under the next free name."""

    n: int
    order: int = 3

    async def mend(self, shop: Workshop) -> Outcome:
        copies = []
        whole = b""
        for info in await shop.remote.list("super/"):
            with contextlib.suppress(ValueError, Damaged, NotFound):
                n, copy = ids.parse_super_key(info.key)
                if n == self.n:
                    copies.append(copy)
                    data = await shop.remote.get(info.key)
                    superblock.decode(data, n)
                    whole = data
        if not whole:
            return Outcome(False, f"superblock {self.n}: no copy of it is whole any more")
        key = ids.super_key(self.n, max(copies) + 1)
        await shop.remote.put(key, whole)
        return Outcome(True, f"superblock {self.n} has a further copy, {key}")


@dataclass(frozen=True, slots=True)
class Supersede:
    """A damaged object becomes superfluous: a whole checkpoint at or after `commit` holds what it held. `commit` 0: none is needed."""

    key: str
    commit: int
    order: int = 3

    async def mend(self, shop: Workshop) -> Outcome:
        what = self.key or f"the checkpoint at commit {self.commit}"
        if self.commit:
            try:
                made = await shop.checkpoint()
                await shop.reload()
            except S3cfsError as error:
                return Outcome(False, f"{what}: a new checkpoint does not help: {error}")
        if self.key:
            shop.begin()
            note_given_up(shop.meta, frozenset((self.key,)))
            await shop.flush()
        return Outcome(True, f"{what} is not needed any more" + (f": there is a checkpoint at commit {made}" if self.commit else ""))
