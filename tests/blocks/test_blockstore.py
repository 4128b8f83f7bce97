"""The way of a read: from memory, journal, cache and store; healed where it can be, refused where it cannot."""
from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio
import trio.testing

from s3cfs.errors import DataError
from s3cfs.ids import pack_key
from s3cfs.limits import DEFAULTS
from s3cfs.meta.types import Chunk
from tests.blocks.kit import CountingStore, ForgetfulDisk, House, disk_in, noise, play, run, until

SIZES = (600, 5_000, 60_000, 200_000, 700_000, 2_000_000)


def flip(house: House, row: Chunk, where: str) -> None:
    """One bit of a sealed chunk, in the cache's file or in the store's object."""
    pack = house.packs[row.pack]
    assert pack.name is not None
    if where == "cache":
        file = house.disk.open(f"cache/{pack.name}")
        file.pwrite(bytes([file.pread(1, row.off + 40)[0] ^ 4]), row.off + 40)
        file.close()
    else:
        data = bytearray(house.store.objects[pack_key(pack.name)])
        data[row.off + 40] ^= 4
        house.store.objects[pack_key(pack.name)] = bytes(data)


@pytest.mark.parametrize("place", ["journal", "cache", "store"])
def test_chunks_are_read_from_wherever_they_are(tmp_path: Path, place: str) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        plains = [noise(size, size) for size in SIZES]
        rows = await house.write(plains)
        if place != "journal":
            await house.commit(keep=place == "cache")
        for row, plain in zip(rows, plains, strict=True):
            assert await house.blocks.chunk(row) == plain
            assert house.blocks.cached(row.id) == plain
        assert bool(house.store.gets) == (place == "store")
        house.blocks.drop_decoded()
        house.store.gets.clear()
        assert await house.blocks.chunks(rows + rows[:2]) == plains + plains[:2]
        assert house.store.gets == []

    play(test, House(disk_in(tmp_path)))


def test_a_hundred_readers_of_one_chunk_make_one_request(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        [row] = await house.write([noise(500_000)])
        await house.commit(keep=False)
        house.store.gate.clear()
        got: list[bytes] = []

        async def reader() -> None:
            got.append(await house.blocks.chunk(row))

        async with trio.open_nursery() as readers:
            for _ in range(100):
                readers.start_soon(reader)
            await until(lambda: len(house.store.gets) == 1)
            house.store.gate.set()
        assert got == [noise(500_000)] * 100 and len(house.store.gets) == 1
        assert house.blocks.stats.misses == 1 and house.blocks.stats.fetches == 1

    play(test, House(disk_in(tmp_path)))


def test_the_first_reader_may_leave_and_the_others_are_served(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        [row] = await house.write([noise(500_000)])
        await house.commit(keep=False)
        house.store.gate.clear()
        got: list[bytes] = []
        scope = trio.CancelScope()

        async def first() -> None:
            with scope:
                await house.blocks.chunk(row)

        async def other() -> None:
            got.append(await house.blocks.chunk(row))

        async with trio.open_nursery() as readers:
            readers.start_soon(first)
            await until(lambda: len(house.store.gets) == 1)
            for _ in range(5):
                readers.start_soon(other)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            house.store.gate.set()
        assert scope.cancelled_caught and got == [noise(500_000)] * 5 and len(house.store.gets) == 1

    play(test, House(disk_in(tmp_path)))


def test_misses_near_each_other_are_one_request_and_a_request_is_bounded(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(512_000, seed) for seed in range(30)])
        await house.commit(keep=False)
        assert await house.blocks.chunks(rows[3:9]) == [noise(512_000, seed) for seed in range(3, 9)]
        assert len(house.store.gets) == 1
        house.store.gets.clear()
        house.blocks.drop_decoded()
        await house.cache.drop_all()
        assert len(await house.blocks.chunks(rows)) == 30
        sizes = [size for _, _, size in house.store.gets]
        assert 2 <= len(sizes) <= 4 and all(size is not None and size <= DEFAULTS.fetch_max_bytes for size in sizes)

    play(test, House(disk_in(tmp_path)))


def test_only_so_many_requests_run_at_once(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = []
        for seed in range(9):
            rows += await house.write([noise(70_000, seed)])
            await house.commit(keep=False)
        house.store.gate.clear()
        async with trio.open_nursery() as readers:
            for row in rows:
                readers.start_soon(house.blocks.chunk, row)
            await until(lambda: len(house.store.gets) == 3)
            await trio.testing.wait_all_tasks_blocked()
            house.store.gate.set()
        assert len(house.store.gets) == 9 and house.store.most_at_once == 3

    play(test, House(disk_in(tmp_path), downloads=3))


def test_a_second_miss_soon_after_the_first_brings_the_neighbourhood(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(4096, seed) for seed in range(1500)])
        await house.commit(keep=False)
        await house.blocks.chunk(rows[0])
        assert house.store.gets[-1][2] == 64 << 10
        await house.blocks.chunk(rows[100])
        assert house.store.gets[-1][2] == DEFAULTS.neighbourhood_bytes
        for number in range(100, 400):
            assert await house.blocks.chunk(rows[number]) == noise(4096, number)
        assert len(house.store.gets) == 2
        house.clock.now += 3600
        await house.blocks.chunk(rows[1400])
        assert house.store.gets[-1][2] <= 128 << 10

    play(test, House(disk_in(tmp_path)))


@pytest.mark.parametrize("size", [9_000, 400_000])
def test_a_flip_in_the_cache_is_healed(tmp_path: Path, size: int) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(size, seed) for seed in range(4)])
        await house.commit()
        flip(house, rows[1], "cache")
        assert await house.blocks.chunks(rows) == [noise(size, seed) for seed in range(4)]
        assert len(house.store.gets) == 1 and house.blocks.stats.healed == 1 and house.finds.damaged == []
        house.blocks.drop_decoded()
        assert await house.blocks.chunk(rows[1]) == noise(size, 1) and len(house.store.gets) == 1      # the cache is whole again

    play(test, House(disk_in(tmp_path)))


def test_a_bad_transfer_is_repeated(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        [row] = await house.write([noise(300_000)])
        await house.commit(keep=False)
        house.store.flip_next = 1
        assert await house.blocks.chunk(row) == noise(300_000)
        assert len(house.store.gets) == 2 and house.blocks.stats.healed == 1
        house.blocks.drop_decoded()
        assert await house.blocks.chunk(row) == noise(300_000)

    play(test, House(disk_in(tmp_path)))


@pytest.mark.parametrize("size", [9_000, 400_000])
def test_a_flip_in_the_store_is_an_error_for_this_chunk_alone(tmp_path: Path, size: int) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(size, seed) for seed in range(4)])
        [pack] = await house.commit(keep=False)
        flip(house, rows[1], "store")
        for _ in range(2):
            with pytest.raises(DataError, match=f"chunk {rows[1].id} .*{rows[1].hash.hex()[:16]}.*{pack.name}.*damaged"):
                await house.blocks.chunk(rows[1])
        assert house.finds.damaged == [rows[1], rows[1]]
        for number in (0, 2, 3):
            assert await house.blocks.chunk(rows[number]) == noise(size, number)

    play(test, House(disk_in(tmp_path)))


def test_a_flip_in_the_journal_is_an_error_for_this_chunk_alone(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(100_000, seed) for seed in range(3)])
        file = house.disk.open(house.journal.path(1))
        file.pwrite(bytes([file.pread(1, rows[1].off + 40)[0] ^ 4]), rows[1].off + 40)
        file.close()
        with pytest.raises(DataError, match="in pack 1: damaged"):
            await house.blocks.chunk(rows[1])
        assert house.finds.damaged == [rows[1]] and await house.blocks.chunk(rows[2]) == noise(100_000, 2)

    play(test, House(disk_in(tmp_path)))


def test_a_truncated_object_is_an_error_for_what_is_missing(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(300_000, seed) for seed in range(3)])
        [pack] = await house.commit(keep=False)
        key = pack_key(pack.name)
        house.store.objects[key] = house.store.objects[key][:rows[1].off + 1000]
        assert await house.blocks.chunk(rows[0]) == noise(300_000, 0)
        for row in rows[1:]:
            with pytest.raises(DataError, match="damaged: pack/.*ends before"):
                await house.blocks.chunk(row)

    play(test, House(disk_in(tmp_path)))


def test_an_absent_pack_is_looked_up_again_before_it_is_an_error(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        [row, other] = await house.write([noise(30_000), noise(40_000, 1)])
        [old] = await house.commit(keep=False)
        await house.blocks.chunk(row)                                # its name is remembered now
        house.blocks.drop_decoded()
        await house.cache.drop_all()
        moved = await house.write([noise(30_000)])                   # rewritten into another pack
        await house.commit(keep=False)
        house.rows[row.id] = Chunk(row.id, row.hash, moved[0].pack, moved[0].off, moved[0].clen, row.len, 1)
        house.store.delete(pack_key(old.name))
        assert await house.blocks.chunk(row) == noise(30_000) and house.finds.damaged == []
        with pytest.raises(DataError, match=f"{old.name}: missing"):
            await house.blocks.chunk(other)
        assert house.finds.damaged == [other]

    play(test, House(disk_in(tmp_path)))


def test_a_chunk_whose_pack_nobody_knows_is_an_error(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        for size in (5_000, 400_000):
            [row] = await house.write([noise(size)])
            lost = Chunk(row.id + 1000, row.hash, 77, row.off, row.clen, row.len, 1)
            with pytest.raises(DataError, match="in pack 77: missing: get pack 77: the metadata names pack 77"):
                await house.blocks.chunk(lost)
        house.packs[78] = house.packs[row.pack]                      # a row without a name, and no file in the journal
        with pytest.raises(DataError, match="in pack 78: missing"):
            await house.blocks.chunk(Chunk(2000, row.hash, 78, row.off, row.clen, row.len, 1))
        assert house.store.gets == []

    play(test, House(disk_in(tmp_path)))


def test_a_store_that_is_away_is_an_error_that_passes(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(30_000), noise(400_000, 1)])
        await house.commit(keep=False)
        house.store.away = True
        for row in rows:
            with pytest.raises(DataError, match="store unreachable: .*no route to host"):
                await house.blocks.chunk(row)
        with pytest.raises(DataError, match="store unreachable"):
            await house.blocks.chunks(rows)
        house.store.away = False
        assert await house.blocks.chunks(rows) == [noise(30_000), noise(400_000, 1)]
        assert house.finds.damaged == []

    play(test, House(disk_in(tmp_path)))


def test_a_full_cache_disk_does_not_stop_reading() -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(300_000, seed) for seed in range(5)])
        await house.commit(keep=False)
        assert isinstance(house.disk, ForgetfulDisk)
        house.disk.failing["pwrite"] = errno.ENOSPC
        for row in rows:
            assert await house.blocks.chunk(row) == noise(300_000, row.id - 1)
        await until(lambda: house.blocks.busy == 0)
        assert house.cache.used_bytes == 0

    play(test, House(ForgetfulDisk()))


def test_a_cache_much_smaller_than_what_is_read_stays_in_its_bounds(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = []
        for seed in range(12):
            rows += await house.write([noise(200_000, seed * 10 + n) for n in range(4)])
            await house.commit()
        plains = [noise(200_000, seed * 10 + n) for seed in range(12) for n in range(4)]
        for _ in range(2):
            for row, plain in zip(rows, plains, strict=True):
                assert await house.blocks.chunk(row) == plain
                assert house.blocks.decoded_bytes <= 1 << 20
        await until(lambda: house.blocks.busy == 0)
        on_disk = sum(house.disk.size(f"cache/{name}") for name in house.disk.listdir("cache"))
        assert house.cache.used_bytes <= 2 << 20 and on_disk <= 4 << 20

    play(test, House(disk_in(tmp_path), cache_bytes=2 << 20, decoded_bytes=1 << 20))


def test_read_ahead_is_behind_readers_and_bounded(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(1 << 20, seed) for seed in range(12)])
        await house.commit(keep=False)
        [urgent] = await house.write([noise(50_000, 99)])
        await house.commit(keep=False)
        house.store.gate.clear()
        assert await house.blocks.prefetch(rows) == 12
        await until(lambda: len(house.store.gets) == 1)                  # downloads=3: read-ahead may take one
        async with trio.open_nursery() as readers:
            readers.start_soon(house.blocks.chunk, urgent)
            await until(lambda: len(house.store.gets) == 2)
            assert house.store.gets[1][0] == pack_key(house.packs[urgent.pack].name)     # type: ignore[arg-type]
            house.store.gate.set()
        await until(lambda: house.blocks.cached(rows[3].id) is not None)
        await until(lambda: house.blocks.busy == 0)
        before = len(house.store.gets)
        assert await house.blocks.chunks(rows) == [noise(1 << 20, seed) for seed in range(12)]
        assert len(house.store.gets) == before                           # those far ahead were laid into the cache

    play(test, House(disk_in(tmp_path), downloads=3, decoded_bytes=8 << 20))


def test_read_ahead_has_a_budget_and_swallows_errors(tmp_path: Path) -> None:
    async def test(house: House, nursery: trio.Nursery) -> None:
        rows = await house.write([noise(2_000_000, seed) for seed in range(8)])
        await house.write([noise(2_000_000, seed) for seed in range(8, 20)])
        await house.commit(keep=False)
        house.store.away = True
        house.store.gate.clear()
        assert await house.blocks.prefetch(list(house.rows.values())) == 16           # 32 MiB
        assert await house.blocks.prefetch(list(house.rows.values())[17:]) == 0
        house.store.gate.set()
        await until(lambda: house.blocks.busy == 0)
        house.store.away = False
        assert await house.blocks.chunk(rows[0]) == noise(2_000_000, 0)

    play(test, House(disk_in(tmp_path)))


def test_without_background_work_local_bytes_are_read_and_the_rest_is_refused(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path))

    async def test() -> None:
        [row] = await house.write([noise(300_000)])
        assert await house.blocks.chunk(row) == noise(300_000)
        await house.commit(keep=False)
        with pytest.raises(DataError, match="the mount is ending"):
            await house.blocks.chunk(row)
        assert await house.blocks.prefetch([row]) == 0

    run(test)


def test_ending_the_mount_ends_who_waits(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path), store=CountingStore(), downloads=1)
    outcome: dict[int, str] = {}

    async def test() -> None:
        rows = await house.write([noise(300_000)])
        await house.commit(keep=False)
        rows += await house.write([noise(300_000, 1)])
        await house.commit(keep=False)

        async def reader(row: Chunk) -> None:
            try:
                assert await house.blocks.chunk(row) == noise(300_000, row.id - 1)
                outcome[row.id] = "served"
            except DataError as error:
                assert "the mount is ending" in str(error)
                outcome[row.id] = "refused"

        async with trio.open_nursery() as readers:
            async with trio.open_nursery() as background:
                await background.start(house.blocks.run)
                house.store.gate.clear()
                readers.start_soon(reader, rows[0])
                await until(lambda: len(house.store.gets) == 1)
                readers.start_soon(reader, rows[1])
                await trio.testing.wait_all_tasks_blocked()
                background.cancel_scope.cancel()
                house.store.gate.set()
        assert outcome == {1: "refused", 2: "refused"}       # a request under way is abandoned

    run(test)
