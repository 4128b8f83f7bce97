"""What becomes of a store's nature when a filesystem is made and opened there."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs.app.make import mkfs
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.app.superblocks import read_superblock
from s3cfs.backends.base import Backend, Body, Capabilities, Degraded
from s3cfs.backends.layer import Call, Layer
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.wrapper import Wrapper
from s3cfs.config import Settings
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import FilesystemExists, StoreError
from s3cfs.formats import superblock
from s3cfs.formats.superblock import Superblock
from s3cfs.history.office import Tier
from s3cfs.limits import DEFAULTS, KIB, MIB
from s3cfs.remote import Remote
from tests.backends.face import Small, some_doors


class Nature(Wrapper):
    """A store of any nature; `assumed` tells in which order it was told and asked."""

    def __init__(self, **nature: Any) -> None:
        super().__init__(MemoryBackend(create_only=False))
        self.nature, self.asked = nature, list[str]()

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, **self.nature)

    def assume_linearizable(self, holds: bool) -> None:
        self.asked.append(f"linearizable {holds}")
        self.nature["linearizable"] = holds

    def folders(self, prefix: str) -> Any:
        self.asked.append(f"folders {prefix}")
        return self.inner.folders(prefix)


def made(backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Superblock:
    monkeypatch.setattr("s3cfs.app.store.open_store", lambda settings, **how: backend)
    mkfs(Settings("memory://here", str(tmp_path)), label="", plain=True, passphrase=None, show=lambda result: None)

    async def read() -> Superblock:
        return await read_superblock(Remote(backend, some_doors()))

    return trio.run(read)


def opened(backend: Backend, found: Superblock, folder: Path, **options: Any) -> Node:
    async def main() -> Node:
        doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(str(folder)))
        async with open_node(doors, backend, superblock.unlock(found, random=SystemRandomness()), found, NodeOptions(**options)) as node:
            return node

    return trio.run(main)


def test_a_small_largest_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = Small(MemoryBackend(), MIB)
    found = made(small, monkeypatch, tmp_path)
    assert (found.chunk_min, found.chunk_avg, found.chunk_max) == (32 * KIB, 128 * KIB, 512 * KIB)
    limits = opened(small, found, tmp_path / "state").doors.limits
    assert limits.pack_target_bytes < MIB // 2 and limits.record_max_bytes < MIB


def test_most_stores_have_the_usual_bounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = MemoryBackend()
    found = made(backend, monkeypatch, tmp_path)
    assert found.chunk_max == DEFAULTS.chunk_max_bytes
    assert opened(backend, found, tmp_path / "state").doors.limits == DEFAULTS


def test_whoever_vouches_says_so_before_anything_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that what the store does not show yet is waited for from the first look on."""
    backend = Nature(linearizable=None)
    found = made(backend, monkeypatch, tmp_path)
    backend.asked.clear()
    node = opened(backend, found, tmp_path / "state", sole_writer=True)
    assert node.writer is not None and node.writer.tier is Tier.SOLE
    assert backend.asked[0] == "linearizable False" and backend.asked.count("linearizable False") == 1 and len(backend.asked) > 1


def test_no_filesystem_is_made_over_one_that_is_not_shown_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There nothing would refuse to overwrite it."""
    class Late(Nature):
        hidden = 3

        def list(self, prefix: str) -> Any:
            if prefix == "super/" and self.hidden:
                self.hidden -= 1
                return iter(())
            return self.inner.list(prefix)

    monkeypatch.setattr("s3cfs.app.superblocks.LATE_PAUSE_S", 0.0)
    backend = Late(linearizable=False)
    made(backend, monkeypatch, tmp_path)
    before = dict(backend.inner._objects)           # type: ignore[attr-defined]
    backend.hidden = 3
    with pytest.raises(FilesystemExists):
        made(backend, monkeypatch, tmp_path)
    assert backend.inner._objects == before         # type: ignore[attr-defined]


def test_layers_work_from_before_the_first_request_until_after_the_sign_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    events: list[str] = []

    class Noted(Layer):
        name = "noted"

        async def run(self) -> None:
            events.append("begins")
            try:
                await trio.sleep_forever()
            finally:
                events.append("ends")

        async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
            events.append(f"put {key.partition('/')[0]}")
            return await self.below.put(key, data, only_if_absent, call)

        async def folders(self, prefix: str, call: Call) -> list[str]:
            events.append("look")
            return await self.below.folders(prefix, call)

    class Layered(Nature):
        def layers(self) -> Sequence[Layer]:
            return [Noted()]

    backend = Layered()
    found = made(backend, monkeypatch, tmp_path)
    events.clear()
    node = opened(backend, found, tmp_path / "state")
    assert events[0] == "begins" and events[-2:] == ["put log", "ends"] and "look" in events
    assert node.commits.writing is not None and node.commits.writing.logbook.signed_off


def test_a_filesystem_lives_where_nothing_is_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Claims and what was tried stay, and are overlooked."""
    class Keeps(Nature):
        def delete(self, key: str) -> None:
            raise StoreError("delete", key, "403: no right to delete")

        def delete_many(self, keys: Any) -> None:
            for key in keys:
                self.delete(key)

    backend = Keeps(may_delete=False)
    found = made(backend, monkeypatch, tmp_path)
    for number in range(3):
        node = opened(backend, found, tmp_path / f"state{number}")
        assert node.writer is not None and node.writer.tier is Tier.T2 and node.writer.epoch == number + 1
    assert len(list(backend.list("claim/"))) == 3
