"""Extents, chunks and packs: which bytes of a file are which bytes of a chunk, and where chunks lie.

Invariants (the audit checks them):
- the extents of an inode are disjoint and not empty;
- chunk.refs = number of extent rows that name it; a reference is taken by an UPDATE that must hit;
- inode.alloc = sum of its extents' lengths + len(data); counters.used_bytes = sum of alloc.
- no extent lies across the border of a range of `trash`.

Cutting a range costs a fixed number of statements whatever lies in it: a few rows are handled one by one (nearly always),
many by statements over the whole range. Holes have no rows, so they cost nothing.

But the changeset of a cut has every row. So a file of very many extents is not removed or truncated in one transaction: the range is noted
in `trash`, in the transaction of the removal, and its extents are of no file from then on (those of an inode that is gone are all in it:
inode numbers are not used again). `sweep` drops them and their references in steps, whenever there is time. Until then they count in
the `alloc` of an inode that is still there.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any

from s3cfs.errors import Damaged, StaleInode
from s3cfs.ids import ChunkId, PackName
from s3cfs.meta.engine import Engine
from s3cfs.meta.types import Chunk, ChunkGone, Extent, Pack

END = 2**63 - 1
_FEW = 8

#: for an extent `e`: whether it is of no file any more
TRASH = "SELECT 1 FROM trash AS t WHERE t.ino = e.ino AND t.off <= e.off AND t.stop > e.off"

#: the other way round it would be a pass over all chunks
BAD_IN_USE = "SELECT count(*) FROM bad_chunk AS b CROSS JOIN chunk AS c ON c.id = b.id WHERE c.refs > 0"

_START = "coalesce((SELECT max(off) FROM extent WHERE ino = ?1 AND off <= ?2), ?2)"
_CUT = f"SELECT off, len, chunk, coff FROM extent WHERE ino = ?1 AND off >= {_START} AND off < ?3 ORDER BY off LIMIT {_FEW + 1}"
_LAST = "SELECT off, len, chunk, coff FROM extent WHERE ino = ? AND off >= ? AND off < ? ORDER BY off DESC LIMIT 1"
_EXTENTS = f"""SELECT e.off, e.len, e.chunk, e.coff, c.id, c.hash, c.pack, c.off, c.clen, c.len, c.refs
    FROM extent AS e CROSS JOIN chunk AS c ON c.id = e.chunk
    WHERE e.ino = ?1 AND e.off >= {_START} AND e.off < ?3 AND e.off + e.len > ?2"""
_EXTENTS_LEFT = f"{_EXTENTS} AND NOT EXISTS ({TRASH})"
_CHUNK = "SELECT id, hash, pack, off, clen, len, refs FROM chunk"
_UNREF_RANGE = """UPDATE chunk SET refs = refs - gone.n
    FROM (SELECT chunk AS id, count(*) AS n FROM extent WHERE ino = ? AND off >= ? AND off < ? GROUP BY chunk) AS gone
    WHERE chunk.id = gone.id"""
_IN_RANGE = "SELECT coalesce(sum(len), 0), count(DISTINCT chunk) FROM extent WHERE ino = ? AND off >= ? AND off < ?"
_DELETE_RANGE = "DELETE FROM extent WHERE ino = ? AND off >= ? AND off < ?"
_DELETE = "DELETE FROM extent WHERE ino = ? AND off = ?"
_INSERT = "INSERT INTO extent VALUES (?, ?, ?, ?, ?)"
_REF = "UPDATE chunk SET refs = refs + ?1 WHERE id = ?2 AND len >= ?3"
_PACK = "SELECT id, epoch, name, size, state, key, coalesce(base, 0) FROM pack LEFT JOIN riding ON pack = id"


class Content:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._one, self._all, self._run = engine.one, engine.all, engine.run
        self._step = engine.doors.limits.sweep_rows
        self._known_bad: set[int] | None = None
        self._known_trash: set[int] | None = None
        self.on_trash: Callable[[], None] = lambda: None

    def reload(self) -> None:
        """Rows came in that were not written here: marks and trash are read again when somebody asks, not for each record of the log."""
        self._known_bad = self._known_trash = None

    @property
    def _bad(self) -> set[int]:
        if self._known_bad is None:
            self._known_bad = {row[0] for row in self._all("SELECT id FROM bad_chunk")}
        return self._known_bad

    @property
    def _trash(self) -> set[int]:
        """Inodes with ranges there."""
        if self._known_trash is None:
            self._known_trash = {row[0] for row in self._all("SELECT DISTINCT ino FROM trash")}
        return self._known_trash

    # ------------------------------------------------------------ extents

    async def extents(self, ino: int, start: int, end: int, limit: int = -1) -> list[tuple[Extent, Chunk]]:
        """Those overlapping [start, end), whole, in order, with their chunks; the first `limit` of them (-1: all)."""
        sql = _EXTENTS_LEFT if ino in self._trash else _EXTENTS
        return [(Extent(row[0], row[1], row[2], row[3]), Chunk(*row[4:]))
                for row in self._all(f"{sql} ORDER BY e.off LIMIT ?4", (ino, start, end, limit))]

    async def replace(self, ino: int, start: int, end: int, new: Sequence[Extent]) -> None:
        """Make [start, end) consist of `new` (ordered, disjoint, inside the range; gaps are holes).

        What overlapped is cut or split. ChunkGone: a chunk of `new` has no row; nothing was changed. `size` is not touched.
        """
        at, added = start, 0
        wanted: dict[int, tuple[int, int]] = {}
        for extent in new:
            if extent.off < at or extent.len <= 0 or extent.coff < 0 or extent.off + extent.len > end:
                raise ValueError(f"extent {extent} does not fit into [{start}, {end}) after {at}")
            at, added = extent.off + extent.len, added + extent.len
            count, reach = wanted.get(extent.chunk, (0, 0))
            wanted[extent.chunk] = (count + 1, max(reach, extent.coff + extent.len))
        row = self._one("SELECT alloc FROM inode WHERE ino = ?", (ino,))
        if row is None:
            raise StaleInode(f"inode {ino} is gone")
        self._take(wanted)
        freed = self._cut(ino, start, end)
        self._reclaim(ino, start, end)
        if len(new) <= _FEW:
            for extent in new:
                self._run(_INSERT, (ino, extent.off, extent.len, extent.chunk, extent.coff))
        else:
            self._engine.many(_INSERT, ((ino, extent.off, extent.len, extent.chunk, extent.coff) for extent in new))
        self._account(ino, row[0], added - freed)

    async def truncate(self, ino: int, size: int) -> None:
        """Drop what lies beyond `size`, inline data included: at once, or when it is much by way of `trash`.

        The column `size` is the caller's to set.
        """
        row = self._one("SELECT alloc, data FROM inode WHERE ino = ?", (ino,))
        if row is None:
            raise StaleInode(f"inode {ino} is gone")
        alloc, data = row
        freed = self._drop_from(ino, size)
        if data is not None and len(data) > size:
            self._run("UPDATE inode SET data = ? WHERE ino = ?", (data[:size], ino))
            freed += len(data) - size
        self._account(ino, alloc, -freed)

    def drop_content(self, ino: int) -> None:
        """Before the inode's row is deleted."""
        row = self._one("SELECT alloc FROM inode WHERE ino = ?", (ino,))
        if row is None:
            raise StaleInode(f"inode {ino} is gone")
        self._drop_from(ino, 0)
        self._engine.counters.used_bytes -= row[0]

    def account_inline(self, ino: int, data: bytes | None) -> None:
        """Before the column `data` becomes this."""
        row = self._one("SELECT alloc, coalesce(length(data), 0) FROM inode WHERE ino = ?", (ino,))
        if row is None:
            raise StaleInode(f"inode {ino} is gone")
        self._account(ino, row[0], (len(data) if data is not None else 0) - row[1])

    def _account(self, ino: int, alloc: int, change: int) -> None:
        if change:
            self._run("UPDATE inode SET alloc = ? WHERE ino = ?", (alloc + change, ino))
            self._engine.counters.used_bytes += change

    def _take(self, wanted: dict[int, tuple[int, int]]) -> None:
        """References for {chunk: (how many, least length)}; all or none."""
        taken: list[tuple[int, int]] = []
        for chunk, (count, reach) in wanted.items():
            if self._run(_REF, (count, chunk, reach)):
                taken.append((chunk, count))
                continue
            for earlier, number in taken:
                self._run(_REF, (-number, earlier, 0))
            if self._one("SELECT 1 FROM chunk WHERE id = ?", (chunk,)):
                raise ValueError(f"an extent reaches {reach} bytes into chunk {chunk}, which is shorter")
            raise ChunkGone(chunk)

    def _release(self, chunk: int, change: int = -1) -> None:
        if not self._run(_REF, (change, chunk, 0)):
            raise self._engine.fail(Damaged(f"chunk {chunk} is named by an extent and does not exist: run fsck"))

    def _cut(self, ino: int, start: int, end: int) -> int:
        """Make [start, end) a hole; the bytes of extents that went. `alloc` is left to the caller."""
        rows = self._all(_CUT, (ino, start, end))
        freed = 0
        if rows and rows[0][0] < start:
            off, length, chunk, coff = rows.pop(0)
            stop = off + length
            if stop > start:
                self._run("UPDATE extent SET len = ? WHERE ino = ? AND off = ?", (start - off, ino, off))
                if stop > end:
                    self._release(chunk, 1)
                    self._run(_INSERT, (ino, end, stop - end, chunk, coff + end - off))
                    return end - start
                freed = stop - start
        if len(rows) >= _FEW:
            return freed + self._cut_many(ino, start, end)[1]
        for off, length, chunk, coff in rows:
            self._run(_DELETE, (ino, off))
            if off + length > end:
                freed += self._keep_right(ino, (off, length, chunk, coff), end)
            else:
                self._release(chunk)
                freed += length
        return freed

    def _keep_right(self, ino: int, row: tuple[Any, ...], end: int) -> int:
        """An extent (deleted by now) that reaches beyond `end` lives on there, its reference with it."""
        off, length, chunk, coff = row
        self._run(_INSERT, (ino, end, off + length - end, chunk, coff + end - off))
        return int(end - off)

    def _cut_many(self, ino: int, start: int, end: int) -> tuple[int, int]:
        """(rows, bytes) that went, by a few statements over the whole range. No extent may reach into it from below."""
        freed, whole = 0, end
        last = self._one(_LAST, (ino, start, end))
        if last and last[0] + last[1] > end:
            whole = last[0]
            self._run(_DELETE, (ino, whole))
            freed = self._keep_right(ino, last, end)
        found = self._one(_IN_RANGE, (ino, start, whole))
        assert found is not None
        if self._run(_UNREF_RANGE, (ino, start, whole)) != found[1]:
            raise self._engine.fail(Damaged(f"inode {ino} names chunks that do not exist: run fsck"))
        return self._run(_DELETE_RANGE, (ino, start, whole)), int(freed + found[0])

    # ------------------------------------------------------------ trash

    @property
    def has_trash(self) -> bool:
        return bool(self._trash)

    def sweep(self) -> int:
        """Drop the next limits.sweep_rows extents (at most) that are of no file; how many it were, 0 only when nothing is left."""
        row = self._one("SELECT ino, off, stop FROM trash LIMIT 1")
        if row is None:
            return 0
        ino, off, stop = row
        self._run("DELETE FROM trash WHERE ino = ? AND off = ?", (ino, off))
        rest = self._one("SELECT off FROM extent WHERE ino = ? AND off >= ? AND off < ? ORDER BY off LIMIT 1 OFFSET ?",
                         (ino, off, stop, self._step))
        if rest:
            self._run("INSERT INTO trash VALUES (?, ?, ?)", (ino, rest[0], stop))
        elif not self._one("SELECT 1 FROM trash WHERE ino = ?", (ino,)):
            self._trash.discard(ino)
        rows, freed = self._cut_many(ino, off, rest[0] if rest else stop)
        inode = self._one("SELECT alloc FROM inode WHERE ino = ?", (ino,))
        if inode is not None:
            self._account(ino, inode[0], -freed)
        return rows or 1

    def _drop_from(self, ino: int, size: int) -> int:
        """No extent of the file lies beyond `size` afterwards. The bytes of those that went at once."""
        start, end = size, END
        many = self._one("SELECT 1 FROM extent WHERE ino = ? AND off >= ? LIMIT 1 OFFSET ?", (ino, size, self._step))
        if many:
            first = self._one("SELECT off FROM extent WHERE ino = ? AND off >= ? ORDER BY off LIMIT 1", (ino, size))
            assert first is not None
            end = first[0]                           # of what reaches beyond `size` from below, and is cut
        freed = self._cut(ino, start, end)
        self._reclaim(ino, start, END)
        if many:
            self._run("INSERT INTO trash VALUES (?, ?, ?)", (ino, end, END))
            self._trash.add(ino)
            self.on_trash()
        return freed

    def _reclaim(self, ino: int, start: int, end: int) -> None:
        """[start, end) is the file's again: its extents there were just cut."""
        if ino not in self._trash:
            return
        for off, stop in self._all("SELECT off, stop FROM trash WHERE ino = ? AND off < ? AND stop > ?", (ino, end, start)):
            self._run("DELETE FROM trash WHERE ino = ? AND off = ?", (ino, off))
            if off < start:
                self._run("INSERT INTO trash VALUES (?, ?, ?)", (ino, off, start))
            if stop > end:
                self._run("INSERT INTO trash VALUES (?, ?, ?)", (ino, end, stop))
        if not self._one("SELECT 1 FROM trash WHERE ino = ?", (ino,)):
            self._trash.discard(ino)

    # ------------------------------------------------------------ chunks

    async def find_chunk(self, hash: ChunkId) -> Chunk | None:
        """One that holds this content and is not known to be bad; it may have no references at the moment."""
        if not self._bad:
            row = self._one(f"{_CHUNK} WHERE hash = ? LIMIT 1", (hash,))
            return Chunk(*row) if row else None
        for row in self._all(f"{_CHUNK} WHERE hash = ? ORDER BY id DESC", (hash,)):
            if row[0] not in self._bad:
                return Chunk(*row)
        return None

    async def add_chunk(self, hash: ChunkId, pack: int, off: int, clen: int, len: int) -> int:
        """Its id. No references yet: replace() takes them."""
        id = self._engine.counters.next_chunk
        self._run("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, 0)", (id, hash, pack, off, clen, len))
        self._engine.counters.next_chunk = id + 1
        return id

    async def chunk(self, id: int) -> Chunk | None:
        row = self._one(f"{_CHUNK} WHERE id = ?", (id,))
        return Chunk(*row) if row else None

    async def move_chunk(self, id: int, pack: int, off: int) -> None:
        """The same sealed bytes now lie elsewhere."""
        if not self._run("UPDATE chunk SET pack = ?, off = ? WHERE id = ?", (pack, off, id)):
            raise ChunkGone(id)

    async def forget_chunk(self, id: int) -> bool:
        """Drop the row of a chunk, and its mark, if no file uses it. Whoever found it and has no reference yet must look again."""
        gone = self._run("DELETE FROM chunk WHERE id = ? AND refs = 0", (id,))
        if gone:
            self.unmark_bad(id)
        return bool(gone)

    async def chunks_of(self, pack: int) -> list[Chunk]:
        """In the order of the pack."""
        return [Chunk(*row) for row in self._all(f"{_CHUNK} WHERE pack = ? ORDER BY off", (pack,))]

    async def users_of(self, chunk: int, limit: int = 1000) -> list[tuple[int, Extent]]:
        """(ino, extent) that name the chunk. Reads all extents: for messages and fsck."""
        return [(row[0], Extent(*row[1:])) for row in self._all(
            f"SELECT ino, off, len, chunk, coff FROM extent AS e WHERE chunk = ? AND NOT EXISTS ({TRASH}) LIMIT ?", (chunk, limit))]

    async def drop_chunk(self, id: int) -> bool:
        """Forget a chunk that no file uses, and its mark; False when one does. Reads all extents: for repairs."""
        gone = self._run("DELETE FROM chunk WHERE id = ?1 AND refs = 0 AND NOT EXISTS (SELECT 1 FROM extent WHERE chunk = ?1)", (id,))
        if gone:
            self.unmark_bad(id)
        return bool(gone)

    def mark_bad(self, id: int) -> None:
        """Deduplication never points at it again, on no machine. Not async, for a callback in the middle of a read."""
        if id not in self._bad:
            self._run("INSERT INTO bad_chunk VALUES (?)", (id,))
            self._bad.add(id)

    def unmark_bad(self, id: int) -> None:
        """It is whole after all, or gone."""
        if id in self._bad:
            self._run("DELETE FROM bad_chunk WHERE id = ?", (id,))
            self._bad.discard(id)

    def bad_in_use(self) -> int:
        """How many of them files use. A look-up for each that is marked."""
        row = self._one(BAD_IN_USE)
        assert row is not None
        return int(row[0])

    def bad_chunks(self) -> Set[int]:
        """Those that are marked; a view, not a copy."""
        return self._bad

    # ------------------------------------------------------------ packs

    async def new_pack(self, epoch: int) -> int:
        id = self._engine.counters.next_pack
        self._run("INSERT INTO pack VALUES (?, ?, NULL, 0, 'open')", (id, epoch))
        self._engine.counters.next_pack = id + 1
        self._engine.open_packs.add(id)
        return id

    async def close_pack(self, id: int, name: PackName, size: int) -> None:
        if not self._run("UPDATE pack SET name = ?, size = ?, state = 'closed' WHERE id = ? AND state = 'open'", (name, size, id)):
            raise ValueError(f"pack {id} is not open")
        self._engine.open_packs.discard(id)

    async def drop_pack(self, id: int) -> None:
        """A pack that holds no chunk (any more): nobody may name it."""
        if self._one("SELECT 1 FROM chunk WHERE pack = ? LIMIT 1", (id,)):
            raise ValueError(f"pack {id} still holds chunks")
        if not self._run("DELETE FROM pack WHERE id = ?", (id,)):
            raise ValueError(f"there is no pack {id}")
        self._run("DELETE FROM riding WHERE pack = ?", (id,))
        self._engine.open_packs.discard(id)

    def pack_of(self, id: int) -> Pack:
        """Damaged when there is no such pack. Not async: the way of a read asks in the middle of its own step."""
        row = self._one(f"{_PACK} WHERE id = ?", (id,))
        if row is None:
            raise Damaged(f"the metadata names pack {id}, which is not in it: run fsck")
        return Pack(*row)

    async def pack(self, id: int) -> Pack:
        return self.pack_of(id)

    async def open_packs(self) -> list[Pack]:
        return [Pack(*row) for row in self._all(f"{_PACK} WHERE state = 'open' ORDER BY id")]

    async def packs(self, after: int = 0, limit: int = 1 << 30) -> list[Pack]:
        return [Pack(*row) for row in self._all(f"{_PACK} WHERE id > ? ORDER BY id LIMIT ?", (after, limit))]
