"""Encryption on disk, transactions, crashes, failures, the WAL."""
from __future__ import annotations

import errno
import shutil
from pathlib import Path

import apsw
import pytest

from s3cfs.errors import CacheFull, CacheUnusable, Damaged, NewerFormat
from s3cfs.meta import Meta, database
from s3cfs.meta.schema import REPLICATED, REPLICATED_SQL
from tests.loopmeter import SqlMeter

from .kit import KEY, Vfs, VfsFile, add_file, doors, names, open_meta, populate, run, sql

PLAIN = b"SQLite format 3"


def crash(source: Path, target: Path) -> Path:
    """What a process that dies now leaves behind: the files as they are, no shared memory."""
    target.mkdir()
    for name in ("meta.db", "meta.db-wal"):
        shutil.copy(source / name, target / name)
    return target


def test_nothing_on_disk_is_plaintext(tmp_path: Path) -> None:
    meta = open_meta(tmp_path)
    run(add_file(meta, b"a-very-telling-name"))
    meta.local_set("k", b"a-very-telling-value")
    meta.commit()
    found = b"".join((tmp_path / name).read_bytes() for name in names(tmp_path) if not name.endswith("-shm"))
    assert len(found) > 50000
    for word in (PLAIN, b"CREATE TABLE", b"telling"):
        assert word not in found
    meta.close()
    assert names(tmp_path) == ["meta.db"]
    assert PLAIN not in (tmp_path / "meta.db").read_bytes()
    plain = open_meta(tmp_path, None, "plain.db")
    plain.close()
    assert (tmp_path / "plain.db").read_bytes().startswith(PLAIN)


def test_the_check_for_plaintext_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the cipher ignored in silence, creation would stop and leave nothing under the real name."""
    real = database.connect
    monkeypatch.setattr(database, "connect", lambda doors, path, key, **more: real(doors, path, None, **more))
    with pytest.raises(Damaged, match="plaintext"):
        open_meta(tmp_path)
    assert "meta.db" not in names(tmp_path)


@pytest.mark.parametrize(("written", "opened"), [(KEY, bytes(32)), (KEY, None), (None, KEY)])
def test_another_key(tmp_path: Path, written: bytes | None, opened: bytes | None) -> None:
    open_meta(tmp_path, written).close()
    with pytest.raises(Damaged):
        open_meta(tmp_path, opened)
    open_meta(tmp_path, written).close()


def test_a_newer_schema_and_a_foreign_database(tmp_path: Path) -> None:
    meta = open_meta(tmp_path)
    sql(meta, "UPDATE fsmeta SET value = x'39' WHERE key = 'schema'")
    meta.commit()
    meta.close()
    with pytest.raises(NewerFormat):
        open_meta(tmp_path)
    foreign = apsw.Connection(str(tmp_path / "foreign.db"))
    foreign.execute("CREATE TABLE t (a)")
    foreign.close()
    with pytest.raises((Damaged, CacheUnusable)):
        open_meta(tmp_path, None, "foreign.db")


def test_a_folder_that_is_not_there_or_a_truncated_file(tmp_path: Path) -> None:
    with pytest.raises(CacheUnusable):
        open_meta(tmp_path, name="nowhere/meta.db")
    open_meta(tmp_path).close()
    (tmp_path / "meta.db").write_bytes((tmp_path / "meta.db").read_bytes()[:5000])
    with pytest.raises(Damaged):
        open_meta(tmp_path)


def test_left_overs_of_a_creation_and_of_a_lost_database_are_not_used(tmp_path: Path) -> None:
    meta = open_meta(tmp_path)
    run(add_file(meta, b"a"))
    meta.commit()
    wal = (tmp_path / "meta.db-wal").read_bytes()
    meta.close()
    (tmp_path / "meta.db").unlink()
    (tmp_path / "meta.db-wal").write_bytes(wal)
    (tmp_path / "meta.db.new").write_bytes(b"half")
    meta = open_meta(tmp_path)
    assert run(meta.lookup(1, b"a")) is None and meta.quick_check() == []
    meta.close()


def test_crash_keeps_what_was_committed_and_nothing_else(tmp_path: Path) -> None:
    meta = open_meta(tmp_path / "a")
    run(add_file(meta, b"kept"))
    meta.local_set("note", b"1")
    assert meta.dirty
    made = meta.commit()
    assert made is not None and made.changeset_bytes == meta.outbox()[1] and not meta.dirty
    meta.sync_wal()
    before, counters = meta.fingerprint(), meta.counters
    next_ino = counters.next_ino
    run(add_file(meta, b"lost"))
    meta.local_set("note", b"2")
    after = open_meta(crash(tmp_path / "a", tmp_path / "b"))
    assert after.fingerprint() == before and after.counters.next_ino == next_ino
    assert after.local_get("note") == b"1" and after.outbox()[0] == 1 and run(after.lookup(1, b"lost")) is None
    assert list(after.audit.problems()) == []


def test_commit_without_replicated_change_makes_no_outbox_row(tmp_path: Path) -> None:
    meta = open_meta(tmp_path / "a")
    assert meta.commit() is None
    meta.local_set("k", b"v")
    assert not meta.dirty and meta.commit() is None
    run(meta.update_inode(1, mode=0o040700))
    run(meta.update_inode(1, mode=0o040755))                # touched, and put back
    assert meta.commit() is None
    assert meta.outbox() == (0, 0, None)
    other = open_meta(crash(tmp_path / "a", tmp_path / "b"))
    assert other.local_get("k") == b"v"
    run(meta.update_inode(1, mode=0o040700))
    first = meta.commit()
    meta.drop_outbox(meta.last_outbox_id())
    run(meta.update_inode(1, mode=0o040711))
    second = meta.commit()
    assert first and second and second.id == first.id + 1   # ids of the outbox are not used twice


def test_a_transaction_of_local_changes_leaves_no_session_behind(tmp_path: Path) -> None:
    """Each that stayed would record all later changes, too: memory and time would grow with the number of commits."""
    meta = open_meta(tmp_path)

    def rounds(tag: bytes) -> int:
        for number in range(100):
            run(add_file(meta, b"%s-%d" % (tag, number)))
            meta.commit()
            meta.drop_outbox(meta.last_outbox_id())             # as after every record: a transaction of local changes alone
            meta.commit()
        return apsw.memory_used()

    before = rounds(b"first")
    assert rounds(b"second") - before < 1 << 20                 # pages in SQLite's cache; the sessions were 6 MB
    meta.close()


def test_replicated_tables_are_as_declared(tmp_path: Path) -> None:
    meta = open_meta(tmp_path)
    assert set(REPLICATED_SQL) == {table.name for table in REPLICATED}
    for table in REPLICATED:
        info = sql(meta, f"PRAGMA table_info({table.name})")
        assert len(info) == table.columns
        assert tuple(row[1] for row in sorted((r for r in info if r[5]), key=lambda r: r[5])) == table.key
        assert all(row[3] for row in info if row[5])        # keys are NOT NULL


@pytest.mark.parametrize("error", [apsw.FullError("full"), OSError(errno.ENOSPC, "no space"), apsw.IOError("io"), OSError(errno.EIO, "io")])
def test_a_failing_disk_ends_everything(tmp_path: Path, error: Exception) -> None:
    vfs = Vfs(f"failing-{tmp_path.name}")
    meta = open_meta(tmp_path, vfs=vfs.name)
    run(add_file(meta, b"before"))
    meta.commit()
    run(add_file(meta, b"after"))
    vfs.error = error
    full = isinstance(error, apsw.FullError) or getattr(error, "errno", 0) == errno.ENOSPC
    wanted = CacheFull if full else CacheUnusable
    with pytest.raises(wanted):
        meta.commit()
    vfs.error = None
    for call in (lambda: run(meta.get(1)), meta.commit, meta.snapshot, meta.sync_wal, meta.fingerprint, lambda: meta.apply(b"")):
        with pytest.raises(wanted):
            call()
    assert isinstance(meta.failed, wanted) and meta.open_bytes == 0 and not meta.dirty
    meta.close()
    again = open_meta(tmp_path, vfs=vfs.name)
    assert run(again.lookup(1, b"before")) and run(again.lookup(1, b"after")) is None
    again.close()


@pytest.mark.parametrize(("error", "wanted"), [(apsw.FullError("full"), CacheFull), (apsw.IOError("io"), CacheUnusable)])
@pytest.mark.parametrize("call", ["run", "many", "one"])
def test_a_disk_that_fails_in_the_middle_of_a_statement_ends_everything(tmp_path: Path, error: Exception, wanted: type[Exception],
                                                                        call: str) -> None:
    """Pages that find no place in memory go to the WAL before any COMMIT: then a statement meets the full disk, and SQLite rolls back
    more than that statement. What was said to be done since the last commit() is gone, so nothing may go on.
    """
    vfs = Vfs(f"filling-{tmp_path.name}")
    meta = open_meta(tmp_path, vfs=vfs.name)
    run(add_file(meta, b"before"))
    meta.commit()
    sql(meta, "PRAGMA cache_size = 10")
    run(add_file(meta, b"after"))
    vfs.error = error
    engine = meta._engine
    insert = "INSERT INTO local VALUES (?, zeroblob(20000))"
    with pytest.raises(wanted) as caught:
        for number in range(200):
            if call == "run":
                engine.run(insert, (f"k{number}",))
            elif call == "many":
                engine.many(insert, [(f"k{number}-{at}",) for at in range(5)])
            else:
                engine.one(f"{insert} RETURNING 1", (f"k{number}",))
    vfs.error = None
    assert type(meta.failed) is wanted and str(meta.failed) == str(caught.value)
    for refused in (lambda: run(meta.lookup(1, b"before")), meta.commit, meta.sync_wal, lambda: meta.local_set("k", b"")):
        with pytest.raises(wanted):
            refused()
    meta.close()
    again = open_meta(tmp_path, vfs=vfs.name)
    assert run(again.lookup(1, b"before")) and run(again.lookup(1, b"after")) is None
    assert again.local_get("k0") is None and again.quick_check() == []
    again.close()


def test_a_rollback_nobody_asked_for_ends_everything(tmp_path: Path) -> None:
    meta = open_meta(tmp_path)
    sql(meta, "ROLLBACK")
    with pytest.raises(CacheUnusable, match="rolled back"):
        meta._engine.run("INSERT INTO local VALUES ('k', NULL)")
    assert meta.failed


def test_a_failed_sync_ends_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = open_meta(tmp_path)

    class Broken:
        def fsync(self) -> None:
            raise OSError(errno.EIO, "io")

        def close(self) -> None:
            pass

    monkeypatch.setattr(meta._engine.wal, "_file", Broken())
    with pytest.raises(CacheUnusable, match="synced"):
        meta.sync_wal()
    assert meta.failed
    meta.close()


def test_the_wal_starts_anew(tmp_path: Path) -> None:
    """It would grow for ever: SQLite restarts it only for a BEGIN that finds everything copied."""
    meta = open_meta(tmp_path)
    largest = begun = 0
    for round in range(60):
        run(populate(meta, 150, b"r%d-" % round))
        for number in range(40):
            meta.local_set(f"k{number}", bytes([round]) * 80000)
        meta.commit()
        meta.checkpoint_wal()
        if meta.restart_wal():
            begun += 1
        largest = max(largest, (tmp_path / "meta.db-wal").stat().st_size)
    assert 30 << 20 < largest < 50 << 20 and 3 < begun < 9     # some 200 MiB went through it
    meta.close()


def test_on_a_vfs_of_ones_own(tmp_path: Path) -> None:
    vfs = Vfs(f"plain-{tmp_path.name}")
    meta = open_meta(tmp_path, vfs=vfs.name)
    for round in range(12):
        run(populate(meta, 200, b"r%d-" % round))
        meta.local_set("large", bytes(2 << 20))
        meta.commit()
        meta.sync_wal()
        meta.checkpoint_wal()
    assert PLAIN not in (tmp_path / "meta.db").read_bytes() + (tmp_path / "meta.db-wal").read_bytes()
    before = meta.fingerprint()
    meta.close()
    again = open_meta(tmp_path, vfs=vfs.name)
    assert again.fingerprint() == before and again.quick_check() == []
    again.close()
    assert issubclass(VfsFile, apsw.VFSFile)
    system = Meta.open(doors(tmp_path), "meta.db", KEY)     # and the same file under the system's VFS
    assert system.fingerprint() == before
    system.close()


def test_a_database_of_an_earlier_version_gets_the_indexes_it_lacks(tmp_path: Path) -> None:
    meta = open_meta(tmp_path)
    run(populate(meta, 300))
    meta.commit()
    assert meta.missing_indexes() == []
    before = meta.fingerprint()
    for name in ("chunk_by_pack", "pack_open"):
        sql(meta, f"DROP INDEX {name}")
    meta.local_set("k", b"v")
    meta.commit()
    meta.close()
    meta = open_meta(tmp_path)
    assert len(meta.missing_indexes()) == 2
    meta.build_indexes()
    assert meta.missing_indexes() == [] and meta.fingerprint() == before and not meta.dirty
    other = open_meta(crash(tmp_path, tmp_path / "b"))                # they are in the file, not in the open transaction
    assert other.missing_indexes() == []
    with SqlMeter(meta) as steps:
        assert len(run(meta.chunks_of(7))) == 1 and run(meta.open_packs()) == []
        assert steps.most_steps < 40 and not steps.scanned
    other.close()
    meta.close()


def test_how_many_rows_a_transaction_should_have_follows_from_what_commits_take(tmp_path: Path) -> None:
    meta = open_meta(tmp_path)
    engine = meta._engine
    least = engine.doors.limits.transaction_max_rows
    assert engine.rows_bound == least
    engine._row_s = 1.0                                     # never fewer,
    run(populate(meta, 100))
    assert engine.open_rows > 256
    meta.commit()
    assert 0.5 < engine._row_s < 0.8 and engine.rows_bound == least and engine.open_rows == 0
    engine._row_s = 0.0                                     # nor more than eight times as many
    assert engine.rows_bound == 8 * least
    meta.close()
