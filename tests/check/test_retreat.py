"""Damage of the newest records of the log: fsck goes back to the newest whole state, says what that costs, and overwrites nothing."""
from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from s3cfs import ids
from s3cfs.app.host import process_alive, this_host
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.doors import Doors
from s3cfs.errors import Damaged, Deposed, Diverged
from s3cfs.formats import record
from s3cfs.limits import Limits
from s3cfs.vfs.types import ROOT_CALLER
from tests.check.kit import World, doors

DEAD = replace(this_host(), pid=1 << 22, start_ticks=1)          # a process of this machine that is no more: nobody waits for it


@pytest.fixture(params=[True, False], ids=["T1", "T2"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Commits that make one, two, three and four, and a RELEASE."""
    made = World.make(MemoryBackend(create_only=request.param), tmp_path)
    made.content = {"/one": b"1", "/two": b"2", "/three": b"3", "/four": b"4"}

    async def work(node: Node) -> None:
        for name, data in made.content.items():
            await made.write(node, 1, name[1:].encode(), data)
            await node.flush()
    made.local = made.on_node(work, host=DEAD)                  # type: ignore[attr-defined]
    return made


def commits(world: World) -> list[str]:
    """Keys of the four commits that made a file."""
    found = []
    for key in world.log():
        one = record.decode(world.backend.get(key), ids.parse_log_key(key)[3], world.keyring.sealer("record", 0))
        if one.kind is record.Kind.COMMIT and one.changeset:
            found.append(key)
    return found[-4:]


async def names(node: Node) -> list[str]:
    return sorted(name.decode() for name, _ in await node.meta.children(1, 0, 100))


def seen_elsewhere(world: World) -> list[str]:
    """What a machine without local state mounts, and may change."""
    found: list[str] = []

    async def work(node: Node) -> None:
        found.extend(await names(node))
        await world.write(node, 1, b"later", b"l")
        await node.flush()
        await node.vfs.unlink(1, b"later")
    world.on_node(work, host=DEAD)
    return found


async def nothing(node: Node) -> None:
    """Mount, and unmount."""


def unreadable(world: World) -> None:
    with pytest.raises(Damaged):
        world.on_node(nothing, read_only=True)


def spoil(world: World, key: str) -> None:
    """More than one bit."""
    world.flip(key, 300)
    world.flip(key, 301)


@pytest.mark.parametrize("which", [1, 2, 4, 6])
def test_one_flipped_bit_of_a_small_record_costs_nothing(world: World, which: int) -> None:
    """Whatever record it is: a bit more is known of it than of one that is gone."""
    key = world.log()[-which]
    world.flip(key, 300)
    unreadable(world)
    checked = world.fsck(full=True)
    assert checked.code == 4 and checked.names(key, "nothing is lost") and not checked.names("gives up")
    assert world.fsck(full=True, repair=True).code == 1
    assert seen_elsewhere(world) == ["four", "one", "three", "two"]
    assert world.fsck(full=True).code == 0


def test_the_newest_record_was_a_mere_release(world: World) -> None:
    release = world.log()[-1]
    spoil(world, release)
    unreadable(world)
    checked = world.fsck(full=True)
    assert checked.code == 4 and checked.names(release, "newest whole state is commit", "gives up 1 records")
    assert checked.names("given up by going back", "what it held is not known")
    mended = world.fsck(full=True, repair=True)
    assert mended.code == 1 and any("goes on from commit" in line.text for line in mended.lines)
    assert seen_elsewhere(world) == ["four", "one", "three", "two"]
    again = world.fsck(full=True)
    assert again.code == 0 and any(release in note and "a repair went back" in note for note in again.notes)


@pytest.mark.parametrize("bits", [1, 2])
def test_the_newest_record_is_that_of_a_taker_who_died_at_once(world: World, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under T1 a SEAL, which alone names the folder that is current. Under T2 nothing says who it was: silence is waited for."""
    monkeypatch.setattr(sys.modules["s3cfs.app.fsck"], "Doors", partial(Doors, limits=Limits(takeover_silence_s=0.1)))
    world.on_node(nothing, host=DEAD)
    world.backend.delete(world.log()[-1])                    # what that mount signed off with
    taken = world.log()[-1]
    for at in range(bits):
        world.flip(taken, 300 + at)
    unreadable(world)
    assert world.fsck(repair=True).code == 1
    assert seen_elsewhere(world) == ["four", "one", "three", "two"] and world.fsck(full=True).code == 0


@pytest.mark.parametrize("how", ["spoil", "missing"])
def test_a_record_in_the_middle_costs_what_came_after_it(world: World, how: str) -> None:
    third, fourth = commits(world)[2:]
    if how == "spoil":
        spoil(world, third)
    else:
        world.backend.delete(third)
    checked = world.fsck()
    assert checked.code == 4 and checked.names(third, "goes back to it")
    assert checked.names("given up", "1 names made ('four')") and checked.names("given up", f"record {ids.parse_log_key(third)[3]}")
    assert not checked.names("given up", "'two'")
    assert world.fsck(repair=True).code == 1
    assert seen_elsewhere(world) == ["one", "two"] and world.fsck(full=True).code == 0
    assert fourth in world.log()


def test_nothing_is_given_up_when_nobody_looks_on(world: World) -> None:
    spoil(world, commits(world)[2])
    checked = world.fsck(repair=True, automatic=True)
    assert checked.code == 4 and checked.new_objects == 0 and any("nothing was repaired" in note for note in checked.notes)
    assert world.fsck(repair=True).code == 1


def test_the_first_record_that_says_anything(world: World) -> None:
    spoil(world, commits(world)[0])
    assert world.fsck(repair=True).code == 1 and seen_elsewhere(world) == [] and world.fsck(full=True).code == 0


@pytest.mark.parametrize("full", [False, True])
def test_a_machine_that_has_seen_the_newest_record_loses_nothing(world: World, full: bool) -> None:
    local = world.local                                          # type: ignore[attr-defined]
    newest = world.log()[-1]
    spoil(world, newest)
    checked = world.fsck(local=local, full=full)
    assert checked.code == 4 and checked.names(newest, "nothing is lost")
    assert world.fsck(local=local, full=full, repair=True).code == 1
    assert seen_elsewhere(world) == ["four", "one", "three", "two"]
    assert world.fsck().code == 0


def test_a_machine_that_has_seen_what_was_given_up_is_told_so(world: World) -> None:
    """And keeps it: it may be the only place where it is."""
    local = world.local                                          # type: ignore[attr-defined]
    spoil(world, commits(world)[2])
    assert world.fsck(repair=True).code == 1
    with pytest.raises(Diverged, match="a repair went back"):
        world.on_node(nothing, local, host=DEAD)


def test_the_writer_that_was_gone_past_is_deposed(world: World) -> None:
    """It lives, and its newest record is damaged in the store: whoever goes back past it must stop it as any taker would."""
    other = world.folder()

    async def main() -> None:
        options = NodeOptions(host=replace(DEAD, pid=DEAD.pid + 1), process_alive=process_alive)
        async with open_node(doors(other), world.backend, world.keyring, world.superblock, options) as node:
            await world.write(node, 1, b"five", b"5")
            await node.flush()
            spoil(world, world.log()[-1])
            assert (await trio.to_thread.run_sync(lambda: world.fsck(repair=True))).code == 1
            await node.vfs.create(1, b"six", 0o644, ROOT_CALLER)
            with pytest.raises(Deposed):
                await node.flush()
    with pytest.raises(Deposed):                          # it says so at its end, too
        trio.run(main)
    assert seen_elsewhere(world) == ["four", "one", "three", "two"] and world.fsck(full=True).code == 0


def test_a_living_writer_is_not_gone_past(world: World) -> None:
    """One that is known to live, since it is of this machine."""
    async def five(node: Node) -> None:
        await world.write(node, 1, b"five", b"5")

    world.on_node(five)                                                        # by this very process
    spoil(world, world.log()[-1])
    checked = world.fsck(repair=True)
    assert checked.code == 12 and checked.names("is mounted by process")
    assert checked.new_objects == 0
