"""Packs that are here whole, for whoever finds that the store has lost one."""
from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from s3cfs.blocks.cache import PackCache
from s3cfs.blocks.originals import LocalPacks
from s3cfs.doors import Doors, SystemRandomness, TrioThreads
from s3cfs.ids import pack_key, pack_name
from s3cfs.limits import DEFAULTS
from tests.blocks.kit import HandClock, House, disk_in, noise, play, run

ALIGN = DEFAULTS.fetch_align_bytes


def test_from_the_cache_whole_and_as_its_name_says(tmp_path: Path) -> None:
    disk = disk_in(tmp_path)
    doors = Doors(HandClock(), SystemRandomness(), TrioThreads(), disk)
    cache = PackCache(doors)
    cache.load()
    data = noise(3 * ALIGN + 77)
    name = pack_name(7, blake3(data).digest())

    class NoJournal:
        def named(self, name: str) -> None:
            return None

    packs = LocalPacks(doors, NoJournal(), cache)  # type: ignore[arg-type]

    async def test() -> None:
        assert await packs.of(pack_key(name)) is None
        await cache.store(name, ALIGN, data[ALIGN:])
        assert await packs.of(pack_key(name)) is None, "a part of it"
        await cache.store(name, 0, data[:ALIGN])
        assert await packs.of(pack_key(name)) == data
        file = disk.open(f"cache/{name}")
        file.pwrite(b"other bytes", 5)
        file.close()
        assert await packs.of(pack_key(name)) is None, "the disk changed it"
        for key in ("pack/aa/1", "log/main/1", f"pack/00/{name}"):
            assert await packs.of(key) is None

    run(test)


def test_from_the_journal_while_the_pack_is_there(tmp_path: Path) -> None:
    house = House(disk_in(tmp_path))

    async def test(house: House, nursery: object) -> None:
        packs = LocalPacks(house.doors, house.journal, house.cache)
        await house.write([noise(70_000)])
        closed, = await house.journal.close_current()
        data = await packs.of(pack_key(closed.name))
        assert data == await house.journal.load(closed.pack_id) and data is not None
        house.cache.adopt(closed.name, closed.path, closed.size)
        house.journal.forget(closed.pack_id)
        assert await packs.of(pack_key(closed.name)) == data, "and in the cache afterwards"

    play(test, house)
