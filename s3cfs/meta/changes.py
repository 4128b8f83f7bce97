"""Changesets: taking in those of another writer (or of a checkpoint), and handing out one's own from the outbox."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import apsw

from s3cfs.errors import Damaged, Diverged
from s3cfs.meta import schema
from s3cfs.meta.database import translate
from s3cfs.meta.engine import Engine
from s3cfs.meta.types import OutboxSlice

STREAM_BYTES = 64 << 10
APPLY_BYTES = 16 << 10             # some hundred rows: in between another thread may have the interpreter's lock
NAMES_SHOWN = 5
SLICE_ROWS = 4000             # in one record: choosing them takes some 5 ms
OUTBOX = "SELECT count(*), coalesce(sum(length(changeset)), 0), min(time_ns) FROM outbox"
_COLUMNS = {table.name: table.columns for table in schema.REPLICATED}
_REASONS = {apsw.SQLITE_CHANGESET_DATA: "the row is different here", apsw.SQLITE_CHANGESET_NOTFOUND: "the row is not here",
            apsw.SQLITE_CHANGESET_CONFLICT: "the row is here already", apsw.SQLITE_CHANGESET_CONSTRAINT: "a constraint forbids it"}


class Changes:
    def __init__(self, engine: Engine, after: Callable[[], None] = lambda: None) -> None:
        """`after` is called when rows came in by `apply`."""
        self._engine, self._after = engine, after

    # ------------------------------------------------------------ a replica

    def apply(self, changeset: bytes) -> None:
        """All of it or nothing. Becomes durable with the next commit(), together with what local_set() noted beside it.

        Diverged names table and key of the first row that is not as the changeset expects. What is applied is not put into the
        outbox. Only between transactions of one's own: there must be nothing uncommitted.
        """
        engine = self._engine
        if engine.failed:
            raise engine.again()
        if engine.dirty:
            raise RuntimeError("apply() on top of uncommitted changes")
        _check(changeset)
        refused: list[str] = []

        def conflict(reason: int, change: apsw.TableChange) -> int:
            if not refused:
                refused.append(f"{change.op} of {_where(change)}: {_REASONS.get(reason, 'it conflicts')}")
            return apsw.SQLITE_CHANGESET_ABORT

        engine.session.close()                       # or it would record what is applied
        try:
            apsw.session_config(apsw.SQLITE_SESSION_CONFIG_STRMSIZE, APPLY_BYTES)
            apsw.Changeset.apply(_pieces(changeset), engine.connection, conflict=conflict)       # in pieces, as in merge_changesets
        except Exception as error:
            if translate(error, engine.path) or not engine.connection.in_transaction:
                raise engine.blame(error) from error
            engine.new_session()
            raise Diverged("the local metadata and a change from the store contradict each other: "
                           + (refused[0] if refused else str(error))) from error
        engine.new_session()
        engine.load_counters()
        self._after()

    # ------------------------------------------------------------ the outbox

    def outbox(self) -> tuple[int, int, int | None]:
        """Rows, bytes, and the time (ns) of the oldest: what is not yet in the store, uncommitted changes apart. A pass over all of it: the
        mount has `Backlog`."""
        row = self._engine.one(OUTBOX)
        assert row is not None
        return row[0], row[1], row[2]

    def outbox_slice(self, max_bytes: int) -> OutboxSlice | None:
        """What the next record may carry: the oldest rows, up to the last complete one that fits (within SLICE_ROWS), at least up to the
        first complete one. None when no row is complete. `Beside.merged` reads them and makes one changeset of them, in a thread."""
        chosen: list[int] = []
        upto = count = total = size_upto = packs = 0
        for id, size, highest in self._rows():
            total += size
            if upto and (total > max_bytes or len(chosen) >= SLICE_ROWS):
                break
            chosen.append(id)
            if highest is not None:
                upto, packs, count, size_upto = id, highest, len(chosen), total
        return OutboxSlice(upto, chosen[:count], size_upto, packs) if upto else None

    def _rows(self) -> Iterator[tuple[int, int, int | None]]:
        """(id, bytes, packs), oldest first, read a few at a time."""
        last = 0
        while rows := self._engine.all(f"SELECT id, length(changeset), packs FROM outbox WHERE id > ? ORDER BY id LIMIT {SLICE_ROWS // 4}",
                                       (last,)):
            for id, size, packs in rows:
                yield id, size, packs
                last = id

    def void_cuts(self) -> None:
        """No record may end with a row that is in the outbox now: a pack that they name will not come to the store."""
        self._engine.run("UPDATE outbox SET packs = NULL WHERE packs IS NOT NULL")

    def unsent_changes(self) -> Iterator[bytes]:
        """All rows of the outbox, oldest first, one at a time."""
        for (id,) in self._engine.all("SELECT id FROM outbox ORDER BY id"):
            yield self._changeset(id)

    def _changeset(self, id: int) -> bytes:
        row = self._engine.one("SELECT changeset FROM outbox WHERE id = ?", (id,))
        assert row is not None
        return bytes(row[0])

    def last_outbox_id(self) -> int:
        """Of the newest row; 0 when there is none."""
        row = self._engine.one("SELECT max(id) FROM outbox")
        return int(row[0]) if row and row[0] is not None else 0

    def drop_outbox(self, last_id: int) -> None:
        """They are in the store. Takes effect with the next commit(), like any other local change."""
        self._engine.run("DELETE FROM outbox WHERE id <= ?", (last_id,))


def merge_changesets(changesets: Sequence[bytes]) -> bytes:
    """One changeset with the effect of all, in their order; b"" when they undo each other. For a thread: 16 MiB take some 0.2 s.

    SQLite is given and gives pieces, between which other threads may run: in one call it would keep the interpreter's lock.
    """
    if len(changesets) == 1:
        return changesets[0]
    apsw.session_config(apsw.SQLITE_SESSION_CONFIG_STRMSIZE, STREAM_BYTES)
    builder = apsw.ChangesetBuilder()  # type: ignore[no-untyped-call]
    for changeset in changesets:
        builder.add(_pieces(changeset))
    merged = bytearray()
    builder.output_stream(merged.extend)
    builder.close()
    return bytes(merged)


def _pieces(changeset: bytes) -> Callable[[int], bytes]:
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return changeset[at - size:at]
    return read


def describe(changeset: bytes) -> str:
    """What it did, in words for people: names, and how many rows of each kind."""
    made: list[str] = []
    removed: list[str] = []
    files: set[int] = set()
    rows = 0
    try:
        for change in apsw.Changeset.iter(changeset):
            rows += 1
            if change.name == "dentry" and change.op in ("INSERT", "DELETE"):
                values, names = (change.new, made) if change.op == "INSERT" else (change.old, removed)
                assert values is not None
                names.append(os.fsdecode(values[1]))          # type: ignore[arg-type]
            elif change.name == "extent" and (values := change.new if change.op == "INSERT" else change.old):
                files.add(int(values[0]))                     # type: ignore[arg-type]
    except (apsw.Error, UnicodeDecodeError):
        return "changes that cannot be read"
    words = [f"{len(names)} names {what} ({', '.join(map(repr, names[:NAMES_SHOWN]))}{', ...' if len(names) > NAMES_SHOWN else ''})"
             for names, what in ((made, "made"), (removed, "removed")) if names]
    if files:
        words.append(f"content of {len(files)} files")
    return f"{rows} rows" + (": " + ", ".join(words) if words else "")


def _where(change: apsw.TableChange) -> str:
    values = change.new if change.op == "INSERT" else change.old
    key = [values[at] for at in sorted(change.pk_columns)] if values else []
    return f"{change.name} {', '.join(value.hex() if isinstance(value, bytes) else str(value) for value in key)}"


def _check(changeset: bytes) -> None:
    """Read it through: SQLite would skip, without a word, tables it does not have or that have other columns."""
    try:
        for change in apsw.Changeset.iter(changeset):
            if _COLUMNS.get(change.name) != change.column_count:
                raise Damaged(f"a change from the store is for a table {change.name} of {change.column_count} columns, "
                              "which this s3cfs does not have")
    except (apsw.Error, UnicodeDecodeError) as error:
        raise Damaged(f"a change from the store cannot be read: {error}") from error
