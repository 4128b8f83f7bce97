"""From the outbox to the log: where records may end, how large they get, what is noted when, and that nothing spins."""
from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from s3cfs.app.node import Node
from s3cfs.errors import DataError, NoSpace, S3cfsError
from s3cfs.formats.record import Kind
from s3cfs.history.health import State
from s3cfs.history.localtip import LocalTip
from s3cfs.history.pipeline import NEXT, Pipeline, Stage
from s3cfs.limits import MIB, Limits
from s3cfs.meta import Transaction
from s3cfs.vfs.types import ROOT_CALLER
from tests.sim.faults import NEVER
from tests.sim.runtime import jump

from .kit import Life, Site, content, fill, filled, new_machine, state, unsent, write_file

# ---------------------------------------------------------------- where a record may end (C2, C5)

def records(site: Site) -> list[int]:
    """Moments (number of changes) at which a record of the log had just come."""
    return [moment for moment, change in enumerate(site.bucket.history, 1) if change.key.startswith("log/")]


@pytest.mark.parametrize(("record_max_bytes", "at_least"), [(1, 8), (2000, 5), (4000, 3)])
def test_an_outbox_larger_than_a_record_is_cut_where_packs_are_closed(record_max_bytes: int, at_least: int) -> None:
    """After a long silence of the store: at each record a new machine finds a whole state, and ever more of it."""
    site = Site(limits=Limits(record_max_bytes=record_max_bytes))

    async def main(life: Life) -> None:
        async with life.node(commit_interval_s=1000.0) as node:
            await life.doors.clock.sleep(1)
            life.away()
            for number in range(12):
                await write_file(node, b"%d" % number, content(number))
                await node.commits.durable()
            life.away(False)
            await node.flush()
            assert node.meta.outbox()[0] == 0 and node.commits.lag_s() == 0 and node.commits.lag_bytes() == 0
            life.incarnation.kill()

    site.live(main)
    whole, before, seen = site.bucket, 0, set()
    for moment in records(site):
        site.bucket = whole.at(moment)
        files = new_machine(site)
        assert files == {b"%d" % number: content(number) for number in range(len(files))}
        assert len(files) >= before
        before = len(files)
        seen.add(before)
    assert before == 12 and len(seen - {0}) >= at_least, f"they went as {sorted(seen)}"


def test_an_open_transaction_is_bounded() -> None:
    """Names made faster than transactions end by themselves: no changeset outgrows its bound, and so no record."""
    limits = Limits(transaction_max_bytes=5_000, record_max_bytes=20_000)
    site = Site(limits=limits)

    async def main(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            for number in range(600):                       # well within a second
                await node.vfs.create(1, b"n%d" % number, 0o644, ROOT_CALLER)
                largest.append(node.meta.open_bytes)
            await node.commits.durable()
            for number in range(60):
                await node.vfs.create(1, b"m%d" % number, 0o644, ROOT_CALLER)
            assert node.meta.open_bytes > limits.transaction_max_bytes
            await life.doors.clock.sleep(0.4)
            assert node.meta.open_bytes == 0, "a large one waits for its second"
            await node.flush()
            assert state(node) is State.OK
            sizes.extend(len(entry.changeset) for entry in await life.history())

    largest: list[int] = []
    sizes: list[int] = []
    site.live(main)
    assert max(largest) < 4 * limits.transaction_max_bytes + 1000
    assert sum(sizes) > 60_000 and max(sizes) <= 4 * limits.transaction_max_bytes + limits.record_max_bytes


def test_an_open_transaction_is_bounded_in_rows() -> None:
    """Each may dirty a page, and COMMIT writes them all on the event loop: 4,000 rows end a transaction, however small they are."""
    limits = Limits(transaction_max_rows=100)
    rows: list[int] = []

    async def main(life: Life) -> None:
        async with life.node() as node:
            real = node.meta.commit
            assert node.meta._engine.rows_bound == 100

            def commit() -> Transaction | None:
                node.meta._engine._row_s = 1.0              # as if COMMITs were slow
                rows.append(node.meta._engine.open_rows)
                return real()
            node.meta.commit = commit  # type: ignore[method-assign]
            for number in range(400):                       # well within a second
                await node.vfs.create(1, b"n%d" % number, 0o644, ROOT_CALLER)
            await node.vfs.fsyncdir(1)
            assert len(rows) >= 3 and sum(rows) > 700
            for number in range(60):
                await node.vfs.create(1, b"m%d" % number, 0o644, ROOT_CALLER)
            assert node.meta.open_share > 1
            await life.doors.clock.sleep(0.4)
            assert node.meta.open_share == 0, "a large one waits for its second"

    Site(limits=limits).live(main)
    assert max(rows) <= 4 * limits.transaction_max_rows + 10


def test_a_rest_of_an_earlier_process_that_ends_nowhere() -> None:
    """It died with the last transactions in an open pack: the record after its death ends where recovery has closed it."""
    site = Site(limits=Limits(record_max_bytes=3000))
    site.live(fill)
    site.live(unsent)
    assert new_machine(site) == filled()

    async def next_mount(life: Life) -> None:
        async with life.node():
            await life.doors.clock.sleep(30)                # nobody changes anything, nobody flushes
            life.incarnation.kill()

    site.live(next_mount)
    assert new_machine(site) == filled() | {b"mine": content(7)}


def test_after_an_outage_commits_come_one_by_one() -> None:
    """Each waits for its own packs: what was written first is safe first."""
    site = Site(limits=Limits(ride_max_bytes=0, record_max_bytes=1500))

    async def main(life: Life) -> None:
        async with life.node(commit_interval_s=1.0) as node:
            life.away()
            for number in range(10):
                await write_file(node, b"%d" % number, content(number))
                await node.commits.durable()
            real, line = node.remote.put, trio.Lock()

            async def slow(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("pack/"):
                    async with line:
                        await life.doors.clock.sleep(10)
                await real(key, data, only_if_absent)

            node.remote.put = slow  # type: ignore[method-assign, assignment]
            life.away(False)
            await node.flush()

    site.live(main)
    kinds = [change.key.partition("/")[0] for change in site.bucket.history]
    last_pack = len(kinds) - 1 - kinds[::-1].index("pack")
    moments = [moment for moment in records(site) if moment <= last_pack]
    whole = site.bucket
    site.bucket = whole.at(moments[-1])
    assert 1 <= len(new_machine(site)) < 10, "the first commits waited for the last pack"      # three go up at once, in any order


# ---------------------------------------------------------------- C3, F2

def watch_c3(node: Node) -> None:
    """INVARIANT C3, looked at with every COMMIT: what the outbox has lost is exactly what the records up to the noted tip carried."""
    real, carried = node.meta.commit, {0: 0}
    assert node.commits.writing is not None
    book = node.commits.writing.logbook
    append = book.commit

    async def commit_record(upto: int, count: int, changeset: bytes) -> Any:
        tip = await append(upto, count, changeset)
        carried[tip.n] = upto
        return tip

    writer = node.writer
    assert writer is not None
    writer_append = writer.append

    async def writes(kind: Kind, info: dict[str, Any], *rest: Any, **more: Any) -> Any:
        tip = await writer_append(kind, info, *rest, **more)
        carried[tip.n] = max(int(info.get("outbox", 0)), *carried.values())
        return tip

    def commit() -> Any:
        noted = LocalTip.load(node.meta).n
        gone = max((upto for n, upto in carried.items() if n <= noted), default=0)
        first = node.meta._engine.one("SELECT min(id) FROM outbox")
        assert first is not None
        assert first[0] is None or first[0] == gone + 1 or (gone == 0 and first[0] > 0), \
            f"C3: the tip is record {noted}, which carried up to {gone}, and the outbox begins with {first[0]}"
        if first[0] is None:
            assert gone >= newest[0], f"C3: rows up to {newest[0]} are gone, and the tip, record {noted}, carried up to {gone} only"
        made = real()
        if made is not None:
            newest[0] = made.id
        return made

    newest = [0]
    writer.append = writes  # type: ignore[method-assign]
    node.meta.commit = commit  # type: ignore[method-assign]


async def steadily(life: Life) -> None:
    async with life.node(commit_interval_s=1.0) as node:
        watch_c3(node)
        for number in range(15):
            await write_file(node, b"%d" % number, content(number))
            await node.commits.durable()
            await life.doors.clock.sleep(0.7)
        await node.flush()


@pytest.mark.parametrize("seed", range(3))
def test_the_outbox_lets_go_with_the_note_of_the_record(seed: int) -> None:
    site = Site(limits=Limits(record_max_bytes=2500))
    site.live(steadily, seed=seed)
    assert len(new_machine(site)) == 15


@pytest.mark.parametrize("late", ["tip", "outbox"])
def test_a_note_that_comes_late_is_found(late: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3cfs.history.logbook import Logbook
    real = Logbook._note
    kept: list[Any] = []

    def note(self: Logbook, tip: Any, upto: int, riders: Any) -> None:
        if late == "outbox":
            real(self, tip, kept.pop() if kept else 0, riders)
            kept.append(upto)
            return
        self._meta.drop_outbox(upto)
        if kept:
            real(self, *kept.pop())
        kept.append((tip, 0, riders))

    monkeypatch.setattr(Logbook, "_note", note)
    with pytest.raises((AssertionError, S3cfsError), match="C3"):
        Site().live(steadily)


# ---------------------------------------------------------------- nothing spins, nothing is taken for done

def test_a_full_disk_waits_without_work() -> None:
    """A writer that waits for the local disk starts no commits and no transactions: there is nothing in them."""
    site = Site(limits=Limits(disk_reserve_bytes=MIB))

    async def main(life: Life) -> None:
        async with life.node() as node:
            await node.vfs.mkdir(1, b"x", 0o755, ROOT_CALLER)
            await node.flush()
            await life.doors.clock.sleep(5)
            rounds, syncs = [0], [0]
            pipeline, sync = Pipeline._round, node.meta.sync_wal

            async def counted(self: Pipeline) -> bool:
                rounds[0] += 1
                return await pipeline(self)

            def counted_sync() -> None:
                syncs[0] += 1
                sync()

            monkey.setattr(Pipeline, "_round", counted)
            node.meta.sync_wal = counted_sync
            site.drive().faults.capacity_bytes = site.drive().used_bytes() + MIB // 2
            with pytest.raises(NoSpace, match="local disk is full"):
                await node.vfs.mkdir(1, b"y", 0o755, ROOT_CALLER)
            assert state(node) is State.WAITING
            assert rounds[0] <= 2 and syncs[0] <= 4, f"{rounds[0]} commits and {syncs[0]} syncs beside one writer that waits"
            site.drive().faults.capacity_bytes = NEVER
            await node.vfs.mkdir(1, b"y", 0o755, ROOT_CALLER)
            assert state(node) is State.OK

    with pytest.MonkeyPatch.context() as monkey:
        site.live(main)


def test_sync_remote_gives_up_after_two_minutes() -> None:
    """Not sooner, not for ever; the change is queued, and arrives."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(sync_remote=True) as node:
            ino = await write_file(node, b"a", content(1))
            life.away()
            began = life.doors.clock.monotonic()
            with pytest.raises(DataError, match="within 120 s; they are queued"):
                await node.vfs.fsync(ino)
            assert 120 <= life.doors.clock.monotonic() - began < 125
            life.away(False)
            await life.doors.clock.sleep(60)
            await node.vfs.fsync(ino)
            life.incarnation.kill()

    site.live(main)
    assert new_machine(site) == {b"a": content(1)}


def test_what_a_suspended_machine_sleeps_through_is_no_waiting_for_the_store() -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(sync_remote=True) as node:
            ino = await write_file(node, b"a", content(1))
            life.away()

            async def trouble() -> None:
                await life.doors.clock.sleep(30)
                jump(3600)
                await life.doors.clock.sleep(30)
                life.away(False)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(trouble)
                await node.vfs.fsync(ino)
            assert state(node) is State.OK and life.doors.clock.monotonic() > 3600

    site.live(main)


# ---------------------------------------------------------------- C4: a transaction takes a cut

def test_a_transaction_ends_beside_writers_that_never_rest() -> None:
    """Closed files and a stream without a pause: each transaction stages twice at most, and an fsync of something else ends."""
    site = Site()
    took: list[float] = []
    stagings: list[int] = []

    async def main(life: Life) -> None:
        async with life.node() as node:
            clock, real, close = life.doors.clock, node.files.stage_ready, node.commits.local._close

            async def counted() -> None:
                stagings[-1] += 1
                await real()

            async def closing(finish_pack: bool, restart_log: bool) -> None:
                stagings.append(0)
                await close(finish_pack, restart_log)

            node.files.stage_ready = counted  # type: ignore[method-assign]
            node.commits.local._close = closing  # type: ignore[method-assign]

            async def files(number: int) -> None:
                at = 0
                while True:
                    await node.commits.room()
                    await write_file(node, b"%d-%d" % (number, at), content(at, 40_000))
                    at += 1
                    await clock.sleep(0.01)

            async def stream() -> None:
                ino = (await node.vfs.create(1, b"stream", 0o644, ROOT_CALLER)).ino
                at = 0
                while True:
                    await node.vfs.write(ino, at, content(at, 50_000))
                    await node.vfs.flush(ino)
                    at += 50_000
                    await clock.sleep(0.005)

            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(files, number)
                nursery.start_soon(stream)
                for _ in range(5):
                    await clock.sleep(1)
                    began = clock.monotonic()
                    await node.commits.durable()
                    took.append(clock.monotonic() - began)
                nursery.cancel_scope.cancel()

    site.live(main)
    assert max(took) < 15, took                             # threads of the simulator take up to 2 s a call
    assert len(stagings) > 5 and max(stagings) == 2


# ---------------------------------------------------------------- the table

def test_every_stage_leads_on_and_back() -> None:
    assert set(NEXT) == set(Stage)
    reached, todo = set(), [Stage.IDLE]
    while todo:
        at = todo.pop()
        if at not in reached:
            reached.add(at)
            todo += NEXT[at]
    assert reached == set(Stage)
    for stage, following in NEXT.items():
        assert f"{stage.name:<10} " in (__import__("s3cfs.history.pipeline", fromlist=["x"]).__doc__ or "") and following


def test_a_random_life_stays_within_the_table() -> None:
    site = Site(limits=Limits(record_max_bytes=2500))

    async def main(life: Life) -> None:
        rng = random.Random(4)
        async with life.node(commit_interval_s=0.5) as node:
            assert node.commits.writing is not None
            for number in range(30):
                await write_file(node, b"%d" % number, content(number))
                if rng.random() < 0.3:
                    await node.flush()
                life.away(rng.random() < 0.3)
                await life.doors.clock.sleep(rng.random())
                if life.store.faults.away:
                    life.away(False)
                    await life.doors.clock.sleep(5)
            await node.flush()
            await life.doors.clock.sleep(3)
            assert node.commits.writing.pipeline.stage is Stage.IDLE and state(node) is State.OK

    site.live(main)
    assert len(new_machine(site)) == 30
