"""What a long walk over all objects of a store keeps on the local disk: which there are, which are done, what was wrong.

An SQLite file. It makes memory small (an inventory of millions of objects lies here) and a walk that was killed short; it is never the
only one who knows something: lost or damaged it is made anew, and costs time. Objects are grouped by their folder in the store, which is
how stores list them. Names of objects say nothing about files, so nothing here is sealed.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import apsw

from s3cfs.doors import SystemDisk
from s3cfs.moves.kinds import Kind, kind_of

FILE = "ledger.db"
SUFFIXES = ("", "-wal", "-shm")
VERSION = 1
PENDING_MAX = 200                  # what is noted may be lost with so many objects, and is then done again


class Item(NamedTuple):
    """An object that must be there. What is not known is None."""

    key: str
    size: int | None = None        # bytes
    digest: bytes | None = None    # BLAKE3 of its bytes, where something says so beside its name


MISSING, DAMAGED, WEAK = "missing", "damaged", "weak"      # weak: it can be read, but how it is stored is damaged


class Trouble(NamedTuple):
    key: str
    word: str                      # MISSING, DAMAGED or WEAK
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.word}" + (f": {self.text}" if self.text else "")


class Totals(NamedTuple):
    objects: int
    bytes: int                     # of those whose size is known


_SCHEMA = (
    """CREATE TABLE object (kind INTEGER NOT NULL, folder TEXT NOT NULL, name TEXT NOT NULL, size INTEGER, digest BLOB,
        seen INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0, -- 1: done, 2: and read back
        word TEXT, trouble TEXT,
        PRIMARY KEY (kind, folder, name)) STRICT, WITHOUT ROWID""",
    "CREATE TABLE note (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    f"PRAGMA user_version = {VERSION}",
)
# A size that changed is another object (or another answer): it is looked at anew.
_EXPECT = """INSERT INTO object (kind, folder, name, size, digest, seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT DO UPDATE SET seen = ?6, digest = coalesce(?5, digest), size = coalesce(?4, size),
    done = CASE WHEN ?4 IS NOT NULL AND size IS NOT NULL AND size <> ?4 THEN 0 ELSE done END"""


class Ledger:
    def __init__(self, disk: SystemDisk) -> None:
        """On `disk`, whose lock the caller holds."""
        self._disk = disk
        try:
            self._db = self._open()
        except apsw.Error:
            self.remove(disk)
            self._db = self._open()
        self.round = int(self.note("round") or 0)
        self.chosen: Callable[[str], bool] = lambda key: True      # of a sample
        self._pending: list[tuple[Any, ...]] = []

    def _open(self) -> apsw.Connection:
        db = apsw.Connection(self._disk.real_path(FILE))
        try:
            db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -8192")
            if db.pragma("user_version") != VERSION:
                if next(iter(db.execute("SELECT count(*) FROM sqlite_schema")))[0]:
                    raise apsw.CorruptError("another version")
                with db:
                    for statement in _SCHEMA:
                        db.execute(statement)
        except BaseException:
            db.close()
            raise
        return db

    # ------------------------------------------------------------ the inventory

    def begin(self) -> None:
        """A new inventory: what is not expected again from now on is no part of it. What was done stays done."""
        self.flush()
        self.round += 1
        self.set_note("round", str(self.round))

    def expect(self, items: Iterable[Item]) -> None:
        with self._db:
            self._db.executemany(_EXPECT, ((int(kind_of(item.key)), *_split(item.key), item.size, item.digest, self.round)
                                           for item in items if self.chosen(item.key)))

    def end(self) -> None:
        """The inventory is whole: what it has not is forgotten."""
        self.flush()
        with self._db:
            self._db.execute("DELETE FROM object WHERE seen < ?", (self.round,))

    def totals(self, *, left: bool = False) -> Totals:
        """`left`: of what is not done."""
        self.flush()
        rest = " WHERE done = 0" if left else ""
        [row] = self._db.execute(f"SELECT count(*), coalesce(sum(size), 0) FROM object{rest}")
        return Totals(*row)

    def folders(self, kind: Kind) -> Iterator[str]:
        """Folders that hold objects of that kind, in the order of their names."""
        folder = ""
        while row := self._one("SELECT min(folder) FROM object WHERE kind = ? AND folder > ?", (int(kind), folder)):
            if row[0] is None:
                return
            folder = row[0]
            yield folder

    def items(self, kind: Kind, folder: str, *, left: bool = False, unread: bool = False) -> list[Item]:
        """What one folder holds, by name. `left`: what of it is not done; `unread`: what is, and was not read back."""
        self.flush()
        rest = " AND done = 0" if left else " AND done = 1" if unread else ""
        rows = self._db.execute(f"SELECT name, size, digest FROM object WHERE kind = ? AND folder = ?{rest} ORDER BY name",
                                (int(kind), folder))
        return [Item(folder + name, size, digest) for name, size, digest in rows]

    def done_of(self, kind: Kind, folder: str) -> frozenset[str]:
        """Keys of a folder that are done."""
        self.flush()
        rows = self._db.execute("SELECT name FROM object WHERE kind = ? AND folder = ? AND done", (int(kind), folder))
        return frozenset(folder + name for (name,) in rows)

    # ------------------------------------------------------------ what came of it

    def done(self, key: str) -> None:
        """It is as it must be."""
        self._note("UPDATE object SET done = 1, word = NULL, trouble = NULL WHERE kind = ? AND folder = ? AND name = ?",
                   (int(kind_of(key)), *_split(key)))

    def read_back(self, key: str) -> None:
        """It is done, and was read where it went."""
        self._note("UPDATE object SET done = 2 WHERE kind = ? AND folder = ? AND name = ?", (int(kind_of(key)), *_split(key)))

    def trouble(self, key: str, word: str, text: str, *, done: bool = False) -> None:
        """`done`: as far as can be; else the next round looks again."""
        self._note("UPDATE object SET done = ?, word = ?, trouble = ? WHERE kind = ? AND folder = ? AND name = ?",
                   (int(done), word, text, int(kind_of(key)), *_split(key)))

    def troubles(self) -> Iterator[Trouble]:
        self.flush()
        rows = self._db.execute("SELECT folder || name, word, trouble FROM object WHERE word IS NOT NULL ORDER BY kind, folder, name")
        return (Trouble(*row) for row in rows)

    def note(self, name: str) -> str | None:
        row = self._one("SELECT value FROM note WHERE name = ?", (name,))
        return None if row is None else str(row[0])

    def set_note(self, name: str, value: str) -> None:
        self._db.execute("INSERT INTO note VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2", (name, value))

    def _note(self, statement: str, values: tuple[Any, ...]) -> None:
        self._pending.append((statement, values))
        if len(self._pending) >= PENDING_MAX:
            self.flush()

    def _one(self, statement: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return next(iter(self._db.execute(statement, values)), None)

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            with self._db:
                for statement, values in pending:
                    self._db.execute(statement, values)

    def close(self) -> None:
        with contextlib.suppress(apsw.Error):
            self.flush()
        self._db.close()

    @staticmethod
    def remove(disk: SystemDisk) -> None:
        """What a ledger left that is closed."""
        for suffix in SUFFIXES:
            disk.unlink(FILE + suffix)


def _split(key: str) -> tuple[str, str]:
    folder, slash, name = key.rpartition("/")
    return folder + slash, name
