"""`s3cfs probe`: the verdict about a store that changed, and mounts that go by the note."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from s3cfs.app import probe
from s3cfs.app.make import mkfs
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.app.store import unlock
from s3cfs.app.superblocks import read_superblock
from s3cfs.backends.base import Capabilities, ObjectInfo
from s3cfs.backends.memory import MemoryBackend
from s3cfs.config import Settings
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import AlreadyMounted, Unsupported
from s3cfs.history.log import Host
from s3cfs.history.office import Tier
from s3cfs.vfs.types import ROOT_CALLER
from tests.remote.kit import ask


@dataclass
class Place:
    """A store that can be switched from T1 to T2 and back, as when a bucket moves to another server."""

    tmp: str
    backend: MemoryBackend
    mounts: int = 0

    def settings(self) -> Settings:
        return Settings("memory://here", self.tmp)

    def is_t1(self, yes: bool) -> None:
        self.backend._create_only = yes

    def mount(self, work: Callable[[Node], Awaitable[None]], **options: object) -> Tier:
        """From the store alone, each time."""
        self.mounts += 1
        found = ask(self.backend, read_superblock)
        doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(f"{self.tmp}/{self.mounts}"))
        made = NodeOptions(host=Host(f"boot-{self.mounts}", "ns", 1, 1, "host"), **options)  # type: ignore[arg-type]
        tiers: list[Tier] = []

        async def main() -> None:
            async with open_node(doors, self.backend, unlock(found, self.settings()), found, made) as node:
                assert node.writer is not None
                tiers.append(node.writer.tier)
                await work(node)
        trio.run(main)
        return tiers[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(str(tmp_path), MemoryBackend())
    for module in ("store", "verdict"):
        monkeypatch.setattr(f"s3cfs.app.{module}.open_store", lambda settings, **how: made.backend)
    mkfs(made.settings(), label="", plain=True, passphrase=None, show=lambda result: None)
    return made


async def nothing(node: Node) -> None: ...


def writes(name: bytes) -> Callable[[Node], Awaitable[None]]:
    async def work(node: Node) -> None:
        await node.vfs.create(1, name, 0o644, ROOT_CALLER)
        await node.flush()
    return work


@pytest.mark.parametrize("first", [True, False])
def test_a_store_that_changed(place: Place, first: bool) -> None:
    before, after = (Tier.T1, Tier.T2) if first else (Tier.T2, Tier.T1)
    place.is_t1(first)
    assert probe(place.settings(), takeover=False).before is None, "nobody has mounted it yet: the first mount notes it"
    assert place.mount(writes(b"one")) is before
    place.is_t1(not first)
    objects = len(place.backend._objects)
    if first:                                              # a promise that is broken: refused, with the way out
        with pytest.raises(Unsupported, match="s3cfs probe"):
            place.mount(nothing)
        assert len(place.backend._objects) == objects
    else:                                                  # a promise that nobody relies on: goes on as it was
        assert place.mount(writes(b"two")) is before
    found = probe(place.settings(), takeover=False)
    assert (found.tier, found.before, found.noted) == (after, before, True)
    assert probe(place.settings(), takeover=False).noted is False
    assert place.mount(writes(b"three")) is after
    names: list[bytes] = []

    async def look(node: Node) -> None:
        handle = await node.vfs.opendir(1)
        names.extend(name for name, _, _ in await node.vfs.readdir(handle, 0, 100))
        await node.vfs.releasedir(handle)
    assert place.mount(look) is after
    assert {b"one", b"three"} <= set(names)


def test_nothing_is_noted_beside_a_mount(place: Place) -> None:
    async def beside(node: Node) -> None:
        place.is_t1(False)
        try:
            with pytest.raises(AlreadyMounted):
                await trio.to_thread.run_sync(lambda: probe(place.settings(), takeover=False))
        finally:
            place.is_t1(True)
    assert place.mount(beside) is Tier.T1


class Late(MemoryBackend):
    """A store that cannot refuse to overwrite, and whose listings lag behind; nobody says so."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, linearizable=None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter([info for info in super().list(prefix) if "here/key" not in info.key])


def test_a_store_of_neither_tier_is_noted(place: Place) -> None:
    """From then on mounts refuse it, but for one that its owner vouches for."""
    place.is_t1(True)
    assert place.mount(writes(b"one")) is Tier.T1
    late = Late(create_only=False)
    late._objects = place.backend._objects
    place.backend = late
    found = probe(place.settings(), takeover=False)
    assert (found.tier, found.before, found.noted) == (Tier.SOLE, Tier.T1, True)
    assert found.found.stale and "`list` saw nothing" in found.found.stale[0]
    with pytest.raises(Unsupported, match="--sole-writer"):
        place.mount(nothing)
    assert place.mount(writes(b"two"), sole_writer=True) is Tier.SOLE
    assert probe(place.settings(), takeover=False).noted is False


class Hides(MemoryBackend):
    """Its listings have no claims in them, as after a put into a folder that is taken away at that moment (`rclone serve s3`)."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter([info for info in super().list(prefix) if not info.key.startswith("claim/")])


def test_a_claim_that_is_not_seen_is_none(place: Place) -> None:
    hides = Hides(create_only=False)
    hides._objects = place.backend._objects
    place.backend = hides
    with pytest.raises(Unsupported, match="does not list what it has just stored"):
        place.mount(nothing)


def test_the_terminal_is_told_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "s3cfs", "probe", "--quiet", f"local://{tmp_path}/store"]
    try:
        assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs).returncode == 0
        command.remove("--quiet")
        assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs).returncode == 0
        said = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert re.match("\r(races|looking|deletions)[a-z ,]*: [0-9]+ steps of 28 steps", said), said
