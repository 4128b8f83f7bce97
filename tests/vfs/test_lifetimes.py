"""When an inode without a name goes: neither open nor known to the kernel, or at the next start."""
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import StaleInode
from s3cfs.vfs.core import RENAME_EXCHANGE, SetAttr
from s3cfs.vfs.lifetimes import LookupCounts
from tests.vfs.kit import new_file, node_at, until, write
from tests.vfs.test_tree import file, folder
from tests.vfs.world import ROOT, World, drive


def test_an_open_file_outlives_its_name(world: World) -> None:
    ino = drive(world.vfs.create(1, b"f", 0o644, ROOT)).ino
    drive(world.vfs.open(ino, os.O_RDWR))
    drive(world.vfs.write(ino, 0, b"data"))
    drive(world.vfs.unlink(1, b"f"))
    assert drive(world.vfs.getattr(ino)).nlink == 0 and drive(world.meta.orphans()) == [ino]
    drive(world.vfs.release(ino))
    assert drive(world.vfs.read(ino, 0, 9)) == b"data"
    drive(world.vfs.release(ino))
    assert drive(world.meta.orphans()) == [] and world.content.forgotten == [ino]
    with pytest.raises(StaleInode):
        drive(world.vfs.getattr(ino))


def test_a_known_inode_outlives_its_name(world: World) -> None:
    ino = file(world, 1, b"f")
    for _ in range(3):
        world.vfs.remember(ino)
    drive(world.vfs.unlink(1, b"f"))
    drive(world.vfs.forget(ino, 2))
    drive(world.vfs.setattr(ino, SetAttr(mtime_ns=5), ROOT))         # the late one of a write-back cache
    drive(world.vfs.forget(ino, 1))
    assert drive(world.meta.get(ino)) is None and drive(world.meta.orphans()) == []
    drive(world.vfs.forget(ino, 1))             # more than it ever knew


@pytest.mark.parametrize("release_first", [True, False])
def test_open_and_known(world: World, release_first: bool) -> None:
    ino = drive(world.vfs.create(1, b"f", 0o644, ROOT)).ino
    world.vfs.remember(ino)
    file(world, 1, b"g")
    drive(world.vfs.rename(1, b"g", 1, b"f"))
    steps = [world.vfs.release(ino), world.vfs.forget(ino, 1)]
    for step in steps if release_first else reversed(steps):
        assert drive(world.meta.get(ino)) is not None
        drive(step)
    assert drive(world.meta.get(ino)) is None


def test_forgetting_and_releasing_what_has_a_name_keeps_it(world: World) -> None:
    ino, d = drive(world.vfs.create(1, b"f", 0o644, ROOT)).ino, folder(world, 1, b"d")
    for known in (ino, d, 1):
        world.vfs.remember(known)
        drive(world.vfs.forget(known, 1))
    drive(world.vfs.release(ino))
    drive(world.vfs.rename(1, b"f", 1, b"d", RENAME_EXCHANGE))
    assert world.meta.counters.inodes == 3


def test_a_removed_working_directory(world: World) -> None:
    d = folder(world, 1, b"d")
    world.vfs.remember(d)
    handle = drive(world.vfs.opendir(d))
    drive(world.vfs.rmdir(1, b"d"))
    assert drive(world.vfs.getattr(d)).nlink == 0 and drive(world.vfs.readdir(handle, 0, 10)) == []
    drive(world.vfs.forget(d, 1))
    with pytest.raises(StaleInode):
        drive(world.vfs.getattr(d))


def test_a_crash_leaves_orphans_to_the_next_mount(world: World) -> None:
    f, d = drive(world.vfs.create(1, b"f", 0o644, ROOT)).ino, folder(world, 1, b"d")
    drive(world.vfs.setxattr(f, b"user.a", b"1"))
    world.vfs.remember(d)
    drive(world.vfs.unlink(1, b"f"))
    drive(world.vfs.rmdir(1, b"d"))
    assert drive(world.restarted(read_only=True).recover_orphans()) == 0
    assert drive(world.meta.orphans()) == [f, d]
    assert drive(world.restarted().recover_orphans()) == 2
    assert drive(world.meta.orphans()) == [] and world.meta.counters.inodes == 1
    assert drive(world.meta.get(f)) is None and drive(world.meta.get(d)) is None


class Killed(Exception):
    """The process ends without leaving."""


def test_orphans_of_a_crash_go_at_the_next_start_and_from_the_store(tmp_path: Path) -> None:
    backend = MemoryBackend("x")

    async def life() -> None:
        async with node_at(tmp_path / "one", backend) as node:
            for number in range(5):
                ino = await new_file(node, b"%d" % number)
                await write(node, ino, 0, bytes([number]) * 100_000)
                await node.vfs.fsync(ino)
                await node.vfs.unlink(1, b"%d" % number)
            await node.flush()
            assert len(await node.meta.orphans()) == 5 and node.meta.counters.used_bytes
            raise Killed

    async def look(folder: str) -> None:
        async with node_at(tmp_path / folder, backend, takeover_silence_s=0.1) as node:
            assert await node.meta.orphans() == []
            assert (node.meta.counters.inodes, node.meta.counters.used_bytes) == (1, 0)

    with pytest.raises(BaseExceptionGroup) as raised:
        trio.run(life)
    assert raised.value.split(Killed)[1] is None
    trio.run(look, "one")
    trio.run(look, "two")


def test_the_last_close_of_a_removed_file_is_a_change_that_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with node_at(tmp_path, MemoryBackend("x")) as node:
            ino = await new_file(node, b"f")
            await node.vfs.unlink(1, b"f")
            await node.flush()
            await until(lambda: node.commits.lag_s() == 0)
            await node.vfs.release(ino)
            assert node.commits.lag_s() > 0                 # a transaction is to come
            await until(lambda: not node.meta.dirty)

    trio.run(main)


def test_unmounting_forgets_everything(world: World) -> None:
    f, g = file(world, 1, b"f"), drive(world.vfs.create(1, b"g", 0o644, ROOT)).ino
    for ino in (f, g):
        world.vfs.remember(ino)
        drive(world.vfs.unlink(1, b"f" if ino == f else b"g"))
    drive(world.vfs.forget_all())
    assert drive(world.meta.orphans()) == [g], "still open"
    drive(world.vfs.release(g))
    assert world.meta.counters.inodes == 1


def test_a_failing_release_still_lets_go(world: World) -> None:
    ino = drive(world.vfs.create(1, b"f", 0o644, ROOT)).ino
    drive(world.vfs.unlink(1, b"f"))

    async def fail(where: str) -> None:
        del world.content.users[ino]
        raise OSError("staging failed")

    world.content.wait = fail
    with pytest.raises(OSError):
        drive(world.vfs.release(ino))
    assert drive(world.meta.get(ino)) is None


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(-400, 300))))
def test_counts_are_exact(steps: list[tuple[int, int]]) -> None:
    counts, model = LookupCounts(), dict.fromkeys(range(1001), 0)
    for ino, change in steps:
        if change >= 0:
            for _ in range(change):
                counts.add(ino)
            model[ino] += change
        else:
            model[ino] = max(0, model[ino] + change)
            assert counts.subtract(ino, -change) == model[ino]
    assert {ino: counts.get(ino) for ino in model} == model
    for ino in model:
        counts.subtract(ino, model[ino])
    assert not counts._pages and not counts._over


def test_counts_are_small() -> None:
    counts = LookupCounts()
    for ino in range(100_000):
        counts.add(ino)
    size = sys.getsizeof(counts._pages) + sum(map(sys.getsizeof, counts._pages.values()))
    assert size < 200_000
