"""S3QL's database, in a copy of ours: what is asked of it. Blocking; one caller at a time.

Nothing in it is trusted: it may be a torn copy of a crash, or made by somebody else. Its own counts of links are counted anew.
"""
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from s3cfs.errors import Damaged

PAGE_ROWS = 500
ROOT, CONTROL = 1, 2               # inodes: the second is S3QL's own
TROUBLES = 20
TABLES = ("inodes", "contents", "names", "objects", "inode_blocks", "symlink_targets", "ext_attributes")

_INODE = "i.id, i.mode, i.uid, i.gid, i.size, i.atime_ns, i.mtime_ns, i.ctime_ns, i.rdev, i.locked"
_CHILDREN = f"""
SELECT c.name_id, n.name, c.inode, l.n, s.target, EXISTS (SELECT 1 FROM ext_attributes e WHERE e.inode = c.inode), {_INODE}
FROM contents c LEFT JOIN names n ON n.id = c.name_id LEFT JOIN inodes i ON i.id = c.inode
LEFT JOIN temp.links l ON l.inode = c.inode LEFT JOIN symlink_targets s ON s.inode = c.inode
WHERE c.parent_inode = ? AND c.name_id > ? ORDER BY c.name_id LIMIT {PAGE_ROWS}"""
_BLOCKS = """
SELECT b.blockno, b.obj_id, o.hash, o.length, o.refcount FROM inode_blocks b LEFT JOIN objects o ON o.id = b.obj_id
WHERE b.inode = ? AND b.blockno >= ? ORDER BY b.blockno LIMIT ?"""


class InodeRow(NamedTuple):
    id: int
    mode: int
    uid: int
    gid: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int
    locked: int


class ChildRow(NamedTuple):
    """`inode` None: the entry names one that is not there; `name` None: its name is not there."""

    name_id: int
    name: bytes | None
    ino: int
    names: int
    target: bytes | None
    xattrs: bool
    inode: InodeRow | None


class BlockRow(NamedTuple):
    """`hash` None: the upload failed, or there is no such object (then `length` is None, too)."""

    blockno: int
    obj_id: int
    hash: bytes | None
    length: int | None
    refcount: int


class Summary(NamedTuple):
    inodes: dict[int, int]         # by type (S_IFMT of the mode)
    locked: int
    file_bytes: int                # sizes of files
    blocks: int                    # rows
    block_bytes: int               # lengths of all rows
    objects: int
    object_bytes: int              # plaintext, each once
    unfinished: int                # objects whose upload failed


class Database:
    def __init__(self, path: str) -> None:
        """`path`: a copy; SQLite may write into it. Damaged."""
        _forget_statistics(path)
        self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._sql.text_factory = bytes
            self._sql.executescript("PRAGMA trusted_schema = OFF; PRAGMA temp_store = FILE; PRAGMA mmap_size = 0;")
            for table in TABLES:
                self._sql.execute(f"SELECT 1 FROM {table} LIMIT 1")
        except sqlite3.Error as error:
            self._sql.close()
            raise Damaged(f"the metadata of S3QL cannot be read: {error}") from None

    def close(self) -> None:
        self._sql.close()

    def _all(self, query: str, *values: int) -> list[tuple[Any, ...]]:
        try:
            return self._sql.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise Damaged(f"the metadata of S3QL cannot be read: {error}") from None

    def prepare(self) -> list[str]:
        """Once, before the tree is asked for: counts names. What SQLite finds wrong, in words."""
        troubles = [str(text, "utf-8", "replace") for (text,) in self._all(f"PRAGMA integrity_check({TROUBLES})")]
        self._all("CREATE TEMP TABLE links (inode INTEGER PRIMARY KEY, n INT)")
        self._all("INSERT INTO temp.links SELECT inode, COUNT(*) FROM contents GROUP BY inode HAVING COUNT(*) > 1")
        return [text for text in troubles if text != "ok"]

    def root(self) -> InodeRow | None:
        rows = self._all(f"SELECT {_INODE} FROM inodes i WHERE i.id = {ROOT}")
        return _inode(rows[0]) if rows else None

    def children(self, folder: int, after: int) -> list[ChildRow]:
        return [ChildRow(row[0], _blob(row[1]), row[2], row[3] or 1, _blob(row[4]), bool(row[5]), _inode(row[6:]))
                for row in self._all(_CHILDREN, folder, after)]

    def xattrs(self, ino: int) -> list[tuple[bytes, bytes]]:
        rows = self._all("SELECT n.name, e.value FROM ext_attributes e JOIN names n ON n.id = e.name_id WHERE e.inode = ? ORDER BY n.name",
                         ino)
        return [(_blob(name) or b"", _blob(value) or b"") for name, value in rows]

    def blocks(self, ino: int, first: int, most: int = PAGE_ROWS) -> Sequence[BlockRow]:
        """The next rows from a block on; [] at the end."""
        return [BlockRow(row[0], row[1], _blob(row[2]), _whole(row[3]), _whole(row[4]) or 0)
                for row in self._all(_BLOCKS, ino, first, most)]

    def block(self, ino: int, number: int) -> BlockRow | None:
        found = self.blocks(ino, number, 1)
        return found[0] if found and found[0].blockno == number else None

    def nameless(self) -> int:
        """Inodes that no entry leads to: files that were open at a crash, mostly."""
        return int(self._all(f"SELECT COUNT(*) FROM inodes WHERE id > {CONTROL} AND id NOT IN (SELECT inode FROM contents)")[0][0])

    def summary(self) -> Summary:
        kinds = dict[int, int](self._all(f"SELECT mode & 61440, COUNT(*) FROM inodes WHERE id != {CONTROL} GROUP BY 1"))
        (locked, sizes), = self._all("SELECT SUM(locked != 0), SUM(CASE WHEN mode & 61440 = 32768 THEN size END) FROM inodes")
        (blocks, block_bytes), = self._all("SELECT COUNT(*), SUM(o.length) FROM inode_blocks b LEFT JOIN objects o ON o.id = b.obj_id")
        (objects, object_bytes, unfinished), = self._all("SELECT COUNT(*), SUM(length), SUM(hash IS NULL) FROM objects")
        return Summary(kinds, locked or 0, sizes or 0, blocks, block_bytes or 0, objects, object_bytes or 0, unfinished or 0)


def _forget_statistics(path: str) -> None:
    """They are from when the filesystem was made: SQLite would take its tables for empty, and scan one where it has an index."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as sql:
            for table in ("sqlite_stat1", "sqlite_stat3", "sqlite_stat4"):
                sql.execute(f"DROP TABLE IF EXISTS {table}")
    except sqlite3.Error as error:
        raise Damaged(f"the metadata of S3QL cannot be read: {error}") from None


def _inode(row: tuple[Any, ...]) -> InodeRow | None:
    if not all(isinstance(value, int) for value in row):
        return None
    return InodeRow(*row)


def _blob(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
