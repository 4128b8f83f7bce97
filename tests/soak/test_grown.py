"""A filesystem of a million files and ten million chunks: nothing blocks the event loop for long, and memory stays what it is.

`make soak ARGS="tests/soak/test_grown.py -s"`; S3CFS_TEST_CHUNKS and S3CFS_TEST_FILES for others. Two minutes, and 2 GB of disk in the
folder of tests or in S3CFS_TEST_GROWN.
"""
from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from s3cfs.app.memory import give_back, keep_the_start
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.app.opening import DATABASE
from s3cfs.app.status import state_of, status
from s3cfs.backends.base import Backend
from s3cfs.backends.local import LocalBackend
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.formats import superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.history.commits import Options
from s3cfs.limits import DEFAULTS
from s3cfs.vfs.types import ROOT_CALLER
from tests.loopmeter import LoopMeter, measure

from .grown import FILES_A_FOLDER, Grown, grow

pytestmark = pytest.mark.soak

SUPERBLOCK, _keys, _recovery = superblock.create("grown", SystemRandomness(), True, DEFAULTS.chunk_min_bytes, DEFAULTS.chunk_avg_bytes,
                                                 DEFAULTS.chunk_max_bytes, None, now_ns=0)
KEYRING = KeyRing(SUPERBLOCK.fs_id, None, SystemRandomness())

FILES = int(os.environ.get("S3CFS_TEST_FILES", "1000000"))
CHUNKS = int(os.environ.get("S3CFS_TEST_CHUNKS", "10000000"))
BLOCKED_S = 0.05
MOST_MIB = 400


def anonymous_mib() -> float:
    with open("/proc/self/status") as text:
        return next(int(line.split()[1]) / 1024 for line in text if line.startswith("RssAnon:"))


@dataclass
class Phases:
    """What each did to the loop."""

    meter: LoopMeter
    found: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    most_mib: float = 0.0

    def end(self, what: str) -> None:
        self.found[what], self.cpu[what] = self.meter.longest_s, self.meter.most_cpu.cpu_s
        self.most_mib = max(self.most_mib, anonymous_mib())
        print(f"{what:28} {self.meter.report()[:300]}; {anonymous_mib():.0f} MiB", flush=True)
        self.meter.reset()


@asynccontextmanager
async def mounted(path: Path, backend: Backend) -> AsyncIterator[Node]:
    doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(str(path)))
    options = NodeOptions(commits=Options(commit_interval_s=5.0))
    async with open_node(doors, backend, KEYRING, SUPERBLOCK, options) as node:
        yield node


async def found(node: Node, grown: Grown, number: int) -> tuple[int, int]:
    """(inode of the folder, of the file)"""
    top = await node.vfs.lookup(1, b"grown")
    assert top is not None
    folder, name = grown.path(number)
    parent = await node.vfs.lookup(top.ino, folder)
    assert parent is not None
    inode = await node.vfs.lookup(parent.ino, name)
    assert inode is not None
    return parent.ino, inode.ino


async def look_around(node: Node, grown: Grown, rng: random.Random) -> None:
    for _ in range(3000):
        _, ino = await found(node, grown, rng.randrange(grown.files))
        await node.vfs.getattr(ino)
        await node.meta.extents(ino, 0, 1 << 40)
        await trio.lowlevel.checkpoint()
    for _ in range(5):
        parent, _ = await found(node, grown, rng.randrange(grown.files))
        handle, cookie, names = await node.vfs.opendir(parent), 0, 0
        while rows := await node.vfs.readdir(handle, cookie, 500):
            names, cookie = names + len(rows), rows[-1][2]
            await trio.lowlevel.checkpoint()
        assert names == min(FILES_A_FOLDER, grown.files)


async def write_files(node: Node, parent: int, tag: bytes, rng: random.Random, count: int, size: int) -> None:
    """Some of them twice: the second time all is found."""
    for number in range(count):
        data = random.Random(rng.randrange(count) if number % 2 else number).randbytes(size)
        made = await node.vfs.create(parent, b"%s-%d" % (tag, number), 0o644, ROOT_CALLER)
        for at in range(0, size, 131072):
            await node.vfs.write(made.ino, at, data[at:at + 131072])
        await node.vfs.release(made.ino)
        await trio.lowlevel.checkpoint()


async def remove_files(node: Node, grown: Grown, count: int) -> None:
    for number in range(count):
        parent, _ = await found(node, grown, number)
        await node.vfs.unlink(parent, grown.path(number)[1])
        await trio.lowlevel.checkpoint()


async def until_swept(node: Node) -> None:
    while node.meta.has_trash:
        await node.doors.clock.sleep(0.05)


def test_nothing_blocks_the_loop(tmp_path: Path) -> None:
    path = Path(os.environ.get("S3CFS_TEST_GROWN") or tmp_path / "state")
    store = tmp_path / "store"
    store.mkdir()
    backend = LocalBackend(str(store))

    async def first() -> None:
        async with mounted(path, backend) as node:
            await write_files(node, 1, b"before", random.Random(0), 20, 300_000)
            large = await node.vfs.create(1, b"large", 0o644, ROOT_CALLER)
            for number in range(20_000):                        # many extents: a sweep
                await node.vfs.write(large.ino, number * 65536, b"%d" % number * 300)
            await node.vfs.release(large.ino)
            await node.flush()

    trio.run(first)
    doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(str(path)))
    grown = grow(doors, DATABASE, KEYRING.database_key(), FILES, CHUNKS)
    give_back()
    keep_the_start()
    print(f"\n{grown}: {(path / DATABASE).stat().st_size >> 20} MiB", flush=True)

    async def main() -> Phases:
        rng = random.Random(1)
        async with measure() as meter:
            phases = Phases(meter)
            async with mounted(path, backend) as node:
                phases.end("open")
                for _ in range(3):
                    said = await status(node, url="", mountpoint="", started=0.0)
                    state_of(node)
                assert said["data"]["chunks"] is None or said["data"]["chunks"] >= grown.chunks
                phases.end("stat")
                await look_around(node, grown, rng)
                phases.end("lookups, listings")
                await write_files(node, 1, b"small", rng, 3000, 4000)
                await node.vfs.fsyncdir(1)
                phases.end("small files, transactions")
                await write_files(node, 1, b"large", rng, 60, 3_000_000)
                await node.vfs.fsyncdir(1)
                phases.end("large files, deduplication")
                await node.flush()
                phases.end("commit")
                await remove_files(node, grown, 4000)
                await node.vfs.fsyncdir(1)
                phases.end("removal of 4000 files")
                await node.vfs.unlink(1, b"large")
                await until_swept(node)
                await node.flush()
                phases.end("sweep of 20,000 extents")
                node.meta.mark_bad(grown.first_chunk + grown.chunks // 2)
                await node.vfs.fsyncdir(1)
                node.damage._pending[grown.first_chunk + grown.chunks // 2] = ("", "", "damaged")
                await node.damage._name_files(node.damage._pending)
                assert node.damage.last
                phases.end("names of damaged files")
            phases.end("unmount")
        return phases

    phases = trio.run(main)
    assert max(phases.cpu.values()) < BLOCKED_S, phases.cpu          # whatever else the machine does
    late = {what: round(longest_s, 3) for what, longest_s in phases.found.items() if longest_s > BLOCKED_S and what != "unmount"}
    assert not late, late
    assert phases.most_mib < MOST_MIB
