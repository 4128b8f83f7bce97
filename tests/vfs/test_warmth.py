"""While the disk is slow, pages are read in threads before the loop asks for them; while it is not, that costs a look at a flag."""
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.doors import Doors, SystemClock, SystemRandomness, TrioThreads
from s3cfs.limits import DEFAULTS
from s3cfs.vfs.types import ROOT_CALLER, SetAttr
from tests.history.kit import KEYRING, SUPERBLOCK, content
from tests.slowdisk import SlowDisk, SlowVfs

FILES = 900
QUICK = 9                      # answers after which the disk is not slow
SLOW_S = 0.004                 # of a cold page; a quick disk in these tests: nothing at all


class Counted(TrioThreads):
    hops = 0

    async def run(self, function, *args):
        self.hops += getattr(function, "__name__", "") == "_read"
        return await super().run(function, *args)


class World:
    """A filesystem of many small files, whose pages neither SQLite nor the system holds."""

    def __init__(self, tmp_path: Path) -> None:
        self.vfs = SlowVfs(f"warm-{tmp_path.name}")
        self.threads = Counted()
        self.backend = MemoryBackend()
        self.path = tmp_path / "state"

    @asynccontextmanager
    async def node(self, **changed: float) -> AsyncIterator[Node]:
        disk = SlowDisk(str(self.path), self.vfs)
        doors = Doors(SystemClock(), SystemRandomness(), self.threads, disk, replace(DEFAULTS, **changed))  # type: ignore[arg-type]
        async with open_node(doors, self.backend, KEYRING, SUPERBLOCK, NodeOptions(decoded_bytes=0)) as node:
            yield node

    async def fill(self) -> None:
        async with self.node() as node:
            for folder in range(3):
                made = await node.vfs.mkdir(1, b"d%d" % folder, 0o755, ROOT_CALLER)
                for number in range(FILES // 3):
                    file = await node.vfs.create(made.ino, b"%04d-%s" % (number, b"n" * 60), 0o644, ROOT_CALLER)
                    await node.vfs.write(file.ino, 0, content(number, 600))
                    await node.vfs.release(file.ino)
            await node.flush()

    def forget_pages(self, node: Node, read_s: float) -> None:
        node.meta._engine.connection.pragma("shrink_memory")
        node.meta.beside.close()
        node.meta.beside._closed = False
        self.vfs.drop_cache()
        self.vfs.read_s = read_s


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    trio.run(world.fill)
    return world


async def everything(node: Node, folder: bytes) -> list[object]:
    """What operations say, one after the other."""
    vfs = node.vfs
    said: list[object] = []
    parent = await vfs.lookup(1, folder)
    assert parent is not None
    for number in range(0, FILES // 3, 37):
        name = b"%04d-%s" % (number, b"n" * 60)
        inode = await vfs.lookup(parent.ino, name)
        assert inode is not None
        said.append((inode.size, (await vfs.getattr(inode.ino)).mode, await vfs.listxattr(inode.ino)))
        await vfs.open(inode.ino, 0)
        said.append(await vfs.read(inode.ino, 0, 1000))
        await vfs.release(inode.ino)
        match number % 4:
            case 0:
                await vfs.unlink(parent.ino, name)
            case 1:
                await vfs.rename(parent.ino, name, 1, name)
            case 2:
                await vfs.setattr(inode.ino, SetAttr(mode=0o600), ROOT_CALLER)
            case _:
                await vfs.create(parent.ino, b"new-" + name, 0o644, ROOT_CALLER)
    handle, cookie, names = await vfs.opendir(parent.ino), 0, 0
    while rows := await vfs.readdir(handle, cookie, 100):
        names, cookie = names + len(rows), rows[-1][2]
    said.append(names)
    return said


def test_a_slow_disk_is_read_in_threads(world: World) -> None:
    async def main() -> None:
        async with world.node() as node:
            while node.meta.warmth.cold:                        # the disk proves to be quick
                await node.vfs.getattr(1)
                node.meta.warmth._known.clear()
            world.forget_pages(node, SLOW_S)
            said = await everything(node, b"d0")
            assert world.vfs.cold_on_loop <= 8 < 20 < world.vfs.cold_in_thread, (world.vfs.cold_on_loop, world.vfs.cold_in_thread)
            assert node.meta.warmth.cold and node.meta.warmth.wary
            world.vfs.read_s = 0.0
        assert len(said) == 2 * 9 + 1

    trio.run(main)


def test_others_go_on_meanwhile(world: World) -> None:
    """Each page takes long, and so does a listing of very many; whoever needs none of them does not wait."""
    async def main() -> None:
        async with world.node() as node:
            warm = await node.vfs.getattr(1)
            world.forget_pages(node, 0.02)
            await node.vfs.getattr(1)
            node.meta.warmth.cold = node.meta.warmth.wary = True
            parent = await node.vfs.lookup(1, b"d1")
            assert parent is not None
            world.vfs.clear()
            done = trio.Event()
            turns = 0

            async def reads() -> None:
                handle = await node.vfs.opendir(parent.ino)
                assert len(await node.vfs.readdir(handle, 0, 500)) > 50
                done.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reads)
                while not done.is_set():
                    assert (await node.vfs.getattr(1)).ino == warm.ino
                    turns += 1
                    await trio.lowlevel.checkpoint()
            assert world.vfs.cold_on_loop == 0 and world.vfs.cold_in_thread > 3 and turns > world.vfs.cold_in_thread
            world.vfs.read_s = 0.0

    trio.run(main)


@pytest.mark.parametrize("read_s", [0.0, 0.001])
def test_answers_and_effects_are_those_of_a_quick_disk(world: World, read_s: float, tmp_path: Path) -> None:
    async def main() -> None:
        async with world.node(slow_query_s=1000.0) as node:     # never slow
            quick = await everything(node, b"d1")
        async with world.node(slow_query_s=0.0) as node:        # always slow
            world.forget_pages(node, read_s)
            slow = await everything(node, b"d2")
            world.vfs.read_s = 0.0
            await node.commits.durable()
            assert list(node.meta.audit.problems()) == []
        assert quick == slow

    trio.run(main)


def test_a_quick_disk_costs_nothing(world: World) -> None:
    async def main() -> None:
        async with world.node() as node:
            for _ in range(QUICK):
                await node.vfs.getattr(1)
                node.meta.warmth._known.clear()
            assert not node.meta.warmth.cold and not node.meta.warmth.wary
            node.meta._engine._slow_s = 10.0                    # however busy this machine is
            hops = world.threads.hops
            await everything(node, b"d0")
            assert world.threads.hops == hops

    trio.run(main)


def test_only_what_waited_for_the_disk_is_slow(world: World) -> None:
    """Not what a busy machine made late; what looks slow on the loop and is quick in threads is over soon."""
    async def main() -> None:
        async with world.node() as node:
            warmth = node.meta.warmth
            warmth._was_slow(0.01)
            warmth.cold = warmth.wary = False
            warmth._was_slow(0.01)                              # nothing was read at all
            assert not warmth.cold
            node.meta._engine.connection.pragma("shrink_memory")
            assert await node.vfs.lookup(1, b"d0")              # SQLite asked, and the system had it
            warmth._was_slow(0.01)
            assert not warmth.cold
            world.vfs.held.clear()
            node.meta._engine.connection.pragma("shrink_memory")
            assert await node.vfs.lookup(1, b"d0")
            warmth._was_slow(0.01)
            assert warmth.cold
            for number in range(QUICK):
                assert warmth.cold
                await node.vfs.lookup(1, b"%d" % number)
            assert not warmth.cold and not warmth.wary

    trio.run(main)


def test_it_lasts_as_long_as_it_pays(world: World) -> None:
    """More than a hop is saved in the mean; what asks for many rows is careful for an hour longer."""
    now = 1000.0

    async def main() -> None:
        nonlocal now
        async with world.node() as node:
            warmth = node.meta.warmth
            warmth._doors = replace(warmth._doors, clock=Clock())
            for number in range(200):                           # one of ten is read from the medium
                warmth._learn(0.01 if number % 10 == 0 else 0.0001, int(number % 10 == 0))
                assert warmth.cold and warmth.wary
            for _ in range(30):
                warmth._learn(0.0001, 0)
            assert not warmth.cold and warmth.wary
            warmth._learn(0.01, 0)                              # a busy machine
            assert not warmth.cold
            now += 3601
            warmth._learn(0.0001, 0)
            assert not warmth.wary

    class Clock(SystemClock):
        monotonic = staticmethod(lambda: now)

    trio.run(main)
