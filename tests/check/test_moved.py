"""A filesystem that was made where objects may be large, on a store where they may not: it lives on in pieces."""
from __future__ import annotations

from pathlib import Path

import pytest

from s3cfs.app.node import Node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.pieces import FOLDER, HEAD_BYTES
from tests.backends.face import Face, Small

from .kit import KIB, World

LARGEST = 40 * KIB                   # below a chunk of 256 KiB


@pytest.fixture
def moved(tmp_path: Path) -> World:
    world = World.make(MemoryBackend(), tmp_path)
    world.fill()
    store = MemoryBackend()
    face = Face(Small(store, LARGEST))
    try:
        for info in world.backend.list(""):
            face.put(info.key, world.backend.get(info.key))
    finally:
        face.close()
    world.backend = Small(store, LARGEST)
    assert any(info.key.startswith(FOLDER) for info in store.list(""))
    return world


def test_it_is_read_and_written_there(moved: World) -> None:
    assert moved.read_everything() == moved.content
    new = bytes(range(256)) * 3000

    async def work(node: Node) -> None:
        await moved.write(node, 1, b"new", new)

    moved.on_node(work)
    moved.content["/new"] = new
    assert moved.read_everything() == moved.content
    assert max(info.size for info in moved.backend.list("")) <= LARGEST
    assert moved.fsck(full=True).code == 0


def test_damage_in_a_piece_is_damage_of_its_object(moved: World) -> None:
    large = next(info.key for info in moved.backend.list("pack/") if info.size == HEAD_BYTES)
    head = moved.backend.get(large)
    token = head[28:44].hex()                          # format.md, "Objects in pieces"
    moved.flip(f"{FOLDER}{token}/1", 5000)
    found = moved.fsck(full=True)
    assert found.code == 4 and any(line.object == large for line in found.lines)
    moved.flip(f"{FOLDER}{token}/1", 5000)
    assert moved.fsck(full=True).code == 0
    moved.backend.delete(f"{FOLDER}{token}/1")
    found = moved.fsck(full=True)
    assert found.code == 4 and any(line.object == large for line in found.lines)
