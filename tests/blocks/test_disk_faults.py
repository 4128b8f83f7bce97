"""Every single call of the disk fails once, or from then on: no error but those that are promised, nothing acknowledged is lost, no
chunk is called damaged."""
from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest
import trio

from s3cfs.blocks.cache import PackCache
from s3cfs.blocks.recovery import recover_files
from s3cfs.doors import DiskFile
from s3cfs.errors import DataError, S3cfsError
from s3cfs.formats.pack import PackEntry
from s3cfs.ids import PackName, pack_key
from s3cfs.limits import KIB
from s3cfs.meta.types import Chunk
from tests.blocks.kit import CountingStore, ForgetfulDisk, House, noise

PLAINS = [noise(size, size) for size in (700, 9_000, 90_000, 300_000, 1_200, 80_000)]
OF_FILES = frozenset(("pread", "pwrite", "truncate", "fsync", "size", "close"))


class Plan:
    """The n-th call fails, and if `on` all later ones."""

    def __init__(self, at: int, code: int, on: bool) -> None:
        self.at, self.code, self.on, self.calls, self.failed = at, code, on, 0, ""

    def call(self, what: str) -> None:
        self.calls += 1
        if self.calls == self.at or (self.on and self.calls > self.at):
            self.failed = self.failed or what
            raise OSError(self.code, f"call {self.calls}: {what}")


class FailingFile:
    def __init__(self, inner: DiskFile, plan: Plan) -> None:
        self._inner, self._plan = inner, plan

    def __getattr__(self, name: str) -> Any:
        assert name in OF_FILES, name
        function = getattr(self._inner, name)

        def call(*args: Any) -> Any:
            self._plan.call(name)
            return function(*args)

        return call


class FailingDisk:
    sqlite_vfs: str | None = None

    def __init__(self, inner: ForgetfulDisk, plan: Plan) -> None:
        self._inner, self._plan = inner, plan

    def open(self, path: str, *, create: bool = False) -> Any:
        self._plan.call(f"open {path}")
        return FailingFile(self._inner.open(path, create=create), self._plan)

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._inner, name)

        def call(*args: Any) -> Any:
            self._plan.call(name)
            return function(*args)

        return call


class Life:
    """Writes, syncs, commits, reads, trims; what was acknowledged is in `acknowledged`, what is in the store in `house.packs`."""

    def __init__(self, disk: Any, store: CountingStore) -> None:
        self.house = House(disk, store=store, cache_bytes=200 * KIB, decoded_bytes=0)
        self.acknowledged: list[Chunk] = []
        self.stored: set[int] = set()

    async def write(self, plains: list[bytes]) -> None:
        rows = await self.house.write(plains)
        await self.house.journal.sync()
        self.acknowledged += rows

    async def upload(self) -> None:
        house = self.house
        closed = await house.journal.close_current()
        house.record(closed)
        for pack in closed:
            await house.remote.put(pack_key(pack.name), await house.journal.load(pack.pack_id))
            self.stored.add(pack.pack_id)
            await house.blocks.uploaded(pack)

    async def read(self) -> None:
        self.house.blocks.drop_decoded()
        for row in self.acknowledged:
            try:
                assert await self.house.blocks.chunk(row) == PLAINS[row.id - 1]
            except DataError as error:
                assert "the local disk" in str(error)

    async def live(self) -> None:
        steps: list[Any] = [lambda: self.write(PLAINS[:2]), lambda: self.write(PLAINS[2:4]), self.read, self.upload, self.read,
                            lambda: self.write(PLAINS[4:]), self.read, self.house.cache.save, self.upload, self.read,
                            self.house.cache.drop_all, self.read, self.house.journal.close, self.house.cache.close]
        async with trio.open_nursery() as nursery:
            await nursery.start(self.house.blocks.run)
            for step in steps:
                try:
                    await step()
                except S3cfsError:
                    pass                                     # promised, and said
                except OSError as error:
                    assert step == self.upload, error        # `load` may say so: the upload salvages
            nursery.cancel_scope.cancel()


async def afterwards(life: Life, disk: ForgetfulDisk) -> None:
    """A new process, on a disk that works: what was acknowledged is there."""
    open_packs: dict[int, list[PackEntry]] = {}
    closed: dict[int, tuple[PackName, int]] = {}
    for row in life.acknowledged:
        pack = life.house.packs[row.pack]
        if pack.name is None:
            open_packs.setdefault(row.pack, []).append(PackEntry(row.hash, row.off, row.clen, row.len))
        elif row.pack not in life.stored:
            closed[row.pack] = (pack.name, pack.size)
    nxt = House(disk, epoch=2, store=life.house.store)
    nxt.packs, nxt.rows = life.house.packs, life.house.rows
    found = await recover_files(nxt.doors, nxt.journal, open_packs, closed)
    assert not found.lost and not found.missing
    async with trio.open_nursery() as nursery:
        await nursery.start(nxt.blocks.run)
        for row in life.acknowledged:
            assert await nxt.blocks.chunk(row) == PLAINS[row.id - 1]
        nursery.cancel_scope.cancel()
    assert nxt.finds.damaged == [] == life.house.finds.damaged


def play(at: int, code: int, on: bool) -> Plan:
    disk, plan = ForgetfulDisk(), Plan(at, code, on)
    store = CountingStore()

    async def main() -> None:
        try:
            life = Life(FailingDisk(disk, plan), store)
        except S3cfsError:
            return
        await life.live()
        disk.crash()
        await afterwards(life, disk)

    with_deadline(main)
    return plan


def with_deadline(main: Any) -> None:
    async def bounded() -> None:
        with trio.fail_after(30):
            await main()

    trio.run(bounded)


@pytest.mark.parametrize("on", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=["EIO", "ENOSPC", "EMFILE"])
def test_every_call_may_fail(code: int, on: bool) -> None:
    at = 1
    while True:
        plan = play(at, code, on)
        if not plan.failed:
            break
        at += 1
    assert at > 60


def test_loading_the_cache_and_its_table_may_fail() -> None:
    disk = ForgetfulDisk()

    async def fill() -> None:
        house = House(disk)
        await house.write(PLAINS)
        await house.commit()
        await house.cache.close()

    with_deadline(fill)
    for at in range(1, 40):
        plan = Plan(at, errno.EIO, False)
        house = House(disk)
        cache = PackCache(replace(house.doors, disk=FailingDisk(disk, plan)))
        cache.load()
        with_deadline(cache.close)
        if not plan.failed:
            assert at > 5
            return
    raise AssertionError("it never ended")
