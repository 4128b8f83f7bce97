"""setattr, set-id bits, times, statfs, extended attributes, open."""
from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest

from s3cfs.errors import (
    EntryExists,
    FileTooLarge,
    InvalidArgument,
    IsADirectory,
    NoAttribute,
    NoSpace,
    NotPermitted,
    NotSupported,
    RangeError,
    StaleInode,
    TooBig,
)
from s3cfs.vfs.core import XATTR_CREATE, XATTR_REPLACE, SetAttr
from tests.vfs.test_tree import file, folder
from tests.vfs.world import ALICE, ROOT, World, drive


def mode(world: World, ino: int) -> int:
    return stat.S_IMODE(drive(world.vfs.getattr(ino)).mode)


def test_setting_what_is_there_writes_nothing(world: World) -> None:
    ino = file(world, 1, b"f")
    now = drive(world.vfs.getattr(ino))
    state = world.meta.fingerprint()
    drive(world.vfs.setattr(ino, SetAttr(mode=0o644, uid=0, gid=0, atime_ns=now.atime_ns, mtime_ns=now.mtime_ns), ROOT))
    drive(world.vfs.setattr(ino, SetAttr(mode=0o644, ctime_ns=now.ctime_ns), ROOT))
    assert drive(world.vfs.getattr(ino)) == now and world.meta.fingerprint() == state


def test_the_kernels_own_ctime_is_kept_whatever_else_was_asked_for(world: World) -> None:
    """chmod to the mode that is there: the kernel shows its new ctime until it forgets the inode, and must find it again then."""
    ino = file(world, 1, b"f")
    now = drive(world.vfs.getattr(ino))
    for later, wanted in enumerate([SetAttr(mode=0o644), SetAttr(uid=0), SetAttr(atime_ns=now.atime_ns, mtime_ns=now.mtime_ns)], 1):
        drive(world.vfs.setattr(ino, replace(wanted, ctime_ns=now.ctime_ns + later), ROOT))
        assert drive(world.restarted().getattr(ino)).ctime_ns == now.ctime_ns + later


def test_times_are_kept_to_the_nanosecond_and_ctime_follows(world: World) -> None:
    ino = file(world, 1, b"f")
    before = drive(world.vfs.getattr(ino))
    shown = drive(world.vfs.setattr(ino, SetAttr(atime_ns=-5_000_000_001, mtime_ns=4_294_967_299_123_456_789), ROOT))
    assert (shown.atime_ns, shown.mtime_ns) == (-5_000_000_001, 4_294_967_299_123_456_789) and shown.ctime_ns > before.ctime_ns
    shown = drive(world.vfs.setattr(ino, SetAttr(mtime_ns=7, ctime_ns=9), ROOT))
    assert (shown.mtime_ns, shown.ctime_ns) == (7, 9), "the kernel's own ctime is taken over"
    assert drive(world.vfs.setattr(ino, SetAttr(ctime_ns=11), ROOT)).ctime_ns == 11
    assert drive(world.vfs.setattr(ino, SetAttr(mtime_ns=2**70), ROOT)).mtime_ns == 2**63 - 1
    drive(world.vfs.open(ino, os.O_RDONLY))
    drive(world.vfs.read(ino, 0, 10))
    assert drive(world.vfs.getattr(ino)).atime_ns == -5_000_000_001


def test_times_set_over_pending_ones(world: World) -> None:
    ino = drive(world.vfs.create(1, b"f", 0o644, ROOT)).ino
    row = drive(world.meta.get(ino))
    assert row is not None
    drive(world.vfs.write(ino, 0, b"abc"))
    shown = drive(world.vfs.setattr(ino, SetAttr(mtime_ns=row.mtime_ns), ROOT))
    assert shown.mtime_ns == row.mtime_ns and shown.size == 3, "equal to the row's but not to what is pending"
    drive(world.content.stage(ino))
    assert drive(world.vfs.getattr(ino)).mtime_ns == row.mtime_ns
    drive(world.vfs.write(ino, 0, b"abc"))
    written = drive(world.vfs.getattr(ino))
    shown = drive(world.vfs.setattr(ino, SetAttr(mode=0o600), ROOT))
    assert shown.mtime_ns == written.mtime_ns and shown.ctime_ns > written.ctime_ns


def test_size(world: World) -> None:
    ino = file(world, 1, b"f")
    before = drive(world.vfs.getattr(ino))
    shown = drive(world.vfs.setattr(ino, SetAttr(size=5), ROOT))
    assert shown.size == 5 and shown.mtime_ns == shown.ctime_ns > before.mtime_ns
    shown = drive(world.vfs.setattr(ino, SetAttr(size=3, mtime_ns=8, mode=0o600), ROOT))
    assert (shown.size, shown.mtime_ns, stat.S_IMODE(shown.mode)) == (3, 8, 0o600)
    link = drive(world.vfs.symlink(1, b"l", b"t", ROOT)).ino
    for target, size, error in ((1, 0, IsADirectory), (link, 0, InvalidArgument), (ino, -1, InvalidArgument),
                                (ino, 2**62 + 1, FileTooLarge)):
        with pytest.raises(error):
            drive(world.vfs.setattr(target, SetAttr(size=size), ROOT))


def test_an_inode_that_goes_while_truncate_waits(world: World) -> None:
    ino = file(world, 1, b"f")

    async def removed(where: str) -> None:
        await world.vfs.unlink(1, b"f")

    world.content.wait = removed
    with pytest.raises(StaleInode):
        drive(world.vfs.setattr(ino, SetAttr(size=1, mode=0o600), ROOT))
    assert drive(world.meta.get(ino)) is None


def test_owners_and_set_id_bits(world: World) -> None:
    ino = file(world, 1, b"f")
    for bits, kept in ((0o6777, 0o777), (0o6767, 0o2767), (0o4711, 0o711)):
        drive(world.vfs.setattr(ino, SetAttr(mode=bits), ROOT))
        shown = drive(world.vfs.setattr(ino, SetAttr(uid=1000, gid=2000), ROOT))
        assert stat.S_IMODE(shown.mode) == kept, "chown takes them, also from root; set-group-ID without execution stays"
        drive(world.vfs.setattr(ino, SetAttr(uid=0, gid=0), ROOT))
    drive(world.vfs.setattr(ino, SetAttr(uid=1, mode=0o6755), ROOT))
    assert mode(world, ino) == 0o6755, "a mode that comes along counts"
    d = folder(world, 1, b"d")
    drive(world.vfs.setattr(d, SetAttr(mode=0o6777), ROOT))
    drive(world.vfs.setattr(d, SetAttr(uid=5), ROOT))
    assert mode(world, d) == 0o6777, "directories keep them"
    drive(world.vfs.setattr(ino, SetAttr(gid=3000), ROOT))
    assert stat.S_IMODE(drive(world.vfs.setattr(ino, SetAttr(mode=0o2755), ALICE)).mode) == 0o755, "not a member of the group"
    drive(world.vfs.setattr(ino, SetAttr(gid=2000), ROOT))
    assert stat.S_IMODE(drive(world.vfs.setattr(ino, SetAttr(mode=0o2755), ALICE)).mode) == 0o2755
    with pytest.raises(InvalidArgument):
        drive(world.vfs.setattr(ino, SetAttr(uid=2**32 - 1), ROOT))


def test_writing_takes_set_id_bits_unless_root_writes(world: World) -> None:
    ino = file(world, 1, b"f")

    def after(operation) -> int:
        drive(world.vfs.setattr(ino, SetAttr(mode=0o6755), ROOT))
        drive(operation)
        return mode(world, ino)

    assert after(world.vfs.write(ino, 0, b"x", ROOT)) == 0o6755
    assert after(world.vfs.write(ino, 0, b"x", ALICE)) == 0o755
    assert after(world.vfs.write(ino, 0, b"x")) == 0o6755, "the kernel sees to it itself"
    assert after(world.vfs.setattr(ino, SetAttr(size=1), ROOT)) == 0o6755
    assert after(world.vfs.setattr(ino, SetAttr(size=1), ALICE)) == 0o755
    assert after(world.vfs.open(ino, os.O_WRONLY | os.O_TRUNC, ALICE)) == 0o755
    assert after(world.vfs.open(ino, os.O_WRONLY, ALICE)) == 0o6755


def test_open(world: World) -> None:
    ino = file(world, 1, b"f")
    drive(world.vfs.write(ino, 0, b"abc"))
    drive(world.vfs.open(ino, os.O_WRONLY | os.O_TRUNC))
    assert drive(world.vfs.getattr(ino)).size == 0 and world.content.is_open(ino)
    with pytest.raises(IsADirectory):
        drive(world.vfs.open(1, os.O_RDWR))
    with pytest.raises(StaleInode):
        drive(world.vfs.open(4711, os.O_RDONLY))
    drive(world.vfs.fsyncdir(1))
    assert world.transactions.durables == 1


def test_statfs_is_large_stable_and_true(world: World) -> None:
    before = drive(world.vfs.statfs())
    ino = file(world, 1, b"f")
    drive(world.meta.update_inode(ino, data=bytes(500)))
    after = drive(world.vfs.statfs())
    assert after.blocks == before.blocks and before.blocks_free - after.blocks_free == 1
    assert before.inodes_free - after.inodes_free == 1 and after.name_max == 255
    world.meta.counters.used_bytes = 5 << 50
    full = drive(world.vfs.statfs())
    assert full.blocks * full.block_size == 16 << 50 and full.blocks_free * full.block_size == 11 << 50


# ---------------------------------------------------------------- extended attributes

def test_xattrs(world: World) -> None:
    ino = file(world, 1, b"f")
    before = drive(world.vfs.getattr(ino))
    for name, value in ((b"user.a", b"\0binary\xff"), (b"user.empty", b""), (b"trusted.t", b"t"), (b"security.capability", b"c" * 65536)):
        drive(world.vfs.setxattr(ino, name, value))
        assert drive(world.vfs.getxattr(ino, name)) == value
    after = drive(world.vfs.getattr(ino))
    assert after.ctime_ns > before.ctime_ns and after.mtime_ns == before.mtime_ns
    drive(world.vfs.setxattr(ino, b"user.empty", b""))
    assert drive(world.vfs.getattr(ino)) == after, "the value that is there dirties nothing"
    assert drive(world.vfs.listxattr(ino)) == [b"security.capability", b"trusted.t", b"user.a", b"user.empty"]
    assert b"trusted.t" not in drive(world.vfs.listxattr(ino, ALICE))
    with pytest.raises(EntryExists):
        drive(world.vfs.setxattr(ino, b"user.a", b"1", XATTR_CREATE))
    with pytest.raises(NoAttribute):
        drive(world.vfs.setxattr(ino, b"user.b", b"1", XATTR_REPLACE))
    drive(world.vfs.setxattr(ino, b"user.b", b"1", XATTR_CREATE))
    drive(world.vfs.setxattr(ino, b"user.b", b"2", XATTR_REPLACE))
    assert drive(world.vfs.getxattr(ino, b"user.b")) == b"2"
    drive(world.vfs.removexattr(ino, b"user.b"))
    for operation in (world.vfs.getxattr(ino, b"user.b"), world.vfs.removexattr(ino, b"user.b")):
        with pytest.raises(NoAttribute):
            drive(operation)
    drive(world.vfs.unlink(1, b"f"))
    assert world.meta.counters.inodes == 1
    assert drive(world.meta.list_xattrs(ino)) == []


@pytest.mark.parametrize("name, error", [
    (b"", RangeError), (b"user." + b"n" * 251, RangeError), (b"user.", InvalidArgument),
    (b"system.posix_acl_access", NotSupported), (b"nothing", NotSupported), (b"system.x", NotSupported)])
def test_names_of_xattrs(world: World, name: bytes, error: type[Exception]) -> None:
    for operation in (world.vfs.setxattr(1, name, b""), world.vfs.getxattr(1, name), world.vfs.removexattr(1, name)):
        with pytest.raises(error):
            drive(operation)


def test_bounds_of_xattrs(world: World) -> None:
    ino = file(world, 1, b"f")
    with pytest.raises(TooBig):
        drive(world.vfs.setxattr(ino, b"user.a", bytes(65537)))
    with pytest.raises(InvalidArgument):
        drive(world.vfs.setxattr(ino, b"user.a", b"", 4))
    for number in range(256):                   # 256 names of 255 bytes and a zero byte each: exactly 64 KiB
        drive(world.vfs.setxattr(ino, b"user.%03d" % number + b"n" * 247, b""))
    with pytest.raises(NoSpace):
        drive(world.vfs.setxattr(ino, b"user.x", b""))
    drive(world.vfs.setxattr(ino, b"user.000" + b"n" * 247, b"replaced"))
    fifo = drive(world.vfs.mknod(1, b"p", stat.S_IFIFO | 0o600, 0, ROOT)).ino
    with pytest.raises(NotPermitted):
        drive(world.vfs.setxattr(fifo, b"user.a", b""))
    drive(world.vfs.setxattr(fifo, b"trusted.a", b""))


def test_xattr_of_a_file_with_pending_changes(world: World) -> None:
    ino = drive(world.vfs.create(1, b"f", 0o644, ROOT)).ino
    drive(world.vfs.write(ino, 0, b"abc"))
    before = drive(world.vfs.getattr(ino))
    drive(world.vfs.setxattr(ino, b"user.a", b"1"))
    after = drive(world.vfs.getattr(ino))
    assert after.ctime_ns > before.ctime_ns and after.mtime_ns == before.mtime_ns
