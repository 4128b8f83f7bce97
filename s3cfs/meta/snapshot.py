"""All replicated rows at one commit, as changesets from the initial state, and the fingerprint of the same rows.

A snapshot is taken on a connection of its own, inside a read transaction: it sees the last commit() whatever the writer does
meanwhile (and holds the WAL as long as it lives). Rows are copied in batches into an in-memory database that begins in the
initial state (schema.INITIAL) and has a session: so the parts apply with the same apply() as any record of the log, to a new
database, in order. All the work is SQLite's; a batch is bounded in bytes.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import apsw

from s3cfs.errors import CacheUnusable
from s3cfs.meta import schema
from s3cfs.meta.database import connect, translate
from s3cfs.meta.engine import Engine
from s3cfs.meta.schema import Table
from s3cfs.meta.types import Counters, Riding, Totals

_STEP_ROWS = 256                # the largest row is an attribute of 64 KiB


class Snapshot:
    def __init__(self, engine: Engine) -> None:
        self._path = engine.path
        self._on_close: Callable[[], None] = lambda: None
        try:
            self._reader = connect(engine.doors, engine.path, engine.key)
            engine.snapshots.add(id(self))
            self._on_close = lambda: engine.snapshots.discard(id(self))
            self._reader.execute("ATTACH ':memory:' AS part KEY ''")
            self._reader.execute("PRAGMA part.journal_mode = off")
            self._reader.execute("BEGIN")
            self.counters = Counters(**dict(self._reader.execute("SELECT name, value FROM main.counter")))
        except (apsw.Error, OSError) as error:
            self.close()
            raise translate(error, self._path) or CacheUnusable(f"{self._path}: {error}") from error

    def changesets(self, max_bytes: int) -> Iterator[bytes]:
        """In a thread, once. Each about max_bytes at most (and some 16 MiB in the worst case of large attributes)."""
        try:
            yield from self._changesets(max_bytes)
        except (apsw.Error, OSError) as error:
            raise translate(error, self._path) or CacheUnusable(f"{self._path}: {error}") from error

    def _changesets(self, max_bytes: int) -> Iterator[bytes]:
        reader = self._reader
        for sql, args in schema.statements("part"):
            reader.execute(sql, args)
        session = self._session()
        for table in schema.REPLICATED:
            for last in self._copy_steps(table):
                if session.changeset_size >= max_bytes:
                    changeset = session.changeset()
                    session.close()
                    if changeset:
                        yield changeset
                    _forget(reader, table, last)
                    session = self._session()
            changeset = session.changeset()         # a part holds rows of one table or of several small ones
            if changeset and len(changeset) >= max_bytes // 2:
                session.close()
                yield changeset
                reader.execute(f"DELETE FROM part.{table.name}")
                session = self._session()
        changeset = session.changeset()
        session.close()
        if changeset:
            yield changeset

    def _session(self) -> apsw.Session:
        session = apsw.Session(self._reader, "part")
        session.config(apsw.SQLITE_SESSION_OBJCONFIG_SIZE, 1)
        for table in schema.REPLICATED:
            session.attach(table.name)
        return session

    def _copy_steps(self, table: Table) -> Iterator[tuple[Any, ...]]:
        """Copy a table in the order of its key, a few rows a step; yields the key of the last row."""
        key = ", ".join(table.key)
        names = [row[1] for row in self._reader.execute(f"PRAGMA main.table_info({table.name})")]
        rest = ", ".join(f"{name} = excluded.{name}" for name in names if name not in table.key)
        also = f"UPDATE SET {rest}" if rest else "NOTHING"
        marks = ", ".join("?" * len(table.key))
        last: tuple[Any, ...] | None = None
        while True:
            after = f"({key}) > ({marks})" if last is not None else "true"
            end = self._reader.execute(f"SELECT {key} FROM (SELECT {key} FROM main.{table.name} WHERE {after} ORDER BY {key} "
                                       f"LIMIT {_STEP_ROWS}) ORDER BY {_descending(table)} LIMIT 1", last or ()).fetchone()
            if end is None:
                return
            self._reader.execute(f"INSERT INTO part.{table.name} SELECT * FROM main.{table.name} WHERE {after} "
                                 f"AND ({key}) <= ({marks}) ON CONFLICT DO {also}", (*(last or ()), *end))
            last = end
            yield end

    def riding(self) -> list[Riding]:
        """Packs that rode in records then."""
        try:
            return [Riding(*row) for row in self._reader.execute("SELECT pack, key, base FROM main.riding ORDER BY pack")]
        except (apsw.Error, OSError) as error:
            raise translate(error, self._path) or CacheUnusable(f"{self._path}: {error}") from error

    def close(self) -> None:
        if hasattr(self, "_reader"):
            self._reader.close()
        self._on_close()
        self._on_close = lambda: None


def _descending(table: Table) -> str:
    return ", ".join(f"{column} DESC" for column in table.key)


def _forget(reader: apsw.Connection, table: Table, last: tuple[Any, ...]) -> None:
    """Rows that went out. Initial rows that were not reached yet must stay, or they would look new."""
    key = ", ".join(table.key)
    reader.execute(f"DELETE FROM part.{table.name} WHERE ({key}) <= ({', '.join('?' * len(table.key))})", last)


def fingerprint(rows: Callable[[str], Iterator[tuple[Any, ...]]]) -> bytes:
    """32 bytes that are equal exactly when all replicated rows are. `rows` runs a SELECT."""
    digest = hashlib.blake2b(digest_size=32)
    for table in schema.REPLICATED:
        digest.update(f"{table.name}\n".encode())
        for row in rows(f"SELECT * FROM {table.name} ORDER BY {', '.join(table.key)}"):
            digest.update(repr(row).encode())
    return digest.digest()


def totals(engine: Engine) -> Totals:
    """A pass over all chunks and packs: some 0.1 s per million."""
    chunks = engine.one("SELECT count(*), coalesce(sum(len), 0), coalesce(sum(clen), 0) FROM chunk WHERE refs > 0")
    packs = engine.one("SELECT count(*), coalesce(sum(size), 0) FROM pack WHERE state = 'closed'")
    assert chunks and packs
    return Totals(engine.counters.inodes, engine.counters.used_bytes, *chunks, *packs)
