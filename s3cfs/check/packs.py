"""Packs: that every one the rows name is in the store (quick), and that its bytes are what they were (full).

Quick costs one listing (a request per 1,000 objects, where asking for each would be a request per object) and finds what is absent or
of another size. Full downloads every pack, a few at a time, and opens every chunk. What seems wrong is looked at twice, since
networks and listings err too. A pack that rides in a record is looked at there. Packs that no row names are notes: a crash leaves
them, and a later sweep removes them.
"""
from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

import trio

from s3cfs import ids
from s3cfs.blocks.handles import read_fully
from s3cfs.check.context import Context, Rider
from s3cfs.check.examine import Findings, chunk_trouble, examine
from s3cfs.check.problems import Problem, Range, Severity
from s3cfs.check.repairs import RewritePack
from s3cfs.doors import Disk
from s3cfs.errors import NotFound
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.ids import PackName, pack_key
from s3cfs.limits import MIB
from s3cfs.meta import Chunk, Hit, Meta, Pack, Paths, hits

NAME = "packs"
PREFIX = "pack/"
AT_ONCE = 3                      # packs in memory
BATCH = 256                      # packs whose chunk rows are read in one pass
WINDOW = 24                      # packs between two reports
ORPHANS_NAMED = 20
UNUSED_NAMED = 5
TOO_LARGE_BYTES = 128 * MIB      # nothing writes packs of this size: not worth the memory
JOURNAL = "journal"


@dataclass(slots=True)
class Suspect:
    """A pack with something wrong, and what its chunks have to do with it."""

    pack: Pack
    word: str                    # missing | damaged
    object: list[str]
    bad: dict[int, str]
    rows: Sequence[Chunk]


async def packs(ctx: Context) -> AsyncGenerator[Problem, None]:
    stored = {info.key: info.size for info in await ctx.remote.list(PREFIX)}
    ctx.count("packs", len(stored))
    if ctx.meta is None:
        async for problem in _without_rows(ctx, stored):
            yield problem
        return
    paths = Paths(ctx.meta)
    journal = _journal(ctx.meta, ctx.local)
    rows = await ctx.meta.packs()
    total = sum(pack.size for pack in rows)
    done = 0
    for first in range(0, len(rows), BATCH):
        batch = rows[first:first + BATCH]
        chunks = await ctx.meta.chunks_of_many([pack.id for pack in batch])
        for at in range(0, len(batch), WINDOW):
            window = batch[at:at + WINDOW]
            suspects = await _look(ctx, window, chunks, stored, journal)
            done += sum(pack.size for pack in window)
            ctx.progress("reading packs" if ctx.full else "checking packs", done, total, "bytes")
            where = await _hits(ctx, ctx.meta, paths, suspects)
            for suspect in suspects:
                for problem in _problems(ctx, suspect, where):
                    yield problem
    known = {pack.key for pack in rows if pack.name is not None}
    strays = sorted(stored.keys() - known)
    for key in strays[:ORPHANS_NAMED]:
        what = "no file needs it (a crash leaves such packs, and so do repairs)" if is_pack(key) else "nothing of s3cfs has such a name"
        yield Problem(NAME, f"{key}: {what}", Severity.NOTE, key)
    if len(strays) > ORPHANS_NAMED:
        yield Problem(NAME, f"{len(strays) - ORPHANS_NAMED} further objects under {PREFIX} are not needed by any file", Severity.NOTE)


def _journal(meta: Meta, local: Disk | None) -> dict[int, int]:
    """Pack id -> size of its file, of what this machine has not (or may not have) in the store yet."""
    if local is None or not local.exists(JOURNAL):
        return {}
    files = {}
    for name in local.listdir(JOURNAL):
        number, dot, kind = name.partition(".")
        if dot and kind == "pack" and number.isdigit():
            files[int(number)] = local.size(f"{JOURNAL}/{name}")
    return files


async def _look(ctx: Context, window: Sequence[Pack], chunks: dict[int, list[Chunk]], stored: dict[str, int],
                journal: dict[int, int]) -> list[Suspect]:
    suspects: list[Suspect] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(pack: Pack) -> None:
        async with limit:
            suspect = await _look_at(ctx, pack, chunks.get(pack.id, []), stored, journal)
        if suspect is not None:
            suspects.append(suspect)

    async with trio.open_nursery() as nursery:
        for pack in window:
            nursery.start_soon(one, pack)
    return sorted(suspects, key=lambda suspect: suspect.pack.id)


async def _look_at(ctx: Context, pack: Pack, rows: Sequence[Chunk], stored: dict[str, int], journal: dict[int, int]) -> Suspect | None:
    ctx.count("chunks", len(rows))
    if pack.name is None:
        return await _look_at_open(ctx, pack, rows, journal)
    size = (stored if pack.record is None else ctx.records).get(pack.key)
    if size is None:
        try:
            size = (await ctx.remote.stat(pack.key)).size        # a listing may lag behind
        except NotFound:
            return await _look_at_unsent(ctx, pack, pack.name, rows, journal)
    if pack.record is not None:
        size = min(max(0, size - pack.base), pack.size)
    marked = [row for row in rows if ctx.meta is not None and row.id in ctx.meta.bad_chunks()]
    if not ctx.full:
        if size == pack.size:
            used = [row for row in marked if row.refs]
            return Suspect(pack, "damaged", [], {row.id: "a read met it" for row in used}, rows) if used else None
        beyond = {row.id: f"the pack ends at {size}" for row in rows if row.off + row.clen > size}
        return Suspect(pack, "damaged", [f"it has {size} bytes, not {pack.size}"], beyond, rows)
    if size > TOO_LARGE_BYTES:
        return _all(pack, "damaged", f"it has {size} bytes, not {pack.size}", rows)
    place = Rider(pack.name, pack.key, pack.base, pack.size) if pack.record is not None else None
    findings = await _download(ctx, pack.name, place, rows)
    if findings is not None and not findings.clean:
        findings = await _download(ctx, pack.name, place, rows)  # was it the store, or the way?
    if findings is None:
        return _all(pack, "missing", "it is not in the store", rows)
    if findings.clean and marked:
        return Suspect(pack, "marked", [f"{len(marked)} of its chunks are known as damaged, and are whole"], {}, rows)
    return None if findings.clean else Suspect(pack, "damaged", findings.object, findings.bad, rows)


async def _download(ctx: Context, name: PackName, rider: Rider | None, rows: Sequence[Chunk] | None) -> Findings | None:
    """`rider`: where it is, when it is no object."""
    try:
        if rider is None:
            data = await ctx.remote.get(pack_key(name))
        else:
            data = await ctx.remote.get(rider.key, rider.base, rider.size)
    except NotFound:
        return None
    ctx.count("bytes", len(data))
    return await ctx.doors.threads.run(examine, data, name, pack_key(name), rows, ctx.keyring)


async def _look_at_unsent(ctx: Context, pack: Pack, name: PackName, rows: Sequence[Chunk], journal: dict[int, int]) -> Suspect | None:
    """A pack the store has not got: it may wait in the journal."""
    size = journal.get(pack.id)
    if size is None or ctx.local is None:
        return _all(pack, "missing", "it is not in the store", rows)
    if size != pack.size:
        return _all(pack, "missing", f"it is not in the store yet, and its file in the journal has {size} bytes, not {pack.size}", rows)
    if not ctx.full:
        return None
    try:
        data = await ctx.doors.threads.run(_read, ctx.local, f"{JOURNAL}/{pack.id}.pack")
    except OSError as error:
        return _unreadable(pack, rows, error)
    findings = await ctx.doors.threads.run(examine, data, name, pack_key(name), rows, ctx.keyring)
    return None if findings.clean else Suspect(pack, "damaged", [f"{one} (in the journal)" for one in findings.object], findings.bad, rows)


async def _look_at_open(ctx: Context, pack: Pack, rows: Sequence[Chunk], journal: dict[int, int]) -> Suspect | None:
    """A pack that was not finished: in the local state an ordinary thing after a crash, in the store's rows never, if it holds anything."""
    if not rows:
        return None
    if ctx.local is None:
        return _all(pack, "missing", "it was never finished, so it is in no object", rows)
    size = journal.get(pack.id)
    if size is None:
        return _all(pack, "missing", "it is not finished, and has no file in the journal", rows)
    beyond = {row.id: "it lies beyond the end of the file" for row in rows if row.off + row.clen > size}
    if ctx.full:
        try:
            data = await ctx.doors.threads.run(_read, ctx.local, f"{JOURNAL}/{pack.id}.pack")
        except OSError as error:
            return _unreadable(pack, rows, error)
        beyond = await ctx.doors.threads.run(_examine_open, data, rows, ctx)
    return Suspect(pack, "damaged", [], beyond, rows) if beyond else None


def _examine_open(data: bytes, rows: Sequence[Chunk], ctx: Context) -> dict[int, str]:
    codec = ChunkCodec(ctx.keyring, 0, None)
    return {row.id: trouble for row in rows if (trouble := chunk_trouble(data, row, codec))}


def _read(disk: Disk, path: str) -> bytes:
    file = disk.open(path)
    try:
        return read_fully(file, file.size(), 0)
    finally:
        file.close()


def _unreadable(pack: Pack, rows: Sequence[Chunk], error: OSError) -> Suspect:
    """Of a pack in the journal. What of it can be read the repair finds out."""
    return Suspect(pack, "unreadable", [f"its file in the journal: {error}"], {row.id: "the file cannot be read" for row in rows}, rows)


def _all(pack: Pack, word: str, text: str, rows: Sequence[Chunk]) -> Suspect:
    return Suspect(pack, word, [text], {row.id: "its pack is missing" for row in rows}, rows)


async def _hits(ctx: Context, meta: Meta, paths: Paths, suspects: Sequence[Suspect]) -> dict[int, list[Hit]]:
    """Where the chunks of all of them are used: one pass over the extents."""
    bad = [id for suspect in suspects for id in suspect.bad]
    if not bad or ctx.ranges_left <= 0:
        return {}
    where: dict[int, list[Hit]] = {}
    for hit in await hits(meta, bad, ctx.ranges_left, paths):
        where.setdefault(hit.chunk, []).append(hit)
        ctx.ranges_left -= 1
    return where


def _problems(ctx: Context, suspect: Suspect, where: dict[int, list[Hit]]) -> Iterator[Problem]:
    """First the pack, then each range of each file that is hit, then chunks that no file uses."""
    pack = suspect.pack
    repair = RewritePack(pack.id)
    place = pack.key if pack.name is not None else f"{JOURNAL}/{pack.id}.pack"
    called = place if pack.record is None or pack.name is None else f"{pack_key(pack.name)} in {pack.record}"
    short = pack.name[:pack.name.index("-") + 9] + "…" if pack.name is not None else str(pack.id)
    for text in suspect.object[:5]:
        rest = "" if suspect.bad else f"; its {len(suspect.rows)} chunks are whole, no file is hit" if suspect.rows else "; no file is hit"
        yield Problem(NAME, f"pack {called}: {suspect.word}: {text}{rest}", object=place, repair=repair)
    unused: list[str] = []
    unlisted = 0
    for row in sorted((row for row in suspect.rows if row.id in suspect.bad), key=lambda row: _first(where.get(row.id, []))):
        name = f"chunk {row.hash.hex()[:8]}…, pack {short}"
        if not row.refs:
            unused.append(f"{suspect.word}: {name}: {suspect.bad[row.id]}; no file uses it")
        unlisted += bool(row.refs and row.id not in where)
        for hit in where.get(row.id, []):
            yield Problem(NAME, f"{suspect.word}: {hit.path} bytes {hit.start}-{hit.end - 1} ({name})",
                          object=place, file=Range(hit.path, hit.start, hit.end), chunk=row.id, repair=repair)
    if unlisted:
        yield Problem(NAME, f"{suspect.word}: {unlisted} further chunks of pack {short}; the files that use them are too many to list",
                      object=place, repair=repair)
    for text in unused[:UNUSED_NAMED]:
        yield Problem(NAME, text, object=place, repair=repair)
    if len(unused) > UNUSED_NAMED:
        yield Problem(NAME, f"{suspect.word}: {len(unused) - UNUSED_NAMED} further chunks of pack {short}, which no file uses",
                      object=place, repair=repair)


def _first(found: Sequence[Hit]) -> tuple[str, int]:
    return (found[0].path, found[0].start) if found else ("", 0)


async def _without_rows(ctx: Context, stored: dict[str, int]) -> AsyncGenerator[Problem, None]:
    """The metadata cannot be read: what can be said of the packs alone."""
    if not ctx.full:
        return
    where: dict[PackName, Rider | None] = {PackName(key.rpartition("/")[2]): None for key, size in sorted(stored.items())
                                           if is_pack(key) and size <= TOO_LARGE_BYTES}
    where.update((rider.name, rider) for rider in ctx.riders)
    names = list(where)
    for at in range(0, len(names), WINDOW):
        found: dict[PackName, Findings | None] = {}
        limit = trio.CapacityLimiter(AT_ONCE)

        async def one(name: PackName, found: dict[PackName, Findings | None] = found, limit: trio.CapacityLimiter = limit) -> None:
            async with limit:
                found[name] = await _download(ctx, name, where[name], None)

        async with trio.open_nursery() as nursery:
            for name in names[at:at + WINDOW]:
                nursery.start_soon(one, name)
        ctx.progress("reading packs", min(at + WINDOW, len(names)), len(names), "packs")
        for name, findings in sorted(found.items()):
            rider = where[name]
            key = rider.key if rider is not None else pack_key(name)
            if findings is not None and not findings.clean:
                yield Problem(NAME, f"pack {key}: damaged: {(findings.object or ['chunks in it'])[0]} ({findings.intact} chunks are whole, "
                              f"{len(findings.bad)} are not)", object=key)


def is_pack(key: str) -> bool:
    try:
        ids.parse_pack_key(key)
    except ValueError:
        return False
    return True
