"""The one SQLite connection that writes, its endless transaction, and the session that records it.

Invariants:
- Between two calls a transaction is always open (BEGIN IMMEDIATE follows COMMIT at once), so nothing after open() meets
  SQLITE_BUSY, and a crash undoes exactly what no commit() has closed.
- The session records the replicated tables only; its changeset is put into `outbox` inside the COMMIT that makes it true.
- Every statement goes through `one`, `all` or `run`: an error that may have cost us the transaction (full disk, I/O, damage,
  a rollback nobody asked for) makes `failed`, and from then on every call raises. Carrying on would act on a state that
  the kernel's caches, and what was acknowledged since the last commit(), do not share.

The WAL: synchronous=NORMAL syncs nothing at COMMIT; `sync_wal` does, in a thread, on a descriptor that was open before any
write (a later one could miss an error the kernel has already reported). Checkpoints are PASSIVE ones of a second connection.
They cannot make SQLite start the WAL anew: that takes a BEGIN that finds every frame copied, and another transaction is always
there first. So when the WAL is long and a thread has just copied nearly all of it, commit() copies the rest between its
COMMIT and BEGIN: a few ms once every tens of MiB.
"""
from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterable, Sequence
from typing import Any, cast

import apsw

from s3cfs.doors import DiskFile, Doors
from s3cfs.errors import CacheFull, CacheUnusable, Damaged, NewerFormat, S3cfsError
from s3cfs.meta import schema
from s3cfs.meta.places import place
from s3cfs.meta.types import Counters, Transaction

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


class Engine:
    """See the top of the file. Parts of the metadata (tree, content, ...) hold one and speak SQL to it."""

    def __init__(self, doors: Doors, path: str, key: bytes | None) -> None:
        self.doors, self.path, self.key, self._limits = doors, path, key, doors.limits
        self.failed: S3cfsError | None = None
        self.snapshots: set[int] = set()        # open ones; they hold the WAL
        self.open_packs: set[int] = set()       # begun by this process and not closed: content.py keeps it
        self._wal_pages = self._copied_pages = 0
        self._helping = threading.Lock()
        self._helper: apsw.Connection | None = None
        try:
            if doors.disk.exists(path):
                _rewrite_wal(doors, path)
            else:
                _create(doors, path, key)
            _check_header(doors, path, key)
            self.connection = connect(doors, path, key)
            try:
                self._start()
            except BaseException:
                self.connection.close()
                raise
        except (apsw.Error, OSError) as error:
            raise translate(error, path) or CacheUnusable(f"{path} cannot be used: {error}") from error

    def _start(self) -> None:
        connection = self.connection
        found = connection.execute("SELECT value FROM fsmeta WHERE key = 'schema'").fetchone()
        version = int(bytes(found[0])) if found else -1
        if version > schema.SCHEMA_VERSION:
            raise NewerFormat(f"{self.path} was written by a newer s3cfs (schema {version})")
        if version != schema.SCHEMA_VERSION:
            raise Damaged(f"{self.path} holds no metadata this s3cfs knows (schema {version})")
        _bring_up(connection)
        connection.set_wal_hook(self._wal_hook)
        self._begin()
        self.load_counters()
        self.wal_file: DiskFile = self.doors.disk.open(self.path + "-wal")
        self.doors.disk.sync_dir(self.path.rpartition("/")[0])      # sync_wal() promises nothing while the name may go
        self._helper = connect(self.doors, self.path, self.key)

    # ------------------------------------------------------------ statements

    def one(self, sql: str, args: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row."""
        if self.failed:
            raise self.again()
        try:
            return self.connection.execute(sql, args).fetchone()
        except Exception as error:
            raise self.blame(error) from error

    def all(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if self.failed:
            raise self.again()
        try:
            return self.connection.execute(sql, args).fetchall()
        except Exception as error:
            raise self.blame(error) from error

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Rows changed."""
        if self.failed:
            raise self.again()
        try:
            self.connection.execute(sql, args)
            return self.connection.changes()
        except Exception as error:
            raise self.blame(error) from error

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        if self.failed:
            raise self.again()
        try:
            self.connection.executemany(sql, rows)
        except Exception as error:
            raise self.blame(error) from error

    def blame(self, error: Exception) -> Exception:
        """What to raise for an error of a statement; sets `failed` when the transaction is or may be lost."""
        known = translate(error, self.path)
        if known is None:
            try:
                if self.connection.in_transaction:
                    return error
            except apsw.ConnectionClosedError:
                return error
            known = CacheUnusable(f"{self.path}: a transaction was rolled back unasked: {error}")
        return self.fail(known)

    def fail(self, error: S3cfsError) -> S3cfsError:
        """End of the line: nothing is written or read any more. The first reason is kept."""
        if self.failed is None:
            self.failed = error
        return error

    def again(self) -> S3cfsError:
        """A fresh copy of the reason, so that tracebacks do not pile up on one object."""
        assert self.failed is not None
        return type(self.failed)(*self.failed.args)

    # ------------------------------------------------------------ transactions

    def _begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self._changes_seen = self.connection.total_changes()
        self.new_session()

    def new_session(self) -> None:
        """Begin to record. The one before must have been closed. Only right after COMMIT, or after a change that must not be replicated."""
        self.session = apsw.Session(self.connection, "main")
        self.session.config(apsw.SQLITE_SESSION_OBJCONFIG_SIZE, 1)
        for table in schema.REPLICATED:
            self.session.attach(table.name)

    def load_counters(self) -> None:
        rows = dict(self.all("SELECT name, value FROM counter"))
        try:
            self.counters = Counters(**rows)
        except TypeError as error:
            raise self.fail(Damaged(f"{self.path}: the counters are not those this s3cfs knows")) from error
        self._stored = rows

    @property
    def dirty(self) -> bool:
        """Replicated rows were touched since the last commit()."""
        return self.failed is None and not self.session.is_empty

    @property
    def open_bytes(self) -> int:
        """Of the changeset that commit() would make now, at most (counters apart). SQLite keeps the sum, so asking is cheap."""
        return 0 if self.failed else int(self.session.changeset_size)

    def commit(self) -> Transaction | None:
        if self.failed:
            raise self.again()
        try:
            return self._commit()
        except Exception as error:
            raise self.fail(translate(error, self.path)
                            or CacheUnusable(f"{self.path}: a transaction could not be committed: {error}")) from error

    def _commit(self) -> Transaction | None:
        connection, made = self.connection, None
        if not self.session.is_empty:
            made = self._to_outbox()
        elif connection.total_changes() == self._changes_seen and not self._wants_restart():
            return None
        self.session.close()                # an empty one too: SQLite tells every change to each session that was not closed
        connection.execute("COMMIT")
        if self._wants_restart():
            with contextlib.suppress(apsw.BusyError):               # the thread is at it this moment
                connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._begin()
        return made

    def flush_counters(self) -> None:
        """Counters into their rows, inside the transaction."""
        for name, old in self._stored.items():
            new = getattr(self.counters, name)
            if new != old:
                self.run("UPDATE counter SET value = ? WHERE name = ?", (new, name))
                self._stored[name] = new

    def _to_outbox(self) -> Transaction | None:
        self.flush_counters()
        changeset = self.session.changeset()
        if not changeset:
            return None                                             # touched, and put back as it was
        complete = not self.open_packs
        self.connection.execute("INSERT INTO outbox (time_ns, packs, changeset) VALUES (?, ?, ?)",
                                (self.doors.clock.time_ns(), self.counters.next_pack - 1 if complete else None, changeset))
        return Transaction(self.connection.last_insert_rowid(), len(changeset), complete)

    # ------------------------------------------------------------ the WAL

    def _wal_hook(self, _connection: apsw.Connection, _schema: str, pages: int) -> int:
        if pages < self._wal_pages:
            self._copied_pages = 0                                  # it began anew
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _wants_restart(self) -> bool:
        pages = self._wal_pages
        if pages < self._limits.wal_restart_pages or self.snapshots:
            return False
        return pages - self._copied_pages <= self._limits.wal_rest_pages or pages >= self._limits.wal_anyhow_pages

    def sync_wal(self) -> None:
        if self.failed:
            raise self.again()
        try:
            self.wal_file.fsync()
        except OSError as error:
            raise self.fail(CacheUnusable(f"{self.path}-wal could not be synced: {error}")) from error

    def checkpoint_wal(self) -> None:
        if self.failed:
            raise self.again()
        helper = self._helper
        if helper is None or self._wal_pages - self._copied_pages < self._limits.wal_copy_pages:
            return
        if not self._helping.acquire(blocking=False):
            return
        try:
            self._copied_pages = helper.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)[1]
        except apsw.BusyError:
            pass                                                    # commit() is at it
        except (apsw.Error, OSError) as error:
            raise self.fail(translate(error, self.path) or CacheUnusable(f"{self.path}: {error}")) from error
        finally:
            self._helping.release()

    def close(self) -> None:
        """Undo what was not committed; after a failure leave the WAL as it is, for the next process to recover."""
        if self.failed:
            for connection in (self.connection, self._helper):
                if connection is not None:
                    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.session.close()
        if self.connection.in_transaction:
            with contextlib.suppress(apsw.Error, OSError):
                self.connection.execute("ROLLBACK")
        self.wal_file.close()
        with self._helping:
            if self._helper is not None:
                self._helper.close()
        try:
            self.connection.close()
        except (apsw.Error, OSError) as error:
            raise translate(error, self.path) or error from error
        if self.failed is None:
            self.failed = CacheUnusable(f"{self.path} is closed")


def _create(doors: Doors, path: str, key: bytes | None) -> None:
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
    _check_header(doors, new, key)
    file = disk.open(new)
    try:
        file.fsync()
    finally:
        file.close()
    disk.rename(new, path)
    disk.sync_dir(path.rpartition("/")[0])


def _rewrite_wal(doors: Doors, path: str) -> None:
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


def _bring_up(connection: apsw.Connection) -> None:
    """What came to version 0 of the schema after databases had been made with it."""
    for table in schema.REPLICATED:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table.name} {schema.REPLICATED_SQL[table.name]}")
    if not connection.execute("SELECT 1 FROM pragma_table_info('outbox') WHERE name = 'packs'").fetchone():
        connection.execute("ALTER TABLE outbox ADD COLUMN packs INTEGER")


def _check_header(doors: Doors, path: str, key: bytes | None) -> None:
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
