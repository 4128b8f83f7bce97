"""fsck with local state: what waits there is part of the filesystem, what is wrong there is told from what is wrong in the store."""
from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from s3cfs.app.host import this_host
from s3cfs.app.node import Node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.history.office import Takeover
from s3cfs.meta.database import connect
from tests.check.kit import KIB, World, doors


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(MemoryBackend("local state"), tmp_path)


class Killed(Exception):
    pass


def killed_with_unsent_data(world: World, state: Path) -> Path:
    """A file of 100 KiB is durable on this machine and not in the store."""
    rng = random.Random(3)
    new = {"/unsent": rng.randbytes(50 * KIB), "/unsent2": rng.randbytes(50 * KIB)}

    async def work(node: Node) -> None:
        for path, data in new.items():
            await world.write(node, 1, path[1:].encode(), data)
        await node.files.stage_all()
        await node.commits.durable()
        raise Killed
    with contextlib.suppress(BaseExceptionGroup):
        world.on_node(work, state, host=replace(this_host(), start_ticks=1))       # a process of this machine that is dead
    world.content |= new
    return state


def sql(world: World, state: Path, statement: str) -> None:
    """Straight into the file, past the session that would record it."""
    connection = connect(doors(state), "meta.db", world.keyring.database_key())
    connection.execute(statement)
    assert connection.changes()
    connection.close()


def journal(state: Path) -> list[Path]:
    return sorted((state / "journal").glob("*.pack"))


# ---------------------------------------------------------------- unsent

def test_unsent_data_is_part_of_it(world: World) -> None:
    state = killed_with_unsent_data(world, world.fill())
    assert journal(state)
    for full in (False, True):
        checked = world.fsck(local=state, full=full)
        assert checked.code == 0 and checked.errors == [] and any("not in the store yet" in note for note in checked.notes)
        assert checked.result.counts["inodes"] == 7
        assert world.fsck(full=full).result.counts["inodes"] == 5                 # the store alone: one state earlier, and whole
    assert world.read_everything(state, read_only=False) == world.content


@pytest.mark.parametrize("how", ["truncate", "remove", "flip"])
def test_unsent_data_that_the_disk_lost(world: World, how: str) -> None:
    state = killed_with_unsent_data(world, world.fill())
    for file in journal(state):
        data = bytearray(file.read_bytes())
        data[3000] ^= 1
        file.write_bytes(bytes(data[:2000] if how == "truncate" else data))
        if how == "remove":
            file.unlink()
    quick, full = world.fsck(local=state), world.fsck(local=state, full=True)
    assert full.code == 4 and full.names("/unsent bytes 0-")
    assert quick.code == (0 if how == "flip" else 4)
    assert world.fsck(full=True).code == 0


def test_repair_brings_unsent_changes_along(world: World) -> None:
    state = world.fill()
    key = world.pack_of("/big")
    killed_with_unsent_data(world, state)
    world.backend.delete(key)
    assert world.fsck(local=state, repair=True).code == 1
    assert world.read_everything() == world.content
    checked = world.fsck(local=state, full=True)
    assert checked.code == 0 and checked.lines == []


# ---------------------------------------------------------------- rows

@pytest.mark.parametrize(("statement", "word"), [
    ("UPDATE chunk SET refs = 9 WHERE id = 1", "references"),
    ("DELETE FROM dentry WHERE name = x'736d616c6c'", "without a name"),
    ("UPDATE inode SET nlink = 7 WHERE ino = 2", "(/sub)"),
    ("DELETE FROM extent", "differs from what the store holds"),
    ("DELETE FROM pack", "missing pack"),
])
def test_damaged_rows_of_the_local_state_are_made_again_from_the_store(world: World, statement: str, word: str) -> None:
    state = world.fill()
    sql(world, state, statement)
    found = world.fsck(local=state)
    assert found.code == 4 and found.names(word) and found.names("differs from what the store holds")
    assert world.fsck().code == 0
    assert world.fsck(local=state, repair=True).code == 1
    assert world.fsck(local=state, full=True).lines == []
    assert world.fsck(full=True).lines == []                       # and what was wrong here travelled nowhere
    assert world.read_everything(state) == world.content == world.read_everything()


def test_a_difference_that_no_rule_forbids_is_found_by_full(world: World) -> None:
    state = world.fill()
    sql(world, state, "UPDATE inode SET mtime_ns = 5 WHERE ino = 3")
    assert world.fsck(local=state).code == 0
    found = world.fsck(local=state, full=True)
    assert found.code == 4 and found.names("differs from what the store holds")
    assert world.fsck(local=state, full=True, repair=True).code == 1
    assert world.fsck(local=state, full=True).code == 0


def test_damaged_local_rows_beside_unsent_changes_are_left_alone(world: World) -> None:
    state = killed_with_unsent_data(world, world.fill())
    sql(world, state, "UPDATE chunk SET refs = 9 WHERE id = 1")
    checked = world.fsck(local=state, repair=True)
    assert checked.code == 4 and checked.new_objects == 0 and checked.names("references")
    assert (state / "meta.db").exists()


@pytest.mark.parametrize("with_state", [False, True])
def test_wrong_rows_in_the_store_are_mended_by_a_commit(world: World, with_state: bool) -> None:
    """A bug of a writer: every replica has the same wrong rows."""
    async def work(node: Node) -> None:
        node.commits.check_writable()
        node.meta._engine.run("UPDATE chunk SET refs = 9 WHERE id = 1")
        node.meta._engine.run("DELETE FROM dentry WHERE name = ?", (b"small",))
        await node.flush()
    state = world.on_node(work, world.fill())
    local = state if with_state else None
    for full in (False, True):
        found = world.fsck(local=local, full=full)
        assert found.code == 4 and found.names("references") and found.names("without a name") and not found.names("differs")
    assert world.fsck(local=local, repair=True).code == 1
    for folder in (None, state):
        assert world.fsck(local=folder, full=True).lines == []
    del world.content["/small"]
    world.content["/lost+found/5"] = b"hello"
    assert world.read_everything() == world.content


def test_a_problem_of_rows_that_nothing_can_mend(world: World) -> None:
    async def work(node: Node) -> None:
        node.commits.check_writable()
        node.meta._engine.run("UPDATE extent SET coff = 1000000 WHERE ino = 3 AND off = 0")
        await node.flush()
    world.fill()
    world.on_node(work)
    found = world.fsck(repair=True)
    assert found.code == 4 and found.names("beyond the end of chunk", "(/big)")


def test_a_local_database_that_is_no_database(world: World) -> None:
    state = world.fill()
    for file in state.glob("meta.db*"):
        file.write_bytes(b"\x5a" * max(8192, file.stat().st_size))
    checked = world.fsck(local=state, repair=True)
    assert checked.code == 4 and checked.names("the local state cannot be used") and checked.new_objects == 0
    assert any("nothing was repaired" in note for note in checked.notes)
    assert world.fsck().code == 0


def test_local_state_of_another_history(world: World) -> None:
    """Two machines wrote while they did not know of each other."""
    first = killed_with_unsent_data(world, world.fill())

    async def work(node: Node) -> None:
        await world.write(node, 1, b"elsewhere", b"x" * 1000 * KIB)
    second = world.on_node(work, takeover=Takeover.YES)
    assert world.fsck(local=second).code == 0
    checked = world.fsck(local=first)
    assert checked.code == 4 and checked.names("local state cannot be used", "in no commit")


# ---------------------------------------------------------------- office

def test_repair_takes_office_and_signs_off(world: World) -> None:
    state = world.fill()
    world.backend.delete(world.pack_of("/big"))
    records = len(world.log())
    assert world.fsck(local=state).code == 4 and len(world.log()) == records
    assert world.fsck(local=state, repair=True).code == 1 and len(world.log()) > records

    async def nothing(node: Node) -> None: ...
    world.on_node(nothing)                                     # would wait for 30 s if the last writer had not signed off


def test_repair_beside_a_mount(world: World) -> None:
    """Somebody is in office: everything is looked at, nothing is mended."""
    world.fill()
    world.backend.delete(world.pack_of("/big"))

    async def work(node: Node) -> None:
        raise Killed
    with contextlib.suppress(BaseExceptionGroup):
        world.on_node(work)
    checked = world.fsck(repair=True)
    assert checked.code == 4 + 8 and checked.new_objects == 0 and checked.names("the repair could not be made", "mounted by process")
