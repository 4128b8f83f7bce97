"""An old filesystem's metadata, made at once: rows as a million files would have left them, beside those that are there already.

The rows are sound (the audit finds nothing) but no pack of theirs is in any store: for opening, looking, listing, counting, removing and
writing anew, not for reading. 10,000,000 chunks take a minute or two and 1.9 GB.
"""
from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from s3cfs.doors import Doors
from s3cfs.meta import schema
from s3cfs.meta.database import connect

FILES_A_FOLDER = 1000
CHUNKS_A_PACK = 25
CHUNK_BYTES, SEALED_BYTES = 600_000, 400_000
TIME_NS = 1_700_000_000 * 10**9


@dataclass(frozen=True)
class Grown:
    """What was added. Files are /grown/<folder>/<file> with six digits each, counted through; `first_ino` is the inode of /grown."""

    files: int
    chunks: int
    first_ino: int
    first_chunk: int

    def path(self, number: int) -> tuple[bytes, bytes]:
        return b"%06d" % (number // FILES_A_FOLDER), b"%06d" % number


def grow(doors: Doors, path: str, key: bytes | None, files: int, chunks: int) -> Grown:
    """Into a database that nobody has open."""
    connection = connect(doors, path, key)
    try:
        connection.pragma("journal_mode", "off")               # a crash costs what this is for
        connection.pragma("synchronous", 0)
        connection.pragma("temp_store", 1)                     # sorting for the indexes: in files
        connection.execute("BEGIN IMMEDIATE")
        counters = dict(connection.execute("SELECT name, value FROM counter"))
        ino, chunk, pack = counters["next_ino"], counters["next_chunk"], counters["next_pack"]
        grown = Grown(files, chunks, ino, chunk)
        folders = -(-files // FILES_A_FOLDER)
        share = -(-chunks // files)                            # of each file but the last ones
        indexes = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")]
        for name in indexes:
            connection.execute(f"DROP INDEX {name}")

        def folder(number: int, parent: int, nlink: int) -> tuple[Any, ...]:
            return (number, stat.S_IFDIR | 0o755, nlink, 0, 0, 0, 0, 0, TIME_NS, TIME_NS, TIME_NS, parent, None, None)

        first_file = ino + 1 + folders

        def sizes() -> Iterator[tuple[int, int, int]]:
            """(inode, first chunk, how many)"""
            at = 0
            for number in range(files):
                count = min(share, chunks - at)
                yield first_file + number, chunk + at, count
                at += count

        inodes = f"INSERT INTO inode VALUES ({', '.join('?' * 14)})"
        connection.executemany(inodes, [folder(ino, 1, 2 + folders), *(folder(ino + 1 + at, ino, 2) for at in range(folders))])
        connection.executemany(inodes, ((one, stat.S_IFREG | 0o644, 1, 0, 0, 0, count * CHUNK_BYTES, count * CHUNK_BYTES, TIME_NS, TIME_NS,
                                         TIME_NS, 0, None, None) for one, _, count in sizes()))
        entries = "INSERT INTO dentry VALUES (?, ?, ?)"
        connection.execute(entries, (1, b"grown", ino))
        connection.executemany(entries, ((ino, b"%06d" % at, ino + 1 + at) for at in range(folders)))
        connection.executemany(entries, ((ino + 1 + at // FILES_A_FOLDER, b"%06d" % at, first_file + at) for at in range(files)))
        connection.executemany("INSERT INTO extent VALUES (?, ?, ?, ?, 0)",
                               ((one, at * CHUNK_BYTES, CHUNK_BYTES, first + at) for one, first, count in sizes() for at in range(count)))
        connection.executemany("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, 1)", (
            (chunk + at, hash_of(chunk + at), pack + at // CHUNKS_A_PACK, 64 + at % CHUNKS_A_PACK * SEALED_BYTES, SEALED_BYTES, CHUNK_BYTES)
            for at in range(chunks)))
        packs = -(-chunks // CHUNKS_A_PACK)
        connection.executemany("INSERT INTO pack VALUES (?, 1, ?, ?, 'closed')",
                               ((pack + at, pack_name(pack + at), 64 + CHUNKS_A_PACK * SEALED_BYTES) for at in range(packs)))
        for name, more in (("next_ino", 1 + folders + files), ("next_chunk", chunks), ("next_pack", packs), ("inodes", 1 + folders + files),
                           ("used_bytes", chunks * CHUNK_BYTES)):
            connection.execute("UPDATE counter SET value = value + ? WHERE name = ?", (more, name))
        connection.execute("UPDATE inode SET nlink = nlink + 1 WHERE ino = 1")
        for sql in schema.INDEX_SQL:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.pragma("journal_mode", "wal")
        return grown
    finally:
        connection.close()


def hash_of(chunk: int) -> bytes:
    return blake2b(b"chunk %d" % chunk, digest_size=32).digest()


def pack_name(pack: int) -> str:
    return f"1-{blake2b(b'pack %d' % pack, digest_size=32).hexdigest()}"
