"""Vfs against a plain directory: the same random operations on both, the same errno or result each time, the same tree in the end.

Runs as root (owners, devices, trusted.*) on a folder of a real filesystem. A thin stand-in for the kernel resolves paths, keeps
descriptors and look-up counts; each operation must run without suspending, so atomicity is checked on the way.
"""
from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from s3cfs import errors
from s3cfs.errors import FsError
from s3cfs.meta import Inode
from s3cfs.vfs.core import Caller, SetAttr
from tests.vfs.world import World, drive

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="compares owners, devices and trusted attributes: needs root")

ERRNO: dict[type[FsError], int] = {
    errors.NoSuchEntry: errno.ENOENT, errors.StaleInode: errno.ESTALE, errors.EntryExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR, errors.IsADirectory: errno.EISDIR, errors.DirectoryNotEmpty: errno.ENOTEMPTY,
    errors.InvalidArgument: errno.EINVAL,
    errors.NameTooLong: errno.ENAMETOOLONG, errors.NoAttribute: errno.ENODATA, errors.NotPermitted: errno.EPERM,
    errors.FileTooLarge: errno.EFBIG, errors.TooManyLinks: errno.EMLINK, errors.NoSpace: errno.ENOSPC, errors.ReadOnly: errno.EROFS,
    errors.NotSupported: errno.ENOTSUP, errors.TooBig: errno.E2BIG, errors.RangeError: errno.ERANGE,
}
NAMES = [b"a", b"b", b"c", b"d", b"x" * 255, b"x" * 256]
PATHS = st.lists(st.sampled_from(NAMES[:4]), min_size=0, max_size=3).flatmap(
    lambda above: st.sampled_from(NAMES * 3 + NAMES[:4] * 20).map(lambda name: [*above, name]))
MODES = st.sampled_from([0o755, 0o644, 0o600, 0o7777, 0o2775, 0o4711, 0o1777, 0])
OWNERS = st.sampled_from([0, 1000, 2000])
XATTRS = st.sampled_from([b"user.a", b"user.b", b"trusted.c", b"security.d", b"user."])
FIND = st.integers(0, 10**6)
_libc = ctypes.CDLL(None, use_errno=True)
_UMASK = 0o022


def renameat2(old: bytes, new: bytes, flags: int) -> None:
    if _libc.renameat2(-100, old, -100, new, flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def outcome(operation: Callable[[], Any]) -> Any:
    try:
        return operation()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except FsError as error:
        return errno.errorcode[ERRNO[type(error)]]


class Kernel:
    """Paths, descriptors and look-up counts over a Vfs. Symbolic links are not followed (the test's all dangle)."""

    def __init__(self, world: World) -> None:
        self.world, self.vfs = world, world.vfs
        self.caller = Caller(0, 0, umask=_UMASK)
        self.counts: dict[int, int] = {}

    def remember(self, inode: Inode) -> Inode:
        if inode.ino != 1:
            self.vfs.remember(inode.ino)
            self.counts[inode.ino] = self.counts.get(inode.ino, 0) + 1
        return inode

    def forget(self, ino: int) -> None:
        drive(self.vfs.forget(ino, self.counts.pop(ino)))

    def parent(self, path: list[bytes]) -> int:
        ino = 1
        for name in path[:-1]:
            ino = self._enter(ino, name).ino
        if not stat.S_ISDIR(drive(self.vfs.getattr(ino)).mode):
            raise errors.NotADirectory("path")
        return ino

    def _enter(self, parent: int, name: bytes) -> Inode:
        inode = drive(self.vfs.lookup(parent, name))
        if inode is None:
            raise errors.NoSuchEntry("path")
        self.remember(inode)
        if stat.S_ISLNK(inode.mode):
            raise errors.NoSuchEntry("dangling")
        if not stat.S_ISDIR(inode.mode):
            raise errors.NotADirectory("path")
        return inode

    def find(self, path: list[bytes]) -> Inode:
        inode = drive(self.vfs.lookup(self.parent(path), path[-1]))
        if inode is None:
            raise errors.NoSuchEntry("path")
        return self.remember(inode)


def facts(mode: int, nlink: int, uid: int, gid: int, rdev: int, size: int) -> tuple[int, ...]:
    sized = stat.S_ISREG(mode) or stat.S_ISLNK(mode)
    return mode, nlink, uid, gid, rdev, size if sized else 0


class Comparison(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.umask = os.umask(_UMASK)
        self.folder = tempfile.mkdtemp(prefix="oracle-").encode()
        self.real = os.path.join(self.folder, b"plain")
        os.mkdir(self.real, 0o755)
        self.world = World(self.folder.decode())
        self.kernel = Kernel(self.world)
        self.vfs = self.kernel.vfs
        self.open: list[tuple[int, int]] = []       # (descriptor, inode)
        self.times: dict[int, tuple[int, int]] = {}

    def path(self, path: list[bytes]) -> bytes:
        return b"/".join([self.real, *path])

    def existing(self, number: int) -> list[bytes]:
        """Some path that is there, or that of nothing."""
        found = [b"nothing"]
        for above, folders, files in os.walk(self.real):
            found += [os.path.relpath(os.path.join(above, name), self.real) for name in folders + files]
        return sorted(found)[number % len(found)].split(b"/")

    def same(self, real: Callable[[], Any], ours: Callable[[], Any]) -> Any:
        expected, found = outcome(real), outcome(ours)
        assert found == expected, f"plain directory: {expected!r}, ours: {found!r}"
        return expected

    # ------------------------------------------------------------ names

    @rule(path=PATHS, mode=MODES)
    def create(self, path: list[bytes], mode: int) -> None:
        made: list[int] = []

        def real() -> None:
            made.append(os.open(self.path(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))

        def ours() -> None:
            made.append(self.kernel.remember(drive(self.vfs.create(self.kernel.parent(path), path[-1], mode, self.kernel.caller))).ino)

        if self.same(real, ours) is None:
            self.open.append((made[0], made[1]))

    @rule(path=PATHS, mode=MODES)
    def mkdir(self, path: list[bytes], mode: int) -> None:
        def ours() -> None:
            self.kernel.remember(drive(self.vfs.mkdir(self.kernel.parent(path), path[-1], mode, self.kernel.caller)))

        self.same(lambda: os.mkdir(self.path(path), mode), ours)

    @rule(path=PATHS, mode=MODES, kind=st.sampled_from([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]))
    def mknod(self, path: list[bytes], mode: int, kind: int) -> None:
        device = os.makedev(1, 3) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        self.same(lambda: os.mknod(self.path(path), kind | mode, device),
                  lambda: drive(self.vfs.mknod(self.kernel.parent(path), path[-1], kind | mode, device, self.kernel.caller)) and None)

    @rule(path=PATHS, text=st.sampled_from([b"nowhere", b"no/where", b"no/" + b"where/" * 150]))
    def symlink(self, path: list[bytes], text: bytes) -> None:
        self.same(lambda: os.symlink(text, self.path(path)),
                  lambda: drive(self.vfs.symlink(self.kernel.parent(path), path[-1], text, self.kernel.caller)) and None)

    @rule(source=FIND, path=PATHS)
    def link(self, source: int, path: list[bytes]) -> None:
        old = self.existing(source)

        def ours() -> None:
            ino = self.kernel.find(old).ino
            self.kernel.remember(drive(self.vfs.link(ino, self.kernel.parent(path), path[-1])))

        self.same(lambda: os.link(self.path(old), self.path(path), follow_symlinks=False), ours)

    @rule(source=FIND)
    def unlink(self, source: int) -> None:
        path = self.existing(source)
        self.same(lambda: os.unlink(self.path(path)), lambda: drive(self.vfs.unlink(self.kernel.parent(path), path[-1])))

    @rule(source=FIND)
    def rmdir(self, source: int) -> None:
        path = self.existing(source)
        self.same(lambda: os.rmdir(self.path(path)), lambda: drive(self.vfs.rmdir(self.kernel.parent(path), path[-1])))

    @rule(source=FIND, to=st.one_of(PATHS, FIND), flags=st.sampled_from([0, 0, 0, 1, 2, 2]))
    def rename(self, source: int, to: list[bytes] | int, flags: int) -> None:
        self._rename(self.existing(source), self.existing(to) if isinstance(to, int) else to, flags)

    @rule(source=FIND, below=st.sampled_from([[b"a"], [b"a", b"b"]]), flags=st.sampled_from([0, 1, 2]), backwards=st.booleans())
    def rename_into_itself(self, source: int, below: list[bytes], flags: int, backwards: bool) -> None:
        path = self.existing(source)
        self._rename(*((path + below, path) if backwards else (path, path + below)), flags)

    def _rename(self, old: list[bytes], new: list[bytes], flags: int) -> None:
        def ours() -> None:
            parent, new_parent = self.kernel.parent(old), self.kernel.parent(new)
            drive(self.vfs.rename(parent, old[-1], new_parent, new[-1], flags))

        self.same(lambda: renameat2(self.path(old), self.path(new), flags), ours)

    # ------------------------------------------------------------ attributes

    def _set(self, source: int, wanted: SetAttr, real: Callable[[bytes], None], *, files_only: bool = False) -> None:
        path = self.existing(source)
        mode = os.lstat(self.path(path)).st_mode if os.path.lexists(self.path(path)) else stat.S_IFREG
        if stat.S_ISLNK(mode) and (wanted.mode is not None or wanted.size is not None):
            return
        if files_only and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return
        self.same(lambda: real(self.path(path)),
                  lambda: drive(self.vfs.setattr(self.kernel.find(path).ino, wanted, self.kernel.caller)) and None)

    @rule(source=FIND, mode=MODES)
    def chmod(self, source: int, mode: int) -> None:
        self._set(source, SetAttr(mode=mode), lambda path: os.chmod(path, mode))

    @rule(source=FIND, uid=st.one_of(st.just(-1), OWNERS), gid=OWNERS)
    def chown(self, source: int, uid: int, gid: int) -> None:
        self._set(source, SetAttr(uid=None if uid < 0 else uid, gid=gid), lambda path: os.lchown(path, uid, gid))

    @rule(source=FIND, atime=st.integers(0, 2**33 * 10**9), mtime=st.integers(0, 2**33 * 10**9))
    def utimes(self, source: int, atime: int, mtime: int) -> None:
        self._set(source, SetAttr(atime_ns=atime, mtime_ns=mtime), lambda path: os.utime(path, ns=(atime, mtime), follow_symlinks=False))
        path = self.existing(source)
        if os.path.lexists(self.path(path)):
            real, ours = os.lstat(self.path(path)), self.kernel.find(path)
            assert (ours.atime_ns, ours.mtime_ns) == (atime, real.st_mtime_ns) == (atime, mtime)     # looking moves a real atime

    @rule(source=FIND, size=st.integers(0, 9000))
    def truncate(self, source: int, size: int) -> None:
        self._set(source, SetAttr(size=size), lambda path: os.truncate(path, size), files_only=True)

    # ------------------------------------------------------------ content through descriptors, also of removed files

    @rule(source=FIND, flags=st.sampled_from([os.O_RDWR, os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC]))
    def open_file(self, source: int, flags: int) -> None:
        path = self.existing(source)
        if os.path.lexists(self.path(path)) and not stat.S_ISREG(mode := os.lstat(self.path(path)).st_mode) and not stat.S_ISDIR(mode):
            return                                  # opening a FIFO or device is not the filesystem's affair
        opened: list[int] = []

        def ours() -> None:
            ino = self.kernel.find(path).ino
            drive(self.vfs.open(ino, flags, self.kernel.caller))
            opened.append(ino)

        def real() -> None:
            opened.append(os.open(self.path(path), flags))

        if self.same(real, ours) is None:
            self.open.append((opened[0], opened[1]))

    @rule(which=FIND, offset=st.integers(0, 9000), data=st.binary(min_size=1, max_size=50))
    def write(self, which: int, offset: int, data: bytes) -> None:
        if self.open:
            fd, ino = self.open[which % len(self.open)]
            if fcntl_mode(fd) == os.O_RDONLY:
                return
            self.same(lambda: os.pwrite(fd, data, offset), lambda: drive(self.vfs.write(ino, offset, data)))

    @rule(which=FIND, offset=st.integers(0, 9000))
    def read(self, which: int, offset: int) -> None:
        if self.open:
            fd, ino = self.open[which % len(self.open)]
            if stat.S_ISREG(os.fstat(fd).st_mode) and fcntl_mode(fd) != os.O_WRONLY:
                self.same(lambda: os.pread(fd, 100, offset), lambda: drive(self.vfs.read(ino, offset, 100)))

    @rule(which=FIND)
    def fstat(self, which: int) -> None:
        if self.open:
            fd, ino = self.open[which % len(self.open)]
            real, ours = os.fstat(fd), drive(self.vfs.getattr(ino))
            assert facts(ours.mode, ours.nlink, ours.uid, ours.gid, ours.rdev, ours.size) == \
                facts(real.st_mode, real.st_nlink, real.st_uid, real.st_gid, real.st_rdev, real.st_size)

    @rule(which=FIND)
    def close(self, which: int) -> None:
        if self.open:
            fd, ino = self.open.pop(which % len(self.open))
            os.close(fd)
            drive(self.vfs.release(ino))

    @rule(which=FIND)
    def stage(self, which: int) -> None:
        if pending := sorted(self.world.content.pending):
            drive(self.world.content.stage(pending[which % len(pending)]))

    @rule(which=FIND)
    def kernel_forgets(self, which: int) -> None:
        if known := sorted(set(self.kernel.counts) - {ino for _, ino in self.open}):
            self.kernel.forget(known[which % len(known)])

    @rule()
    def commit(self) -> None:
        self.world.meta.commit()

    # ------------------------------------------------------------ extended attributes

    @rule(source=FIND, name=XATTRS, value=st.binary(max_size=40), flags=st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]))
    def setxattr(self, source: int, name: bytes, value: bytes, flags: int) -> None:
        path = self.existing(source)
        self.same(lambda: os.setxattr(self.path(path), name, value, flags, follow_symlinks=False),
                  lambda: drive(self.vfs.setxattr(self.kernel.find(path).ino, name, value, flags)))

    @rule(source=FIND, name=XATTRS)
    def removexattr(self, source: int, name: bytes) -> None:
        path = self.existing(source)
        self.same(lambda: os.removexattr(self.path(path), name, follow_symlinks=False),
                  lambda: drive(self.vfs.removexattr(self.kernel.find(path).ino, name)))

    @rule(source=FIND, name=XATTRS)
    def getxattr(self, source: int, name: bytes) -> None:
        path = self.existing(source)
        self.same(lambda: os.getxattr(self.path(path), name, follow_symlinks=False),
                  lambda: drive(self.vfs.getxattr(self.kernel.find(path).ino, name)))

    # ------------------------------------------------------------ the whole tree

    def plain(self) -> dict[bytes, tuple[Any, ...]]:
        found: dict[bytes, tuple[Any, ...]] = {}
        numbers: dict[int, bytes] = {}
        for path in [b".", *(os.path.relpath(os.path.join(above, name), self.real)
                             for above, folders, files in sorted(os.walk(self.real)) for name in sorted(folders + files))]:
            full = os.path.join(self.real, path)
            seen = os.lstat(full)
            link = os.readlink(full) if stat.S_ISLNK(seen.st_mode) else None
            content = read_file(full) if stat.S_ISREG(seen.st_mode) else None
            attributes = {os.fsencode(name): os.getxattr(full, name, follow_symlinks=False)
                          for name in os.listxattr(full, follow_symlinks=False) if not name.startswith("security.selinux")}
            found[path] = (facts(seen.st_mode, seen.st_nlink, seen.st_uid, seen.st_gid, seen.st_rdev, seen.st_size), link, content,
                           attributes, numbers.setdefault(seen.st_ino, path))
        return found

    def ours(self) -> dict[bytes, tuple[Any, ...]]:
        found: dict[bytes, tuple[Any, ...]] = {}
        numbers: dict[int, bytes] = {}

        def add(path: bytes, inode: Inode) -> None:
            content = drive(self.vfs.read(inode.ino, 0, 1 << 20)) if stat.S_ISREG(inode.mode) else None
            attributes = {name: drive(self.vfs.getxattr(inode.ino, name)) for name in drive(self.vfs.listxattr(inode.ino))}
            found[path] = (facts(inode.mode, inode.nlink, inode.uid, inode.gid, inode.rdev, inode.size), inode.target, content, attributes,
                           numbers.setdefault(inode.ino, path))

        def walk(path: bytes, ino: int) -> None:
            handle, cookie = drive(self.vfs.opendir(ino)), 0
            entries: list[tuple[bytes, Inode]] = []
            while batch := drive(self.vfs.readdir(handle, cookie, 3)):
                entries += [(os.path.normpath(os.path.join(path, name)), inode) for name, inode, _ in batch]
                cookie = batch[-1][2]
            drive(self.vfs.releasedir(handle))
            for below, inode in entries:
                add(below, inode)
            for below, inode in entries:
                if stat.S_ISDIR(inode.mode):
                    assert inode.parent == ino
                    walk(below, inode.ino)

        add(b".", drive(self.vfs.getattr(1)))
        walk(b".", 1)
        return found

    @invariant()
    def same_tree(self) -> None:
        plain, ours = self.plain(), self.ours()
        assert {path: entry[:4] for path, entry in ours.items()} == {path: entry[:4] for path, entry in plain.items()}
        assert links(ours) == links(plain)

    def teardown(self) -> None:
        try:
            for fd, ino in self.open:
                os.close(fd)
                drive(self.vfs.release(ino))
            drive(self.vfs.forget_all())
            self.open.clear()
            assert drive(self.world.meta.orphans()) == []
            assert self.world.meta.counters.inodes == len({entry[4] for entry in self.plain().values()})
        finally:
            self.world.close()
            os.umask(self.umask)
            shutil.rmtree(self.folder)


def links(tree: dict[bytes, tuple[Any, ...]]) -> set[frozenset[bytes]]:
    """Which paths are the same inode."""
    groups: dict[bytes, set[bytes]] = {}
    for path, entry in tree.items():
        groups.setdefault(entry[4], set()).add(path)
    return {frozenset(group) for group in groups.values()}


def fcntl_mode(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def read_file(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


Comparison.TestCase.settings = settings(max_examples=int(os.environ.get("S3CFS_ORACLE_EXAMPLES", "40")), stateful_step_count=50,
                                        deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
TestOracle = Comparison.TestCase
TestOracle.pytestmark = [pytestmark]        # type: ignore[attr-defined]
