"""What a read met is known to a quick check, and forgiven when it turns out to be whole."""
from __future__ import annotations

from pathlib import Path

import pytest

from s3cfs.app.node import Node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import DataError
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
