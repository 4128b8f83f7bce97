"""The one SQLite connection that writes, its endless transaction, and the session that records it.

Invariants:
- Between two calls a transaction is always open (BEGIN IMMEDIATE follows COMMIT at once), so nothing after open() meets
  SQLITE_BUSY, and a crash undoes exactly what no commit() has closed.
- The session records the replicated tables only; its changeset is put into `outbox` inside the COMMIT that makes it true.
- Every statement goes through `one`, `all` or `run`: an error that may have cost us the transaction (full disk, I/O, damage,
  a rollback nobody asked for) makes `failed`, and from then on every call raises. Carrying on would act on a state that
  the kernel's caches, and what was acknowledged since the last commit(), do not share.
"""
from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apsw

from s3cfs.doors import Doors
from s3cfs.errors import CacheUnusable, Damaged, NewerFormat, S3cfsError
from s3cfs.meta import database, schema
from s3cfs.meta.database import connect, translate
from s3cfs.meta.types import Counters, Transaction
from s3cfs.meta.wal import Wal

COMMIT_S = 0.02                  # what a transaction should take to end, on the event loop
MORE_ROWS = 8                    # times limits.transaction_max_rows, where that is quick


def _timeless() -> float:
    return 0.0


class Engine:
    """See the top of the file. Parts of the metadata (tree, content, ...) hold one and speak SQL to it."""

    def __init__(self, doors: Doors, path: str, key: bytes | None) -> None:
        self.doors, self.path, self.key = doors, path, key
        self.failed: S3cfsError | None = None
        self.snapshots: set[int] = set()        # open ones; they hold the WAL
        self._now: Callable[[], float] = _timeless
        self._slow_s = math.inf
        self._row_s = COMMIT_S / doors.limits.transaction_max_rows
        self._was_slow: Callable[[float], None] = lambda took_s: None
        self.open_packs: set[int] = set()       # begun by this process and not closed: content.py keeps it
        self._commits, self._synced = 1, 0      # COMMITs (opening makes the first), and how many of them are on the disk
        try:
            if doors.disk.exists(path):
                database.rewrite_wal(doors, path)
            else:
                database.create(doors, path, key)
            database.check_header(doors, path, key)
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
        database.bring_up(connection)
        self._begin()
        self.load_counters()
        self.wal = Wal(self.doors, self.path, self.key, connection)
        self.doors.disk.sync_dir(self.path.rpartition("/")[0])      # sync_wal() promises nothing while the name may go

    # ------------------------------------------------------------ indexes

    def missing_indexes(self) -> list[str]:
        """SQL that makes those which a database of an earlier version lacks (or one that was filled without)."""
        there = {row[0] for row in self.all("SELECT name FROM sqlite_schema WHERE type = 'index'")}
        return [sql for sql in schema.INDEX_SQL if sql.split()[2] not in there]

    def build_indexes(self) -> None:
        """In a thread, while nobody else uses the metadata, and between transactions of one's own: minutes where there are many rows."""
        if self.dirty:
            raise RuntimeError("build_indexes() on top of uncommitted changes")
        for sql in self.missing_indexes():
            self.run(sql)
        try:
            self._end_and_begin()
        except Exception as error:
            raise self.blame(error) from error

    # ------------------------------------------------------------ statements

    def time_statements(self, slow_s: float, was_slow: Callable[[float], None]) -> None:
        """From now on `was_slow` is told of each that takes that long."""
        self._now, self._slow_s, self._was_slow = self.doors.clock.monotonic, slow_s, was_slow

    def one(self, sql: str, args: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row."""
        if self.failed:
            raise self.again()
        began = self._now()
        try:
            row = self.connection.execute(sql, args).fetchone()
        except Exception as error:
            raise self.blame(error) from error
        if (took_s := self._now() - began) >= self._slow_s:
            self._was_slow(took_s)
        return row

    def all(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if self.failed:
            raise self.again()
        began = self._now()
        try:
            rows = self.connection.execute(sql, args).fetchall()
        except Exception as error:
            raise self.blame(error) from error
        if (took_s := self._now() - began) >= self._slow_s:
            self._was_slow(took_s)
        return rows

    async def ask(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """`all` for those who can wait for an answer; here it never suspends."""
        return self.all(sql, args)

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Rows changed."""
        if self.failed:
            raise self.again()
        began = self._now()
        try:
            self.connection.execute(sql, args)
            changed = self.connection.changes()
        except Exception as error:
            raise self.blame(error) from error
        if (took_s := self._now() - began) >= self._slow_s:
            self._was_slow(took_s)
        return changed

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

    @property
    def open_rows(self) -> int:
        """Rows that were written since the last commit()."""
        return 0 if self.failed else self.connection.total_changes() - self._changes_seen

    @property
    def rows_bound(self) -> float:
        """How many rows a transaction should have: what ends in COMMIT_S, as the last ones went. How many pages rows dirty depends on the
        size of the filesystem and on what is done."""
        least = self.doors.limits.transaction_max_rows
        return min(max(COMMIT_S / max(self._row_s, 1e-9), least), MORE_ROWS * least)

    def commit(self) -> Transaction | None:
        if self.failed:
            raise self.again()
        try:
            rows, began = self.open_rows, self.doors.clock.monotonic()
            made = self._commit()
            if rows >= 256:
                self._row_s = 0.7 * self._row_s + 0.3 * (self.doors.clock.monotonic() - began) / rows
            return made
        except Exception as error:
            raise self.fail(translate(error, self.path)
                            or CacheUnusable(f"{self.path}: a transaction could not be committed: {error}")) from error

    def _commit(self) -> Transaction | None:
        made = None
        if not self.session.is_empty:
            made = self._to_outbox()
        elif not self._touched:
            return None
        self._end_and_begin()
        return made

    @property
    def _touched(self) -> bool:
        return self.connection.total_changes() != self._changes_seen

    def _end_and_begin(self) -> None:
        self.session.close()                # an empty one too: SQLite tells every change to each session that was not closed
        self.connection.execute("COMMIT")
        self._commits += 1
        self._begin()

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

    # ------------------------------------------------------------ the WAL (wal.py)

    def sync_wal(self) -> None:
        """In a thread: what was committed before is durable. Nothing is asked of the disk when that is so already."""
        if self.failed:
            raise self.again()
        upto = self._commits
        if self._synced >= upto:
            return
        try:
            self.wal.sync()
            self._synced = max(self._synced, upto)
        except OSError as error:
            raise self.fail(CacheUnusable(f"{self.path}-wal could not be synced: {error}")) from error

    def checkpoint_wal(self) -> None:
        """In a thread: copy what is committed into the database, where that is worth it."""
        if self.failed:
            raise self.again()
        try:
            self.wal.copy()
        except apsw.BusyError:
            pass                                                    # another process has a look; later
        except (apsw.Error, OSError) as error:
            raise self.fail(translate(error, self.path) or CacheUnusable(f"{self.path}: {error}")) from error

    def restart_wal(self) -> bool:
        """Have the log begin anew with the next write, if it is long and all of it is copied. False: something was changed since commit(),
        or is not copied; then it cannot, and nothing happened. Costs nothing."""
        if self.failed or self.snapshots or self._touched or not self.wal.ready():
            return False
        try:
            self._end_and_begin()
        except Exception as error:
            raise self.blame(error) from error
        return True

    def close(self) -> None:
        """Undo what was not committed; after a failure leave the WAL as it is, for the next process to recover."""
        if self.failed:
            self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.session.close()
        if self.connection.in_transaction:
            with contextlib.suppress(apsw.Error, OSError):
                self.connection.execute("ROLLBACK")
        self.wal.close(keep=self.failed is not None)
        try:
            if not self.failed:
                # what closing would do; but apsw lets go of the interpreter's lock here, and does not while it closes
                with contextlib.suppress(apsw.BusyError):
                    self.connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self.connection.close()
        except (apsw.Error, OSError) as error:
            raise translate(error, self.path) or error from error
        if self.failed is None:
            self.failed = CacheUnusable(f"{self.path} is closed")
