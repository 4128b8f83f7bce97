"""A damaged pack that was not sent yet: whole chunks are saved, lost ones named, and no healthy chunk is marked."""
from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs.blocks.damage import Damage
from s3cfs.blocks.journal import ClosedPack
from s3cfs.blocks.recovery import recover
from s3cfs.blocks.salvage import Salvage
from s3cfs.errors import CacheUnusable, Temporary
from s3cfs.formats.pack import read_index
from s3cfs.ids import pack_key
from s3cfs.meta import Chunk, Extent, Meta
from tests.blocks.kit import ForgetfulDisk, House, noise, until
from tests.meta.kit import doors

PLAINS = [noise(5000, 1), noise(70_000, 2), noise(600, 3)]


class Rows(House):
    """A house whose rows are real: a file of one chunk for each of PLAINS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(ForgetfulDisk())
        self.meta = Meta.open(doors(folder), "meta.db", None)
        self.damage = Damage(self.doors, self.meta)
        self.damage.use(lambda: None)
        self.calls: list[str] = []
        self.salvage = self.salvage_of()

    def salvage_of(self, *, give_up: bool = False) -> Salvage:
        made = Salvage(self.doors, self.meta, self.journal, self.remote, self.codec, self.damage, trio.Lock(), 1, give_up=give_up)
        made.use(self.durable)
        return made

    async def durable(self) -> None:
        self.calls.append("durable")
        await self.journal.sync()
        self.meta.commit()

    async def new_pack(self) -> int:
        return await self.meta.new_pack(1)

    async def fill(self) -> tuple[list[Chunk], ClosedPack]:
        rows = await self.write(PLAINS)
        made = []
        for number, row in enumerate(rows):
            id = await self.meta.add_chunk(row.hash, row.pack, row.off, row.clen, row.len)
            inode = await self.meta.new_inode(0o100644, 0, 0, 0, 10, nlink=1)
            await self.meta.link_name(1, b"file%d" % number, inode.ino)
            await self.meta.replace(inode.ino, 0, row.len, [Extent(0, row.len, id, 0)])
            await self.meta.update_inode(inode.ino, size=row.len)
            made.append(Chunk(id, row.hash, row.pack, row.off, row.clen, row.len, 1))
        [closed] = await self.journal.close_current()
        await self.meta.close_pack(closed.pack_id, closed.name, closed.size)
        self.meta.note_unsent(closed.pack_id)
        self.meta.commit()
        return made, closed

    def flip(self, closed: ClosedPack, at: int) -> None:
        assert isinstance(self.disk, ForgetfulDisk)
        self.disk.names[closed.path]["now"][at] ^= 1

    async def rows_now(self, rows: list[Chunk]) -> list[Chunk]:
        return [found for row in rows if (found := await self.meta.chunk(row.id)) is not None]

    async def whole(self, row: Chunk) -> bool:
        found = await self.meta.chunk(row.id)
        assert found is not None
        data = self.journal.read(found.pack, found.off, found.clen)
        return self.codec.decode(found.hash, data, found.len) == PLAINS[row.id - 1]


def go(test: Callable[[Rows], Awaitable[None]], folder: Path) -> None:
    async def main() -> None:
        house = Rows(folder)
        with trio.fail_after(30):
            await test(house)
        assert [problem for problem in house.meta.audit.problems() if problem.check != "missing pack"] == []
        house.meta.close()

    trio.run(main)


def test_whole_chunks_move_and_the_damaged_one_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(house: Rows) -> None:
        rows, closed = await house.fill()
        house.flip(closed, rows[1].off + 1000)
        assert await house.salvage(closed) is False
        now = await house.rows_now(rows)
        assert [row.pack for row in now] == [2, 1, 2] and await house.whole(rows[0]) and await house.whole(rows[2])
        assert house.meta.bad_chunks() == {rows[1].id} and house.damage.count == 1
        assert house.meta.unsent() == [] and not house.journal.has(1) and not house.disk.exists(closed.path)
        assert not house.meta.dirty and house.calls == ["durable"]
        [new] = await house.journal.close_current()
        data = await house.journal.load(new.pack_id)
        assert [entry.chunk_id for entry in read_index(data, len(data), house.index_sealer)] == [rows[0].hash, rows[2].hash]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.damage.run)
            await until(lambda: bool(house.damage.last))
            nursery.cancel_scope.cancel()
        assert [(find.path, find.start, find.end, find.what) for find in house.damage.last] == [("/file1", 0, 70_000, "damaged")]

    with caplog.at_level(logging.ERROR):
        go(test, tmp_path)
    texts = [record.message for record in caplog.records]
    assert any("2 of its 3 chunks are whole" in text for text in texts)
    assert any(text.startswith("damaged: /file1 bytes 0-69999") for text in texts)


@pytest.mark.parametrize("at", ["header", "index"])
def test_damage_that_no_chunk_lies_in_costs_nothing(tmp_path: Path, at: str) -> None:
    async def test(house: Rows) -> None:
        rows, closed = await house.fill()
        house.flip(closed, 20 if at == "header" else closed.size - 30)
        assert await house.salvage(closed) is False
        assert {row.pack for row in await house.rows_now(rows)} == {2} and house.meta.bad_chunks() == frozenset()
        assert [pack.id for pack in await house.meta.packs()] == [2]           # nobody names the old one
        for row in rows:
            assert await house.whole(row)

    go(test, tmp_path)


def test_records_that_were_cut_before_are_void(tmp_path: Path) -> None:
    """They name a pack that will never be in the store."""
    async def test(house: Rows) -> None:
        house.meta.commit()
        rows, closed = await house.fill()
        house.meta._engine.run("UPDATE outbox SET packs = 1")
        house.flip(closed, rows[0].off + 50)
        await house.salvage(closed)
        assert house.meta._engine.all("SELECT 1 FROM outbox WHERE packs IS NOT NULL") == []

    go(test, tmp_path)


def test_dying_before_the_rows_are_durable_changes_nothing(tmp_path: Path) -> None:
    async def test(house: Rows) -> None:
        rows, closed = await house.fill()
        house.flip(closed, rows[1].off + 1000)

        async def die() -> None:
            raise KeyboardInterrupt

        house.salvage.use(die)
        with pytest.raises(KeyboardInterrupt):
            await house.salvage(closed)
        house.meta.close()
        house.meta = Meta.open(doors(tmp_path), "meta.db", None)
        assert house.disk.exists(closed.path) and house.meta.unsent() == [1]
        assert {row.pack for row in await house.rows_now(rows)} == {1} and house.meta.bad_chunks() == frozenset()

    go(test, tmp_path)


def test_what_cannot_be_read_is_lost_only_when_somebody_gives_it_up(tmp_path: Path) -> None:
    async def test(house: Rows) -> None:
        rows, closed = await house.fill()
        assert isinstance(house.disk, ForgetfulDisk)
        house.disk.bad_sectors.add((closed.path, rows[1].off + 1000))
        with pytest.raises(OSError):
            await house.journal.load(closed.pack_id)
        with pytest.raises(CacheUnusable, match="fsck --full --repair"):
            await house.salvage(closed)
        assert house.meta.bad_chunks() == frozenset() and not house.meta.dirty and house.journal.has(1)
        assert await house.salvage_of(give_up=True)(closed) is False
        assert [row.pack for row in await house.rows_now(rows)] == [2, 1, 2] and house.meta.bad_chunks() == {rows[1].id}

    go(test, tmp_path)


def test_rows_that_a_repair_moved_meanwhile_stay_where_they_are(tmp_path: Path) -> None:
    async def test(house: Rows) -> None:
        rows, closed = await house.fill()
        house.flip(closed, rows[1].off + 1000)
        other = await house.meta.new_pack(1)
        for row in rows:
            await house.meta.move_chunk(row.id, other, row.off)
        await house.meta.drop_pack(1)
        assert await house.salvage(closed) is False
        assert {row.pack for row in await house.rows_now(rows)} == {other} and house.meta.bad_chunks() == frozenset()

    go(test, tmp_path)


@pytest.mark.parametrize(("operation", "code"), [("open", errno.EMFILE), ("pread", errno.EIO), ("pread", errno.ENOMEM)])
def test_a_moment_of_trouble_is_neither_an_end_nor_a_loss(tmp_path: Path, operation: str, code: int) -> None:
    async def test(house: Rows) -> None:
        rows, closed = await house.fill()
        assert isinstance(house.disk, ForgetfulDisk)
        house.journal._handles.close()
        house.disk.failing[operation] = code
        house.clock.on_sleep = house.disk.failing.clear
        assert len(await house.journal.load(closed.pack_id)) == closed.size     # the upload never hears of it
        house.journal._handles.close()
        house.disk.failing[operation] = code
        house.flip(closed, rows[0].off + 50)
        assert await house.salvage(closed) is False
        assert house.meta.bad_chunks() == {rows[0].id}

    go(test, tmp_path)


def test_a_process_that_stays_short_of_descriptors_is_an_end_and_no_loss(tmp_path: Path) -> None:
    async def test(house: Rows) -> None:
        rows, closed = await house.fill()
        assert isinstance(house.disk, ForgetfulDisk)
        house.journal._handles.close()
        house.disk.failing["open"] = errno.EMFILE
        with pytest.raises(OSError):
            await house.journal.load(closed.pack_id)
        with pytest.raises(CacheUnusable):
            await house.salvage(closed)
        assert house.clock.slept > 60, "not at once"
        house.disk.failing.clear()
        assert house.meta.bad_chunks() == frozenset() and not house.meta.dirty and house.journal.has(1)

    go(test, tmp_path)


def test_a_pack_that_went_up_needs_no_salvage(tmp_path: Path) -> None:
    async def test(house: Rows) -> None:
        rows, closed = await house.fill()
        await house.remote.put(pack_key(closed.name), await house.journal.load(1))
        house.flip(closed, rows[0].off + 50)
        assert await house.salvage(closed) is True
        assert not house.meta.dirty and house.journal.has(1)

        def away(key: str) -> Any:
            raise Temporary("stat", key, "away")

        house.store.stat = away  # type: ignore[method-assign]
        with pytest.raises(Temporary):
            await house.salvage(closed)
        assert not house.meta.dirty

    go(test, tmp_path)


@pytest.mark.parametrize("stored", [True, False])
def test_a_closed_pack_whose_file_is_gone_is_stored_or_lost(tmp_path: Path, stored: bool) -> None:
    """Only the store knows: what it has not got may not pass for uploaded."""
    async def test(house: Rows) -> None:
        rows, closed = await house.fill()
        if stored:
            await house.remote.put(pack_key(closed.name), await house.journal.load(1))
        await house.journal.close()
        house.disk.unlink(closed.path)
        nxt = House(house.disk, epoch=2, store=house.store)
        await recover(nxt.doors, house.meta, nxt.journal, nxt.remote, nxt.codec, house.damage)
        assert nxt.journal.pending() == [] and house.meta.unsent() == []
        assert house.meta.bad_chunks() == (frozenset() if stored else {row.id for row in rows})
        assert house.damage.count == (0 if stored else 3)

    go(test, tmp_path)


def test_an_open_pack_is_looked_at_chunk_by_chunk_when_it_is_recovered(tmp_path: Path) -> None:
    """What the disk changed since would else go up under a name that vouches for it."""
    async def test(house: Rows) -> None:
        rows = await house.write(PLAINS)
        ids = [await house.meta.add_chunk(row.hash, row.pack, row.off, row.clen, row.len) for row in rows]
        await house.journal.close()
        house.meta.commit()
        assert isinstance(house.disk, ForgetfulDisk)
        house.disk.names["journal/1.pack"]["now"][rows[1].off + 1000] ^= 1
        nxt = House(house.disk, epoch=2, store=house.store)
        await recover(nxt.doors, house.meta, nxt.journal, nxt.remote, nxt.codec, house.damage)
        [closed] = nxt.journal.pending()
        assert house.meta.bad_chunks() == {ids[1]} and (await house.meta.pack(1)).name == closed.name
        data = await nxt.journal.load(1)
        assert [entry.chunk_id for entry in read_index(data, len(data), nxt.index_sealer)] == [rows[0].hash, rows[2].hash]

    go(test, tmp_path)
