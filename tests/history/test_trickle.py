"""An hour's trickle, one small commit every five seconds, as the store sees it: at most 1,500 requests and 30 MiB, both ways together."""
from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.app.opening import DATABASE
from s3cfs.backends.recorder import Call
from s3cfs.doors import SystemRandomness
from s3cfs.formats import superblock
from s3cfs.formats.superblock import Argon2Params
from s3cfs.history.log import Host
from s3cfs.limits import DEFAULTS, KIB, MIB
from s3cfs.vfs.types import ROOT_CALLER
from tests.sim.doors import Bucket
from tests.soak.grown import grow

from .kit import Life, Site, write_file

REQUESTS, BYTES = 1500, 30 * MIB
EVERY_S, HOUR_S = 5.0, 3600.0
LISTED_BYTES = 300                       # of an answer, for each object
SUPERBLOCK, KEYS, _ = superblock.create("trickle", SystemRandomness(), False, DEFAULTS.chunk_min_bytes, DEFAULTS.chunk_avg_bytes,
                                        DEFAULTS.chunk_max_bytes, "secret", argon2=Argon2Params(8, 1, 1), now_ns=0)


@dataclass
class Writer:
    """A program that has 4 KiB to say now and then; nothing to be saved by compressing them."""

    node: Node
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    ino: int = 0
    size: int = 0

    def data(self) -> bytes:
        return self.rng.randbytes(4 * KIB)

    async def file(self) -> None:
        """Another file each time."""
        self.size += 1
        await write_file(self.node, b"%d" % self.size, self.data())

    async def append(self) -> None:
        """To a log."""
        await self._write(self.size)
        self.size += 4 * KIB

    async def over(self) -> None:
        """A state that is written anew in its place."""
        await self._write(0)

    async def database(self) -> None:
        """Some page of a file of many."""
        await self._write(4 * KIB * self.rng.randrange(1000))

    async def _write(self, offset: int) -> None:
        vfs = self.node.vfs
        if not self.ino:
            self.ino = await write_file(self.node, b"file", b"")
        await vfs.open(self.ino, 2)
        await vfs.write(self.ino, offset, self.data())
        await vfs.flush(self.ino)
        await vfs.release(self.ino)


def moved(calls: list[Call], site: Site) -> int:
    """Bytes on their way, both ways."""
    total = 0
    for call in calls:
        found = site.bucket.objects.get(call.key, b"")
        match call.operation:
            case "put":
                total += call.size or 0
            case "get":
                total += len(found[call.offset:None if call.size is None else call.offset + call.size])
            case "list":
                total += LISTED_BYTES * (1 + sum(key.startswith(call.key) for key in site.bucket.objects))
    return total


def trickle(create_only: bool, what: Callable[[Writer], Awaitable[None]], files: int = 0) -> tuple[int, int]:
    """(requests, bytes) of an hour, the mount and the end of it not counted."""
    site = Site(limits=DEFAULTS, bucket=Bucket(create_only=create_only))
    options = NodeOptions(host=Host("boot", "ns", 1, 1), process_alive=lambda host: False)
    seen: list[tuple[int, int]] = []

    async def nothing(node: Node) -> None:
        await node.vfs.mkdir(1, b"folder", 0o755, ROOT_CALLER)

    async def an_hour(node: Node) -> None:
        writer, clock = Writer(node), node.doors.clock
        life[0].taken()
        began = clock.monotonic()
        for number in range(int(HOUR_S / EVERY_S)):
            await what(writer)
            await clock.sleep(began + (number + 1) * EVERY_S - clock.monotonic())
        calls = life[0].taken()
        assert node.commits.lag_s() < 2 * EVERY_S and node.commits.commits >= HOUR_S / EVERY_S - 2
        seen.append((len(calls), moved(calls, site)))

    async def main(here: Life, work: Callable[[Node], Awaitable[None]]) -> None:
        life[:] = [here]
        async with open_node(here.doors, here.backend, KEYS, SUPERBLOCK, options) as node:
            await work(node)

    life: list[Life] = []
    site.live(lambda here: main(here, nothing))
    if files:
        async def old(here: Life) -> None:
            grow(here.doors, DATABASE, KEYS.database_key(), files, files)
        site.live(old)
    site.live(lambda here: main(here, an_hour))
    return seen[0]


@pytest.mark.parametrize(("create_only", "what"), [
    (True, Writer.file), (False, Writer.append),
    *[pytest.param(*one, marks=pytest.mark.soak) for one in (
        (True, Writer.append), (True, Writer.over), (True, Writer.database),
        (False, Writer.file), (False, Writer.over), (False, Writer.database))]],
    ids=lambda one: one.__name__ if callable(one) else "T1" if one else "T2")
def test_an_hour_on_a_new_filesystem(create_only: bool, what: Callable[[Writer], Awaitable[None]]) -> None:
    requests, size = trickle(create_only, what)
    print(f"{requests} requests, {size / MIB:.1f} MiB")
    assert requests <= REQUESTS and size <= BYTES


@pytest.mark.soak
@pytest.mark.parametrize("what", [Writer.file, Writer.append])
@pytest.mark.parametrize("create_only", [True, False], ids=["T1", "T2"])
def test_an_hour_on_a_filesystem_of_a_hundred_thousand_files(create_only: bool, what: Callable[[Writer], Awaitable[None]]) -> None:
    requests, size = trickle(create_only, what, 100_000)
    print(f"{requests} requests, {size / MIB:.1f} MiB")
    assert requests <= REQUESTS and size <= BYTES
