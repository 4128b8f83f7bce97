"""What an earlier process left in the journal: finished, taken over, or named as lost."""
from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
import trio

from s3cfs.blocks.recovery import recover_files
from s3cfs.doors import SystemDisk
from s3cfs.errors import CacheFull, CacheUnusable, Damaged
from s3cfs.formats.pack import PackEntry, read_index, verify_name
from s3cfs.ids import PackName, pack_key
from tests.blocks.kit import ForgetfulDisk, House, disk_in, noise, play, run


def entries_of(house: House) -> dict[int, list[PackEntry]]:
    found: dict[int, list[PackEntry]] = {}
    for row in house.rows.values():
        found.setdefault(row.pack, []).append(PackEntry(row.hash, row.off, row.clen, row.len))
    return found


@pytest.mark.parametrize("again", [False, True])
def test_an_open_pack_is_recovered_after_a_crash(again: bool) -> None:
    disk = ForgetfulDisk()
    house = House(disk)
    plains = [noise(size, size) for size in (5000, 90_000, 800)]

    async def before() -> None:
        await house.write(plains)
        await house.journal.sync()
        valid = entries_of(house)
        await house.write([noise(120_000, 5)])               # in no transaction: may be gone
        disk.names["journal/segment-7"] = {"now": bytearray(b"x"), "kept": bytearray(b"x")}
        disk.names["journal/99.pack"] = {"now": bytearray(b"x"), "kept": bytearray(b"x")}
        disk.sync_dir("journal")
        disk.crash()
        nxt = House(disk, epoch=2)
        found = await recover_files(nxt.doors, nxt.journal, valid, {})
        if again:                                            # crash before the transaction that would have recorded the names
            disk.crash()
            nxt = House(disk, epoch=3)
            found = await recover_files(nxt.doors, nxt.journal, valid, {})
        assert found.empty == [] and found.lost == {} and found.missing == []
        [closed] = found.closed
        assert disk.listdir("journal") == ["1.pack", "segment-7"] and closed.name.startswith("3-" if again else "2-")
        disk.crash()                                         # it was synced, name and content
        data = await nxt.journal.load(closed.pack_id)
        assert read_index(data, len(data), nxt.index_sealer) == valid[1]
        for row, plain in zip(list(house.rows.values())[:3], plains, strict=True):
            assert nxt.codec.decode(row.hash, nxt.journal.read(row.pack, row.off, row.clen), row.len) == plain

    run(before)


def test_recovery_says_what_is_lost() -> None:
    disk = ForgetfulDisk()
    house = House(disk)

    async def test() -> None:
        rows = await house.write([noise(5000, 1), noise(6000, 2), noise(7000, 3)])
        await house.journal.sync()
        named = entries_of(house)
        node = disk.names["journal/1.pack"]
        node["now"][rows[1].off:rows[1].off + rows[1].clen] = bytes(rows[1].clen)        # a hole where a broken disk lost a page
        node["now"][rows[2].off + 50] ^= 1                                               # a flipped bit
        named[5] = [PackEntry(rows[0].hash, 32, 100, 100)]                               # no file at all
        named[6] = []
        nxt = House(disk, epoch=2)
        found = await recover_files(nxt.doors, nxt.journal, named, {8: (PackName("1-" + "ab" * 32), 77)},
                                    lambda entry, data: _decodes(nxt, entry, data))
        assert found.missing == [8] and found.empty == [5, 6]
        assert found.lost == {1: named[1][1:], 5: named[5]}
        [closed] = found.closed
        data = await nxt.journal.load(closed.pack_id)
        assert read_index(data, len(data), nxt.index_sealer) == named[1][:1]

    run(test)


def _decodes(house: House, entry: PackEntry, data: bytes) -> bool:
    try:
        house.codec.decode(entry.chunk_id, data, entry.length)
    except Damaged:
        return False
    return True


def test_closed_packs_of_an_earlier_process_are_taken_over(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path))

    async def test() -> None:
        await house.write([noise(100_000)])
        [closed] = await house.journal.close_current()
        await house.journal.close()
        nxt = House(house.disk, epoch=2)
        found = await recover_files(nxt.doors, nxt.journal, {}, {closed.pack_id: (closed.name, closed.size)})
        assert found.missing == [] and nxt.journal.bytes_total == closed.size
        assert verify_name(pack_key(closed.name), await nxt.journal.load(closed.pack_id))
        assert nxt.journal.pending() == [closed]
        nxt.journal.forget(closed.pack_id)
        assert nxt.journal.pending() == []
        assert nxt.journal.bytes_total == 0 and not nxt.journal.has(closed.pack_id)

    run(test)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO])
def test_a_disk_that_fails_for_a_moment_loses_nothing(code: int) -> None:
    disk = ForgetfulDisk()
    house = House(disk)

    async def test() -> None:
        await house.write([noise(5000, 1), noise(6000, 2)])
        await house.journal.sync()
        nxt = House(disk, epoch=2)
        disk.failing["open" if code == errno.EMFILE else "pread"] = code
        nxt.clock.on_sleep = disk.failing.clear
        found = await recover_files(nxt.doors, nxt.journal, entries_of(house), {})
        assert found.lost == {} and len(found.closed) == 1 and nxt.clock.slept > 0

    run(test)


@pytest.mark.parametrize(("operation", "code"), [
    ("open", errno.EMFILE), ("listdir", errno.EIO), ("fsync", errno.EIO), ("pwrite", errno.ENOSPC), ("unlink", errno.EIO),
    ("rename", errno.EIO), ("sync_dir", errno.EIO)])
def test_a_disk_that_goes_on_failing_is_a_clear_error_and_the_next_start_finds_everything(operation: str, code: int) -> None:
    disk = ForgetfulDisk()
    house = House(disk)
    disk.names["journal/99.pack"] = {"now": bytearray(b"x"), "kept": bytearray(b"x")}
    plains = [noise(5000, 1), noise(6000, 2)]

    async def test() -> None:
        await house.write(plains)
        await house.journal.sync()
        disk.failing[operation] = code
        with pytest.raises((CacheUnusable, CacheFull)):
            nxt = House(disk, epoch=2)
            await recover_files(nxt.doors, nxt.journal, entries_of(house), {})
        disk.failing.clear()
        disk.crash()
        nxt = House(disk, epoch=3)
        found = await recover_files(nxt.doors, nxt.journal, entries_of(house), {})
        assert found.lost == {} and len(found.closed) == 1
        for row, plain in zip(house.rows.values(), plains, strict=True):
            assert nxt.codec.decode(row.hash, nxt.journal.read(row.pack, row.off, row.clen), row.len) == plain

    run(test)


def test_a_sector_that_cannot_be_read_is_lost_only_when_somebody_gives_it_up() -> None:
    disk = ForgetfulDisk()
    house = House(disk)

    async def test() -> None:
        rows = await house.write([noise(5000, 1), noise(6000, 2), noise(7000, 3)])
        await house.journal.sync()
        named = entries_of(house)
        disk.bad_sectors.add(("journal/1.pack", rows[1].off + 100))
        with pytest.raises(CacheUnusable, match="fsck --full --repair"):
            nxt = House(disk, epoch=2)
            await recover_files(nxt.doors, nxt.journal, named, {})
        nxt = House(disk, epoch=3)
        found = await recover_files(nxt.doors, nxt.journal, named, {}, give_up=True)
        disk.bad_sectors.clear()                             # the pack is another file now
        assert found.lost == {1: named[1][1:2]}
        [closed] = found.closed
        data = await nxt.journal.load(closed.pack_id)
        assert read_index(data, len(data), nxt.index_sealer) == [named[1][0], named[1][2]]

    run(test)


def test_a_closed_pack_of_the_wrong_size_is_no_lost_pack(tmp_path: Path) -> None:
    """Its upload will see, and save what is whole."""
    house = House(disk_in(tmp_path))

    async def test() -> None:
        await house.write([noise(100_000)])
        [closed] = await house.journal.close_current()
        await house.journal.close()
        file = house.disk.open(closed.path)
        file.truncate(closed.size - 10)
        file.close()
        nxt = House(house.disk, epoch=2)
        found = await recover_files(nxt.doors, nxt.journal, {}, {closed.pack_id: (closed.name, closed.size)})
        assert found.missing == [] and nxt.journal.pending() == [closed]
        with pytest.raises(Damaged):
            await nxt.journal.load(closed.pack_id)

    run(test)


def test_a_journal_whose_folder_was_removed_still_goes_up(tmp_path: Path) -> None:
    """Its files are open since they were made, or taken over at the start."""
    async def test(house: House, nursery: trio.Nursery) -> None:
        disk = house.disk
        assert isinstance(disk, SystemDisk)
        rows = await house.write([noise(5_000), noise(400_000, 1)])
        house.record(closed := await house.journal.close_current())
        await house.journal.close()
        nxt = House(disk, epoch=2, store=house.store)
        nxt.packs, nxt.rows, nxt.next_pack = house.packs, house.rows, house.next_pack
        await recover_files(nxt.doors, nxt.journal, {}, {pack.pack_id: (pack.name, pack.size) for pack in closed})
        rows += await nxt.write([noise(6_000, 2)])
        nxt.record(await nxt.journal.close_current())
        await nursery.start(nxt.blocks.run)
        shutil.rmtree(tmp_path / "state" / "journal")
        shutil.rmtree(tmp_path / "state" / "cache")
        plains = [noise(5_000), noise(400_000, 1), noise(6_000, 2)]
        assert await nxt.blocks.chunks(rows) == plains
        for pack in nxt.journal.pending():
            await nxt.remote.put(pack_key(pack.name), await nxt.journal.load(pack.pack_id))
            await nxt.blocks.uploaded(pack)
        nxt.blocks.drop_decoded()
        assert await nxt.blocks.chunks(rows) == plains and len(nxt.store.gets) == 2 and nxt.finds.damaged == []

    play(test, House(disk_in(tmp_path)))
