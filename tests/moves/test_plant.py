"""A tree is planted as it is, whatever dies on the way; what cannot come is told, and what is there is left alone."""
from __future__ import annotations

import random
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from s3cfs.app.node import Node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import UsageError
from s3cfs.moves import fetching
from s3cfs.moves.plant import MARK, Planted, Planter
from s3cfs.moves.source import Finding, Kind, Thing
from s3cfs.vfs.types import ROOT_CALLER
from tests.check.kit import World
from tests.moves.trees import Killed, Values, add_file, differences, tree_of

KIB = 1024


def values() -> Values:
    """Everything there is: kinds, names, links within and across folders, holes, blocks that occur twice, odd times."""
    rng, things, entries = random.Random(7), dict[int, Thing](), dict[int, list[tuple[bytes, int]]]()

    def thing(mode: int, ino: int, **more: object) -> int:
        times = {"atime_ns": 10**18 + ino, "mtime_ns": -ino, "ctime_ns": 4 * 10**18 + ino}
        things[ino] = Thing(**{"ino": ino, "mode": mode, "uid": 1000 + ino, "gid": 5, "size": 0, **times, **more})  # type: ignore[arg-type]
        return ino

    common, twice = rng.randbytes(40 * KIB), rng.randbytes(30 * KIB)
    data = {10: {0: common, 64 * KIB: twice, 128 * KIB: b"the end"}, 11: {64 * KIB: twice}, 12: {0: common + b"x"}, 13: {0: twice}, 14: {}}
    thing(stat.S_IFDIR | 0o750, 1)
    thing(stat.S_IFDIR | 0o2775, 2)
    thing(stat.S_IFDIR | 0o1777, 3)
    thing(stat.S_IFREG | 0o4755, 10, size=128 * KIB + 7)
    thing(stat.S_IFREG | 0o644, 11, size=300 * KIB, names=3)
    thing(stat.S_IFREG | 0o600, 12, size=40 * KIB)                 # a block that is longer than the file
    thing(stat.S_IFREG | 0o600, 13, size=30 * KIB)
    thing(stat.S_IFREG | 0o444, 14)
    thing(stat.S_IFLNK | 0o777, 20, target=b"../\xff nowhere", size=11, names=2)
    thing(stat.S_IFCHR | 0o666, 21, rdev=0x10203)
    thing(stat.S_IFIFO | 0o622, 22)
    thing(stat.S_IFSOCK | 0o755, 23)
    entries[1] = [(b"sub", 2), (b"big", 10), (b"sparse", 11), (b"long", 12), (b"n\xc3\xa4h \n", 13), (b"\xfe\xff", 20)]
    entries[2] = [(b"deeper", 3), (b"sparse too", 11), (b"empty", 14), (b"char", 21)]
    entries[3] = [(b"sparse three", 11), (b"link", 20), (b"fifo", 22), (b"sock", 23)]
    attributes = {1: {b"user.of the root": b"1"}, 10: {b"user.a": b"\0\xff", b"user.empty": b""}, 20: {b"trusted.t": b"t"}}
    return Values(things, entries, data, attributes)


def plant(world: World, source: Values, folder: Path | None = None, into: bytes = b"") -> tuple[Planted | None, list[Finding]]:
    """None: it died."""
    findings: list[Finding] = []
    done: list[Planted] = []

    async def work(node: Node) -> None:
        top, source.flush = 1, node.flush
        if into:
            found = await node.vfs.lookup(1, into)
            top = found.ino if found else (await node.vfs.mkdir(1, into, 0o755, ROOT_CALLER)).ino
        done.append(await Planter(node.doors, node.vfs, source, top, report=findings.append).run())
    try:
        world.on_node(work, folder, process_alive=lambda host: False)
    except* Killed:
        pass
    return done[0] if done else None, findings


def look(world: World, folder: Path | None = None) -> dict[bytes, dict[str, object]]:
    found = []

    async def work(node: Node) -> None:
        found.append(await tree_of(node))
    world.on_node(work, folder)
    return found[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(MemoryBackend(), tmp_path)


def test_everything_comes_and_each_block_once(world: World):
    source = values()
    done, findings = plant(world, source)
    assert not findings and not differences(source.tree(), look(world))
    assert done is not None and done.counts == {"folders": 3, "files": 5, "symlinks": 1, "devices": 1, "fifos": 1, "sockets": 1,
                                                "hard_links": 3, "xattrs": 4}
    assert len(source.reads) == 4, "the block of three files was fetched once"


def test_what_is_not_remembered_is_read_back_from_where_it_was_planted(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetching, "RECENT_BYTES", 0)
    source = values()
    plant(world, source)
    # once, unless several asked for it before the first had it
    assert not differences(source.tree(), look(world)) and len(source.reads) < 6


def test_what_an_earlier_run_left_of_a_file_goes(world: World, tmp_path: Path):
    """The source has changed in between: where it has a hole now there is none of the old bytes."""
    source = values()
    source.gone.add((10, 128 * KIB))
    plant(world, source, tmp_path / "here")
    changed = values()
    del changed.data[10][64 * KIB]
    plant(world, changed, tmp_path / "here")
    assert not differences(changed.tree(), look(world, tmp_path / "here"))


def test_holes_stay_holes(world: World):
    plant(world, values())

    async def work(node: Node) -> None:
        found = await node.vfs.lookup(1, b"sparse")
        assert found is not None and found.size == 300 * KIB and found.alloc == 30 * KIB
    world.on_node(work)


@pytest.mark.parametrize("machine", ["the same", "another"])
def test_killed_anywhere_it_goes_on_and_ends_equal(world: World, tmp_path: Path, machine: str):
    source = values()
    calls, folder = 0, tmp_path / "here" if machine == "the same" else None
    for dies_at in (1, 2, 5, 9, 13, 17, 21, 10**6):
        source = replace(source, calls=0, dies_at=dies_at, flush_at=dies_at - 3)
        done, findings = plant(world, source, folder)
        assert not findings
        calls += 1
        if done is not None:
            break
    assert calls > 4 and not differences(source.tree(), look(world, folder))


def test_what_was_whole_is_not_fetched_again(world: World, tmp_path: Path):
    source = values()
    source.gone.add((12, 0))                           # keeps the import from ending well
    plant(world, source, tmp_path / "here")
    again = values()
    done, findings = plant(world, again, tmp_path / "here")
    assert again.reads == [(12, 0)] and not findings
    assert done is not None and done.counts["there_already"] == 8
    assert not differences(again.tree(), look(world, tmp_path / "here"))


def test_what_is_lost_is_told_with_its_range_and_the_rest_comes(world: World):
    source = values()
    source.gone |= {(10, 64 * KIB), (10, 128 * KIB), (11, 64 * KIB), (13, 0)}
    done, findings = plant(world, source)
    told = {(str(finding.kind), finding.path, finding.ranges) for finding in findings}
    assert told == {("missing", b"big", ((64 * KIB, 94 * KIB), (128 * KIB, 128 * KIB + 7))),
                    ("missing", b"sparse", ((64 * KIB, 94 * KIB),)), ("missing", "näh \n".encode(), ((0, 30 * KIB),))}
    found = look(world)
    assert found[b""]["xattrs"].pop(MARK)  # type: ignore[attr-defined]
    lost = {b"big", b"sparse", b"sub/sparse too", b"sub/deeper/sparse three", "näh \n".encode()}
    for path in lost:
        found[path]["ctime"] = source.tree()[path]["ctime"]        # the mark of a whole file
    assert not differences(source.tree(), found)
    assert done is not None and done.findings == {Kind.MISSING: 3}


def test_below_a_folder_and_not_where_something_is(world: World, tmp_path: Path):
    async def work(node: Node) -> None:
        await add_file(node, 1, b"mine", b"mine")
    world.on_node(work, tmp_path / "here")
    with pytest.raises(ExceptionGroup) as refused:
        plant(world, values(), tmp_path / "here")
    assert refused.group_contains(UsageError, match="not empty")
    plant(world, values(), tmp_path / "here", into=b"old")
    found = look(world, tmp_path / "here")
    assert {path.partition(b"/")[0] for path in found} == {b"", b"mine", b"old"}
    below = {path[4:]: {**entry, "same_as": entry["same_as"][4:]} for path, entry in found.items()  # type: ignore[index]
             if path.startswith(b"old")}
    assert not differences(values().tree(), below)


def test_what_users_changed_after_an_import_with_losses_is_left_alone(world: World, tmp_path: Path):
    source = values()
    source.gone |= {(13, 0), (12, 0)}
    plant(world, source, tmp_path / "here")

    async def work(node: Node) -> None:
        await node.vfs.unlink(1, b"long")
        await add_file(node, 1, b"long", b"written anew")
        await add_file(node, 1, b"mine", b"mine")
    world.on_node(work, tmp_path / "here")
    done, findings = plant(world, values(), tmp_path / "here")
    assert [(finding.kind, finding.path) for finding in findings] == [(Kind.NOTE, b"long"), (Kind.NOTE, b"mine")]
    found = look(world, tmp_path / "here")
    assert found[b"long"]["size"] == 12 and found[b"mine"] and MARK not in found[b""]["xattrs"]  # type: ignore[operator]
    assert found["näh \n".encode()]["content"] == values().tree()["näh \n".encode()]["content"]


def test_trying_again_after_losses_can_be_killed_as_well(world: World, tmp_path: Path):
    """What it was at when it died is not taken for what a user changed."""
    source = values()
    source.gone |= {(10, 64 * KIB), (13, 0), (12, 0)}
    plant(world, source, tmp_path / "here")
    for dies_at in (*range(5, 20, 2), 10**6):
        done, findings = plant(world, replace(values(), dies_at=dies_at, flush_at=dies_at - 1), tmp_path / "here")
        assert not findings
    assert done is not None and not differences(values().tree(), look(world, tmp_path / "here"))


def test_what_cannot_be_held_is_told(world: World):
    source = values()
    source.entries[1] += [(b"x" * 256, 14), (b"a/b", 14)]
    source.attributes[10][b"system.posix_acl_access"] = b"acl"
    source.attributes[20][b"user.on a link"] = b"no"
    _, findings = plant(world, source)
    assert [finding.kind for finding in findings].count(Kind.REFUSED) == 2
    assert {finding.path for finding in findings if finding.kind is Kind.DROPPED} == {b"big", b"\xfe\xff"}
    source.entries[1] = source.entries[1][:-2]
    source.attributes[10].pop(b"system.posix_acl_access"), source.attributes[20].pop(b"user.on a link")
    assert not differences(source.tree(), look(world))


def test_another_import_has_not_ended(world: World, tmp_path: Path):
    plant(world, replace(values(), dies_at=8, flush_at=7), tmp_path / "here")
    with pytest.raises(ExceptionGroup) as refused:
        plant(world, replace(values(), identity="another"), tmp_path / "here")
    assert refused.group_contains(UsageError, match="has not ended")
