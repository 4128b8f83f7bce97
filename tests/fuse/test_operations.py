"""What programs see on a real mount."""
from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuse.conftest import Mount, until

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def rename_flags(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def expect(number: int):
    return pytest.raises(OSError, match=rf"\[Errno {number}\]")


def as_nobody(action: Callable[[], object], folder: Path) -> str:
    """Do it in a child process of another user that sits in `folder`; "fine", or the name of its exception."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "not begun"
        try:
            os.chdir(folder)                              # the way there is not open to everybody
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            action()
            said = "fine"
        except BaseException as error:
            said = type(error).__name__
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def test_a_tree_of_everything(mount: Mount) -> None:
    daemon = mount()
    top = daemon.path
    (top / "d").mkdir(mode=0o750)
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o750
    assert top.stat().st_nlink == 3
    (top / "d" / "f").write_bytes(b"content")
    assert (top / "d" / "f").read_bytes() == b"content"
    os.link(top / "d" / "f", top / "hard")
    assert (top / "hard").stat().st_nlink == 2 == (top / "d" / "f").stat().st_nlink
    os.symlink("x" * 900, top / "soft")
    assert os.readlink(top / "soft") == "x" * 900
    os.mkfifo(top / "fifo")
    assert stat.S_ISFIFO((top / "fifo").lstat().st_mode)
    names = os.listdir(top)
    assert sorted(names) == ["d", "fifo", "hard", "soft"]
    (top / "hard").unlink()
    assert (top / "d" / "f").stat().st_nlink == 1
    with expect(errno.ENOTEMPTY):
        (top / "d").rmdir()
    with expect(errno.ENOTDIR):
        (top / "fifo").rmdir()
    with expect(errno.EEXIST):
        (top / "d").mkdir()
    with expect(errno.ENAMETOOLONG):
        (top / ("n" * 256)).touch()
    (top / ("n" * 255)).touch()
    (top / "d" / "f").rename(top / "g")
    (top / "d").rmdir()
    assert top.stat().st_nlink == 2
    assert os.statvfs(top).f_namemax == 255 and os.statvfs(top).f_bavail > 0


@ROOT_ONLY
def test_device_node(mount: Mount) -> None:
    top = mount().path
    os.mknod(top / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    found = (top / "null").stat()
    assert stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


def test_rename_flags(mount: Mount) -> None:
    top = mount().path
    (top / "a").write_text("a")
    (top / "b").write_text("b")
    with expect(errno.EEXIST):
        rename_flags(top / "a", top / "b", 1)
    rename_flags(top / "a", top / "b", 2)
    assert (top / "a").read_text() == "b" and (top / "b").read_text() == "a"
    (top / "a").rename(top / "b")
    assert os.listdir(top) == ["b"] and (top / "b").read_text() == "b"


@pytest.mark.parametrize("writeback", [True, False])
def test_content(mount: Mount, writeback: bool) -> None:
    top = mount(writeback=writeback).path
    path, data = top / "f", os.urandom(3_000_000)
    path.write_bytes(data)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"tail")
    os.write(fd, b"end")
    os.close(fd)
    assert path.read_bytes() == data + b"tailend"
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"X" * 10, 1_500_000)
    os.fsync(fd)
    os.ftruncate(fd, 1_500_005)
    assert os.fstat(fd).st_size == 1_500_005
    os.ftruncate(fd, 1_500_020)
    os.close(fd)
    assert path.read_bytes() == data[:1_500_000] + b"X" * 5 + bytes(15)
    path.write_bytes(b"new")                             # O_TRUNC
    assert path.read_bytes() == b"new" and path.stat().st_size == 3
    os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))
    assert path.stat().st_size == 0
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, b"far", 1 << 20)
    os.close(fd)
    assert path.read_bytes() == bytes(1 << 20) + b"far"


def test_truncating_open_reaches_the_filesystem(mount: Mount) -> None:
    """With an attribute timeout of nothing the size is the filesystem's own, not the kernel's belief."""
    top = mount(writeback=False, attr_timeout_s=0, entry_timeout_s=0).path
    (top / "f").write_bytes(b"x" * 1000)
    fd = os.open(top / "f", os.O_WRONLY | os.O_TRUNC)
    assert (top / "f").stat().st_size == 0
    os.close(fd)


def test_times_are_kept_to_the_nanosecond(mount: Mount) -> None:
    path = mount().path / "f"
    path.write_text("x")
    os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    found = path.stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_987_654_321)
    os.utime(path, ns=(-1_500_000_000, -1))               # before 1970
    assert path.stat().st_mtime_ns == -1


def test_times_after_unlink_do_no_harm(mount: Mount) -> None:
    """With write-back the kernel tells the times of an open file late, even when its name is gone."""
    daemon = mount()
    path = daemon.path / "f"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(fd, b"data")
    path.unlink()
    os.write(fd, b"more")
    os.fsync(fd)
    assert os.pread(fd, 100, 0) == b"datamore" and os.fstat(fd).st_nlink == 0
    os.close(fd)
    assert "ERROR" not in daemon.log.read_text()


def test_unlinked_inode_goes_when_the_kernel_forgets_it(mount: Mount) -> None:
    daemon = mount()
    for number in range(50):
        path = daemon.path / f"f{number}"
        path.write_text("x")
        path.unlink()
    (daemon.path / "after").touch()                       # its forgets come in front of, or with, later requests
    assert daemon.ask("about")["inodes"] <= 4
    assert "ERROR" not in daemon.log.read_text()          # every look-up was counted


def test_an_exception_in_forget_is_no_more_than_a_line_in_the_log(mount: Mount) -> None:
    daemon = mount()
    path = daemon.path / "f"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o202))
    path.chmod(0o202)
    path.unlink()
    (daemon.path / "after").touch()
    until(lambda: "op=forget" in daemon.log.read_text(), "the forget has come")
    (daemon.path / "still").touch()


def test_big_directory_and_dots(mount: Mount) -> None:
    top = mount().path
    expected = {f"file-{number:05}" for number in range(3000)}
    for name in expected:
        (top / name).touch()
    assert set(os.listdir(top)) == expected
    with os.scandir(top) as entries:
        assert all(entry.is_file(follow_symlinks=False) for entry in entries)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    buffer = ctypes.create_string_buffer(1024)
    size = libc.syscall(217, fd, buffer, 1024)            # getdents64: Python hides the dots
    os.close(fd)
    assert buffer.raw[19:21] == b".\0" and b"..\0" in buffer.raw[:size]


def test_directory_changing_under_its_reader(mount: Mount) -> None:
    """What stays is seen exactly once, whatever else comes and goes between two requests for entries."""
    top = mount().path
    for number in range(2000):
        (top / f"f{number:04}").touch()
    seen = []
    with os.scandir(top) as entries:
        for count, entry in enumerate(entries):
            seen.append(entry.name)
            if count % 50 == 0:
                (top / f"new{count:04}").touch()
                (top / f"f{1999 - count // 50:04}").unlink(missing_ok=True)
    staying = [name for name in seen if name.startswith("f") and int(name[1:]) < 1900]
    assert staying == sorted(set(staying)) and len(staying) == 1900


def test_entries_that_did_not_fit_do_not_bring_old_attributes_back(mount: Mount) -> None:
    top = mount().path
    for number in range(1000):
        (top / f"f{number:04}").touch(mode=0o644)
    last = top / "f0999"
    with os.scandir(top) as entries:
        next(entries)                                     # the daemon may have read on
        last.chmod(0o600)
        for _ in entries:
            pass
    assert stat.S_IMODE(last.stat().st_mode) == 0o600


def test_the_kernel_answers(mount: Mount) -> None:
    daemon = mount()
    path = daemon.path / "f"
    path.touch()
    before = daemon.asked("getattr"), daemon.asked("lookup")
    for _ in range(200):
        path.stat()
        assert not (daemon.path / "absent").exists()
    assert daemon.asked("getattr") - before[0] <= 2
    assert daemon.asked("lookup") - before[1] <= 2
    (daemon.path / "absent").touch()
    assert (daemon.path / "absent").exists()


def test_page_cache_survives_close(mount: Mount) -> None:
    daemon = mount()
    (daemon.path / "f").write_bytes(b"x" * 500_000)
    before = daemon.asked("read")
    for _ in range(5):
        assert len((daemon.path / "f").read_bytes()) == 500_000
    assert daemon.asked("read") == before


def test_timeouts_of_a_follower(mount: Mount) -> None:
    daemon = mount(entry_timeout_s=0, attr_timeout_s=0, negative_timeout_s=0)
    before = daemon.asked("lookup")
    for _ in range(10):
        assert not (daemon.path / "absent").exists()
    assert daemon.asked("lookup") - before == 10


def test_extended_attributes(mount: Mount) -> None:
    path = mount().path / "f"
    path.touch()
    os.setxattr(path, "user.a", b"1" * 5000)
    os.setxattr(path, "user.b", b"")
    assert os.getxattr(path, "user.a") == b"1" * 5000 and sorted(os.listxattr(path)) == ["user.a", "user.b"]
    with expect(errno.EEXIST):
        os.setxattr(path, "user.a", b"", os.XATTR_CREATE)
    with expect(errno.ENODATA):
        os.setxattr(path, "user.c", b"", os.XATTR_REPLACE)
    os.removexattr(path, "user.a")
    with expect(errno.ENODATA):
        os.getxattr(path, "user.a")
    with expect(errno.ENOTSUP):
        os.getxattr(path, "system.posix_acl_access")
    os.setxattr(path, "user.c", b"still", 0)              # nothing of that has switched them off
    assert os.getxattr(path, "user.c") == b"still"


@pytest.mark.parametrize("writeback", [True, False])
def test_writes_do_not_ask_for_capabilities(mount: Mount, writeback: bool) -> None:
    daemon = mount(writeback=writeback)
    before = daemon.asked("getxattr")
    with open(daemon.path / "f", "wb", buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * 100)
    assert daemon.asked("getxattr") - before <= 1


@ROOT_ONLY
def test_capability_is_seen_once_set(mount: Mount) -> None:
    path = mount().path / "f"
    path.write_bytes(b"x")
    with expect(errno.ENODATA):
        os.getxattr(path, "security.capability")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(path, "security.capability", capability)
    assert os.getxattr(path, "security.capability") == capability
    with open(path, "ab") as file:                        # the kernel takes it away at a write
        file.write(b"y")
    with expect(errno.ENODATA):
        os.getxattr(path, "security.capability")


@ROOT_ONLY
@pytest.mark.parametrize("writeback", [True, False])
def test_setuid_bit_goes_with_a_write(mount: Mount, writeback: bool) -> None:
    """The kernel sees to it, and does not go on believing the old mode."""
    daemon = mount(writeback=writeback, allow_other=True)
    path = daemon.path / "f"
    path.write_bytes(b"x")
    path.chmod(0o4777)
    assert path.stat().st_mode & stat.S_ISUID

    def append() -> None:
        fd = os.open("f", os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"y")
        os.close(fd)

    assert as_nobody(append, daemon.path) == "fine"
    assert not path.stat().st_mode & stat.S_ISUID


def test_errors_reach_write_and_close(mount: Mount) -> None:
    top = mount(writeback=False).path
    with open(top / "f", "wb", buffering=0) as file, expect(errno.ENOSPC):
        file.write(b"full disk")
    fd = os.open(top / "g", os.O_WRONLY | os.O_CREAT)
    os.fchmod(fd, 0o201)
    with expect(errno.EIO):
        os.close(fd)


def test_errors_reach_close_with_write_back(mount: Mount) -> None:
    fd = os.open(mount().path / "f", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"full disk")
    with expect(errno.ENOSPC):
        os.close(fd)


def test_an_unexpected_exception_is_an_io_error_and_no_more(mount: Mount) -> None:
    daemon = mount()
    for _ in range(3):
        with expect(errno.EIO):
            (daemon.path / "boom").stat()
    (daemon.path / "fine").touch()
    log = daemon.log.read_text()
    assert "op=lookup on=1 answer=EIO" in log and "RuntimeError: a bug, as asked for" in log


@ROOT_ONLY
def test_permissions_are_the_kernels(mount: Mount) -> None:
    path = mount(allow_other=True).path / "secret"
    path.write_text("x")
    path.chmod(0o600)
    assert as_nobody(lambda: os.open("secret", os.O_RDONLY), path.parent) == "PermissionError"


def test_read_only(mount: Mount) -> None:
    with expect(errno.EROFS):
        (mount(read_only=True).path / "f").touch()


def test_many_at_once(mount: Mount) -> None:
    top = mount().path
    failed = []

    def work(number: int) -> None:
        folder = top / f"d{number}"
        folder.mkdir()
        for count in range(60):
            path = folder / f"f{count}"
            data = bytes([number, count]) * 3000
            path.write_bytes(data)
            if path.read_bytes() != data or count not in (59,) and not path.exists():
                failed.append(path)
        if len(os.listdir(folder)) != 60:
            failed.append(folder)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
