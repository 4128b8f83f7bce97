"""The metadata on the simulated disk: killed at any write or sync, then the power goes and what was not synced with it."""
from __future__ import annotations

import random
from dataclasses import replace

import pytest

from s3cfs.doors import SystemClock
from s3cfs.errors import CacheUnusable
from s3cfs.limits import Limits
from s3cfs.meta import Meta, engine
from tests.sim.crash import Crash, Incarnation, Plan
from tests.sim.disk import SimDrive
from tests.sim.doors import make_doors
from tests.sim.faults import DiskFaults
from tests.sim.sqlitevfs import detach

from .kit import KEY, add_file, run

TRANSACTIONS = 25
SHORT_WAL = Limits(wal_copy_pages=60, wal_restart_pages=200, wal_rest_pages=100)       # so that checkpoints and restarts happen here


class Life:
    """Opens, and makes transactions until it dies. A transaction notes its number and the fingerprint before it in `local`."""

    def __init__(self, drive: SimDrive, plan: Plan, seed: int) -> None:
        self.incarnation = Incarnation("life", plan)
        self.doors = replace(make_doors(self.incarnation, drive, seed), clock=SystemClock(), limits=SHORT_WAL)
        self.rng = random.Random(seed)
        self.done = self.synced = self.found = -1
        self.failed = False
        self.restarts = 0
        self.states: dict[int, bytes] = {}

    def run(self, begin: int) -> None:
        try:
            meta = Meta.open(self.doors, "meta.db", KEY)
            for number in range(begin, begin + TRANSACTIONS):
                self._transaction(meta, number)
            if self.rng.random() < 0.5:
                meta.close()
        except Crash:
            pass
        except CacheUnusable:
            self.failed = True
        finally:
            detach(self.doors.disk)  # type: ignore[arg-type]

    def _transaction(self, meta: Meta, number: int) -> None:
        for at in range(self.rng.randrange(1, 6)):
            run(add_file(meta, b"%d-%d" % (number, at), b"x" * self.rng.randrange(1, 5000)))
        if self.rng.random() < 0.3:
            meta.local_set("large", self.rng.randbytes(100_000))
        if self.rng.random() < 0.3:
            run(meta.truncate(meta.counters.next_ino - 1, 0))
            run(meta.update_inode(meta.counters.next_ino - 1, size=0))
        meta.local_set("number", b"%d" % number)
        meta._engine.flush_counters()
        self.states[number] = meta.fingerprint()
        meta.commit()
        self.done = number
        if self.rng.random() < 0.4:
            meta.sync_wal()
            self.synced = number
        if self.rng.random() < 0.5:
            meta.checkpoint_wal()
            self.restarts += meta.restart_wal()


def found_in(drive: SimDrive) -> tuple[int, bytes, int]:
    """(number of the last transaction, fingerprint, rows of the outbox) after recovery; all must be sound."""
    doors = replace(make_doors(Incarnation("reader"), drive, 0), clock=SystemClock())
    try:
        meta = Meta.open(doors, "meta.db", KEY)
        assert meta.quick_check() == [] and list(meta.audit.problems()) == []
        result = int(meta.local_get("number") or b"-1"), meta.fingerprint(), meta.outbox()[0]
        meta.close()
        return result
    finally:
        detach(doors.disk)  # type: ignore[arg-type]


def lives(seeds: range) -> tuple[int, int, int]:
    """(died, lost a transaction that was not synced, lost one that was)"""
    died = lost = broken = restarts = 0
    for seed in seeds:
        rng = random.Random(seed)
        drive = SimDrive()
        states = {-1: b""}
        last = -1
        for number in range(2):                             # the second life begins with what the first one left
            life = Life(drive, Plan("sync" if rng.random() < 0.4 else "write", int(rng.uniform(1, 12) ** 2.5)), seed * 2 + number)
            life.run(last + 1)
            states.update(life.states)
            died += bool(life.incarnation.died_at)
            restarts += life.restarts
            drive.power_cut(rng)
            last, state, rows = found_in(drive)
            assert rows == last + 1                         # the outbox is as long as what it is the log of
            assert last == -1 or state == states[last], f"seed {seed}, died {life.incarnation.died_at}"
            broken += last < life.synced
            lost += last < life.done
    assert restarts > len(seeds) // 4                       # of the log: what is synced must survive those as well
    return died, lost, broken


def test_what_was_synced_survives_and_the_rest_is_a_whole_transaction() -> None:
    died, lost, broken = lives(range(60))
    assert broken == 0 and died > 40 and lost > 5


@pytest.mark.parametrize("fault", ["wal", "name"])
def test_it_would_be_noticed(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Were the WAL, or its name, not synced."""
    if fault == "wal":
        monkeypatch.setattr(engine.Engine, "sync_wal", lambda self: None)
    else:
        monkeypatch.setattr("tests.sim.disk.SimDisk.sync_dir", lambda self, path: None)
    caught = 0
    try:
        caught = lives(range(30))[2]
    except Exception:
        caught = 1
    assert caught


def test_what_a_failed_sync_left_in_the_page_cache_is_not_trusted() -> None:
    """After a failed fsync the kernel calls the pages clean, and they are on no disk: the next process reads them all the same. It must not
    build on them as they are, or a power cut after its own syncs leaves a log with a hole in it.
    """
    failed = lost = 0
    for seed in range(40):
        rng = random.Random(seed)
        drive = SimDrive()
        states: dict[int, bytes] = {-1: b""}
        last = synced = -1
        for number in range(4):
            drive.faults = DiskFaults(fsync_eio=0.1 if number < 3 else 0.0, rng=rng)
            life = Life(drive, Plan("write", rng.randrange(1, 400) if number == 3 else 100_000), seed * 4 + number)
            life.run(last + 1)
            failed += life.failed
            states.update(life.states)
            synced = max(synced, life.synced)
            drive.faults = DiskFaults()
            if number == 3:
                drive.power_cut(rng)
            last, state, rows = found_in(drive.copy() if number < 3 else drive)
            assert rows == last + 1 and last >= synced, f"seed {seed}: {last} of {synced}"
            assert last == -1 or state == states[last], f"seed {seed}"
            lost += last < life.done
    assert failed > 30 and lost > 2
