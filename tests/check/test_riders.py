"""Packs that ride in records: checked in their place, mended, found without rows, and compared with what local state says."""
from __future__ import annotations

import random
from pathlib import Path

import pytest

from s3cfs import ids
from s3cfs.app.node import Node
from s3cfs.app.opening import DATABASE
from s3cfs.backends.memory import MemoryBackend
from s3cfs.formats import record
from s3cfs.meta import Meta

from .kit import KIB, World, doors
from .test_retreat import DEAD

NAMES = ("one", "two", "three")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three small files, each in a record of its own."""
    world = World.make(MemoryBackend("check"), tmp_path)
    rng = random.Random(5)

    async def fill(node: Node) -> None:
        for name in NAMES:
            data = world.content["/" + name] = rng.randbytes(3 * KIB)
            await world.write(node, 1, name.encode(), data)
            await node.flush()
    world.on_node(fill, world.root / "writer", host=DEAD)
    assert not world.keys("pack/") and len(carriers(world)) == 3
    return world


def carriers(world: World) -> list[tuple[str, record.Rider, int]]:
    found = []
    for key in world.log():
        made = record.decode(world.backend.get(key), ids.parse_log_key(key)[3], world.keyring.sealer("record", 0))
        found += [(key, rider, base) for rider, base in made.bases()]
    return found


@pytest.mark.parametrize("full", [False, True])
def test_whole_ones_are_no_problem(world: World, full: bool) -> None:
    checked = world.fsck(full=full)
    assert checked.code == 0 and not checked.lines
    assert world.fsck(full=full, local=world.root / "writer").code == 0


def test_a_flipped_bit_is_found_in_its_place_and_costs_one_file(world: World) -> None:
    key, rider, base = carriers(world)[1]
    world.flip(key, base + rider.size // 2)
    assert world.fsck().code == 0                                   # sizes are right
    checked = world.fsck(full=True)
    assert checked.names("/two", "damaged") and not checked.names("/one") and checked.names(ids.pack_key(rider.name), key)
    mended = world.fsck(full=True, repair=True)
    assert mended.code == 4 and mended.names("/two")
    assert world.read_everything() == {**world.content, "/two": "DataError"}


def test_local_state_has_it_still(world: World) -> None:
    key, rider, base = carriers(world)[1]
    world.flip(key, base + rider.size // 2)
    mended = world.fsck(full=True, repair=True, local=world.root / "writer")
    assert mended.code == 1
    assert world.read_everything() == world.content and world.fsck(full=True).code == 0


def test_what_is_cut_off_is_found_by_its_size(world: World) -> None:
    key, _, base = carriers(world)[2]
    world.truncate(key, base + 10)
    checked = world.fsck()
    assert checked.names("/three", "damaged") and checked.names("it has 10 bytes")


def test_without_rows_they_are_read_all_the_same(world: World) -> None:
    """The first records cannot be read: nothing can be said of files."""
    key, rider, base = carriers(world)[-1]
    for one in world.log()[:2]:
        world.truncate(one, 300)
    world.flip(key, base + rider.size // 2)
    checked = world.fsck(full=True)
    assert checked.names(key, "pack", "damaged") and checked.names("metadata cannot be read")


def test_local_state_that_names_a_wrong_place_is_found(world: World) -> None:
    local = world.root / "writer"
    meta = Meta.open(doors(local), DATABASE, world.keyring.database_key())
    place = meta.riding()[0]
    meta.note_riding(place.pack, place.key, place.base + 1)
    meta.commit()
    meta.close()
    checked = world.fsck(full=True, local=local)
    assert checked.names("meta.db", "other places than the store")
    assert world.fsck(full=True, local=local, repair=True).code == 1
    assert world.fsck(full=True, local=local).code == 0


def test_going_back_past_a_record_leaves_nothing_that_names_what_rides_in_it(world: World) -> None:
    """The record of the third file, and what came after it, cannot be read."""
    at = world.log().index(carriers(world)[2][0])
    for key in world.log()[at:]:
        world.truncate(key, 300)
    checked = world.fsck(full=True, repair=True)
    assert checked.names("the newest whole state is commit")
    after = world.fsck(full=True)
    assert after.code == 0, after.errors
    del world.content["/three"]
    assert world.read_everything() == world.content

    async def more(node: Node) -> None:
        await world.write(node, 1, b"four", b"four" * KIB)
    world.on_node(more)
    world.content["/four"] = b"four" * KIB
    assert world.read_everything() == world.content and world.fsck(full=True).code == 0
