"""The journal: what is appended stays, what is synced survives, what fails stops everything."""
from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from s3cfs.blocks.journal import Journal
from s3cfs.errors import CacheFull, CacheUnusable, Damaged
from s3cfs.formats.pack import read_index, verify_name
from s3cfs.ids import pack_key
from s3cfs.limits import DEFAULTS, Limits
from tests.blocks.kit import ForgetfulDisk, House, disk_in, noise, run, until

PACK_TARGET_BYTES = DEFAULTS.pack_target_bytes


def test_appended_chunks_are_read_back_and_the_closed_pack_is_a_pack(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path))

    async def test() -> None:
        plains = [noise(size, size) for size in (600, 70_000, 300_000, 1)]
        rows = await house.write(plains)
        for row, plain in zip(rows, plains, strict=True):
            assert house.codec.decode(row.hash, house.journal.read(row.pack, row.off, row.clen), row.len) == plain
        [closed] = await house.journal.close_current()
        data = await house.journal.load(closed.pack_id)
        assert len(data) == closed.size == house.journal.size(closed.pack_id) == house.journal.bytes_total
        assert verify_name(pack_key(closed.name), data) and closed.name.startswith("1-")
        assert [(e.chunk_id, e.offset, e.size, e.length) for e in read_index(data, len(data), house.index_sealer)] == [
            (row.hash, row.off, row.clen, row.len) for row in rows]
        assert await house.journal.close_current() == [] and house.journal.current is None
        await house.journal.close()

    run(test)


def test_a_full_pack_is_handed_out_and_the_next_one_begins(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path))

    async def test() -> None:
        rows = await house.write([noise(1 << 20, seed) for seed in range(12)])
        assert [row.pack for row in rows] == [1] * 7 + [2] * 5
        assert house.journal.take_closed() == [] == house.journal.pending()         # not synced yet
        await house.journal.sync()
        [full] = house.journal.take_closed()
        assert full.pack_id == 1 and PACK_TARGET_BYTES <= full.size < PACK_TARGET_BYTES * 1.13 and house.journal.take_closed() == []
        [rest] = await house.journal.close_current()
        assert rest.pack_id == 2
        for closed in (full, rest):
            data = await house.journal.load(closed.pack_id)
            assert verify_name(pack_key(closed.name), data) and read_index(data, len(data), house.index_sealer)
        assert house.journal.pending() == [full, rest]
        assert house.journal.bytes_total == full.size + rest.size == sum(house.journal.sizes().values())

    run(test)


def test_many_tasks_append_and_sync_at_once(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path))

    async def test() -> None:
        async def writer(number: int) -> None:
            for turn in range(6):
                plain = noise(150_000 if turn % 2 else 900, number * 100 + turn)
                [row] = await house.write([plain])
                if turn % 3 == 0:
                    await house.journal.sync()
                assert house.codec.decode(row.hash, house.journal.read(row.pack, row.off, row.clen), row.len) == plain

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(writer, number)
        [closed] = await house.journal.close_current()
        data = await house.journal.load(closed.pack_id)
        entries = read_index(data, len(data), house.index_sealer)
        assert len(entries) == 72 and {entry.chunk_id for entry in entries} == {row.hash for row in house.rows.values()}

    run(test)


def test_sync_fsyncs_only_what_is_new() -> None:
    disk = ForgetfulDisk()
    house = House(disk)

    async def test() -> None:
        await house.journal.sync()
        assert (disk.fsyncs, disk.dir_syncs) == (0, 0)
        await house.write([noise(1000)])
        await house.journal.sync()
        await house.journal.sync()
        assert (disk.fsyncs, disk.dir_syncs) == (1, 1)
        await house.write([noise(1000, 1)])
        await house.journal.sync()
        assert (disk.fsyncs, disk.dir_syncs) == (2, 1)

    run(test)


def test_a_pack_that_fills_beside_a_sync_waits_for_the_next_one() -> None:
    """J2: were it recorded as closed now, the crash would leave it short and take the rows that were durable."""
    disk = ForgetfulDisk()
    house = House(disk)

    async def test() -> None:
        await house.write([noise(1000)])
        disk.fsync_gate.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.journal.sync)
            await until(lambda: disk.fsyncs == 1)
            await house.write([noise(1 << 20, seed) for seed in range(7)])
            disk.fsync_gate.set()
        assert house.journal.current is None and house.journal.take_closed() == []
        await house.journal.sync()
        [closed] = house.journal.take_closed()
        disk.crash()
        assert disk.size(closed.path) == closed.size

    run(test)


def test_uncontended_calls_are_no_checkpoint() -> None:
    house = House(ForgetfulDisk())

    async def test() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()                       # any checkpoint would raise now
            await house.write([noise(1000)])
        assert not scope.cancelled_caught and len(house.rows) == 1

    run(test)


@pytest.mark.parametrize(("operation", "code", "kind"), [
    ("fsync", errno.EIO, CacheUnusable), ("sync_dir", errno.EIO, CacheUnusable),
    ("pwrite", errno.ENOSPC, CacheFull), ("open", errno.EMFILE, CacheUnusable)])
def test_an_error_of_the_disk_ends_writing_for_good_and_reading_goes_on(operation: str, code: int, kind: type[Exception]) -> None:
    disk = ForgetfulDisk()
    house = House(disk)

    async def test() -> None:
        first = await house.write([noise(1000)]) if operation != "open" else []
        disk.failing[operation] = code
        with pytest.raises(kind):
            await house.write([noise(100_000, 1)])
            await house.journal.sync()
        disk.failing.clear()
        fsyncs = disk.fsyncs
        for call in (house.journal.sync, house.journal.close_current, lambda: house.write([noise(5)])):
            with pytest.raises(kind):
                await call()
        assert isinstance(house.journal.failed, kind) and disk.fsyncs == fsyncs        # never retried
        for row in first:
            assert house.codec.decode(row.hash, house.journal.read(row.pack, row.off, row.clen), row.len) == noise(1000)
        await house.journal.close()

    run(test)


def test_a_cancelled_append_is_whole_or_not_at_all(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path))

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(4)]

            async def writer(number: int) -> None:
                with scopes[number]:
                    await house.write([noise(400_000, number)])

            for number in range(4):
                nursery.start_soon(writer, number)
            await trio.lowlevel.checkpoint()
            for scope in scopes[1:3]:
                scope.cancel()
        await house.write([noise(10, 9)])
        [closed] = await house.journal.close_current()
        data = await house.journal.load(closed.pack_id)
        assert {row.hash for row in house.rows.values()} <= {entry.chunk_id for entry in read_index(data, len(data), house.index_sealer)}
        assert len(house.rows) in (3, 4, 5)

    run(test)


def test_what_the_disk_changed_is_not_loaded(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path))

    async def test() -> None:
        await house.write([noise(100_000)])
        [closed] = await house.journal.close_current()
        file = house.disk.open(closed.path)
        file.pwrite(bytes([file.pread(1, 5000)[0] ^ 1]), 5000)
        with pytest.raises(Damaged, match="not what was written"):
            await house.journal.load(closed.pack_id)
        file.close()

    run(test)


def test_waiting_for_a_turn_can_be_cancelled(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path))

    async def test() -> None:
        done = []
        async with trio.open_nursery() as nursery:
            async def big() -> None:
                await house.write([noise(4 << 20)])
                done.append(1)

            nursery.start_soon(big)
            await until(lambda: house.journal.current is not None)
            with trio.CancelScope() as scope:
                scope.cancel()
                await house.write([noise(10)])
            assert scope.cancelled_caught and not done
        await house.write([noise(11)])

    run(test)


def test_a_pack_of_many_tiny_chunks_is_full_too() -> None:
    """Its index is in memory while it is open."""
    house = House(ForgetfulDisk())
    house.journal = Journal(replace(house.doors, limits=Limits(pack_entries=10)), house.index_sealer, 1)

    async def test() -> None:
        rows = await house.write([noise(600, seed) for seed in range(25)])
        assert [row.pack for row in rows] == [1] * 10 + [2] * 10 + [3] * 5
        await house.journal.sync()
        assert [pack.pack_id for pack in house.journal.take_closed()] == [1, 2]

    run(test)


def test_a_moment_without_descriptors_does_not_end_writing() -> None:
    disk = ForgetfulDisk()
    house = House(disk)

    async def test() -> None:
        disk.failing["open"] = errno.EMFILE
        house.clock.on_sleep = disk.failing.clear
        [row] = await house.write([noise(600)])
        assert house.journal.failed is None and house.journal.has(row.pack) and house.clock.slept > 0

    run(test)
