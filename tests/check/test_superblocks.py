"""Two copies of the superblock: what one lost bit does, and how a mount and a repair heal it without overwriting anything."""
from __future__ import annotations

from pathlib import Path

import pytest

from s3cfs.app import superblocks
from s3cfs.app.superblocks import Copies
from s3cfs.backends.base import Backend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import Damaged, NoFilesystem
from s3cfs.formats import superblock
from tests.check.kit import World
from tests.remote.kit import ask


def read_copies(backend: Backend) -> Copies:
    return ask(backend, superblocks.read_copies)


def heal(backend: Backend, copies: Copies) -> list[str]:
    return ask(backend, lambda remote: superblocks.heal(remote, copies))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(MemoryBackend(), tmp_path)


@pytest.mark.parametrize("hit", ["super/1", "super/1.2"])
def test_one_flipped_bit_costs_nothing(world: World, hit: str) -> None:
    world.flip(hit, 100)
    before = world.backend.get(hit)
    copies = read_copies(world.backend)
    assert copies.superblock == world.superblock and (copies.whole, copies.damaged, copies.last) == (1, (hit,), 2)
    assert heal(world.backend, copies) == ["super/1.3"] and world.backend.get(hit) == before
    assert superblock.decode(world.backend.get("super/1.3"), 1) == world.superblock
    again = read_copies(world.backend)
    assert again.whole == 2 and heal(world.backend, again) == []


def test_a_filesystem_of_one_copy_gets_its_second(world: World) -> None:
    world.backend.delete("super/1.2")
    copies = read_copies(world.backend)
    assert copies.whole == 1 and heal(world.backend, copies) == ["super/1.2"] and read_copies(world.backend).whole == 2


def test_all_copies_damaged(world: World) -> None:
    world.backend.put("super/x", b"foreign")
    for key in ("super/1", "super/1.2"):
        world.flip(key, 100)
    with pytest.raises(Damaged, match="super/1"):
        read_copies(world.backend)
    for key in ("super/1", "super/1.2"):
        world.backend.delete(key)
    with pytest.raises(NoFilesystem):
        read_copies(world.backend)


def test_a_copy_that_says_something_else_is_not_counted(world: World) -> None:
    """Whole by its own word, and not the same: one of the two was put there by somebody."""
    forged = superblock.decode(world.backend.get("super/1"), 1)
    other = World.make(MemoryBackend(), world.root).superblock
    world.overwrite("super/1.2", superblock.encode(other))
    copies = read_copies(world.backend)
    assert copies.superblock == forged and copies.damaged == ("super/1.2",)


def test_fsck_says_what_is_left_and_makes_another(world: World) -> None:
    world.fill()
    world.flip("super/1", 100)
    checked = world.fsck()
    assert checked.code == 4 and checked.names("super/1", "one copy of it is left")
    mended = world.fsck(repair=True)
    assert mended.code == 1 and superblock.decode(world.backend.get("super/1.3"), 1) == world.superblock
    again = world.fsck()
    assert again.code == 0 and any("super/1:" in note and "2 whole copies" in note for note in again.notes)
