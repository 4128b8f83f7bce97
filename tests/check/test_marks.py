"""What a read met is known to a quick check, and forgiven when it turns out to be whole."""
from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs.app.node import Node
from s3cfs.backends.base import Body
from s3cfs.backends.memory import MemoryBackend
from s3cfs.blocks import handles
from s3cfs.doors import SystemDisk, SystemFile
from s3cfs.errors import DataError, Temporary
from tests.check.kit import BIG, World


def damaged_and_met(tmp_path: Path) -> tuple[World, str, bytes]:
    """/big has a damaged chunk, and a mount has read it."""
    world = World.make(MemoryBackend("marks"), tmp_path)
    world.fill()
    key = world.pack_of("/big")
    whole = world.backend.get(key)
    world.flip(key, BIG // 2)

    async def read(node: Node) -> None:
        inode = await node.vfs.lookup(1, b"big")
        assert inode is not None
        with pytest.raises(DataError):
            await node.vfs.read(inode.ino, 0, BIG)
        assert node.damage.count == 1

    world.on_node(read)
    return world, key, whole


def test_a_quick_check_names_what_a_read_met(tmp_path: Path) -> None:
    world, key, _ = damaged_and_met(tmp_path)
    quick = world.fsck()
    assert quick.code == 4 and quick.names("damaged: /big bytes") and quick.names("damaged: /sub/link bytes")
    repaired = world.fsck(repair=True)
    assert repaired.code == 4 and any("1 of" in note and "are lost" in note for note in repaired.notes)
    assert world.backend.get(key) and world.fsck().code == 4


@pytest.mark.parametrize("full", [False, True])
def test_what_is_whole_again_is_forgiven_and_not_written_anew(tmp_path: Path, full: bool) -> None:
    world, key, whole = damaged_and_met(tmp_path)
    world.overwrite(key, whole)                              # as after a backup was played back
    packs = world.keys("pack/")
    checked = world.fsck(full=full, repair=True)
    assert checked.code == 1 and world.keys("pack/") == packs
    if full:
        assert checked.names("1 of its chunks are known as damaged, and are whole") and not checked.names("/big")
    assert world.fsck().code == 0 == world.fsck(full=True).code
    assert world.read_everything() == world.content


def test_a_mark_on_what_no_file_uses_is_no_problem_of_a_quick_check(tmp_path: Path) -> None:
    world, _, _ = damaged_and_met(tmp_path)

    async def remove(node: Node) -> None:
        sub = await node.vfs.lookup(1, b"sub")
        assert sub is not None
        await node.vfs.unlink(1, b"big")
        await node.vfs.unlink(sub.ino, b"link")

    world.on_node(remove)
    assert world.fsck().code == 0


class Away(MemoryBackend):
    """Takes nothing while it is away."""

    away = False

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        if self.away:
            raise Temporary("put", key, "away")
        super().put(key, data, only_if_absent)


class BadSector:
    """A file of the journal, a byte of which cannot be read."""

    def __init__(self, inner: SystemFile, at: int) -> None:
        self._inner, self._at = inner, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def pread(self, size: int, offset: int) -> bytes:
        if offset <= self._at < offset + size:
            raise OSError(errno.EIO, "a bad sector")
        return self._inner.pread(size, offset)


def test_an_unsent_pack_that_cannot_be_read_is_given_up_by_a_full_repair_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Away("bad sector")
    world, state = World.make(store, tmp_path), tmp_path / "state"
    rng = random.Random(5)
    world.content = {"/one": rng.randbytes(9000), "/two": rng.randbytes(9000)}

    async def killed(node: Node) -> None:
        store.away = True
        for path, data in world.content.items():
            await world.write(node, 1, path[1:].encode(), data)
        await node.vfs.fsyncdir(1)
        with trio.move_on_after(1.0):
            await node.flush()
        raise KeyError

    with pytest.raises(BaseExceptionGroup):
        world.on_node(killed, state)
    store.away = False
    assert [name for name in (state / "journal").iterdir() if name.suffix == ".pack"]
    real = SystemDisk.open

    def damaged_open(disk: SystemDisk, path: str, *, create: bool = False) -> Any:
        file = real(disk, path, create=create)
        return BadSector(file, 500) if path.endswith("/1.pack") and not create else file

    monkeypatch.setattr(SystemDisk, "open", damaged_open)
    monkeypatch.setattr(handles, "PAUSE_S", 0.0001)
    assert world.fsck(local=state).code == 0                            # quick does not read the journal
    full = world.fsck(local=state, full=True)
    assert full.code == 4 and full.names("unreadable", "bad sector")
    assert world.fsck(local=state, full=True, repair=True).code == 5
    found = world.read_everything()
    assert sorted((name, value == world.content[name]) for name, value in found.items()) == [("/one", False), ("/two", True)]
    assert "DataError" in found.values()
