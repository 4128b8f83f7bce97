"""Tables, and the constant state every database begins in.

Replicated tables travel as SQLite session changesets, local ones never leave the machine. Rules for replicated tables:
- explicit, non-NULL primary keys, and no other UNIQUE: a changeset applies row by row, so a second uniqueness could
  conflict half-way through a change that is consistent as a whole. (A chunk marked bad and stored again has the hash of
  the bad one, so `chunk.hash` could not be unique anyway.)
- no AUTOINCREMENT (sessions do not capture it), no triggers, no foreign keys (the audit checks what they would).
- DDL is not captured: a change of a replicated table is a new SCHEMA_VERSION and a fresh checkpoint. Indexes are not part
  of that; they may come and go with a release.

`extent` has `chunk` in its key although (ino, off) is unique already: the session (and the changeset builder) keeps touched rows
in a hash table whose hash takes the low bits of the key's integers as they are, so 100,000 extents at multiples of 4 KiB of
one inode would share some twenty buckets. Measured: dropping 262,144 scattered pages 22 s, with `chunk` in the key 0.4 s.

`trash` has ranges of files whose extents are of no file any more and go in steps (content.py). `outbox.packs`: the
highest pack that existed when the transaction ended, if none was open, so that a record may end with it; else NULL. `riding`: packs whose
bytes lie in a record's object. Where a record comes to lie is known only after its changeset was made, so this is no replicated table: each
machine notes it as it reads (or writes) the record, and checkpoints carry it in their manifests.

INITIAL is the same on every replica: the log's first record, and every snapshot, is a change *from this state*. The root
inode has times 0 and belongs to root until mkfs says otherwise in an ordinary transaction.
"""
from __future__ import annotations

import stat
from typing import Any, NamedTuple

from s3cfs.ids import ROOT_INO

SCHEMA_VERSION = 0


class Table(NamedTuple):
    name: str
    key: tuple[str, ...]
    columns: int


REPLICATED = (
    Table("fsmeta", ("key",), 2),
    Table("counter", ("name",), 2),
    Table("inode", ("ino",), 14),
    Table("dentry", ("parent", "name"), 3),
    Table("extent", ("ino", "off", "chunk"), 5),
    Table("chunk", ("id",), 7),
    Table("pack", ("id",), 5),
    Table("xattr", ("ino", "name"), 3),
    Table("orphan", ("ino",), 1),
    Table("trash", ("ino", "off"), 3),
    Table("bad_chunk", ("id",), 1),
)

REPLICATED_SQL = {
    "fsmeta": "(key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "counter": "(name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "inode": """(ino INTEGER NOT NULL PRIMARY KEY, mode INTEGER NOT NULL, nlink INTEGER NOT NULL, uid INTEGER NOT NULL,
        gid INTEGER NOT NULL, rdev INTEGER NOT NULL, size INTEGER NOT NULL, alloc INTEGER NOT NULL,
        atime_ns INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, parent INTEGER NOT NULL,
        target BLOB, data BLOB) STRICT""",
    "dentry": """(parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL,
        PRIMARY KEY (parent, name)) STRICT, WITHOUT ROWID""",
    "extent": """(ino INTEGER NOT NULL, off INTEGER NOT NULL, len INTEGER NOT NULL, chunk INTEGER NOT NULL,
        coff INTEGER NOT NULL, PRIMARY KEY (ino, off, chunk)) STRICT, WITHOUT ROWID""",
    "chunk": """(id INTEGER NOT NULL PRIMARY KEY, hash BLOB NOT NULL, pack INTEGER NOT NULL, off INTEGER NOT NULL,
        clen INTEGER NOT NULL, len INTEGER NOT NULL, refs INTEGER NOT NULL) STRICT""",
    "pack": """(id INTEGER NOT NULL PRIMARY KEY, epoch INTEGER NOT NULL, name TEXT, size INTEGER NOT NULL,
        state TEXT NOT NULL) STRICT""",
    "xattr": """(ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (ino, name)) STRICT, WITHOUT ROWID""",
    "orphan": "(ino INTEGER NOT NULL PRIMARY KEY) STRICT",
    "trash": """(ino INTEGER NOT NULL, off INTEGER NOT NULL, stop INTEGER NOT NULL,
        PRIMARY KEY (ino, off)) STRICT, WITHOUT ROWID""",
    "bad_chunk": "(id INTEGER NOT NULL PRIMARY KEY) STRICT",       # known not to be whole in the store: no new file is to use it
}

LOCAL_SQL = (
    """CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, packs INTEGER,
        changeset BLOB NOT NULL) STRICT""",
    "CREATE TABLE local (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE unsent (pack INTEGER NOT NULL PRIMARY KEY) STRICT",
    "CREATE TABLE riding (pack INTEGER NOT NULL PRIMARY KEY, key TEXT NOT NULL, base INTEGER NOT NULL) STRICT",
)

INDEX_SQL = (
    "CREATE INDEX chunk_by_hash ON chunk (hash)",
    "CREATE INDEX chunk_by_pack ON chunk (pack, off)",                    # rows come in this order: each goes to the right edge
    "CREATE INDEX dentry_by_place ON dentry (parent, place(name))",       # the order of listings; places.py
    "CREATE INDEX pack_open ON pack (id) WHERE state = 'open'",
)

INITIAL: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("fsmeta", ("schema", b"%d" % SCHEMA_VERSION)),
    ("counter", ("next_ino", ROOT_INO + 1)),
    ("counter", ("next_chunk", 1)),
    ("counter", ("next_pack", 1)),
    ("counter", ("inodes", 1)),
    ("counter", ("used_bytes", 0)),
    ("inode", (ROOT_INO, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 0, 0, 0, 0, 0, ROOT_INO, None, None)),
)


def statements(schema: str = "main") -> list[tuple[str, tuple[Any, ...]]]:
    """SQL that makes the replicated tables in `schema` and puts the initial state into them."""
    made: list[tuple[str, tuple[Any, ...]]] = [(f"CREATE TABLE {schema}.{t.name} {REPLICATED_SQL[t.name]}", ()) for t in REPLICATED]
    made += [(f"INSERT INTO {schema}.{table} VALUES ({', '.join('?' * len(row))})", row) for table, row in INITIAL]
    return made
