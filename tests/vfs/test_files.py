"""File content against plain bytearrays: random writes, truncations, reads, fsyncs and reopenings, with staging at every size.

The bounds are made small, so that a few hundred KiB go through every way there is: inline files, overlay chunks, slices, undecided
ends, spooling, holes, appends to short tails. Afterwards the store alone must give the same files.
"""
from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.formats import superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.limits import Limits
from s3cfs.vfs import stage as stage_module
from s3cfs.vfs.types import ROOT_CALLER, SetAttr

SUPERBLOCK = superblock.create("test", SystemRandomness(), True, 4096, 16384, 65536, None, now_ns=0)[0]
KEYRING = KeyRing(SUPERBLOCK.fs_id, bytes(range(32)), SystemRandomness())


BOUNDS = Limits(stage_run_bytes=128 << 10, overlay_run_max_bytes=3000, pack_target_bytes=1 << 20, stage_slice_bytes=200_000)


@pytest.fixture(autouse=True)
def little_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "INLINE_WORK_BYTES", 8192)


def doors(path: Path) -> Doors:
    return Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(str(path)), BOUNDS)


class Driver:
    """Random operations on a few files; `content` is what they must hold."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node, self.rng = node, random.Random(seed)
        self.content: dict[int, bytearray] = {}
        self.open: set[int] = set()

    async def step(self) -> None:
        rng, vfs = self.rng, self.node.vfs
        if not self.content or (rng.random() < 0.03 and len(self.content) < 6):
            made = await vfs.create(1, b"file%d" % len(self.content), 0o644, ROOT_CALLER)
            self.content[made.ino] = bytearray()
            self.open.add(made.ino)
        ino = rng.choice(list(self.content))
        data = self.content[ino]
        if ino not in self.open:
            await vfs.open(ino, 2)
            self.open.add(ino)
        what = rng.choices(["write", "append", "truncate", "read", "fsync", "close", "flush", "zeros", "check"],
                           [10, 8, 3, 8, 2, 4, 1, 2, 1])[0]
        if what in ("write", "append", "zeros"):
            size = rng.choice([1, 100, 511, 4096, 5000, 70_000, 300_000]) if rng.random() < 0.7 else rng.randrange(1, 9000)
            offset = len(data) if what == "append" else rng.randrange(0, max(1, len(data) * 5 // 4 + 10))
            offset = min(offset, 1_500_000)
            new = bytes(size) if what == "zeros" else rng.randbytes(min(size, 3000)) * (size // min(size, 3000) + 1)
            new = new[:size]
            if len(data) < offset:
                data.extend(bytes(offset - len(data)))
            data[offset:offset + size] = new
            position = 0
            while position < size:      # as the kernel does: in pieces
                piece = new[position:position + 50_000]
                assert await vfs.write(ino, offset + position, piece) == len(piece)
                position += len(piece)
        elif what == "truncate":
            size = rng.choice([0, 10, 512, 513, len(data), rng.randrange(0, len(data) * 2 + 1000)])
            await vfs.setattr(ino, SetAttr(size=size), ROOT_CALLER)
            del data[size:]
            data.extend(bytes(size - len(data)))
        elif what == "read":
            offset = rng.randrange(0, len(data) + 10)
            size = rng.choice([1, 4096, 131072, 2_000_000])
            assert await vfs.read(ino, offset, size) == bytes(data[offset:offset + size])
        elif what == "fsync":
            await vfs.fsync(ino)
        elif what == "close":
            await vfs.flush(ino)
            await vfs.release(ino)
            self.open.discard(ino)
        elif what == "flush":
            await self.node.flush()
        else:
            assert (await vfs.getattr(ino)).size == len(data)
        if rng.random() < 0.2:
            await trio.lowlevel.checkpoint()

    async def compare(self) -> None:
        for ino, data in self.content.items():
            assert (await self.node.vfs.getattr(ino)).size == len(data)
            assert await self.node.vfs.read(ino, 0, len(data) + 1) == bytes(data)


@pytest.mark.parametrize("seed", range(12))
def test_content_equals_bytearrays(seed: int, tmp_path: Path) -> None:
    backend = MemoryBackend("content")

    async def first() -> dict[int, bytearray]:
        options = NodeOptions(pool_bytes=600_000 if seed % 2 else 10_000_000, decoded_bytes=100_000 if seed % 3 else 10_000_000)
        async with open_node(doors(tmp_path / "one"), backend, KEYRING, SUPERBLOCK, options) as node:
            driver = Driver(node, seed)
            for _ in range(250):
                await driver.step()
            await driver.compare()
            for ino in driver.open:
                await node.vfs.release(ino)
            await node.flush()
            await driver.compare()
            assert (node.commits.lag_s(), node.commits.lag_bytes()) == (0.0, 0)
            return driver.content

    async def second(expected: dict[int, bytearray]) -> None:
        async with open_node(doors(tmp_path / "two"), backend, KEYRING, SUPERBLOCK, NodeOptions()) as node:
            for ino, data in expected.items():
                assert (await node.vfs.getattr(ino)).size == len(data)
                assert await node.vfs.read(ino, 0, len(data) + 1) == bytes(data)
            assert not list(node.meta.audit.problems())

    expected = trio.run(first)
    trio.run(second, expected)
