"""The damage matrix: every kind of object x {flipped bit, truncated, removed}. fsck names the object, the rest can still be read.

What a store alone cannot show is said here too: the last record of the log, or a manifest, may be absent as well because it was never
written.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from s3cfs import ids
from s3cfs.app.fsck import check_filesystem
from s3cfs.app.node import Node
from s3cfs.backends.base import Backend
from s3cfs.backends.faulty import Fault, FaultyBackend
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.registry import open_backend
from s3cfs.check import context
from s3cfs.config import FsckOptions
from s3cfs.doors import SystemRandomness
from s3cfs.formats import checkpoint, record, superblock
from s3cfs.limits import DEFAULTS, Limits
from tests.check.kit import BIG, CHEAP, KIB, Checked, World

DAMAGE = ("flip", "truncate", "remove")


def damage(world: World, key: str, how: str, at: int) -> None:
    """`at` from the end when negative. Truncation leaves what is before it."""
    size = world.backend.stat(key).size
    at = at if at >= 0 else size + at
    if how == "flip":
        world.flip(key, at)
    elif how == "truncate":
        world.truncate(key, at)
    else:
        world.backend.delete(key)


@pytest.fixture(params=["memory", "local"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    backend: Backend = MemoryBackend("damage") if request.param == "memory" else open_backend(f"local://{tmp_path}/store", {})
    assert isinstance(backend, MemoryBackend | LocalBackend)
    return World.make(backend, tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> World:
    return World.make(MemoryBackend("small"), tmp_path)


@pytest.mark.parametrize("plain", [False, True])
def test_a_clean_filesystem(tmp_path: Path, plain: bool) -> None:
    world = World.make(MemoryBackend("clean"), tmp_path, plain=plain)
    state = world.fill()
    for full in (False, True):
        for local in (None, state):
            for repair in (False, True):
                checked = world.fsck(full=full, local=local, repair=repair)
                assert (checked.code, checked.lines, checked.new_objects) == (0, [], 0)
                assert checked.result.counts["packs"] == 2 and checked.result.counts["inodes"] == 5


def test_an_empty_filesystem(small: World) -> None:
    assert small.fsck(full=True).lines == []


# ---------------------------------------------------------------- packs

PLACES = {"header": 9, "chunk": BIG // 2, "index": -60, "trailer": -5}
NOT_HIT = {("flip", "header"), ("flip", "index"), ("flip", "trailer"), ("truncate", "index"), ("truncate", "trailer")}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("place", PLACES)
def test_pack(world: World, place: str, how: str) -> None:
    world.fill()
    key = world.pack_of("/big")
    damage(world, key, how, PLACES[place])
    full = world.fsck(full=True)
    assert full.code == 4 and full.names(key)
    quick = world.fsck()
    assert (quick.code, quick.names(key)) == ((0, False) if how == "flip" else (4, True))
    found = world.read_everything()
    assert found["/sub/other"] == world.content["/sub/other"] and found["/small"] == b"hello"
    ranges = hit_ranges(full)
    if (how, place) in NOT_HIT:
        assert found == world.content and ranges == {}
        return
    assert found["/big"] == found["/sub/link"] == "DataError"
    assert ranges.keys() == {"/big", "/sub/link"} and ranges["/big"] == ranges["/sub/link"]
    if how == "truncate":
        assert {path: len(parts) > 0 for path, parts in hit_ranges(quick).items()} == {"/big": True, "/sub/link": True}
    else:
        assert hit_ranges(quick) == ({} if how == "flip" else ranges)
    check_ranges(world, ranges["/big"])
    if place == "chunk" and how == "flip":
        (start, end), = ranges["/big"]
        assert start <= BIG // 2 <= end + KIB and end - start <= 256 * KIB        # a header and seals lie before it in the pack alone


def hit_ranges(checked: Checked) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for line in checked.lines:
        if line.file is not None:
            found.setdefault(line.file.path, []).append((line.file.start, line.file.end))
            assert f"{line.file.path} bytes {line.file.start}-{line.file.end - 1}" in str(line)
    return found


def check_ranges(world: World, ranges: list[tuple[int, int]]) -> None:
    """EIO exactly inside the ranges that fsck names."""
    answers: dict[int, bytes | str] = {}
    borders = sorted({0, BIG, *(at for one in ranges for at in one)})

    async def work(node: Node) -> None:
        inode = await node.vfs.lookup(1, b"big")
        assert inode is not None
        for start, end in zip(borders, borders[1:], strict=False):
            try:
                answers[start] = await node.vfs.read(inode.ino, start, end - start)
            except Exception as error:
                answers[start] = type(error).__name__
    world.on_node(work, read_only=True)
    for start, end in zip(borders, borders[1:], strict=False):
        inside = any(low <= start and end <= high for low, high in ranges)
        assert answers[start] == ("DataError" if inside else world.content["/big"][start:end])


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("place", PLACES)
def test_a_pack_is_mended_from_the_cache(small: World, place: str, how: str) -> None:
    state = small.fill()
    key = small.pack_of("/big")
    damage(small, key, how, PLACES[place])
    mended = small.fsck(full=True, repair=True, local=state)
    assert mended.code == 1 and mended.names(key) and mended.result.counts["corrected"] == mended.result.counts["problems"] > 0
    for local in (None, state):
        again = small.fsck(full=True, local=local)
        assert again.code == 0 and again.errors == []
        assert bool(again.notes) == (how != "remove")            # the damaged object stays until a sweep
    assert small.read_everything() == small.content


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("place", PLACES)
def test_a_pack_is_mended_from_the_store_as_far_as_that_goes(small: World, place: str, how: str) -> None:
    small.fill()
    key = small.pack_of("/big")
    damage(small, key, how, PLACES[place])
    checked = small.fsck(full=True, repair=True)
    again = small.fsck(full=True)
    if (how, place) in NOT_HIT:
        assert (checked.code, again.code) == (1, 0) and small.read_everything() == small.content
    else:
        assert (checked.code, again.code) == (4, 4)
        assert any("are lost" in note for note in checked.notes) and again.names("/big")
    assert small.read_everything()["/sub/other"] == small.content["/sub/other"]


def test_quick_repair_of_a_missing_pack(small: World) -> None:
    state = small.fill()
    small.backend.delete(small.pack_of("/big"))
    assert small.fsck(repair=True, local=state).code == 1
    assert small.read_everything() == small.content and small.fsck(full=True).code == 0


def test_lost_content_is_not_used_again_and_comes_back_when_it_is_written_again(small: World) -> None:
    """Dedup keeps off the bad chunk; once the same content lies in another pack, files that used the bad one are pointed at it."""
    state = small.fill()
    key = small.pack_of("/big")
    small.flip(key, BIG // 2)
    for name in (state / "cache").iterdir():
        name.unlink()
    assert small.fsck(full=True, repair=True, local=state).code == 4

    async def again(node: Node) -> None:
        await small.write(node, 1, b"again", small.content["/big"])
        await node.flush()
    small.on_node(again, state)
    small.content["/again"] = small.content["/big"]
    found = small.read_everything()
    assert found["/again"] == small.content["/big"] and found["/big"] == "DataError"
    for name in (state / "cache").iterdir():
        name.unlink()
    mended = small.fsck(full=True, repair=True)                  # from the store alone
    assert mended.code == 1
    assert small.read_everything() == small.content and small.fsck(full=True).code == 0


def test_a_damaged_chunk_that_nobody_uses(small: World) -> None:
    state = small.fill()
    key = small.pack_of("/sub/other")

    async def remove(node: Node) -> None:
        sub = await node.vfs.lookup(1, b"sub")
        assert sub is not None
        await node.vfs.unlink(sub.ino, b"other")
        await node.flush()
    small.on_node(remove, state)
    small.backend.delete(key)
    found = small.fsck()
    assert found.code == 4 and found.names("no file uses it")
    assert small.fsck(repair=True).code == 1
    assert small.fsck(full=True).code == 0


def test_what_is_damaged_on_the_way_only_is_no_problem(small: World) -> None:
    small.fill()
    faulty = FaultyBackend(small.backend)
    real, faults = faulty.get, iter([Fault.FLIPPED])

    def get(key: str, offset: int = 0, size: int | None = None) -> bytes:
        if key.startswith("pack/") and (fault := next(faults, None)):
            faulty.script("get", fault, key)
        return real(key, offset, size)
    before = {info.key for info in faulty.list("")}
    faulty.get = get                                             # type: ignore[method-assign]
    lines: list[object] = []
    result = trio.run(check_filesystem, lambda: faulty, small.superblock, small.keyring, None, FsckOptions(full=True), lines.append,
                      lambda event: None)
    assert (result.exit_code, lines) == (0, []) and [fault for _, _, fault in faulty.injected] == [Fault.FLIPPED]
    assert before == {info.key for info in faulty.list("")}


def test_more_damage_than_can_be_listed(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "RANGES_MAX", 3)
    small.fill()
    for key in small.keys("pack/"):
        small.backend.delete(key)
    checked = small.fsck()
    assert checked.code == 4 and sum(line.file is not None for line in checked.lines) == 3
    assert checked.names("too many to list") and all(checked.names(key) for key in small.keys("pack/"))


def test_foreign_and_orphaned_objects_are_notes(small: World) -> None:
    small.fill()
    for key in ("pack/ab/readme", "log/main/notes.txt", "log/other/1-0123456789abcdef/1", "super/old", "checkpoint/main/x",
                "pack/00/9-" + 64 * "0"):
        small.backend.put(key, b"foreign")
    checked = small.fsck(full=True)
    assert checked.code == 0 and checked.errors == [] and len(checked.notes) == 6
    assert small.fsck(full=True, repair=True).new_objects == 0


# ---------------------------------------------------------------- superblocks

@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("which", ["older", "newest"])
def test_superblock(small: World, how: str, which: str) -> None:
    small.fill()
    newer = superblock.add_slot(small.superblock, small.keyring, SystemRandomness(), now_ns=1, passphrase="other", argon2=CHEAP)[0]
    assert newer.n == 2
    small.backend.put(ids.super_key(2), superblock.encode(newer))
    number = 1 if which == "older" else 2
    small.superblock = newer if which == "older" else small.superblock           # the one that counts: the highest valid
    damage(small, ids.super_key(number), how, 100)
    checked = small.fsck()
    if how == "remove":
        assert checked.code == 0 and (len(checked.notes) == 1) == (which == "older")
        return
    assert checked.code == 4 and checked.names(f"super/{number}", "damaged")
    assert small.fsck(repair=True).code == (1 if which == "older" else 4)
    again = small.fsck()
    assert again.code == (0 if which == "older" else 4) and (which == "newest" or any("super/1" in note for note in again.notes))


def test_a_superblock_of_somebody_else(small: World) -> None:
    small.fill()
    forged = replace(small.superblock, label="forged")
    small.overwrite(ids.super_key(1), superblock.encode(forged))
    checked = small.fsck()
    assert checked.code == 4 and checked.names("super/1", "without the key")


# ---------------------------------------------------------------- the log

@pytest.mark.parametrize("how", DAMAGE)
def test_log_record_in_the_middle(small: World, how: str) -> None:
    state = small.fill()
    key = small.log()[2]
    damage(small, key, how, 200)
    alone = small.fsck(full=True)
    assert alone.code == 4 and alone.names(key) and alone.names("nothing is lost" if how == "flip" else "newest whole state is commit 2")
    with_state = small.fsck(local=state)
    assert with_state.code == 4 and with_state.names(key) and len(with_state.errors) == 1
    mended = small.fsck(local=state, repair=True)
    assert mended.names(key)
    try:
        loads = small.read_everything() == small.content
    except BaseException:
        loads = False
    assert mended.code == (1 if loads else 4)               # corrected only if the store alone can be mounted again
    assert loads or how != "remove"
    assert small.fsck().code == (0 if loads else 4)
    assert small.read_everything(state) == small.content


@pytest.mark.parametrize("how", DAMAGE)
def test_last_log_record(small: World, how: str) -> None:
    state = small.fill()
    key = small.log()[-1]
    damage(small, key, how, 200)
    alone, with_state = small.fsck(), small.fsck(local=state)
    if how == "remove":
        assert alone.code == 0                              # nothing in the store says that it ever was there
        assert with_state.code == 4 and with_state.names("rolled back")
        refused = small.fsck(local=state, repair=True)
        assert refused.code == 4 and refused.new_objects == 0 and any("nothing was repaired" in note for note in refused.notes)
    else:
        assert alone.code == with_state.code == 4 and alone.names(key) and with_state.names(key, "nothing is lost")
        assert not any("damaged: /" in text for text in alone.errors)                    # files of the state before are whole


@pytest.mark.parametrize("how", DAMAGE)
def test_first_log_record(small: World, how: str) -> None:
    small.fill()
    key = small.log()[0]
    damage(small, key, how, 200)
    checked = small.fsck()
    assert checked.code == 4 and checked.names(key, "nothing is lost")                       # it is a SEAL, and has no changes


def test_several_records_missing(small: World) -> None:
    small.fill()
    for key in small.log()[1:3]:
        small.backend.delete(key)
    checked = small.fsck()
    assert checked.names(small.log()[1].replace("/4", "/3"), "missing") and checked.names("records 2 to 2")


def test_a_record_in_anothers_place(small: World) -> None:
    """A whole record, but not the one the next names."""
    small.fill()
    log = small.log()
    other = World.make(MemoryBackend("other"), small.root / "other")
    other.superblock, other.keyring = small.superblock, small.keyring
    other.fill(seed=2)
    theirs = other.log()
    found = record.decode(other.backend.get(theirs[2]), 3, small.keyring.sealer("record", 0))
    _, epoch, nonce, n = ids.parse_log_key(log[2])
    swapped = record.Record(found.kind, n, epoch, nonce, found.prev, found.time_ns, {**found.info, "prev_key": log[1]}, found.changeset)
    small.overwrite(log[2], record.encode(swapped, small.keyring.sealer("record", epoch)))
    checked = small.fsck()
    assert checked.code & 4 and checked.names(log[2], "hash")


def test_a_late_record_is_a_note(small: World) -> None:
    state = small.fill()

    async def nothing(node: Node) -> None: ...
    small.on_node(nothing, state)                           # another epoch
    first_epoch = [key for key in small.log() if "/1-" in key]
    late = first_epoch[-1].rpartition("/")[0] + "/9"
    small.backend.put(late, b"damaged or not")
    checked = small.fsck()
    assert checked.code == 0 and any(late in note and "in no history" in note for note in checked.notes)


# ---------------------------------------------------------------- checkpoints

@pytest.fixture
def checkpointed(small: World) -> World:
    """Two checkpoints, and a log that reaches back to the beginning."""
    small.limits = Limits(checkpoint_record_bytes=(1 << 20) // 1 + 1)
    small.fill()

    async def one_more(node: Node) -> None:
        node.commits.check_writable()
        node.meta.fsmeta_set("test", b"%d" % len(small.keys("log/")))
        await node.flush()

    while len([key for key in small.keys("checkpoint/") if "manifest" in key]) < 2:       # none begins while one is being written
        small.on_node(one_more)
    small.limits = DEFAULTS
    return small


def newest(world: World, kind: str) -> str:
    keys = [key for key in world.keys("checkpoint/") if ("manifest" in key) == (kind == "manifest")]
    return max(keys, key=lambda key: ids.parse_checkpoint_key(key)[0])


def test_whole_checkpoints(checkpointed: World) -> None:
    assert checkpointed.fsck().lines == [] == checkpointed.fsck(full=True).lines


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("kind", ["manifest", "part"])
@pytest.mark.parametrize("which", ["newest", "oldest"])
def test_checkpoint(checkpointed: World, kind: str, how: str, which: str) -> None:
    world = checkpointed
    key = newest(world, kind)
    if which == "oldest":
        keys = [one for one in world.keys("checkpoint/") if ("manifest" in one) == (kind == "manifest")]
        key = min(keys, key=lambda one: ids.parse_checkpoint_key(one)[0])
    damage(world, key, how, 100)
    full = world.fsck(full=True)
    assert world.read_everything() == world.content                     # the log has everything
    if (kind, how) == ("manifest", "remove"):
        assert full.code == 0 and any("no manifest" in note for note in full.notes)
        return
    assert full.code == 4 and full.names(key)
    quick = world.fsck()
    assert quick.code == (0 if (which, kind, how) == ("oldest", "part", "flip") else 4)
    mended = world.fsck(full=True, repair=True)
    assert mended.code == 1 and mended.new_objects > 2
    again = world.fsck(full=True)
    assert again.code == 0 and any(key in note and "nothing needs it" in note for note in again.notes)
    assert world.read_everything() == world.content


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("kind", ["manifest", "part"])
def test_a_checkpoint_after_the_old_log_went(checkpointed: World, kind: str, how: str) -> None:
    world = checkpointed
    key = newest(world, kind)
    commit = ids.parse_checkpoint_key(key)[0]
    for old in world.log()[:commit]:
        world.backend.delete(old)
    whole = world.fsck(full=True)
    assert (whole.code, whole.errors) == (0, [])                        # the checkpoint has what the log had
    assert world.read_everything() == world.content
    damage(world, key, how, 100)
    checked = world.fsck()
    assert checked.code == 4 + 8 and checked.names("metadata cannot be read")
    assert checked.names(key) or (kind, how) == ("manifest", "remove")


def test_a_checkpoint_of_another_history(checkpointed: World) -> None:
    key = newest(checkpointed, "manifest")
    sealer = checkpointed.keyring.sealer("checkpoint", 1)
    manifest = checkpoint.decode_manifest(checkpointed.backend.get(key), sealer)
    manifest = replace(manifest, record_hash="00" * 32)
    checkpointed.overwrite(key, checkpoint.encode_manifest(manifest, sealer))
    assert checkpointed.fsck().names("another record")

