"""Names: what is counted, stamped, staged and refused."""
from __future__ import annotations

import stat

import pytest
import trio

from s3cfs import limits
from s3cfs.errors import (
    DirectoryNotEmpty,
    EntryExists,
    FsError,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoSuchEntry,
    NotADirectory,
    NotPermitted,
    ReadOnly,
    StaleInode,
    TooManyLinks,
)
from s3cfs.vfs.core import RENAME_EXCHANGE, RENAME_NOREPLACE, Caller, SetAttr
from tests.vfs.world import ALICE, ROOT, World, drive


def look(world: World, parent: int, name: bytes):
    inode = drive(world.vfs.lookup(parent, name))
    assert inode is not None
    return inode


def file(world: World, parent: int, name: bytes, caller: Caller = ROOT, mode: int = 0o644) -> int:
    inode = drive(world.vfs.create(parent, name, mode, caller))
    drive(world.vfs.release(inode.ino))
    return inode.ino


def folder(world: World, parent: int, name: bytes, caller: Caller = ROOT, mode: int = 0o755) -> int:
    return drive(world.vfs.mkdir(parent, name, mode, caller)).ino


def times(world: World, ino: int) -> tuple[int, int, int]:
    inode = drive(world.vfs.getattr(ino))
    return inode.atime_ns, inode.mtime_ns, inode.ctime_ns


def test_lookup_of_dot_and_dotdot_and_of_nothing(world: World) -> None:
    a = folder(world, 1, b"a")
    b = folder(world, a, b"b")
    assert look(world, b, b".").ino == b and look(world, b, b"..").ino == a and look(world, 1, b"..").ino == 1
    assert drive(world.vfs.lookup(a, b"x")) is None
    with pytest.raises(NameTooLong):
        drive(world.vfs.lookup(1, b"x" * 256))
    with pytest.raises(NotADirectory):
        drive(world.vfs.lookup(file(world, 1, b"f"), b"x"))
    with pytest.raises(StaleInode):
        drive(world.vfs.lookup(4711, b"x"))


def test_making_stamps_the_folder_and_counts_its_subfolders(world: World) -> None:
    a = folder(world, 1, b"a")
    before = times(world, a)
    file(world, a, b"f")
    _, mtime, ctime = times(world, a)
    assert mtime == ctime > before[1]
    assert drive(world.vfs.getattr(a)).nlink == 2
    folder(world, a, b"b")
    assert drive(world.vfs.getattr(a)).nlink == 3
    assert times(world, a)[1] > mtime
    assert times(world, a)[0] == before[0], "atime never moves by itself"
    drive(world.vfs.rmdir(a, b"b"))
    assert drive(world.vfs.getattr(a)).nlink == 2


@pytest.mark.parametrize("name, error", [(b"x" * 256, NameTooLong), (b"", NoSuchEntry), (b"a/b", InvalidArgument),
                                         (b"a\0", InvalidArgument), (b".", EntryExists), (b"..", EntryExists)])
def test_names_that_cannot_be_made(world: World, name: bytes, error: type[FsError]) -> None:
    source = file(world, 1, b"source")
    for operation in (world.vfs.create(1, name, 0o644, ROOT), world.vfs.mkdir(1, name, 0o755, ROOT),
                      world.vfs.mknod(1, name, stat.S_IFIFO, 0, ROOT), world.vfs.symlink(1, name, b"t", ROOT),
                      world.vfs.link(source, 1, name)):
        with pytest.raises(error):
            drive(operation)
    assert drive(world.meta.children(1, 0, 10)) == [(b"source", drive(world.meta.get(source)))]


def test_symlinks(world: World) -> None:
    target = b"t" * limits.SYMLINK_MAX_BYTES
    inode = drive(world.vfs.symlink(1, b"l", target, ROOT))
    assert (inode.size, stat.S_IMODE(inode.mode)) == (4095, 0o777)
    assert drive(world.vfs.readlink(inode.ino)) == target
    with pytest.raises(NameTooLong):
        drive(world.vfs.symlink(1, b"m", target + b"t", ROOT))
    with pytest.raises(NoSuchEntry):
        drive(world.vfs.symlink(1, b"m", b"", ROOT))
    with pytest.raises(InvalidArgument):
        drive(world.vfs.readlink(1))


def test_mknod_keeps_device_numbers_for_devices_only(world: World) -> None:
    device = drive(world.vfs.mknod(1, b"d", stat.S_IFCHR | 0o600, 0x103, ROOT))
    assert drive(world.vfs.getattr(device.ino)).rdev == 0x103
    assert drive(world.vfs.mknod(1, b"f", stat.S_IFIFO | 0o600, 0x103, ROOT)).rdev == 0
    assert stat.S_ISREG(drive(world.vfs.mknod(1, b"r", 0o600, 0, ROOT)).mode)
    with pytest.raises(NotPermitted):
        drive(world.vfs.mknod(1, b"x", stat.S_IFDIR | 0o700, 0, ROOT))
    with pytest.raises(InvalidArgument):
        drive(world.vfs.mknod(1, b"x", stat.S_IFLNK | 0o700, 0, ROOT))


def test_umask_owner_and_inherited_group(world: World) -> None:
    caller = Caller(1000, 1000, umask=0o027, groups=frozenset({1000}))
    plain = drive(world.vfs.mkdir(1, b"plain", 0o7777, caller))
    assert (plain.uid, plain.gid, stat.S_IMODE(plain.mode)) == (1000, 1000, 0o1750)
    drive(world.vfs.setattr(plain.ino, SetAttr(mode=0o2777, gid=7), ROOT))
    below = drive(world.vfs.mkdir(plain.ino, b"d", 0o777, caller))
    assert (below.gid, stat.S_IMODE(below.mode)) == (7, 0o2750)
    assert drive(world.vfs.symlink(plain.ino, b"l", b"t", caller)).gid == 7
    assert stat.S_IMODE(drive(world.vfs.create(plain.ino, b"f", 0o2666, caller)).mode) == 0o2640
    stripped = drive(world.vfs.create(plain.ino, b"g", 0o6777, caller))
    assert (stripped.gid, stat.S_IMODE(stripped.mode)) == (7, 0o4750), "not a member of group 7: no set-group-ID executable"
    member = Caller(1000, 1000, groups=frozenset({7}))
    assert stat.S_IMODE(drive(world.vfs.create(plain.ino, b"h", 0o6777, member)).mode) == 0o6777


def test_link_counts_and_stamps(world: World) -> None:
    ino, a = file(world, 1, b"f"), folder(world, 1, b"a")
    before = times(world, ino)
    linked = drive(world.vfs.link(ino, a, b"g"))
    assert linked.nlink == 2 and linked.ctime_ns > before[2] and linked.mtime_ns == before[1]
    before = times(world, ino)
    drive(world.vfs.unlink(1, b"f"))
    assert drive(world.vfs.getattr(ino)).nlink == 1 and times(world, ino)[2] > before[2]
    with pytest.raises(NotPermitted):
        drive(world.vfs.link(a, 1, b"b"))
    with pytest.raises(EntryExists):
        drive(world.vfs.link(a, a, b"g"))


def test_ctime_of_a_file_with_pending_changes_moves_too(world: World) -> None:
    inode = drive(world.vfs.create(1, b"f", 0o644, ROOT))
    drive(world.vfs.write(inode.ino, 0, b"data"))
    before = times(world, inode.ino)
    drive(world.vfs.link(inode.ino, 1, b"g"))
    shown = drive(world.vfs.getattr(inode.ino))
    assert shown.ctime_ns > before[2] and shown.mtime_ns == before[1] and shown.size == 4
    drive(world.content.stage(inode.ino))
    assert drive(world.vfs.getattr(inode.ino)) == drive(world.meta.get(inode.ino)) == shown


def test_link_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINK_MAX", 3)
    ino, a, b = file(world, 1, b"f"), folder(world, 1, b"a"), 0
    drive(world.vfs.link(ino, a, b"1"))
    drive(world.vfs.link(ino, a, b"2"))
    with pytest.raises(TooManyLinks):
        drive(world.vfs.link(ino, a, b"3"))
    b = folder(world, a, b"b")
    with pytest.raises(TooManyLinks):
        drive(world.vfs.mkdir(a, b"c", 0o755, ROOT))
    with pytest.raises(TooManyLinks):
        folder(world, 1, b"second")             # the root has 3 already
    drive(world.vfs.rename(a, b"b", a, b"c"))   # gains nothing
    assert look(world, a, b"c").ino == b
    with pytest.raises(TooManyLinks):
        drive(world.vfs.rename(a, b"c", 1, b"c"))


def test_unlink_and_rmdir_refusals(world: World) -> None:
    a = folder(world, 1, b"a")
    file(world, a, b"f")
    for operation, error in ((world.vfs.unlink(1, b"a"), IsADirectory), (world.vfs.unlink(1, b"x"), NoSuchEntry),
                             (world.vfs.rmdir(1, b"a"), DirectoryNotEmpty), (world.vfs.rmdir(a, b"f"), NotADirectory),
                             (world.vfs.rmdir(1, b"x"), NoSuchEntry), (world.vfs.rmdir(a, b"."), InvalidArgument),
                             (world.vfs.rmdir(a, b".."), DirectoryNotEmpty), (world.vfs.unlink(a, b".."), IsADirectory)):
        with pytest.raises(error):
            drive(operation)


def test_nothing_is_made_in_a_removed_directory(world: World) -> None:
    a = folder(world, 1, b"a")
    world.vfs.remember(a)
    ino = file(world, 1, b"f")
    drive(world.vfs.rmdir(1, b"a"))
    for operation in (world.vfs.create(a, b"x", 0o644, ROOT), world.vfs.mkdir(a, b"x", 0o755, ROOT), world.vfs.link(ino, a, b"x"),
                      world.vfs.rename(1, b"f", a, b"x")):
        with pytest.raises(NoSuchEntry):
            drive(operation)
    assert drive(world.vfs.lookup(a, b"x")) is None
    drive(world.vfs.forget(a, 1))
    assert drive(world.meta.get(a)) is None


# ---------------------------------------------------------------- rename

def test_rename_moves_a_directory_with_its_parent_and_link_counts(world: World) -> None:
    a, b = folder(world, 1, b"a"), folder(world, 1, b"b")
    d = folder(world, a, b"d")
    before = [times(world, ino) for ino in (a, b, d)]
    drive(world.vfs.rename(a, b"d", b, b"e"))
    assert [drive(world.vfs.getattr(ino)).nlink for ino in (a, b, d)] == [2, 3, 2]
    assert look(world, d, b"..").ino == b and drive(world.vfs.lookup(a, b"d")) is None
    after = [times(world, ino) for ino in (a, b, d)]
    assert all(new[2] > old[2] for old, new in zip(before, after, strict=True))
    assert after[0][1] > before[0][1] and after[1][1] > before[1][1] and after[2][1] == before[2][1]


def test_rename_over(world: World) -> None:
    f, g = file(world, 1, b"f"), file(world, 1, b"g")
    a, b = folder(world, 1, b"a"), folder(world, 1, b"b")
    drive(world.vfs.rename(1, b"f", 1, b"g"))
    assert look(world, 1, b"g").ino == f and drive(world.meta.get(g)) is None
    assert world.content.replaced == [f], "a file is staged before it takes another one's name"
    drive(world.vfs.rename(1, b"g", 1, b"h"))
    assert world.content.replaced == [f]
    drive(world.vfs.rename(1, b"a", 1, b"b"))
    assert look(world, 1, b"b").ino == a and drive(world.meta.get(b)) is None and drive(world.vfs.getattr(1)).nlink == 3
    c = folder(world, 1, b"c")
    file(world, c, b"x")
    for arguments, error in (((1, b"b", 1, b"c"), DirectoryNotEmpty), ((1, b"b", 1, b"h"), NotADirectory),
                             ((1, b"h", 1, b"b"), IsADirectory), ((1, b"c", c, b"y"), InvalidArgument),
                             ((1, b"nothing", 1, b"h"), NoSuchEntry)):
        with pytest.raises(error):
            drive(world.vfs.rename(*arguments))
    d = folder(world, c, b"d")
    e = folder(world, d, b"e")
    with pytest.raises(InvalidArgument):
        drive(world.vfs.rename(1, b"c", e, b"c"))
    with pytest.raises(DirectoryNotEmpty):
        drive(world.vfs.rename(d, b"e", 1, b"c"))


def test_rename_to_a_hard_link_of_the_same_file_does_nothing(world: World) -> None:
    ino = file(world, 1, b"f")
    drive(world.vfs.link(ino, 1, b"g"))
    before = times(world, 1), times(world, ino)
    drive(world.vfs.rename(1, b"f", 1, b"g"))
    assert (times(world, 1), times(world, ino)) == before
    assert look(world, 1, b"f").ino == look(world, 1, b"g").ino == ino


def test_rename_flags(world: World) -> None:
    f, a, b = file(world, 1, b"f"), folder(world, 1, b"a"), folder(world, 1, b"b")
    d = folder(world, a, b"d")
    with pytest.raises(EntryExists):
        drive(world.vfs.rename(1, b"f", 1, b"a", RENAME_NOREPLACE))
    drive(world.vfs.rename(1, b"f", b, b"f", RENAME_NOREPLACE))
    with pytest.raises(NoSuchEntry):
        drive(world.vfs.rename(a, b"d", b, b"x", RENAME_EXCHANGE))
    with pytest.raises(InvalidArgument):
        drive(world.vfs.rename(1, b"a", a, b"d", RENAME_EXCHANGE))
    with pytest.raises(InvalidArgument):
        drive(world.vfs.rename(a, b"d", 1, b"a", RENAME_EXCHANGE))
    for flags in (RENAME_NOREPLACE | RENAME_EXCHANGE, 4, 8):
        with pytest.raises(InvalidArgument):
            drive(world.vfs.rename(a, b"d", b, b"f", flags))
    drive(world.vfs.rename(a, b"d", b, b"f", RENAME_EXCHANGE))
    assert look(world, a, b"d").ino == f and look(world, b, b"f").ino == d and look(world, d, b"..").ino == b
    assert [drive(world.vfs.getattr(ino)).nlink for ino in (a, b, d, f)] == [2, 3, 2, 1]
    assert world.content.replaced == []


def test_rename_looks_again_after_the_source_was_staged(world: World) -> None:
    f, g = file(world, 1, b"f"), file(world, 1, b"g")
    new: list[int] = []

    async def meanwhile(where: str) -> None:
        if where == "before_replace" and not new:
            await world.vfs.unlink(1, b"f")
            new.append((await world.vfs.create(1, b"f", 0o644, ROOT)).ino)

    world.content.wait = meanwhile
    drive(world.vfs.rename(1, b"f", 1, b"g"))
    assert world.content.replaced == [f, new[0]], "another file has the name now: that one is staged"
    assert look(world, 1, b"g").ino == new[0] and drive(world.meta.get(g)) is None

    async def removed(where: str) -> None:
        await world.vfs.unlink(1, b"g")

    file(world, 1, b"h")
    world.content.wait = removed
    with pytest.raises(NoSuchEntry):
        drive(world.vfs.rename(1, b"g", 1, b"h"))
    assert drive(world.vfs.lookup(1, b"h")) is not None


# ---------------------------------------------------------------- who may write, and when

def changing(world: World, ino: int):
    vfs = world.vfs
    return [vfs.create(1, b"x", 0o644, ROOT), vfs.mknod(1, b"x", stat.S_IFIFO, 0, ROOT), vfs.mkdir(1, b"x", 0o755, ROOT),
            vfs.symlink(1, b"x", b"t", ROOT), vfs.link(ino, 1, b"x"), vfs.unlink(1, b"f"), vfs.rmdir(1, b"d"),
            vfs.rename(1, b"f", 1, b"x"), vfs.setattr(ino, SetAttr(mode=0o600), ROOT), vfs.setxattr(ino, b"user.a", b"1", 0),
            vfs.removexattr(ino, b"user.k"), vfs.write(ino, 0, b"x"), vfs.open(ino, 0o1000)]


def test_every_change_asks_whether_it_may(world: World) -> None:
    ino = file(world, 1, b"f")
    folder(world, 1, b"d")
    drive(world.vfs.setxattr(ino, b"user.k", b"v"))
    state = world.meta.fingerprint()
    world.transactions.refusal = ReadOnly("deposed")
    for operation in changing(world, ino):
        with pytest.raises(ReadOnly):
            drive(operation)
    with pytest.raises(ReadOnly):
        drive(world.vfs.open(ino, 1))
    assert world.meta.fingerprint() == state
    world.transactions.refusal = None
    world.transactions.full = True
    for count, operation in enumerate(changing(world, ino), 1):
        try:
            drive(operation)
        except FsError:
            pass                                # some undo what the next needs
        assert world.transactions.waited == count


def test_state_is_looked_at_after_waiting_for_room(world: World) -> None:
    file(world, 1, b"f")
    world.transactions.full = True

    def refused() -> None:
        world.transactions.refusal = ReadOnly("deposed while waiting")

    world.transactions.when_full = refused
    with pytest.raises(ReadOnly):
        drive(world.vfs.unlink(1, b"f"))
    assert drive(world.vfs.lookup(1, b"f")) is not None


def test_read_only_mount(tmp_path) -> None:
    world = World(str(tmp_path), read_only=True)
    for operation in (world.vfs.mkdir(1, b"x", 0o755, ROOT), world.vfs.setattr(1, SetAttr(mode=0o700), ROOT),
                      world.vfs.setxattr(1, b"user.a", b"")):
        with pytest.raises(ReadOnly):
            drive(operation)
    assert not world.meta.dirty
    world.close()


def test_operations_run_beside_each_other_under_trio(world: World) -> None:
    """Two hundred tasks fight for the same names; the tree stays consistent."""
    async def wait(where: str) -> None:
        await trio.lowlevel.checkpoint()

    async def one(number: int) -> None:
        name, other = b"%d" % (number % 7), b"%d" % (number % 5)
        for _ in range(10):
            try:
                if number % 3 == 0:
                    made = await world.vfs.create(1, name, 0o644, ALICE)
                    await trio.lowlevel.checkpoint()
                    await world.vfs.release(made.ino)
                elif number % 3 == 1:
                    await world.vfs.rename(1, name, 1, other)
                else:
                    await world.vfs.unlink(1, other)
            except FsError:
                await trio.lowlevel.checkpoint()

    async def main() -> None:
        world.content.wait = wait
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(one, number)

    trio.run(main)
    names = drive(world.meta.children(1, 0, 100))
    assert all(inode.nlink == 1 for _, inode in names)
    assert world.meta.counters.inodes == 1 + len(names)
    assert drive(world.meta.orphans()) == []
