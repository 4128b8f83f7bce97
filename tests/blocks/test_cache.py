"""The pack cache: bounded, forgetful, never in the way."""
from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs.blocks import cache as cache_module
from s3cfs.blocks import ranges as ranges_module
from s3cfs.blocks.cache import PackCache
from s3cfs.blocks.ranges import Ranges
from s3cfs.doors import Doors, SystemRandomness, TrioThreads
from s3cfs.ids import PackName
from s3cfs.limits import DEFAULTS
from tests.blocks.kit import ForgetfulDisk, HandClock, disk_in, noise, run

ALIGN = DEFAULTS.fetch_align_bytes


def name(number: int) -> PackName:
    return PackName(f"1-{number:064x}")


def cache_on(disk: object, limit: int = 1 << 30) -> PackCache:
    cache = PackCache(Doors(HandClock(), SystemRandomness(), TrioThreads(), disk), limit)  # type: ignore[arg-type]
    cache.load()
    return cache


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 12)), max_size=30))
def test_ranges_are_a_set_of_bytes(steps: list[tuple[bool, int, int]]) -> None:
    ranges, model = Ranges(), set[int]()
    for add, start, size in steps:
        if add:
            ranges.add(start, start + size)
            model |= set(range(start, start + size))
        else:
            ranges.remove(start, start + size)
            model -= set(range(start, start + size))
        borders = ranges.borders()
        assert ranges.total == len(model) and borders == sorted(set(borders))
        assert {x for low, high in zip(borders[::2], borders[1::2], strict=True) for x in range(low, high)} == model
        for low in range(0, 55, 3):
            assert ranges.covers(low, low + 5) == (set(range(low, low + 5)) <= model)


def test_stored_ranges_are_read_and_others_are_not(tmp_path: Path) -> None:
    cache = cache_on(disk_in(tmp_path))

    async def test() -> None:
        data = noise(3 * ALIGN + 77)
        await cache.store(name(1), 2 * ALIGN, data)
        assert cache.read(name(1), 2 * ALIGN + 5, 1000) == data[5:1005]
        assert cache.read(name(1), 2 * ALIGN, len(data)) == data
        assert cache.read(name(1), 2 * ALIGN, len(data) + 1) is None
        assert cache.read(name(1), 0, 10) is None and cache.read(name(2), 0, 10) is None
        assert cache.used_bytes == len(data)
        cache.invalidate(name(1), 3 * ALIGN + 10, 5)
        assert cache.read(name(1), 3 * ALIGN, 1) is None and cache.used_bytes == len(data) - ALIGN
        assert cache.read(name(1), 4 * ALIGN, 10) == data[2 * ALIGN:2 * ALIGN + 10]
        with pytest.raises(ValueError, match="aligned"):
            await cache.store(name(1), 5, b"x")

    run(test)


def test_least_recently_used_packs_go_but_none_that_is_being_read(tmp_path: Path) -> None:
    disk = disk_in(tmp_path)
    cache = cache_on(disk, 4 * ALIGN)

    async def test() -> None:
        for number in range(4):
            await cache.store(name(number), 0, noise(ALIGN, number))
        lease = cache.lease(name(1), 0, ALIGN)
        assert lease is not None and cache.read(name(0), 0, 9)               # 1 is being read, 0 was used last
        await cache.store(name(4), 0, noise(2 * ALIGN, 4))
        assert [cache.read(name(n), 0, 9) is not None for n in range(5)] == [True, True, False, False, True]
        assert cache.used_bytes == 4 * ALIGN
        assert sorted(disk.listdir("cache")) == [name(0), name(1), name(4)]
        await cache.drop_all()
        assert disk.listdir("cache") == [name(1)] and lease.file.pread(ALIGN, 0) == noise(ALIGN, 1)
        cache.give_back(lease)
        await cache.drop_all()
        assert disk.listdir("cache") == [] and cache.used_bytes == 0

    run(test)


def test_the_table_survives_and_unknown_files_do_not(tmp_path: Path) -> None:
    disk = disk_in(tmp_path)
    cache = cache_on(disk)

    async def test() -> None:
        for number in (1, 2, 3):
            await cache.store(name(number), ALIGN, noise(ALIGN, number))
        assert cache.read(name(1), ALIGN, 4)                                 # the most recently used of the three
        await cache.save()
        await cache.store(name(4), 0, noise(ALIGN, 4))                       # after the last save: a crash forgets it
        disk.open("cache/stray", create=True).close()
        disk.unlink(f"cache/{name(2)}")
        disk.open(f"cache/{name(3)}").truncate(ALIGN + 10)
        after = cache_on(disk, 2 * ALIGN)
        assert disk.listdir("cache") == sorted([name(1), name(3), "ranges"])
        assert after.read(name(1), ALIGN, ALIGN) == noise(ALIGN, 1)
        assert after.read(name(3), ALIGN, 11) is None and after.read(name(3), ALIGN, 10) == noise(ALIGN, 3)[:10]
        assert after.used_bytes == ALIGN + 10

    run(test)


def test_a_table_that_did_not_change_is_not_written_again() -> None:
    disk = ForgetfulDisk()
    cache = cache_on(disk)

    def found_at_the_next_start() -> int:
        copy = ForgetfulDisk()
        copy.names = dict(disk.names)
        return cache_on(copy).used_bytes

    async def test() -> None:
        await cache.save()
        assert not disk.exists("cache/ranges")
        await cache.store(name(1), 0, noise(ALIGN, 1))
        for change in (lambda: None, lambda: cache.invalidate(name(1), 0, 5), lambda: cache.store(name(1), 0, noise(ALIGN, 1)),
                       cache.drop_all):
            changed = change()
            if changed is not None:
                await changed
            fsyncs = disk.fsyncs
            await cache.save()
            assert disk.fsyncs == fsyncs + 1
            await cache.save()
            assert disk.fsyncs == fsyncs + 1
            assert found_at_the_next_start() == cache.used_bytes
        await cache.store(name(2), 0, noise(ALIGN, 2))
        disk.failing["fsync"] = errno.EIO
        await cache.save()
        disk.failing.clear()
        await cache.save()                                                   # what was not written is written the next time
        assert found_at_the_next_start() == ALIGN

    run(test)


def test_a_save_costs_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what is there; now and then the table is written anew, in pieces."""
    monkeypatch.setattr(ranges_module, "GROWS_BYTES", 5000)
    monkeypatch.setattr(cache_module, "AT_ONCE", 100)
    disk = ForgetfulDisk()
    cache = cache_on(disk)
    written: list[tuple[str, int]] = []
    real = ranges_module._lines

    def lines(entries):
        data = real(entries)
        written.append(("lines", len(data)))
        assert len(entries) <= 100
        return data
    monkeypatch.setattr(ranges_module, "_lines", lines)

    async def test() -> None:
        for number in range(450):
            await cache.store(name(number), 0, noise(ALIGN, number % 3))
        await cache.save()
        assert len(written) == 5                            # anew, in pieces
        size = disk.size("cache/ranges")
        for number in range(20):
            written.clear()
            cache.invalidate(name(number), 0, 1)
            await cache.store(name(number), 0, noise(ALIGN, number))
            cache.give_back(cache.lease(name(300), 0, 1))   # type: ignore[arg-type]
            await cache.save()
            assert len(written) == 1 and written[0][1] < 250
            assert disk.size("cache/ranges") < size + (number + 1) * 250
        assert cache_on(disk).used_bytes == cache.used_bytes
        for number in range(2000):
            await cache.store(name(number % 450), 0, noise(ALIGN, number % 3))
            if number % 20 == 19:
                await cache.save()
                assert disk.size("cache/ranges") <= 2 * size + 5000 + 20 * 100
        assert cache_on(disk).used_bytes == cache.used_bytes

    run(test)


def test_the_order_of_use_survives() -> None:
    disk = ForgetfulDisk()
    cache = cache_on(disk)

    async def test() -> None:
        for number in range(5):
            await cache.store(name(number), 0, noise(ALIGN, number))
        await cache.save()
        cache.read(name(0), 0, 1)
        await cache.store(name(5), 0, noise(ALIGN, 5))
        cache.read(name(2), 0, 1)
        await cache.save()
        cache.read(name(1), 0, 1)                           # nothing changed after this; the end writes it all the same
        await cache.close()
        again = cache_on(disk)
        assert list(again._packs) == [name(number) for number in (3, 4, 0, 5, 2, 1)]

    run(test)


@pytest.mark.parametrize("torn", [b'["', b'["1-00', b"\0\0\0\n", b'["%b",[0,' % name(2).encode()])
def test_after_a_torn_line_nothing_is_appended(torn: bytes) -> None:
    """What a crash left of the last save: the lines before it count, and the next save writes anew."""
    disk = ForgetfulDisk()
    cache = cache_on(disk)

    async def test() -> None:
        for number in range(3):
            await cache.store(name(number), 0, noise(ALIGN, number))
        await cache.save()
        file = disk.open("cache/ranges")
        file.pwrite(torn, file.size())
        again = cache_on(disk)
        assert again.used_bytes == 3 * ALIGN
        again.invalidate(name(1), 0, 1)
        await again.save()
        data = disk.open("cache/ranges").pread(10_000, 0)
        assert data.count(b"\n") == 2 and data.endswith(b"\n")
        assert cache_on(disk).used_bytes == 2 * ALIGN

    run(test)


def test_evicting_much_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "AT_ONCE", 10)
    disk = ForgetfulDisk()
    cache = cache_on(disk)
    batches: list[int] = []
    real = cache._unlink_in_thread

    def unlink(paths: list[str]) -> None:
        batches.append(len(paths))
        real(paths)
    monkeypatch.setattr(cache, "_unlink_in_thread", unlink)

    async def test() -> None:
        for number in range(45):
            await cache.store(name(number), 0, noise(ALIGN, number % 3))
        batches.clear()
        await cache.drop_all()
        assert batches == [10, 10, 10, 10, 5] and not cache.used_bytes and disk.listdir("cache") == []

    run(test)


@pytest.mark.parametrize("text", [
    b"", b"{", b"[]\n", b"3\n", b'["x"]\n', b'["%b"]\n' % name(1).encode(), b'["%b", [9, 4]]\n' % name(1).encode(),
    b'["%b", [-1, 5]]\n' % name(1).encode(), b'["%b", [0, 99999999999]]\n' % name(1).encode(), b'["../meta.db", [0, 5]]\n',
    b'["%b", [0, 5]]\n["%b", []]\n' % (name(1).encode(), name(1).encode()), b"\xff\n"])
def test_a_damaged_table_is_an_empty_cache(tmp_path: Path, text: bytes) -> None:
    disk = disk_in(tmp_path)
    disk.makedirs("cache")
    for path in ("cache/ranges", f"cache/{name(1)}"):
        file = disk.open(path, create=True)
        file.pwrite(text, 0)
        file.close()
    cache = cache_on(disk)
    assert cache.used_bytes == 0 and cache.read(name(1), 0, 1) is None and f"{name(1)}" not in disk.listdir("cache")


def test_a_full_disk_makes_the_cache_smaller_and_nothing_else() -> None:
    disk = ForgetfulDisk()
    cache = cache_on(disk)

    async def test() -> None:
        for number in range(8):
            await cache.store(name(number), 0, noise(ALIGN, number))
        disk.failing["pwrite"] = errno.ENOSPC
        await cache.store(name(8), 0, noise(ALIGN, 8))
        assert cache.read(name(8), 0, 1) is None and cache.failures == 1
        assert cache.used_bytes == 6 * ALIGN and cache.read(name(7), 0, ALIGN) == noise(ALIGN, 7)
        await cache.save()                                                   # cannot be written either: no error
        for number in range(9, 40):
            await cache.store(name(number), 0, noise(ALIGN, number))
        assert cache.used_bytes <= 6 * ALIGN
        del disk.failing["pwrite"]
        for number in range(40, 240):                                        # room again: it grows back
            await cache.store(name(number), 0, noise(ALIGN, number))
        assert cache.used_bytes >= 12 * ALIGN

    run(test)


def test_the_reserve_of_the_disk_is_not_for_the_cache() -> None:
    disk = ForgetfulDisk()
    cache = cache_on(disk)

    async def test() -> None:
        disk.free = 2 * DEFAULTS.disk_reserve_bytes + ALIGN - 1
        await cache.store(name(1), 0, noise(ALIGN))
        assert cache.read(name(1), 0, 1) is None and disk.listdir("cache") == []

    run(test)


@pytest.mark.parametrize("operation", ["open", "pwrite"])
def test_a_failing_disk_is_no_error(operation: str) -> None:
    disk = ForgetfulDisk()
    cache = cache_on(disk)

    async def test() -> None:
        await cache.store(name(1), 0, noise(ALIGN))
        disk.failing[operation] = errno.EIO
        await cache.store(name(2), 0, noise(ALIGN))
        assert cache.read(name(2), 0, 1) is None and cache.failures
        await cache.save()
        await cache.close()

    run(test)


def test_a_pack_is_adopted_by_rename_or_removed(tmp_path: Path) -> None:
    disk = disk_in(tmp_path)
    disk.makedirs("journal")
    cache = cache_on(disk, 5 * ALIGN)

    async def test() -> None:
        for number, size in ((1, 2 * ALIGN + 5), (2, 6 * ALIGN)):
            file = disk.open(f"journal/{number}.pack", create=True)
            file.pwrite(noise(size, number), 0)
            file.close()
            cache.adopt(name(number), f"journal/{number}.pack", size)
        await cache.trim()
        assert disk.listdir("journal") == []
        assert cache.read(name(1), 7, 2 * ALIGN - 2) == noise(2 * ALIGN + 5, 1)[7:2 * ALIGN + 5]
        assert cache.read(name(2), 0, 1) is None and cache.used_bytes == 2 * ALIGN + 5

    run(test)
