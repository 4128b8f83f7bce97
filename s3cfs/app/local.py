"""The local state folder of a filesystem: its name, its lock, and what is wrong when it cannot be used.

The lock says who holds it and whether that process still serves the mount or only brings its last changes to the store: the next
mount waits for the latter and refuses beside the former.
"""
from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator

from s3cfs import limits
from s3cfs.doors import SystemDisk
from s3cfs.errors import AlreadyMounted, CacheFull, CacheUnusable
from s3cfs.formats.superblock import Superblock

FREE_AT_START_BYTES = limits.DEFAULTS.disk_reserve_bytes


def folder_name(found: Superblock, url: str) -> str:
    """One a person recognises: the label, else the last part of the URL, and the beginning of the filesystem's id."""
    word = found.label or url.rstrip("/").rpartition("/")[2] or "fs"
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', word)[:40]}-{found.fs_id.hex()[:8]}"


def open_folder(cachedir: str, name: str) -> SystemDisk:
    """Make it if need be, and try it. CacheUnusable, CacheFull."""
    path = os.path.join(cachedir, name)
    try:
        os.makedirs(cachedir, mode=0o700, exist_ok=True)
        disk = SystemDisk(path)
        with contextlib.closing(disk.open("probe", create=True)) as file:
            file.pwrite(b"s3cfs", 0)
            file.fsync()
        disk.unlink("probe")
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CacheFull(f"cache folder {path} has no room: {exc.strerror}") from None
        raise CacheUnusable(f"cache folder {path} cannot be used: {exc.strerror}") from None
    if disk.free_bytes() < FREE_AT_START_BYTES:
        raise CacheFull(f"cache folder {path} has less than {FREE_AT_START_BYTES // limits.MIB} MiB free")
    return disk


class FolderLock:
    """Held from `take` to the end of the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, state: str) -> None:
        """`mounted`, `checking` or `leaving`."""
        data = json.dumps({"pid": os.getpid(), "state": state}).encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)

    def release(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def locked(disk: SystemDisk, state: str, on_wait: Callable[[str], None], *, wait: bool = True) -> Iterator[FolderLock]:
    """The folder's lock. AlreadyMounted when another process uses the folder; one that only leaves is waited for."""
    fd = os.open(disk.real_path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    said = ""
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pid, holder = _holder(fd)
                if holder != "leaving" or not wait:
                    raise AlreadyMounted(f"this filesystem is in use on this machine by process {pid} ({holder}), "
                                         f"with cache folder {disk.root}") from None
                text = f"process {pid} still brings changes of this filesystem to the store; waiting for it"
                if text != said:
                    on_wait(text)
                    said = text
                time.sleep(0.2)
        lock = FolderLock(fd)
        lock.say(state)
        yield lock
    finally:
        os.close(fd)


def _holder(fd: int) -> tuple[int, str]:
    for _ in range(5):
        try:
            found = json.loads(os.pread(fd, 256, 0))
            return int(found["pid"]), str(found["state"])
        except (ValueError, KeyError, TypeError):
            time.sleep(0.02)              # just being written
    return 0, "unknown"
