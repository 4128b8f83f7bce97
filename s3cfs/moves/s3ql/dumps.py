"""The metadata of S3QL's revisions 24 and 25: tables, one after the other, in one compressed stream. They become a database like 26's.

Each table is its number of rows, then the rows. An integer is a byte: bit 7 for negative, the rest its magnitude up to 123; 127, 126, 125,
124 say that the magnitude follows in 1, 2, 4, 8 bytes. A column of integers holds differences to the row before, less a step.
"""
from __future__ import annotations

import bz2
import io
import sqlite3
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from s3cfs.errors import Damaged

SIZES = {127: 1, 126: 2, 125: 4, 124: 8}
HASH_BYTES = 32
BLOB_MAX_BYTES = 1 << 20
BATCH_ROWS = 5000


class Column(NamedTuple):
    name: str
    kind: str = "int"              # "int", "hash" or "blob"
    step: int = 0


Table = tuple[str, tuple[Column, ...]]
Row = tuple[int | bytes, ...]


def _table(name: str, columns: str) -> Table:
    """`a+` has step 1, `#a` is a hash, `*a` a blob."""
    made = []
    for word in columns.split():
        kind = {"#": "hash", "*": "blob"}.get(word[0], "int")
        made.append(Column(word.strip("#*+"), kind, int(word.endswith("+"))))
    return name, tuple(made)


_INODES = _table("inodes", "id+ uid gid mode mtime_ns atime_ns ctime_ns size rdev locked refcount")
_REST = (_table("symlink_targets", "inode+ *target"), _table("names", "id+ *name refcount"),
         _table("contents", "name_id+ inode+ parent_inode"), _table("ext_attributes", "inode name_id *value"))
TABLES: dict[int, tuple[Table, ...]] = {
    25: (_table("objects", "id+ #hash refcount phys_size length"), _INODES, _table("inode_blocks", "inode blockno+ obj_id+"), *_REST),
    24: (_table("objects", "id+ size refcount"), _table("blocks", "id+ #hash size obj_id+ refcount"), _INODES,
         _table("inode_blocks", "inode blockno+ block_id+"), *_REST),
}

SCHEMA = """
CREATE TABLE objects (id INTEGER PRIMARY KEY, hash BLOB, refcount INT, phys_size INT, length INT);
CREATE TABLE inodes (id INTEGER PRIMARY KEY, uid INT, gid INT, mode INT, mtime_ns INT, atime_ns INT, ctime_ns INT, refcount INT, size INT,
                     rdev INT, locked INT);
CREATE TABLE inode_blocks (inode INT, blockno INT, obj_id INT, PRIMARY KEY (inode, blockno));
CREATE TABLE symlink_targets (inode INTEGER PRIMARY KEY, target BLOB);
CREATE TABLE names (id INTEGER PRIMARY KEY, name BLOB, refcount INT);
CREATE TABLE contents (name_id INT, inode INT, parent_inode INT, UNIQUE (parent_inode, name_id));
CREATE TABLE ext_attributes (inode INT, name_id INT, value BLOB, PRIMARY KEY (inode, name_id));
"""
SCHEMA_24 = "CREATE TABLE objects_24 (id INTEGER PRIMARY KEY, size INT, refcount INT);" \
            "CREATE TABLE blocks (id INTEGER PRIMARY KEY, hash BLOB, size INT, obj_id INT, refcount INT);"
# a block and its object are one from revision 25 on
JOIN_24 = """
INSERT OR REPLACE INTO objects SELECT b.obj_id, b.hash, b.refcount, o.size, b.size FROM blocks b LEFT JOIN objects_24 o ON o.id = b.obj_id;
UPDATE inode_blocks SET obj_id = COALESCE((SELECT obj_id FROM blocks b WHERE b.id = inode_blocks.obj_id), -obj_id);
DROP TABLE blocks; DROP TABLE objects_24;
"""


def load(data: bytes, revision: int, path: str) -> None:
    """Fill a new database at `path` from the dump `data`. Damaged."""
    with bz2.open(io.BytesIO(data)) as stream:
        database = sqlite3.connect(path, isolation_level=None)
        try:
            database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + SCHEMA + (SCHEMA_24 if revision == 24 else ""))
            database.execute("BEGIN")
            for table in TABLES[revision]:
                _load_table(stream, table, revision, database)  # type: ignore[arg-type]
            if stream.read(1):
                raise Damaged("the metadata go on after their end")
            database.execute("COMMIT")
            if revision == 24:
                database.executescript(JOIN_24)
        except sqlite3.Error as error:
            raise Damaged(f"the metadata contradict themselves: {error}") from None
        except (OSError, EOFError, OverflowError):
            raise Damaged("the metadata are cut off or damaged") from None
        finally:
            database.close()


def _load_table(stream: BinaryIO, table: Table, revision: int, database: sqlite3.Connection) -> None:
    name, columns = table
    to = "objects_24" if revision == 24 and name == "objects" else name
    names = ", ".join("obj_id" if column.name == "block_id" else column.name for column in columns)
    insert = f"INSERT INTO {to} ({names}) VALUES ({', '.join('?' * len(columns))})"
    batch: list[Row] = []
    for row in _rows(stream, columns):
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            database.executemany(insert, batch)
            batch.clear()
    database.executemany(insert, batch)


def _rows(stream: BinaryIO, columns: tuple[Column, ...]) -> Iterator[Row]:
    before = [0] * len(columns)
    for _ in range(_integer(stream)):
        row: list[int | bytes] = []
        for number, column in enumerate(columns):
            if column.kind == "hash":
                row.append(_exactly(stream, HASH_BYTES))
                continue
            value = before[number] = _integer(stream) + before[number] + column.step
            if column.kind == "blob":
                if not 0 <= value <= BLOB_MAX_BYTES:
                    raise Damaged("the metadata hold a name of impossible length")
                row.append(_exactly(stream, value))
            else:
                row.append(value)
        yield tuple(row)


def _integer(stream: BinaryIO) -> int:
    first = _exactly(stream, 1)[0]
    magnitude = first & 127
    if magnitude in SIZES:
        magnitude = int.from_bytes(_exactly(stream, SIZES[magnitude]), "little")
    return -magnitude if first & 128 else magnitude


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data
