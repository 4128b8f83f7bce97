"""Content, times and listings as only a kernel asks for them."""
from __future__ import annotations

import ctypes
import mmap
import os
import random
import struct
import time

import pytest

from .kit import Filesystem
from .test_memory import anonymous_mib

pytestmark = pytest.mark.mount
KIB, MIB = 1 << 10, 1 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)
_WRITE_OUT = 7                   # of sync_file_range: begin, and wait for it
_GETDENTS64 = {"x86_64": 217, "aarch64": 61}


@pytest.mark.parametrize("tries", [15, pytest.param(750, marks=pytest.mark.soak)])
@pytest.mark.parametrize("direct", [True, False])
def test_truncated_bytes_do_not_come_back(direct: bool, tries: int, local_fs: Filesystem):
    """Cut and grown again while the daemon stages the run that was just written: zeros."""
    mount = local_fs.mount()
    size = 9 * MIB
    buffer = mmap.mmap(-1, size)                   # aligned, for O_DIRECT
    buffer.write(random.Random(5).randbytes(size))
    view = memoryview(buffer)
    for number in range(tries):
        fd = os.open(mount / "f", os.O_RDWR | os.O_CREAT | os.O_TRUNC | (os.O_DIRECT if direct else 0), 0o644)
        for at in range(0, size, MIB):
            os.pwrite(fd, view[at:at + MIB], at)
        if not direct:
            _LIBC.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), _WRITE_OUT)
        time.sleep(number % 30 * 0.002)            # somewhere in the staging
        cut = 8 * KIB if number % 2 else 100 * KIB
        os.ftruncate(fd, size - cut)
        os.ftruncate(fd, size)
        time.sleep(0.1)                            # ... and it has ended
        reader = os.open(mount / "f", os.O_RDONLY)
        os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(reader, cut, size - cut) == bytes(cut), f"try {number}"
        os.close(reader)
        os.close(fd)
    view.release()
    mount.umount()


def test_large_writes_over_one_another_do_not_stay_in_memory(local_fs: Filesystem):
    """1 MiB each, 4 KiB apart: of each only 4 KiB are left."""
    mount = local_fs.mount()
    buffer = mmap.mmap(-1, MIB)
    buffer.write(os.urandom(MIB))
    before = anonymous_mib(mount)
    fd = os.open(mount / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    most = 0.0
    for number in range(400):
        os.pwrite(fd, buffer, number * 4 * KIB)
        if number % 50 == 49:
            most = max(most, anonymous_mib(mount))
    os.close(fd)
    assert most < before + 100
    mount.umount()


def test_the_ctime_of_a_file_never_goes_back(local_fs: Filesystem):
    """chmod to the mode that it has: the kernel's own ctime is found again by the next mount."""
    mount = local_fs.mount()
    (mount / "f").touch()
    os.chmod(mount / "f", 0o644)
    time.sleep(0.05)                               # the kernel's clock has ticks
    os.chmod(mount / "f", 0o644)
    shown = os.stat(mount / "f").st_ctime_ns
    mount.umount()
    mount = local_fs.mount()
    assert os.stat(mount / "f").st_ctime_ns == shown
    mount.umount()


def _entries(fd: int) -> list[tuple[bytes, int]]:
    """One reply of getdents64: (name, position behind it)."""
    buffer = ctypes.create_string_buffer(4 * KIB)
    count = _LIBC.syscall(_GETDENTS64[os.uname().machine], fd, buffer, len(buffer))
    found, at = [], 0
    while at < count:
        _, position, length = struct.unpack_from("<QqH", buffer.raw, at)
        found.append((buffer.raw[at + 19:at + length].split(b"\0")[0], position))
        at += length
    return found


def test_a_position_in_a_directory_means_the_same_to_every_open(local_fs: Filesystem):
    """As an NFS server reads, and seekdir after a reopen; also after a remount, and with what was listed removed."""
    mount = local_fs.mount()
    (mount / "d").mkdir()
    names = {b"f%04d" % number for number in range(400)}
    for name in names:
        (mount / "d" / name.decode()).touch()
    seen, position, replies = set[bytes](), 0, 0
    while True:
        fd = os.open(mount / "d", os.O_RDONLY)
        os.lseek(fd, position, os.SEEK_SET)
        entries = _entries(fd)
        os.close(fd)
        if not entries:
            break
        assert not seen & {name for name, _ in entries}
        seen |= {name for name, _ in entries}
        position, replies = entries[-1][1], replies + 1
        if replies == 2:
            for name in seen - {b".", b".."}:
                os.unlink(mount / "d" / name.decode())
        if replies == 3:
            mount.umount()
            mount = local_fs.mount()
    assert seen == names | {b".", b".."} and replies > 3
    mount.umount()
