"""What an earlier process left in the journal: open packs are finished, closed ones taken over, and what the disk lost is named.

Runs once, at the start of a writer, before the first append. Interrupted by a crash it does the same again.
"""
from __future__ import annotations

import contextlib
import errno
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from s3cfs.blocks.damage import Damage
from s3cfs.blocks.handles import patiently, read_fully
from s3cfs.blocks.journal import FOLDER, ClosedPack, Journal
from s3cfs.doors import DiskFile, Doors
from s3cfs.errors import CacheUnusable, Damaged, NotFound
from s3cfs.formats import pack as packs
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.formats.pack import HEADER_BYTES, RANDOM_BYTES, PackEntry, PackHasher
from s3cfs.formats.seal import Sealer
from s3cfs.ids import PackName, pack_name
from s3cfs.meta import Meta
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

_FILE = re.compile(r"(\d+)\.pack(\.new)?")


@dataclass(slots=True)
class Recovered:
    """What `recover_files` found."""

    closed: list[ClosedPack] = field(default_factory=list)            # were open, are finished and synced now: to be named and uploaded
    empty: list[int] = field(default_factory=list)                    # were open and hold nothing valid: drop their rows
    lost: dict[int, list[PackEntry]] = field(default_factory=dict)    # entries of open packs whose bytes are not there, though synced (J2)
    missing: list[int] = field(default_factory=list)                  # closed packs whose file is gone


async def recover(doors: Doors, meta: Meta, journal: Journal, remote: Remote, codec: ChunkCodec, damage: Damage, *,
                  give_up: bool = False) -> None:
    """Files and rows. Afterwards `journal.pending()` is what must be uploaded. CacheUnusable, CacheFull, StoreError.

    `give_up`: what cannot be read is lost; else it is CacheUnusable, since it may be readable tomorrow.
    """
    open_packs = {pack.id: [PackEntry(c.hash, c.off, c.clen, c.len) for c in await meta.chunks_of(pack.id)]
                  for pack in await meta.open_packs()}
    closed: dict[int, tuple[PackName, int]] = {}
    unsent = meta.unsent()
    rows = {pack.id: pack for number in unsent for pack in await meta.packs(number - 1, 1)}      # or the next one, which is not asked for
    for number in unsent:
        name = rows[number].name if number in rows else None
        if name is None:
            meta.forget_unsent(number)            # nobody needs it any more
        else:
            closed[number] = (name, rows[number].size)
    found = await recover_files(doors, journal, open_packs, closed, lambda entry, data: _is_whole(codec, entry, data),
                                give_up=give_up)
    for number, entries in found.lost.items():
        lost = {(entry.chunk_id, entry.offset) for entry in entries}
        for chunk in await meta.chunks_of(number):
            if (chunk.hash, chunk.off) in lost:
                damage.bad(chunk, None, "missing", f"chunk {chunk.id} ({chunk.hash.hex()[:16]}) of pack {number} is not on the local disk, "
                           "though it was synced")
    for number in found.empty:
        if number not in found.lost:
            await meta.drop_pack(number)
    for done in found.closed:
        await meta.close_pack(done.pack_id, done.name, done.size)
    for number in found.missing:
        name = closed[number][0]
        try:
            await remote.stat(rows[number].key)
        except NotFound:
            log.error("pack %s is neither in the journal nor in the store", name)
            for chunk in await meta.chunks_of(number):
                damage.bad(chunk, name, "missing", f"chunk {chunk.id} ({chunk.hash.hex()[:16]}): pack {name} was lost before it was put")
        meta.forget_unsent(number)                # it went up and only the note was lost; or there is nothing to wait for


async def recover_files(
    doors: Doors,
    journal: Journal,
    open_packs: Mapping[int, Sequence[PackEntry]],
    closed_packs: Mapping[int, tuple[PackName, int]],
    verify: Callable[[PackEntry, bytes], bool] | None = None,
    *,
    give_up: bool = False,
) -> Recovered:
    """`open_packs`: per pack that has no name yet, the chunks that the database says lie in it; `closed_packs`: name and size of those that
    are finished and not known to be in the store. Other packs' files are removed.

    An open pack becomes a new file: its bytes up to the end of the last valid entry, at the same offsets, and a tail; it is synced
    before it takes the old one's name. The new pack bears this epoch (objects of older epochs that no history names may be swept).
    `verify` may decode each chunk; without it only the structure is looked at: all there, an epoch not from the future, not a hole.
    Chunks that fail are in `lost`, and not in the new index.
    """
    disk = doors.disk
    try:
        found = _sort_files(doors, {*open_packs, *closed_packs})
    except OSError as error:
        raise CacheUnusable(f"{FOLDER} cannot be read: {error}") from error
    result = Recovered()
    for number, (name, size) in sorted(closed_packs.items()):
        if number in found:                                      # whatever is in it: the upload looks at every byte
            journal.adopt(ClosedPack(number, name, size, journal.path(number)))
        else:
            result.missing.append(number)
    for number, entries in sorted(open_packs.items()):
        ordered = sorted(set(entries), key=lambda entry: entry.offset)
        lost: list[PackEntry] = []
        closed: ClosedPack | None = None
        if number not in found:
            lost = ordered
        elif ordered:
            closed, lost = await _recover_one(doors, journal, number, ordered, verify, give_up)
        if lost:
            result.lost[number] = lost
        if closed is None:
            with contextlib.suppress(OSError):                   # the next start removes it, too
                disk.unlink(journal.path(number))
            result.empty.append(number)
        else:
            journal.adopt(closed)
            result.closed.append(closed)
    await journal.hop(f"{FOLDER}: fsync", disk.sync_dir, FOLDER)
    return result


def _sort_files(doors: Doors, wanted: set[int]) -> set[int]:
    """Packs that are there; what nobody wants, and copies that were not finished, are removed. Log segments live here too: not ours."""
    found: set[int] = set()
    for name in doors.disk.listdir(FOLDER):
        match = _FILE.fullmatch(name)
        if match is None:
            continue
        if match[2] or int(match[1]) not in wanted:
            doors.disk.unlink(f"{FOLDER}/{name}")
        else:
            found.add(int(match[1]))
    return found


async def _recover_one(doors: Doors, journal: Journal, number: int, entries: list[PackEntry],
                       verify: Callable[[PackEntry, bytes], bool] | None, give_up: bool) -> tuple[ClosedPack | None, list[PackEntry]]:
    path = journal.path(number)

    async def look() -> tuple[list[PackEntry], list[PackEntry]]:
        return await doors.threads.run(_look_in_thread, doors, path, entries, journal.epoch, verify, give_up)

    try:
        good, lost = await patiently(doors.clock, look)
    except OSError as error:
        raise CacheUnusable(f"{path} cannot be read: {error}; s3cfs fsck --full --repair gives up what stays unreadable") from error
    if not good:
        return None, lost
    return await journal.hop(path, _copy_in_thread, doors, journal, number, good), lost


def _look_in_thread(doors: Doors, path: str, entries: list[PackEntry], epoch: int, verify: Callable[[PackEntry, bytes], bool] | None,
                    give_up: bool) -> tuple[list[PackEntry], list[PackEntry]]:
    """Entries whose bytes are there, and the others. OSError when something cannot be read; `give_up`: EIO is a loss."""
    file = doors.disk.open(path)
    try:
        good: list[PackEntry] = []
        lost: list[PackEntry] = []
        end = HEADER_BYTES
        for entry in entries:
            sound = entry.offset >= end and Sealer.OVERHEAD < entry.size <= entry.length + Sealer.OVERHEAD + 1
            data = _read(file, entry, give_up) if sound else b""
            sound = len(data) == entry.size and _plausible(data, epoch) and (verify is None or verify(entry, data))
            (good if sound else lost).append(entry)
            end = entry.offset + entry.size if sound else end
        return good, lost
    finally:
        file.close()


def _read(file: DiskFile, entry: PackEntry, give_up: bool) -> bytes:
    try:
        return read_fully(file, entry.size, entry.offset)
    except OSError as error:
        if error.errno != errno.EIO or not give_up:
            raise
        return b""


def _copy_in_thread(doors: Doors, journal: Journal, number: int, good: list[PackEntry]) -> ClosedPack:
    """The pack anew, with these chunks at their places. What lies between them (lost chunks) is zeros."""
    disk, path = doors.disk, journal.path(number)
    old = disk.open(path)
    try:
        new, hasher, at = disk.open(path + ".new", create=True), PackHasher(), 0

        def write(data: bytes) -> None:
            nonlocal at
            new.pwrite(data, at)
            hasher.update(data)
            at += len(data)

        try:
            write(packs.header(journal.epoch, doors.random.bytes(RANDOM_BYTES)))
            for entry in good:
                if entry.offset > at:
                    write(bytes(entry.offset - at))
                write(read_fully(old, entry.size, entry.offset))
            write(packs.tail(good, at, journal.sealer))
            new.fsync()
        finally:
            new.close()
    finally:
        old.close()
    disk.rename(path + ".new", path)
    return ClosedPack(number, pack_name(journal.epoch, hasher.digest()), at, path)


def _plausible(sealed: bytes, epoch: int) -> bool:
    """Could this be a sealed chunk? Cheap: catches holes and truncation, not flipped bits."""
    return int.from_bytes(sealed[:4], "little") <= epoch and any(sealed)


def _is_whole(codec: ChunkCodec, entry: PackEntry, sealed: bytes) -> bool:
    try:
        codec.decode(entry.chunk_id, sealed, entry.length)
    except Damaged:
        return False
    return True
