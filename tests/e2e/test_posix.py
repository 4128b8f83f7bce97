"""POSIX as seen through the kernel on a real mount: what programs rely on, spot by spot, and again after a remount from the store."""
from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import random
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import Make
from .kit import Filesystem, Mount
from .manifest import assert_same, manifest
from .sources import oddities

pytestmark = pytest.mark.mount
KIB, MIB = 1 << 10, 1 << 20
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filesystem]:
    base = tmp_path_factory.mktemp("posix")
    (base / "store").mkdir()
    fs = Filesystem(base, f"local://{base}/store", env={"HOME": str(base)})
    try:
        fs.mkfs().mount()
        yield fs
    finally:
        fs.close()


@pytest.fixture
def here(shared: Filesystem, request: pytest.FixtureRequest) -> Path:
    """A folder of its own on one mount that all tests share."""
    path: Path = shared.mounts[0] / request.node.name
    path.mkdir()
    return path


@contextmanager
def fails(*numbers: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno in numbers, caught.value


def renameat2(old: Path, new: Path, flags: int) -> None:
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def test_everything_a_tree_may_hold(make: Make, tmp_path: Path):
    fs = make().mkfs()
    mount = fs.mount()
    oddities(mount / "odd")
    os.chdir("/")
    before = manifest(mount.path, blocks=True)
    mount.umount()
    fs.lose()
    mount = fs.mount(cache="elsewhere")
    assert_same(before, manifest(mount.path, blocks=True))
    subprocess.run(["rm", "-rf", mount / "odd"], check=True)
    mount.flush()
    assert mount.stat()["files"]["inodes"] == 1 and os.listdir(mount.path) == []
    mount.umount()


def test_links(here: Path):
    (here / "a").write_bytes(b"one")
    os.link(here / "a", here / "b")
    before = (here / "a").stat()
    assert before.st_nlink == 2 and before.st_ino == (here / "b").stat().st_ino
    (here / "b").write_bytes(b"other")
    assert (here / "a").read_bytes() == b"other"
    os.unlink(here / "a")
    assert (here / "b").stat().st_nlink == 1
    with fails(errno.EPERM):
        os.link(here, here / "of a folder")
    with fails(errno.EEXIST):
        os.link(here / "b", here / "b")
    os.symlink("t" * 4095, here / "longest")
    assert os.readlink(here / "longest") == "t" * 4095
    with fails(errno.ENAMETOOLONG):
        os.symlink("t" * 4096, here / "too long")


def test_names(here: Path):
    for name in (b"n" * 255, "ü".encode() * 127, b"\xff\xfe\x80", b"a\nb\tc", b" ", b"-rf", b"...", b"\\"):
        path = os.fsencode(here) + b"/" + name
        with open(path, "wb") as file:
            file.write(name)
        assert name in os.listdir(os.fsencode(here))
    with fails(errno.ENAMETOOLONG):
        (here / ("n" * 256)).touch()
    (here / "Case").touch()
    assert not (here / "case").exists()


def test_renames(here: Path):
    (here / "a").write_bytes(b"a")
    (here / "b").write_bytes(b"b")
    (here / "d").mkdir()
    (here / "e").mkdir()
    with fails(errno.EEXIST):
        renameat2(here / "a", here / "b", RENAME_NOREPLACE)
    renameat2(here / "a", here / "b", RENAME_EXCHANGE)
    assert (here / "a").read_bytes() == b"b" and (here / "b").read_bytes() == b"a"
    renameat2(here / "a", here / "d", RENAME_EXCHANGE)
    assert (here / "a").is_dir() and (here / "d").read_bytes() == b"b"
    with fails(errno.EINVAL):
        renameat2(here / "b", here / "c", RENAME_WHITEOUT)
    with fails(errno.EISDIR):
        os.rename(here / "b", here / "a")
    with fails(errno.ENOTDIR):
        os.rename(here / "a", here / "b")
    with fails(errno.EINVAL):
        os.rename(here / "a", here / "a" / "inside itself")
    (here / "e" / "full").touch()
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(here / "a", here / "e")
    links = here.stat().st_nlink
    os.rename(here / "a", here / "e" / "a")
    assert here.stat().st_nlink == links - 1 and (here / "e").stat().st_nlink == 3


def test_open_flags(here: Path):
    path = here / "file"
    with path.open("ab") as one, path.open("ab") as two:
        for number in range(200):
            (one, two)[number % 2].write(b"%03d\n" % number)
            (one, two)[number % 2].flush()
    assert path.read_bytes() == b"".join(b"%03d\n" % number for number in range(200))
    with path.open("rb") as reader:
        path.write_bytes(b"")                 # O_TRUNC while it is open elsewhere
        assert reader.read() == b"" and path.stat().st_size == 0
    with fails(errno.EEXIST):
        os.open(path, os.O_CREAT | os.O_EXCL)
    with fails(errno.EISDIR):
        os.open(here, os.O_WRONLY)
    with fails(errno.ENOTDIR):
        os.open(path / "x", os.O_RDONLY)
    os.symlink("file", here / "link")
    with fails(errno.ELOOP):
        os.open(here / "link", os.O_RDONLY | os.O_NOFOLLOW)
    handle = os.open(here, os.O_TMPFILE | os.O_RDWR, 0o600) if hasattr(os, "O_TMPFILE") and _tmpfile_works(here) else None
    if handle is not None:
        os.close(handle)


def _tmpfile_works(here: Path) -> bool:
    try:
        os.close(os.open(here, os.O_TMPFILE | os.O_RDWR, 0o600))
        return True
    except OSError as error:
        assert error.errno in (errno.EOPNOTSUPP, errno.EISDIR)      # as every FUSE filesystem without it says
        return False


def test_unlinked_while_open(here: Path):
    path = here / "file"
    data = os.urandom(3 * MIB)
    with path.open("w+b") as file:
        file.write(data)
        file.flush()
        path.unlink()
        assert not path.exists() and os.fstat(file.fileno()).st_nlink == 0
        file.seek(0)
        assert file.read() == data
        file.write(data)
        os.fsync(file.fileno())
        file.seek(0)
        assert file.read() == data + data
    (here / "folder").mkdir()
    handle = os.open(here / "folder", os.O_RDONLY)
    (here / "folder").rmdir()
    assert os.listdir(handle) == []
    with fails(errno.ENOENT):
        os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=handle)
    os.close(handle)


def test_times(here: Path):
    path = here / "file"
    path.touch()
    for ns in (0, 1, 999_999_999, 1_600_000_000_123_456_789, 2**33 * 10**9 + 5, -7 * 10**9 + 3):
        os.utime(path, ns=(ns + 11, ns))
        assert path.stat().st_mtime_ns == ns
    before = path.stat()
    path.chmod(0o600)
    after = path.stat()
    assert after.st_mtime_ns == before.st_mtime_ns and after.st_ctime_ns >= before.st_ctime_ns
    folder = here.stat().st_mtime_ns
    (here / "new").touch()
    assert here.stat().st_mtime_ns > folder
    written = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.write(b"x")
    assert path.stat().st_mtime_ns > written
    with path.open("r+b") as file:           # a time that is set after a write stays, whatever is written back later
        file.write(b"y" * 100_000)
        file.flush()
        os.utime(file.fileno(), ns=(5, 6))
    assert path.stat().st_mtime_ns == 6


def test_sparse_files_and_sizes(here: Path):
    path = here / "file"
    with path.open("w+b") as file:
        file.truncate(1 << 40)
        assert path.stat().st_size == 1 << 40 and path.stat().st_blocks == 0
        file.seek(1 << 39)
        file.write(b"in the middle")
        file.flush()
        os.fsync(file.fileno())
    assert 0 < path.stat().st_blocks * 512 <= 64 * KIB        # the kernel asks anew after a close only
    with path.open("r+b") as file:
        file.seek((1 << 39) - 5)
        assert file.read(20) == bytes(5) + b"in the middle" + bytes(2)
        file.truncate((1 << 39) + 4)
        file.truncate((1 << 39) + 100)
        file.seek((1 << 39) - 1)
        assert file.read() == b"\0in t" + bytes(96)           # what was cut off does not come back
        file.truncate(0)
    assert path.stat().st_blocks == 0
    zeros = here / "zeros"
    zeros.write_bytes(bytes(8 * MIB))
    with zeros.open("rb") as file:
        os.fsync(file.fileno())
    assert zeros.stat().st_size == 8 * MIB and zeros.read_bytes() == bytes(8 * MIB)
    with fails(errno.EFBIG, errno.EINVAL):
        os.truncate(zeros, 2**63 - 1)


def test_truncating_against_a_plain_file(here: Path, tmp_path: Path, seed: int):
    dice = random.Random(seed)
    ours, plain = here / "file", tmp_path / "file"
    with ours.open("w+b", buffering=0) as a, plain.open("w+b", buffering=0) as b:
        for _ in range(400):
            what = dice.choice(("write", "write", "truncate", "append", "sync", "read"))
            at, size = dice.randrange(3 * MIB), dice.choice((1, 100, 4096, 70_000, 600_000))
            data = dice.randbytes(size)
            for file in (a, b):
                if what == "write":
                    os.pwrite(file.fileno(), data, at)
                elif what == "truncate":
                    file.truncate(at)
                elif what == "append":
                    file.seek(0, os.SEEK_END)
                    file.write(data)
                elif what == "sync" and file is a:
                    os.fsync(file.fileno())
            if what == "read":
                assert os.pread(a.fileno(), size, at) == os.pread(b.fileno(), size, at)
            assert os.fstat(a.fileno()).st_size == os.fstat(b.fileno()).st_size
    assert ours.read_bytes() == plain.read_bytes()


def test_mmap(here: Path):
    path = here / "file"
    path.write_bytes(bytes(MIB))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        for at in range(0, MIB, 100_003):
            shared[at:at + 5] = b"mmap!"
        shared.flush()
        with path.open("rb") as other:
            found = other.read()
    assert [found[at:at + 5] for at in range(0, MIB, 100_003)] == [b"mmap!"] * len(range(0, MIB, 100_003))
    with path.open("rb") as reader, mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as seen:
        assert seen[100_003:100_008] == b"mmap!"
    program = here / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    subprocess.run([program], check=True)


def test_fallocate_and_seek_hole(here: Path):
    path = here / "file"
    path.write_bytes(b"data")
    with path.open("r+b") as file:
        for mode in (0, 1, 3, 8, 16, 32):
            done = libc.fallocate(file.fileno(), mode, ctypes.c_long(0), ctypes.c_long(MIB))
            assert done == 0 or ctypes.get_errno() in (errno.EOPNOTSUPP, errno.EINVAL, errno.EFBIG), (mode, os.strerror(ctypes.get_errno()))
            assert path.read_bytes()[:4] == b"data" or mode in (3, 8, 16)
        try:
            os.posix_fallocate(file.fileno(), 0, 2 * MIB)          # glibc writes zeros itself where the kernel cannot
            assert path.stat().st_size >= 2 * MIB
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) <= path.stat().st_size


def test_locks(here: Path):
    path = here / "file"
    path.write_bytes(bytes(100))
    try_lock = ("import fcntl, sys\n"
                "with open(sys.argv[1], 'r+b') as f:\n"
                "    try: (fcntl.flock if sys.argv[2] == 'flock' else fcntl.lockf)(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                "    except OSError: sys.exit(7)\n")
    for kind, lock in (("flock", fcntl.flock), ("lockf", fcntl.lockf)):
        with path.open("r+b") as file:
            lock(file, fcntl.LOCK_EX)
            assert subprocess.run([sys.executable, "-c", try_lock, path, kind]).returncode == 7
            lock(file, fcntl.LOCK_UN)
            assert subprocess.run([sys.executable, "-c", try_lock, path, kind]).returncode == 0


def test_special_files(here: Path):
    os.mkfifo(here / "fifo")
    reader = os.open(here / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with (here / "fifo").open("wb", buffering=0) as writer:
        writer.write(b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    os.chdir(here)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        client.connect("socket")
    os.chdir("/")
    if os.geteuid() == 0:
        os.mknod(here / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        assert os.makedev(1, 3) == (here / "null").stat().st_rdev


def test_xattrs(here: Path):
    path = here / "file"
    path.touch()
    os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
    with fails(errno.EEXIST):
        os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)
    with fails(errno.ENODATA):
        os.setxattr(path, "user.b", b"2", os.XATTR_REPLACE)
    os.setxattr(path, "user.a", b"v" * 65536, os.XATTR_REPLACE)
    assert os.getxattr(path, "user.a") == b"v" * 65536
    with fails(errno.E2BIG):
        os.setxattr(path, "user.a", b"v" * 65537)
    for number in range(100):
        os.setxattr(path, f"user.n{number}", b"%d" % number)
    assert len(os.listxattr(path)) == 101
    os.removexattr(path, "user.a")
    with fails(errno.ENODATA):
        os.getxattr(path, "user.a")
    with fails(errno.ENODATA):
        os.removexattr(path, "user.a")
    with fails(errno.EOPNOTSUPP):
        os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2))


def test_permissions(here: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    here.chmod(0o755)
    (here / "secret").write_bytes(b"s")
    (here / "secret").chmod(0o600)
    (here / "program").write_bytes(b"#!/bin/sh\n")
    (here / "program").chmod(0o6755)
    with (here / "program").open("ab") as file:
        file.write(b"true\n")
    os.chown(here / "program", 1000, 1000)
    assert stat.S_IMODE((here / "program").stat().st_mode) == 0o755      # chown by root of an executable, too
    shared = here / "shared"
    shared.mkdir()
    os.chown(shared, 0, 4321)
    shared.chmod(0o2775)
    (shared / "file").touch()
    (shared / "folder").mkdir()
    assert (shared / "file").stat().st_gid == 4321 and (shared / "folder").stat().st_mode & stat.S_ISGID


def test_concurrent_writers(here: Path):
    """Threads on one file, each its own places; and on files of their own in one folder."""
    path, pieces, size = here / "file", 64, 40_961
    path.touch()
    data = [os.urandom(size) for _ in range(pieces)]

    def work(who: int) -> None:
        handle = os.open(path, os.O_RDWR)
        for number in range(who, pieces, 4):
            os.pwrite(handle, data[number], number * size)
            (here / f"{who} {number}").write_bytes(data[number])
            if number % 5 == 0:
                os.fsync(handle)
        os.close(handle)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == b"".join(data)
    assert all((here / f"{number % 4} {number}").read_bytes() == data[number] for number in range(pieces))


def test_statfs(shared: Filesystem):
    mount: Mount = shared.mounts[0]
    found = os.statvfs(mount.path)
    assert found.f_namemax == 255 and found.f_bavail / found.f_blocks > 0.01 and found.f_ffree > 1000
    subprocess.run(["df", mount.path], check=True, capture_output=True)
