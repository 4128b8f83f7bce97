"""What must be true of the rows, as a list of checks; each finds problems, and some can mend them.

A repair is offered only where nothing a user wrote can be lost by it: a missing chunk or overlapping extents are reported and
left alone. Repairs are ordinary replicated changes; commit() them. For an unmounted file system, or one at rest.
Order matters: names before reachability, reachability before link counts, contents before references and sums.
"""
from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from s3cfs.ids import ROOT_INO
from s3cfs.meta.content import TRASH
from s3cfs.meta.engine import Engine

LOST_FOUND = b"lost+found"
_IS_DIR = f"(mode & {stat.S_IFMT(0o170000)}) = {stat.S_IFDIR}"
_I_IS_DIR = _IS_DIR.replace("mode", "i.mode")
_REACHED = f"""reached(ino) AS (SELECT {ROOT_INO} UNION SELECT d.ino FROM reached AS r CROSS JOIN dentry AS d ON d.parent = r.ino)"""
_UNREACHED = f"""WITH RECURSIVE {_REACHED} SELECT ino, mode FROM inode
    WHERE {_IS_DIR} AND ino NOT IN (SELECT ino FROM reached) AND ino NOT IN (SELECT ino FROM orphan)"""


@dataclass(slots=True, frozen=True)
class Problem:
    check: str
    text: str
    row: tuple[Any, ...]        # what the check's repair needs
    repairable: bool


@dataclass(slots=True, frozen=True)
class Check:
    name: str
    sql: str
    text: str                   # formatted with the row
    repair: Callable[[Engine, tuple[Any, ...]], None] | None = None


def _set(sql: str) -> Callable[[Engine, tuple[Any, ...]], None]:
    """For rows of (key, what is, what must be)."""
    def repair(engine: Engine, row: tuple[Any, ...]) -> None:
        engine.run(sql, (row[2], row[0]))
    return repair


def _doing(*statements: str) -> Callable[[Engine, tuple[Any, ...]], None]:
    def repair(engine: Engine, row: tuple[Any, ...]) -> None:
        for sql in statements:
            engine.run(sql, row)
    return repair


def _truncate_extent(engine: Engine, row: tuple[Any, ...]) -> None:
    ino, off, _, size = row
    if off >= size:
        engine.run("DELETE FROM extent WHERE ino = ? AND off = ?", (ino, off))
    else:
        engine.run("UPDATE extent SET len = ? WHERE ino = ? AND off = ?", (size - off, ino, off))


def _set_counter(engine: Engine, row: tuple[Any, ...]) -> None:
    setattr(engine.counters, row[0], row[2])
    engine.flush_counters()


def _adopt_ring(engine: Engine, row: tuple[Any, ...]) -> None:
    """Open a ring of folders, unless an earlier repair brought this one back. Files in it come along."""
    if engine.one(f"{_UNREACHED} AND ino = ?", row[:1]):
        _adopt(engine, row)


def _adopt(engine: Engine, row: tuple[Any, ...]) -> None:
    """Give an inode a name in /lost+found."""
    ino, mode = row
    if stat.S_ISDIR(mode):
        engine.run("DELETE FROM dentry WHERE ino = ?", (ino,))      # a folder has one name; this one is in a ring
    home = _lost_found(engine)
    taken = "SELECT 1 FROM dentry WHERE parent = ? AND name = ?"
    name = next(name for name in _numbered(b"%d" % ino) if not engine.one(taken, (home, name)))
    engine.run("INSERT INTO dentry VALUES (?, ?, ?)", (home, name, ino))
    if stat.S_ISDIR(mode):
        engine.run("UPDATE inode SET parent = ? WHERE ino = ?", (home, ino))


def _numbered(name: bytes) -> Iterator[bytes]:
    return itertools.chain((name,), (name + b".%d" % n for n in itertools.count(1)))


def _lost_found(engine: Engine) -> int:
    """The folder, made when there is none; beside it, should a file have its name."""
    for name in _numbered(LOST_FOUND):
        found = engine.one("SELECT ino, mode FROM dentry AS d LEFT JOIN inode USING (ino) WHERE d.parent = ? AND name = ?",
                           (ROOT_INO, name))
        if found is None:
            break
        if found[1] is not None and stat.S_ISDIR(found[1]):
            return int(found[0])
    highest = engine.one("SELECT max(ino) FROM inode")
    assert highest
    counters, now = engine.counters, engine.doors.clock.time_ns()
    home = max(counters.next_ino, int(highest[0]) + 1)                   # the counter is checked last
    engine.run("INSERT INTO inode VALUES (?, ?, 2, 0, 0, 0, 0, 0, ?, ?, ?, ?, NULL, NULL)",
               (home, stat.S_IFDIR | 0o700, now, now, now, ROOT_INO))
    counters.next_ino = home + 1
    counters.inodes += 1
    engine.run("INSERT INTO dentry VALUES (?, ?, ?)", (ROOT_INO, name, home))
    engine.run("UPDATE inode SET nlink = nlink + 1 WHERE ino = ?", (ROOT_INO,))
    return home


def _below(counter: str, table: str, key: str) -> Check:
    return Check("counter", f"SELECT name, value, (SELECT max({key}) + 1 FROM {table}) FROM counter "
                 f"WHERE name = '{counter}' AND value < (SELECT max({key}) + 1 FROM {table})",
                 "the counter {0} is {1}, and {2} is the least that names nothing twice", _set_counter)


def _equal(counter: str, truth: str) -> Check:
    return Check("counter", f"SELECT name, value, ({truth}) FROM counter WHERE name = '{counter}' AND value <> ({truth})",
                 "the counter {0} is {1} and must be {2}", _set_counter)


CHECKS = (
    Check("root", f"SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM inode WHERE ino = {ROOT_INO} AND {_IS_DIR})", "the root folder is missing"),
    Check("dangling entry", "SELECT parent, name FROM dentry WHERE ino NOT IN (SELECT ino FROM inode)",
          "entry {1!r} of folder {0} names an inode that does not exist", _doing("DELETE FROM dentry WHERE parent = ? AND name = ?")),
    Check("entry outside a folder", f"SELECT parent, name FROM dentry WHERE parent NOT IN (SELECT ino FROM inode WHERE {_IS_DIR})",
          "entry {1!r} lies in inode {0}, which is no folder", _doing("DELETE FROM dentry WHERE parent = ? AND name = ?")),
    Check("folder with several names", f"""SELECT ino, count(*) FROM dentry JOIN inode USING (ino) WHERE {_IS_DIR}
          GROUP BY ino HAVING count(*) > 1 OR ino = {ROOT_INO}""", "folder {0} has {1} names"),
    Check("dangling orphan", "SELECT ino FROM orphan WHERE ino NOT IN (SELECT ino FROM inode)",
          "inode {0} is noted as unlinked but open, and does not exist", _doing("DELETE FROM orphan WHERE ino = ?")),
    Check("orphan with a name", "SELECT ino FROM orphan WHERE ino IN (SELECT ino FROM dentry)",
          "inode {0} is noted as unlinked, and has a name", _doing("DELETE FROM orphan WHERE ino = ?")),
    Check("inode without a name", f"""SELECT ino, mode FROM inode WHERE ino <> {ROOT_INO} AND ino NOT IN (SELECT ino FROM dentry)
          AND ino NOT IN (SELECT ino FROM orphan)""", "inode {0} has no name", _adopt),
    Check("unreachable folder", _UNREACHED, "folder {0} cannot be reached from the root", _adopt_ring),
    Check("parent of a folder", f"""SELECT i.ino, i.parent, d.parent FROM inode AS i JOIN dentry AS d USING (ino)
          WHERE {_I_IS_DIR} AND i.parent <> d.parent AND i.ino <> {ROOT_INO}""",
          "folder {0} has {1} as its parent, and lies in {2}", _set("UPDATE inode SET parent = ? WHERE ino = ?")),
    Check("link count", f"""WITH named(ino, n) AS MATERIALIZED (SELECT ino, count(*) FROM dentry GROUP BY ino),
          folders(ino, n) AS MATERIALIZED (SELECT d.parent, count(*) FROM dentry AS d JOIN inode AS i USING (ino)
                                           WHERE {_I_IS_DIR} GROUP BY d.parent),
          must(ino, nlink, n) AS (SELECT i.ino, i.nlink, CASE
              WHEN {_I_IS_DIR} AND (named.n IS NOT NULL OR i.ino = {ROOT_INO}) THEN 2 + coalesce(folders.n, 0)
              ELSE coalesce(named.n, 0) END
              FROM inode AS i LEFT JOIN named USING (ino) LEFT JOIN folders ON folders.ino = i.ino)
          SELECT ino, nlink, n FROM must WHERE nlink <> n""",
          "inode {0} has the link count {1} and {2} links", _set("UPDATE inode SET nlink = ? WHERE ino = ?")),
    Check("attribute of nothing", "SELECT ino, name FROM xattr WHERE ino NOT IN (SELECT ino FROM inode)",
          "attribute {1!r} belongs to inode {0}, which does not exist", _doing("DELETE FROM xattr WHERE ino = ? AND name = ?")),
    Check("range of trash", """SELECT e.ino, e.off, e.len, t.off, t.stop FROM trash AS t JOIN extent AS e ON e.ino = t.ino
          WHERE e.off < t.off AND e.off + e.len > t.off OR e.off < t.stop AND e.off + e.len > t.stop
          UNION ALL SELECT a.ino, a.off, a.stop - a.off, b.off, b.stop FROM trash AS a JOIN trash AS b ON a.ino = b.ino
          WHERE a.off < b.off AND a.stop > b.off""",
          "bytes {1}+{2} of inode {0} lie across a border of its trash from {3} to {4}"),
    Check("extent of nothing", f"SELECT ino, off FROM extent AS e WHERE ino NOT IN (SELECT ino FROM inode) AND NOT EXISTS ({TRASH})",
          "the extent at {1} belongs to inode {0}, which does not exist", _doing("DELETE FROM extent WHERE ino = ? AND off = ?")),
    Check("missing chunk", "SELECT ino, off, len, chunk FROM extent WHERE chunk NOT IN (SELECT id FROM chunk)",
          "bytes {1}+{2} of inode {0} are in chunk {3}, which does not exist"),
    Check("extent beyond its chunk", """SELECT e.ino, e.off, e.len, e.chunk FROM extent AS e JOIN chunk AS c ON c.id = e.chunk
          WHERE e.coff < 0 OR e.len <= 0 OR e.coff + e.len > c.len""", "bytes {1}+{2} of inode {0} reach beyond the end of chunk {3}"),
    Check("overlapping extents", """SELECT ino, off, reach FROM (SELECT ino, off, max(off + len) OVER (PARTITION BY ino ORDER BY off
          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reach FROM extent) WHERE off < reach""",
          "the extent at {1} of inode {0} overlaps one that ends at {2}"),
    Check("extent beyond the size", f"""SELECT e.ino, e.off, e.len, i.size FROM extent AS e JOIN inode AS i USING (ino)
          WHERE e.off + e.len > i.size AND NOT EXISTS ({TRASH})""",
          "bytes {1}+{2} of inode {0} lie beyond its size {3}", _truncate_extent),
    Check("inline and extents", f"""SELECT ino FROM inode WHERE data IS NOT NULL
          AND (ino IN (SELECT ino FROM extent AS e WHERE NOT EXISTS ({TRASH})) OR length(data) > size)""",
          "inode {0} has inline content that contradicts its extents or its size"),
    Check("missing pack", "SELECT id, pack FROM chunk WHERE refs > 0 AND pack NOT IN (SELECT id FROM pack)",
          "chunk {0} lies in pack {1}, which does not exist"),
    Check("references", """SELECT c.id, c.refs, coalesce(e.n, 0) FROM chunk AS c
          LEFT JOIN (SELECT chunk, count(*) AS n FROM extent GROUP BY chunk) AS e ON e.chunk = c.id WHERE c.refs <> coalesce(e.n, 0)""",
          "chunk {0} counts {1} references and has {2}", _set("UPDATE chunk SET refs = ? WHERE id = ?")),
    Check("mark of nothing", "SELECT id FROM bad_chunk WHERE id NOT IN (SELECT id FROM chunk)",
          "chunk {0} is marked as damaged, and does not exist", _doing("DELETE FROM bad_chunk WHERE id = ?")),
    Check("allocated bytes", """SELECT i.ino, i.alloc, coalesce(e.n, 0) + coalesce(length(i.data), 0) AS n FROM inode AS i
          LEFT JOIN (SELECT ino, sum(len) AS n FROM extent GROUP BY ino) AS e USING (ino)
          WHERE i.alloc <> coalesce(e.n, 0) + coalesce(length(i.data), 0)""",
          "inode {0} counts {1} allocated bytes and has {2}", _set("UPDATE inode SET alloc = ? WHERE ino = ?")),
    _below("next_ino", "inode", "ino"),
    _below("next_chunk", "chunk", "id"),
    _below("next_pack", "pack", "id"),
    _equal("inodes", "SELECT count(*) FROM inode"),
    _equal("used_bytes", "SELECT coalesce(sum(alloc), 0) FROM inode"),
)


class Audit:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def problems(self) -> Iterator[Problem]:
        """All checks, in their order. Counters are looked at as rows: call it after commit()."""
        for check in CHECKS:
            yield from self._find(check)

    def repair(self) -> Iterator[Problem]:
        """Run the checks and mend, at once, what can be; yields what was found, mended (`repairable`) or not.

        A later check sees what earlier repairs did, so one pass is enough; problems() after commit() shows what is left.
        """
        for check in CHECKS:
            if check.name == "counter":
                self._engine.flush_counters()
            for problem in self._find(check):
                if check.repair:
                    check.repair(self._engine, problem.row)
                yield problem

    def _find(self, check: Check) -> list[Problem]:
        return [Problem(check.name, check.text.format(*row), row, check.repair is not None) for row in self._engine.all(check.sql)]
