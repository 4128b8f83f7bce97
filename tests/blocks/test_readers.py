"""Readers beside read-ahead, outages, strange backends and a process that is short of descriptors."""
from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from s3cfs.blocks import blockstore
from s3cfs.blocks.blockstore import AHEAD_MAX
from s3cfs.errors import DataError
from s3cfs.ids import ChunkId
from s3cfs.meta.types import Chunk
from tests.blocks.kit import ForgetfulDisk, HandClock, House, noise, play, until


def test_a_reader_who_joins_read_ahead_in_the_queue_does_not_wait_for_its_slot() -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        first = await house.write([noise(300_000, 1)])
        await house.commit(keep=False)
        rows = await house.write([noise(5_000, 2), noise(5_000, 3)])            # in one aligned block
        await house.commit(keep=False)
        house.store.gate.clear()
        await house.blocks.prefetch(first)                                       # takes read-ahead's one slot
        await until(lambda: len(house.store.gets) == 1)
        await house.blocks.prefetch(rows[:1])                                    # stays in the queue
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as readers:
            readers.start_soon(house.blocks.chunk, rows[1])
            with trio.move_on_after(5):
                await until(lambda: len(house.store.gets) == 2)
            begun = len(house.store.gets)
            house.store.gate.set()
        assert begun == 2

    play(test, House(ForgetfulDisk(), downloads=3))


def test_misses_are_chunks_that_readers_asked_for() -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(500_000, seed) for seed in range(8)])
        await house.commit(keep=False)
        await house.blocks.prefetch(rows[:6])
        await until(lambda: not house.blocks.busy)
        stats = house.blocks.stats
        assert (stats.prefetched, stats.hits, stats.local, stats.misses) == (6, 0, 0, 0)
        await house.blocks.chunks(rows)
        assert (stats.hits, stats.local, stats.misses) == (6, 0, 2)
        house.blocks.drop_decoded()
        await until(lambda: not house.blocks.busy)
        await house.blocks.prefetch(rows)
        await until(lambda: not house.blocks.busy)
        assert (stats.hits, stats.local, stats.misses) == (6, 0, 2)
        house.blocks.drop_decoded()
        await house.blocks.chunks(rows)
        assert (stats.hits, stats.local, stats.misses) == (6, 8, 2)
        house.blocks.drop_decoded()
        await house.cache.drop_all()
        house.store.gate.clear()
        await house.blocks.prefetch(rows[:1])
        async with trio.open_nursery() as readers:
            for _ in range(3):                                                   # the first of them made a miss of it
                readers.start_soon(house.blocks.chunk, rows[0])
            await trio.testing.wait_all_tasks_blocked()
            house.store.gate.set()
        assert (stats.hits, stats.local, stats.misses) == (8, 8, 3)

    play(test, House(ForgetfulDisk()))


def test_many_tiny_chunks_are_bounded_too() -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = [Chunk(n, ChunkId(bytes(32)), 1, 16, 40, 1, 1) for n in range(10_000)]
        house.store.gate.clear()
        assert await house.blocks.prefetch(rows) == AHEAD_MAX
        house.store.gate.set()

    play(test, House(ForgetfulDisk()))


def test_the_names_of_packs_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockstore, "NAMES_MAX", 20)

    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = []
        for seed in range(60):
            rows += await house.write([noise(600, seed)])
            await house.commit()
            assert len(house.blocks._packs) <= 20
        for row in rows:
            assert await house.blocks.chunk(row) == noise(600, row.id - 1)
            assert len(house.blocks._packs) <= 20

    play(test, House(ForgetfulDisk()))


# ---------------------------------------------------------------- outages, strange backends, short of descriptors

class MockTime(HandClock):
    """The test's own, virtual time."""

    def __init__(self, mock: trio.testing.MockClock) -> None:
        super().__init__()
        self.mock = mock

    def monotonic(self) -> float:
        return self.mock.current_time()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


def on_virtual_time(test: Callable[[House, trio.testing.MockClock], Awaitable[None]]) -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        house = House(ForgetfulDisk(), clock=MockTime(clock))
        async with trio.open_nursery() as nursery:
            await nursery.start(house.blocks.run)
            await test(house, clock)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


def test_an_outage_is_two_minutes_for_every_reader() -> None:
    """Also for those in the queue behind eight requests that never end."""
    async def test(house: House, clock: trio.testing.MockClock) -> None:
        rows = []
        for seed in range(48):
            rows += await house.write([noise(70_000, seed)])
            await house.commit(keep=False)
        house.store.gate.clear()
        ended: list[float] = []

        async def reader(row: Chunk, after_s: float) -> None:
            await trio.sleep(after_s)
            began = trio.current_time()
            with pytest.raises(DataError, match="store unreachable"):
                await house.blocks.chunk(row)
            ended.append(trio.current_time() - began)

        async with trio.open_nursery() as readers:
            readers.start_soon(reader, rows[0], 30.0)                            # joins the first one, and asks again
            for number, row in enumerate(rows):
                readers.start_soon(reader, row, 60.0 * (number % 2))
            await until(lambda: len(house.store.gets) == 8)
            for _ in range(40):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(5)
            house.store.gate.set()
        assert len(ended) == 49 and all(120 <= took <= 125 for took in ended), (min(ended), max(ended))
        assert len(house.store.gets) == 8 and house.finds.damaged == []
        await until(lambda: not house.blocks.busy)
        assert await house.blocks.chunk(rows[0]) == noise(70_000, 0)             # and it goes on when the store is back

    on_virtual_time(test)


def test_a_slow_store_that_answers_may_take_its_time() -> None:
    async def test(house: House, clock: trio.testing.MockClock) -> None:
        rows = []
        for seed in range(40):
            rows += await house.write([noise(70_000, seed)])
            await house.commit(keep=False)
        steps = trio.lowlevel.current_trio_token()
        real = house.store.get

        def slow(key: str, offset: int = 0, size: int | None = None) -> bytes:
            trio.from_thread.run_sync(clock.jump, 60.0 / 8, trio_token=steps)   # 40 requests: 300 s
            return real(key, offset, size)

        house.store.get = slow  # type: ignore[method-assign]
        assert await house.blocks.chunks(rows) == [noise(70_000, seed) for seed in range(40)]
        assert trio.current_time() > 290

    on_virtual_time(test)


def test_what_the_process_slept_through_does_not_count() -> None:
    """Stopped for an hour with reads under way and in the queue: they go on."""
    async def test(house: House, clock: trio.testing.MockClock) -> None:
        rows = []
        for seed in range(12):
            rows += await house.write([noise(70_000, seed)])
            await house.commit(keep=False)
        house.store.gate.clear()
        got: list[int] = []

        async def reader(row: Chunk) -> None:
            assert await house.blocks.chunk(row) == noise(70_000, row.id - 1)
            got.append(row.id)

        async with trio.open_nursery() as readers:
            for row in rows:
                readers.start_soon(reader, row)
            await until(lambda: len(house.store.gets) == 8)
            for stop_s in (5, 3600, 5, 200, 5):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(stop_s)
            await trio.testing.wait_all_tasks_blocked()
            house.store.gate.set()
        assert sorted(got) == [row.id for row in rows]

    on_virtual_time(test)


def test_a_request_that_takes_very_long_is_served_while_bytes_flow() -> None:
    """A line of some kB a second; those in the queue behind it wait as well."""
    async def test(house: House, clock: trio.testing.MockClock) -> None:
        rows = []
        for seed in range(12):
            rows += await house.write([noise(70_000, seed)])
            await house.commit(keep=False)
        house.store.gate.clear()
        got: list[int] = []

        async def reader(row: Chunk) -> None:
            assert await house.blocks.chunk(row) == noise(70_000, row.id - 1)
            got.append(row.id)

        async with trio.open_nursery() as readers:
            for row in rows:
                readers.start_soon(reader, row)
            await until(lambda: len(house.store.gets) == 8)
            for _ in range(60):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(5)
                await house.store.flow()
            house.store.gate.set()
        assert sorted(got) == [row.id for row in rows]

    on_virtual_time(test)


@pytest.mark.parametrize("same_chunk", [False, True])
def test_who_joined_a_request_that_gives_up_asks_again(same_chunk: bool) -> None:
    """The first asked a hundred seconds before: its patience is not that of the second."""
    async def test(house: House, clock: trio.testing.MockClock) -> None:
        [row, near] = await house.write([noise(5_000, 1), noise(5_000, 2)])
        await house.commit(keep=False)
        house.store.gate.clear()
        outcome: list[str] = []

        async def first() -> None:
            with pytest.raises(DataError, match="store unreachable"):
                await house.blocks.chunk(row)
            outcome.append("refused")

        async def second() -> None:
            await trio.sleep(100)
            assert await house.blocks.chunk(row if same_chunk else near) == noise(5_000, 1 if same_chunk else 2)
            outcome.append("served")

        async with trio.open_nursery() as readers:
            readers.start_soon(first)
            readers.start_soon(second)
            await until(lambda: len(house.store.gets) == 1)
            for _ in range(25):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(5)
            await until(lambda: len(house.store.gets) == 2)
            house.store.gate.set()
        assert outcome == ["refused", "served"]

    on_virtual_time(test)


def test_a_bug_of_a_backend_is_an_error_of_one_read() -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        [row] = await house.write([noise(500_000)])
        await house.commit(keep=False)
        real = house.store.get

        def strange(key: str, offset: int = 0, size: int | None = None) -> bytes:
            raise RuntimeError("a third party's bug")

        house.store.get = strange  # type: ignore[method-assign]
        with pytest.raises(DataError, match="unexpected RuntimeError: a third party's bug"):
            await house.blocks.chunk(row)
        await house.blocks.prefetch([row])
        await until(lambda: not house.blocks.busy)
        house.store.get = real  # type: ignore[method-assign]
        assert await house.blocks.chunk(row) == noise(500_000) and house.finds.damaged == []

    play(test, House(ForgetfulDisk()))


def test_a_process_short_of_descriptors_calls_no_chunk_damaged() -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        disk = house.disk
        assert isinstance(disk, ForgetfulDisk)
        rows = await house.write([noise(5000, 0), noise(300_000, 1)])
        await house.journal.close_current()
        house.journal._handles.close()                                           # as after many other packs
        disk.failing["open"] = errno.EMFILE
        for row in rows:
            with pytest.raises(DataError, match="the local disk: .*made to fail"):
                await house.blocks.chunk(row)
        assert house.finds.damaged == []
        slept, house.clock.slept = house.clock.slept, 0.0
        assert slept > 0.5, "it was tried a few times"
        house.clock.on_sleep = disk.failing.clear                                # it passes
        assert await house.blocks.chunks(rows) == [noise(5000, 0), noise(300_000, 1)]
        assert house.finds.damaged == [] and 0 < house.clock.slept <= 0.1

    play(test, House(ForgetfulDisk()))


@pytest.mark.parametrize(("operation", "code", "kept"), [
    ("open", errno.EMFILE, 1.0), ("open", errno.ENFILE, 1.0), ("pread", errno.EIO, 0.5)])
def test_an_error_of_the_cache_is_a_request_and_costs_no_whole_pack(operation: str, code: int, kept: float) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        disk = house.disk
        assert isinstance(disk, ForgetfulDisk)
        rows = await house.write([noise(500_000, seed) for seed in range(20)] + [noise(4000, 99)])
        await house.commit()
        house.cache._handles.close()
        before = house.cache.used_bytes
        disk.failing[operation] = code
        assert await house.blocks.chunk(rows[0]) == noise(500_000, 0)
        assert await house.blocks.chunk(rows[20]) == noise(4000, 99)
        disk.failing.clear()
        await until(lambda: not house.blocks.busy)
        assert len(house.store.gets) >= 1 and house.cache.used_bytes >= before * kept and house.finds.damaged == []

    play(test, House(ForgetfulDisk()))


def test_a_chunk_that_is_whole_in_the_journal_or_the_store_is_said_to_be() -> None:
    """Not for what comes out of the cache: the store's own copy may still be damaged."""
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(500_000, 0), noise(4000, 1)])
        for row in rows:
            await house.blocks.chunk(row)
        assert house.finds.sound == rows
        await house.commit()
        for row in rows:
            await house.blocks.chunk(row)
        assert house.finds.sound == rows
        house.blocks.drop_decoded()
        for row in rows:
            await house.cache.drop_all()
            await house.blocks.chunk(row)
            await until(lambda: not house.blocks.busy)
        assert house.finds.sound == rows + rows

    play(test, House(ForgetfulDisk()))
