"""The file that the metadata is in: opening it, making it, and what must be looked at before SQLite sees it."""
from __future__ import annotations

import errno
from typing import Any, cast

import apsw

from s3cfs.doors import Doors
from s3cfs.errors import CacheFull, CacheUnusable, Damaged, S3cfsError
from s3cfs.meta import schema
from s3cfs.meta.places import place

PAGE_CACHE_KIB = 32 * 1024
WAL_KEEP_BYTES = 64 << 20
WAL_PIECE_BYTES = 1 << 20
PLAIN_HEADER = b"SQLite format 3\0"
WAL_FIRST_PAGE = 32 + 24         # header of the WAL, header of its first frame

_UNUSABLE = (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.BusyError, apsw.LockedError, apsw.NoMemError,
             apsw.PermissionsError, apsw.ProtocolError)


def connect(doors: Doors, path: str, key: bytes | None, *, create: bool = False) -> apsw.Connection:
    """A configured connection to the file. Errors are apsw's."""
    below = doors.disk.sqlite_vfs
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    # Opened under its plain name a VFS of ours would have no cipher above it, and PRAGMA key would be ignored in silence.
    connection = apsw.Connection(doors.disk.real_path(path), flags, f"multipleciphers-{below}" if below else None, 256)
    try:
        if key is not None:
            connection.pragma("cipher", "chacha20")
            if connection.pragma("key", f"raw:{key.hex()}") != "ok":
                raise CacheUnusable("this build of SQLite cannot encrypt: is apsw installed beside apsw-sqlite3mc?")
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)      # a join is planned once: 5 us instead of 20
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        connection.create_scalar_function("place", cast("Any", place), 1, deterministic=True)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise CacheUnusable(f"{path}: SQLite cannot use a write-ahead log there")
        for name, value in (("synchronous", 1), ("wal_autocheckpoint", 0), ("cache_size", -PAGE_CACHE_KIB), ("temp_store", 2),
                            ("secure_delete", 0), ("mmap_size", 0), ("journal_size_limit", WAL_KEEP_BYTES)):
            connection.pragma(name, value)
    except BaseException:
        connection.close()
        raise
    return connection


def translate(error: Exception, path: str) -> S3cfsError | None:
    """What an error of SQLite or of a VFS means to the user; None when it is a matter of the statement alone."""
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return CacheFull(f"the disk of the local state is full: {path} takes no more")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return Damaged(f"{path} is damaged or was written with another key: {error}")
    if isinstance(error, (*_UNUSABLE, OSError)):
        return CacheUnusable(f"{path} cannot be used: {error}")
    return None


def create(doors: Doors, path: str, key: bytes | None) -> None:
    """Make the file under another name and rename it when it is whole: a crash leaves either nothing or a database."""
    disk, new = doors.disk, path + ".new"
    for stray in (new, new + "-wal", new + "-shm", new + "-journal", path + "-wal", path + "-shm", path + "-journal"):
        disk.unlink(stray)                                          # a WAL without its database would be played into ours
    connection = connect(doors, new, key, create=True)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for sql, args in schema.statements():
            connection.execute(sql, args)
        for sql in schema.LOCAL_SQL + schema.INDEX_SQL:
            connection.execute(sql)
        connection.execute("COMMIT")
        if key is not None:
            wal = disk.open(new + "-wal")
            try:
                _refuse_plaintext(new + "-wal", wal.pread(1 << 16, 0))
            finally:
                wal.close()
    finally:
        connection.close()
    check_header(doors, new, key)
    file = disk.open(new)
    try:
        file.fsync()
    finally:
        file.close()
    disk.rename(new, path)
    disk.sync_dir(path.rpartition("/")[0])


def rewrite_wal(doors: Doors, path: str) -> None:
    """Have what is read of the WAL on the disk, before SQLite believes it.

    When an fsync of an earlier process failed, or the kernel's own writing before it, the pages are called clean and are on no disk; they
    are read all the same, and an fsync says nothing of them. SQLite would put new frames behind them, and a power cut would leave a hole
    in front of what was synced. The same bytes once more are dirty again. The database itself needs no such care: whatever it has of a
    checkpoint whose fsync failed is in the WAL still, and is copied again.
    """
    if not doors.disk.exists(path + "-wal"):
        return
    file = doors.disk.open(path + "-wal")
    try:
        for offset in range(0, file.size(), WAL_PIECE_BYTES):
            file.pwrite(file.pread(WAL_PIECE_BYTES, offset), offset)
        file.fsync()
    finally:
        file.close()


def bring_up(connection: apsw.Connection) -> None:
    """What came to version 0 of the schema after databases had been made with it."""
    for table in schema.REPLICATED:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table.name} {schema.REPLICATED_SQL[table.name]}")
    if not connection.execute("SELECT 1 FROM pragma_table_info('outbox') WHERE name = 'packs'").fetchone():
        connection.execute("ALTER TABLE outbox ADD COLUMN packs INTEGER")


def check_header(doors: Doors, path: str, key: bytes | None) -> None:
    """Before the first connection opens the file: closing another descriptor of it later would drop SQLite's locks."""
    file = doors.disk.open(path)
    try:
        head = file.pread(4096, 0)
    finally:
        file.close()
    if key is not None:
        _refuse_plaintext(path, head)
    elif not head.startswith(PLAIN_HEADER):
        raise Damaged(f"{path} is not a plain SQLite database: damaged, or of an encrypted filesystem")


def _refuse_plaintext(path: str, data: bytes) -> None:
    if data.startswith(PLAIN_HEADER) or data[WAL_FIRST_PAGE:].startswith(PLAIN_HEADER) or b"CREATE TABLE" in data:
        raise Damaged(f"{path} holds plaintext where it must be encrypted")
