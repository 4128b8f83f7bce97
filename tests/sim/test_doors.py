"""The simulator's own promises: what is synced stays, what is not may go, and one seed is one run."""
from __future__ import annotations

import errno
import random

import pytest
import trio

from s3cfs.errors import Exists, Temporary, Unsupported

from .crash import Crash, Incarnation, Plan
from .disk import SimDisk, SimDrive
from .doors import SimClock, SimThreads
from .faults import DiskFaults, Trouble
from .runtime import Stuck, live
from .store import Bucket, SimStore, StoreFaults


def disk_of(drive: SimDrive, plan: Plan | None = None) -> SimDisk:
    return SimDisk(Incarnation("test", plan), drive)


def test_synced_content_and_names_survive_every_power_cut():
    for seed in range(200):
        drive = SimDrive()
        disk = disk_of(drive)
        disk.makedirs("journal")
        file = disk.open("journal/a", create=True)
        file.pwrite(b"x" * 3000, 0)
        file.fsync()
        disk.sync_dir("journal")
        disk.sync_dir("")
        file.pwrite(b"y" * 3000, 0)
        drive.power_cut(random.Random(seed))
        found = disk_of(drive).open("journal/a").pread(4000, 0)
        assert len(found) == 3000
        assert set(found) <= set(b"xy")
        for sector in range(0, 3000, 512):
            assert len(set(found[sector:sector + 512])) == 1, "a sector is written whole or not at all"


def outcomes(act, look, seeds=300):
    found = set()
    for seed in range(seeds):
        drive = SimDrive()
        act(disk_of(drive))
        drive.power_cut(random.Random(seed))
        found.add(look(disk_of(drive)))
    return found


def test_what_is_not_synced_takes_every_shape():
    def act(disk):
        file = disk.open("a", create=True)
        disk.sync_dir("")
        file.pwrite(b"1" * 512, 0)
        file.pwrite(b"2" * 512, 512)

    def look(disk):
        data = disk.open("a").pread(2000, 0)
        return data.replace(b"1" * 512, b"1").replace(b"2" * 512, b"2").replace(bytes(512), b"0")

    assert outcomes(act, look) == {b"", b"1", b"12", b"02"}


def test_renames_are_atomic_and_unsynced_ones_may_go():
    def act(disk):
        for name, text in (("old", b"old"), ("new", b"new")):
            file = disk.open(name, create=True)
            file.pwrite(text, 0)
            file.fsync()
        disk.sync_dir("")
        disk.rename("new", "old")

    def look(disk):
        return disk.open("old").pread(9, 0), disk.exists("new")

    assert outcomes(act, look) == {(b"old", True), (b"new", False)}


def test_a_rename_over_without_fsync_can_leave_an_empty_file():
    def act(disk):
        disk.open("f", create=True)
        disk.sync_dir("")
        disk.open("f.tmp", create=True).pwrite(b"data", 0)
        disk.rename("f.tmp", "f")
        disk.sync_dir("")

    assert outcomes(act, lambda disk: disk.open("f").pread(9, 0)) == {b"", b"data"}


def test_a_folder_that_was_not_synced_takes_its_files_along():
    def act(disk):
        disk.makedirs("j/k")
        file = disk.open("j/k/f", create=True)
        file.pwrite(b"z", 0)
        file.fsync()
        disk.sync_dir("j/k")

    assert outcomes(act, lambda disk: disk.exists("j/k/f")) == {True, False}


def test_a_failed_fsync_says_nothing_about_the_next():
    lost = kept = 0
    for seed in range(100):
        drive = SimDrive(DiskFaults([Trouble(frozenset(("fsync",)))], rng=random.Random(seed)))
        disk = disk_of(drive)
        file = disk.open("a", create=True)
        disk.sync_dir("")
        file.pwrite(b"data", 0)
        with pytest.raises(OSError):
            file.fsync()
        file.fsync()
        assert file.pread(9, 0) == b"data"
        drive.power_cut(random.Random(seed))
        if disk_of(drive).open("a").pread(9, 0) == b"data":
            kept += 1
        else:
            lost += 1
    assert lost and kept


def test_full_disk():
    drive = SimDrive(DiskFaults(capacity_bytes=1000))
    disk = disk_of(drive)
    file = disk.open("a", create=True)
    file.pwrite(bytes(900), 0)
    assert disk.free_bytes() == 100
    with pytest.raises(OSError) as caught:
        file.pwrite(bytes(200), 900)
    assert caught.value.errno == errno.ENOSPC
    assert file.size() == 900


def test_the_dead_do_not_write():
    drive = SimDrive()
    disk = disk_of(drive, Plan("sync", 1))
    file = disk.open("a", create=True)
    file.pwrite(b"1", 0)
    with pytest.raises(Crash):
        file.fsync()
    for act in (lambda: file.pwrite(b"2", 0), file.fsync, lambda: disk.open("b", create=True), lambda: disk.unlink("a"),
                lambda: disk.sync_dir(""), lambda: disk.rename("a", "c")):
        with pytest.raises(Crash):
            act()
    assert disk_of(drive).open("a").pread(9, 0) == b"1", "a process that dies leaves what the system holds"


def test_copies_of_a_drive_go_their_own_ways():
    drive = SimDrive()
    disk_of(drive).open("a", create=True).pwrite(b"1", 0)
    other = drive.copy()
    other.power_cut(random.Random(3))
    disk_of(other).open("a", create=True).pwrite(b"22", 0)
    assert disk_of(drive).open("a").pread(9, 0) == b"1"
    assert drive.steps and drive.copy().steps


# ---------------------------------------------------------------- the store

def test_store_faults_and_flights():
    bucket = Bucket()
    store = SimStore(Incarnation("a"), bucket, StoreFaults(lost_reply=1.0))
    with pytest.raises(Temporary):
        store.put("k", b"1")
    assert bucket.objects == {"k": b"1"}
    store.faults = StoreFaults(temporary=1.0)
    with pytest.raises(Temporary):
        store.put("l", b"1")
    assert "l" not in bucket.objects
    store.faults = StoreFaults(late=1.0)
    with pytest.raises(Temporary):
        store.put("m", b"1", only_if_absent=True)
    assert "m" not in bucket.objects
    store.faults = StoreFaults()
    for _ in range(50):
        list(store.list(""))
    assert bucket.objects["m"] == b"1", "what was on its way has arrived"
    with pytest.raises(Exists):
        store.put("m", b"2", only_if_absent=True)
    assert not bucket.violations
    store.put("m", b"2")
    assert bucket.violations
    assert bucket.at(1).objects == {"k": b"1"}


def test_second_tier_and_pack_names():
    bucket = Bucket(create_only=False)
    store = SimStore(Incarnation("a"), bucket)
    assert store.capabilities.create_only is None
    assert store.probe_create_only() is False
    with pytest.raises(Unsupported):
        store.put("k", b"", only_if_absent=True)
    store.put("pack/00/1-" + "00" * 32, b"not that")
    assert "I7" in bucket.violations[0]


# ---------------------------------------------------------------- the run

def some_life(seed: int, plan: Plan | None = None):
    incarnation = Incarnation("life", plan)
    threads = SimThreads(incarnation, random.Random(seed))
    clock = SimClock(incarnation)
    log: list[tuple[int, int, int]] = []

    async def task(number: int) -> None:
        for turn in range(10):
            await threads.run(lambda turn=turn: log.append((number, turn, clock.time_ns())))
            await clock.sleep(0.01 * number)

    async def main() -> str:
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(task, number)
        return "done"

    outcome = live(incarnation, main, seed=seed)
    return outcome, log


def test_one_seed_is_one_run_and_seeds_differ():
    first, second = some_life(5), some_life(5)
    assert first[0].value == second[0].value == "done"
    assert first[1] == second[1]
    assert len({str(some_life(seed)[1]) for seed in range(20)}) == 20


@pytest.mark.parametrize("kind", ["hop", "await", "any"])
def test_death_at_any_point(kind):
    lengths = set()
    for after in range(1, 40):
        outcome, log = some_life(1, Plan(kind, after))
        assert outcome.crashed and outcome.error is None and outcome.value is None
        lengths.add(len(log))
    assert len(lengths) > 5


def test_a_dead_process_that_does_not_unwind_is_abandoned():
    incarnation = Incarnation("zombie", Plan("hop", 1))
    threads = SimThreads(incarnation, random.Random(0))

    async def main() -> None:
        try:
            await threads.run(int)
        finally:
            with trio.CancelScope(shield=True):
                await trio.Event().wait()

    assert live(incarnation, main, seed=1).crashed


def test_a_deadlock_is_found():
    async def main() -> None:
        await trio.Event().wait()

    assert isinstance(live(Incarnation("stuck"), main, seed=1).error, Stuck)


def test_virtual_time_costs_nothing_and_goes_on():
    incarnation = Incarnation("sleeper")
    clock = SimClock(incarnation)

    async def main() -> float:
        await clock.sleep(3600)
        return clock.monotonic()

    outcome = live(incarnation, main, seed=1, start_s=100.0)
    assert outcome.value == pytest.approx(3700)
    assert outcome.ended_s == pytest.approx(3700)
