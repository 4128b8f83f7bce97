"""SQLite, encrypted, in WAL mode with synchronous=NORMAL on the simulated disk, killed everywhere."""
from __future__ import annotations

import random

import apsw
import pytest

from .crash import Crash, Incarnation, Plan
from .disk import SimDisk, SimDrive
from .sqlitevfs import attach, detach

KEY = "raw:" + "5a" * 32


def connect(disk: SimDisk) -> apsw.Connection:
    connection = apsw.Connection(disk.real_path("meta.db"), vfs=f"multipleciphers-{disk.sqlite_vfs}")
    connection.pragma("key", KEY)
    connection.pragma("locking_mode", "EXCLUSIVE")
    connection.pragma("synchronous", "NORMAL")
    assert connection.pragma("journal_mode", "WAL") == "wal"
    connection.execute("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b BLOB) STRICT")
    return connection


def rows_of(drive: SimDrive) -> int:
    """Recover; the table must be rows 0..n-1, whole, in a sound database."""
    disk = attach(Incarnation("reader"), drive)
    try:
        connection = connect(disk)
        assert connection.pragma("integrity_check") == "ok"
        rows = list(connection.execute("SELECT a, b FROM t ORDER BY a"))
        assert [row[0] for row in rows] == list(range(len(rows)))
        assert all(row[1] == content(row[0]) for row in rows)
        connection.close()
        return len(rows)
    finally:
        detach(disk)


def content(number: int) -> bytes:
    return random.Random(number).randbytes(number * 37 % 3000)


class Writer:
    """What the engine does: a row a transaction, the WAL synced now and then, a checkpoint now and then."""

    def __init__(self, drive: SimDrive, plan: Plan, *, sync_wal: bool = True) -> None:
        self.done = self.synced = 0
        self.drive, self.sync_wal = drive, sync_wal
        self.incarnation = Incarnation("writer", plan)

    def run(self, rng: random.Random, count: int) -> None:
        disk = attach(self.incarnation, self.drive)
        try:
            self._write(disk, rng, count)
        except Crash:
            pass
        finally:
            detach(disk)

    def _write(self, disk: SimDisk, rng: random.Random, count: int) -> None:
        connection = connect(disk)
        connection.wal_autocheckpoint(0)
        disk.sync_dir("")
        for number in range(count):
            connection.execute("INSERT INTO t VALUES(?, ?)", (number, content(number)))
            self.done = number + 1
            if rng.random() < 0.3:
                if self.sync_wal:
                    wal = disk.open("meta.db-wal")
                    wal.fsync()
                    wal.close()
                self.synced = number + 1
            if rng.random() < 0.1:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        connection.close()


def test_acknowledged_rows_survive_a_kill_at_every_sync_point():
    lost = crashed = 0
    for seed in range(150):
        rng = random.Random(seed)
        drive = SimDrive()
        writer = Writer(drive, Plan("sync" if seed % 3 else "write", 1 + seed // 3))
        writer.run(rng, 40)
        crashed += bool(writer.incarnation.died_at)
        as_it_is = drive.copy()
        drive.power_cut(rng)
        found = rows_of(drive)
        assert writer.synced <= found <= writer.done + 1, f"seed {seed}, died {writer.incarnation.died_at}"
        lost += found < writer.done
        assert writer.done <= rows_of(as_it_is) <= writer.done + 1, "a process that dies loses no finished transaction"
    assert crashed > 100
    assert lost, "the disk loses what was not synced, or the test says nothing"


def test_a_writer_that_does_not_sync_is_found_out():
    caught = 0
    for seed in range(80):
        rng = random.Random(seed)
        drive = SimDrive()
        writer = Writer(drive, Plan("write", 30 + seed), sync_wal=False)
        writer.run(rng, 40)
        drive.power_cut(rng)
        caught += rows_of(drive) < writer.synced
    assert caught


def test_a_dead_connection_changes_nothing():
    drive = SimDrive()
    disk = attach(Incarnation("dead", Plan("sync", 3)), drive)
    with pytest.raises(Crash):
        connection = connect(disk)
        disk.sync_dir("")
        disk.sync_dir("")
        connection.execute("INSERT INTO t VALUES(0, x'')")
    before = {name: bytes(entry.data) for name, entry in drive.names.items() if hasattr(entry, "data")}
    detach(disk)
    assert before == {name: bytes(entry.data) for name, entry in drive.names.items() if hasattr(entry, "data")}


def test_the_database_is_encrypted_below_the_cipher():
    drive = SimDrive()
    disk = attach(Incarnation("writer"), drive)
    connection = connect(disk)
    connection.execute("INSERT INTO t VALUES(0, CAST('plain text to be found' AS BLOB))")
    for name in ("meta.db", "meta.db-wal"):
        data = disk.open(name).pread(1 << 20, 0)
        assert data and b"plain text" not in data and not data.startswith(b"SQLite format 3")
    connection.close()
    detach(disk)


def test_two_connections_exclude_one_another():
    disk = attach(Incarnation("two"), SimDrive())
    first = connect(disk)
    first.execute("INSERT INTO t VALUES(0, x'')")
    with pytest.raises(apsw.BusyError):
        connect(disk)
    first.close()
    connect(disk).close()
    detach(disk)


def test_a_full_disk_is_an_error_of_sqlite():
    drive = SimDrive()
    disk = attach(Incarnation("full"), drive)
    connection = connect(disk)
    drive.faults.capacity_bytes = drive.used_bytes() + 4096
    with pytest.raises(apsw.FullError):
        for number in range(20):
            connection.execute("INSERT INTO t VALUES(?, zeroblob(3000))", (number,))
    drive.faults.capacity_bytes = 1 << 40
    connection.close()
    detach(disk)
