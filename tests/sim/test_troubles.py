"""The simulator's troubles are what they say: disks that fail, threads that mix, machines that die, histories that part."""
from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import replace

import apsw
import pytest
import trio

from s3cfs.errors import Temporary

from .check import RECOVERED, ClientLog, Moment, covers, judge, recovered
from .crash import Crash, Incarnation, Plan
from .disk import SimDisk, SimDrive
from .doors import SimClock, SimStoreThreads, SimThreads
from .faults import CALLS, MODES, DiskFaults, Trouble
from .history import Events, History
from .machines import Machine
from .model import Node, Nodes, Version
from .nature import Families, Nature
from .runtime import Actor, live, live_together
from .sqlitevfs import attach, detach
from .store import Bucket, SimStore, StoreFaults
from .threads import pause

KEY = "raw:" + "5a" * 32


def _disk_call(call: str, disk: SimDisk) -> None:
    file = disk.open("a")
    acts: dict[str, Callable[[], object]] = {
        "open": lambda: disk.open("a"), "read": lambda: file.pread(1, 0), "listdir": lambda: disk.listdir(""),
        "size": lambda: disk.size("a"), "write": lambda: file.pwrite(b"x", 0), "truncate": lambda: file.truncate(9), "fsync": file.fsync,
        "sync_dir": lambda: disk.sync_dir(""), "create": lambda: disk.open("new", create=True), "rename": lambda: disk.rename("a", "b"),
        "unlink": lambda: disk.unlink("a"), "makedirs": lambda: disk.makedirs("folder")}
    acts[call]()


@pytest.mark.parametrize("call", [call for call in CALLS if not call.startswith("db_")])
def test_every_call_of_the_disk_fails_as_often_as_it_is_told_to(call):
    drive = SimDrive()
    disk = SimDisk(Incarnation("test"), drive)
    disk.open("a", create=True).pwrite(b"data", 0)
    drive.faults = DiskFaults([Trouble(frozenset((call,)), errno.ENOSPC, after=1 if call != "open" else 2, lasts=2)])
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            _disk_call(call, disk)
        assert caught.value.errno == errno.ENOSPC
    _disk_call(call, disk)
    assert drive.faults.fired == 2


def _connect(disk: SimDisk) -> apsw.Connection:
    connection = apsw.Connection(disk.real_path("meta.db"), vfs=f"multipleciphers-{disk.sqlite_vfs}")
    connection.pragma("key", KEY)
    assert connection.pragma("journal_mode", "WAL") == "wal"
    connection.pragma("synchronous", 1)
    connection.wal_autocheckpoint(0)
    return connection


def _sqlite_works(disk: SimDisk) -> None:
    connection = _connect(disk)
    connection.execute("CREATE TABLE IF NOT EXISTS t(a)")
    connection.execute("INSERT INTO t VALUES(randomblob(9000))")
    connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    again = _connect(disk)
    again.execute("SELECT sum(length(a)) FROM t").fetchall()
    again.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")      # apsw's word for an error that SQLite does not ask for
@pytest.mark.parametrize("call", [call for call in CALLS if call.startswith("db_")])
def test_every_call_of_sqlite_fails(call):
    drive = SimDrive()
    disk = attach(Incarnation("test"), drive)
    try:
        if call == "db_create":
            drive.faults = DiskFaults([Trouble(frozenset((call,)))])
        else:
            _sqlite_works(disk)
            drive.faults = DiskFaults([Trouble(frozenset((call,)), lasts=1000)])
        try:
            _sqlite_works(disk)
        except (apsw.IOError, apsw.CantOpenError, apsw.FullError):
            pass
        assert drive.faults.fired
        drive.faults = DiskFaults()
        _sqlite_works(disk)
    finally:
        detach(disk)


def test_a_second_connection_reads_the_state_it_began_with():
    disk = attach(Incarnation("test"), SimDrive())
    try:
        writer, reader = _connect(disk), _connect(disk)
        writer.execute("CREATE TABLE t(a)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES(1)")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
        writer.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)
        assert reader.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)[1] > 0
    finally:
        detach(disk)


def test_drawn_faults_are_of_every_kind():
    seen = {str(DiskFaults.draw(random.Random(seed), 0, (mode,))).split(" ")[0] for seed in range(60) for mode in MODES}
    assert {"EIO", "ENOSPC", "EMFILE", "EROFS", "full"} <= seen


# ---------------------------------------------------------------- threads

def test_a_call_of_the_store_takes_its_time_and_the_loop_goes_on():
    incarnation = Incarnation("test")
    threads = SimStoreThreads(incarnation, random.Random(1))
    store = SimStore(incarnation, Bucket(), StoreFaults(latency_s=10.0, rng=random.Random(2)))
    ticks: list[float] = []

    async def ticking() -> None:
        while True:
            await trio.sleep(0.5)
            ticks.append(trio.current_time())

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ticking)
            began = trio.current_time()
            await threads.run(store.put, "k", b"data", ended=lambda: None)
            nursery.cancel_scope.cancel()
            return trio.current_time() - began

    outcome = live(incarnation, main, seed=3)
    assert outcome.value is not None and outcome.value > 2.0
    assert len(ticks) >= 2 * int(outcome.value) - 1


def test_an_abandoned_call_takes_effect_later():
    incarnation = Incarnation("test")
    threads = SimStoreThreads(incarnation, random.Random(1))
    bucket = Bucket()
    store = SimStore(incarnation, bucket, StoreFaults(stuck=1.0, rng=random.Random(3)))
    ended: list[bool] = []

    async def main() -> None:
        with trio.move_on_after(5.0) as scope:
            await threads.run(store.put, "k", b"data", ended=lambda: ended.append("k" in bucket.objects))
        assert scope.cancelled_caught and not ended and not bucket.objects
        await trio.sleep(500.0)
        assert ended == [True] and bucket.objects == {"k": b"data"}

    assert live(incarnation, main, seed=1).error is None


def test_a_thread_of_a_dead_process_hears_of_its_death():
    incarnation = Incarnation("test")
    threads = SimThreads(incarnation, random.Random(1), mixed=1.0)
    ended: list[str] = []

    def slow() -> None:
        try:
            pause(1000.0)
        except Crash:
            ended.append("crash")
            raise

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(threads.run, slow)
            await trio.sleep(50.0)
            incarnation.kill("power")

    assert live(incarnation, main, seed=1).crashed
    assert ended == ["crash"]


def test_of_two_at_once_one_dies_and_the_other_goes_on():
    dying, living = Incarnation("dying", Plan("hop", 5)), Incarnation("living")

    async def work(incarnation: Incarnation) -> str:
        threads = SimThreads(incarnation, random.Random(7))
        for _ in range(20):
            await threads.run(int)
        return "done"

    actors = [Actor(dying, lambda: work(dying)), Actor(living, lambda: work(living))]
    live_together(actors, seed=1)
    assert actors[0].outcome.crashed and actors[0].outcome.value is None
    assert not actors[1].outcome.crashed and actors[1].outcome.value == "done"


# ---------------------------------------------------------------- machines and what befalls them

def test_a_machine_knows_which_of_its_processes_live():
    machine, rng = Machine("alpha"), random.Random(1)
    first, second = Incarnation("first"), Incarnation("second")
    who, other = machine.process(first), machine.process(second)
    assert machine.alive(who.host) and machine.alive(other.host) and who.host.same_machine(other.host)
    first.kill()
    assert not machine.alive(who.host) and machine.alive(other.host)
    machine.power_cut(rng)
    assert not machine.alive(other.host)
    assert not machine.process(Incarnation("third")).host.same_machine(who.host), "it booted anew"


def test_families_that_do_not_exist_are_an_error():
    assert not Families().without("disk").disk
    assert Families.only("clocks") == Families.only("").__class__(**{**Families.only("").__dict__, "clocks": True})
    with pytest.raises(TypeError):
        Families().without("dsik")


def test_outages_and_jumps_come_and_go():
    told: list[str] = []
    for seed in range(40):
        incarnation = Incarnation("test")
        store = SimStore(incarnation, Bucket(), StoreFaults(rng=random.Random(1)))
        nature = Nature(Families.only("outage,clocks"), random.Random(seed), incarnation, SimClock(incarnation), store.faults)
        live(incarnation, nature.run, seed=seed)
        assert not store.faults.away
        told += nature.told
    assert {line.split(" ")[0] for line in told} == {"store", "wall", "suspend", "stop"}


def test_an_outage_is_not_for_who_only_looks():
    store = SimStore(Incarnation("test"), Bucket(), StoreFaults(away=True))
    with pytest.raises(Temporary):
        store.list("")
    store.faults.calm += 1
    assert list(store.list("")) == []


# ---------------------------------------------------------------- histories

def _history(count: int) -> History:
    """One client whose folder's mtime counts its operations."""
    made = History(Events(), {}, [])
    log = ClientLog(1, [Moment(_tree(0), "the beginning", 0, 0, 0.0)])
    for number in range(1, count + 1):
        log.moments.append(Moment(_tree(number), "touch", 2 * number, 2 * number + 1, float(number)))
    made.logs, made.floors, made.taken_at = [log], [0], [0]
    return made


def _tree(mtime: int) -> Nodes:
    return {1: Node(1, 0o40755, nlink=2, mtime=mtime)}


def test_what_was_left_behind_may_go_on_only_while_nothing_else_was_sent():
    first = _history(5)
    verdict = judge(_tree(3), first.logs, [0], where="test")
    taken = first.fork(_tree(3), verdict, 10.0)
    assert first.counts() == [5] and taken.counts() == [4], "three of them, and the moment of recovery"
    assert first.may_go_on_instead_of(taken)
    taken.acknowledge(True, [3], 7, "flush of nothing", 11.0)
    assert first.may_go_on_instead_of(taken)
    taken.logs[0].moments.append(Moment(_tree(99), "touch", 50, 51, 12.0))
    taken.acknowledge(True, [5], 8, "flush", 13.0)
    assert not first.may_go_on_instead_of(taken)


def test_floors_and_lag():
    history = _history(5)
    history.acknowledge(False, [2], 3, "fsync", 2.0)
    history.acknowledge(True, [1], 4, "flush", 2.5)
    assert history.floors_of(remote=False) == [2] and history.floors_of(remote=True) == [1]
    assert history.floors_of(remote=True, moment=3) == [0]
    floors = [0]
    history.raise_by_lag(floors, 3.5, fair_since=4.0)
    assert floors == [0], "it had no fair chance"
    history.raise_by_lag(floors, 3.5, fair_since=1.0)
    assert floors == [3]


def test_a_state_covers_what_changed_nothing():
    log = _history(2).logs[0]
    log.moments.append(Moment(dict(log.moments[2].nodes), "fsync", 20, 21, 3.0))

    def left(cut: int, floor: int) -> bool:
        return covers(recovered(log, cut), log, cut, floor)

    assert left(2, 3) and left(2, 1) and not left(1, 2)


def test_a_state_covers_what_nobody_was_promised():
    old, new = Version(b"old", 1, 1), Version(b"newer", 1, 1)
    log = _history(0).logs[0]
    for number, (what, versions) in enumerate([("create", (old,)), ("write", (old, new)), ("fsync", (new,))], 1):
        nodes = {1: replace(_tree(0)[1], entries={b"a": 2}), 2: Node(2, 0o100644, versions=versions)}
        log.moments.append(Moment(nodes, what, 2 * number, 2 * number + 1, 1.0))
    found = recovered(log, 1)
    assert covers(found, log, 1, 2) and not covers(found, log, 1, 3)
    log.moments[2:] = [Moment(recovered(log, 3), RECOVERED, 8, 9, 1.0), *log.moments[2:]]
    assert covers(recovered(log, 1), log, 1, 4), "what was found counts, not what might have been"
