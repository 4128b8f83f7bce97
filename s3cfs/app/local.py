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
from typing import Any, TypeVar

from s3cfs import limits
from s3cfs.doors import SystemDisk, SystemFile
from s3cfs.errors import AlreadyMounted, CacheFull, CacheUnusable
from s3cfs.formats.superblock import Superblock

T = TypeVar("T")

FREE_AT_START_BYTES = limits.DEFAULTS.disk_reserve_bytes


def folder_name(found: Superblock, url: str) -> str:
    """One a person recognises: the label, else the last part of the URL, and the beginning of the filesystem's id."""
    word = found.label or url.rstrip("/").rpartition("/")[2] or "fs"
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', word)[:40]}-{found.fs_id.hex()[:8]}"


class LocalDisk(SystemDisk):
    """The local state folder of a mount, that somebody may remove beside it.

    What is open stays open. What is new goes into a folder that is made again, so that what is left can be brought to the store;
    `lost` says that it happened, and that nothing here outlives the process any more.
    """

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.lost = False
        self._kept: dict[str, os.stat_result] = {}

    def keep_an_eye_on(self, *paths: str) -> None:
        """Files whose absence means that the folder was removed, wholly or in part: it goes file by file."""
        self._kept = {path: os.stat(self.real_path(path)) for path in paths}

    def look(self) -> None:
        """Cheap: a stat a file."""
        for path, known in self._kept.items():
            try:
                self.lost |= not os.path.samestat(os.stat(self.real_path(path)), known)
            except OSError:
                self.lost = True
        if self.lost:
            self._make_again("")

    def _make_again(self, folder: str) -> None:
        self.lost |= bool(self._kept)                     # before there is something to keep, nothing can be lost
        with contextlib.suppress(OSError):                # whoever opens something in it hears the reason
            self.makedirs(folder)

    def _in(self, folder: str, call: Callable[..., T], *args: Any, **how: Any) -> T:
        try:
            return call(*args, **how)
        except FileNotFoundError:
            if self.exists(folder):
                raise
        self._make_again(folder)
        return call(*args, **how)

    def open(self, path: str, *, create: bool = False) -> SystemFile:
        return self._in(os.path.dirname(path), super().open, path, create=create)

    def rename(self, old: str, new: str) -> None:
        self._in(os.path.dirname(new), super().rename, old, new)

    def listdir(self, path: str) -> list[str]:
        return self._in(path, super().listdir, path)

    def sync_dir(self, path: str) -> None:
        self._in(path, super().sync_dir, path)

    def free_bytes(self) -> int:
        return self._in("", super().free_bytes)


def open_folder(cachedir: str, name: str) -> LocalDisk:
    """Make it if need be, and try it. CacheUnusable, CacheFull."""
    path = os.path.join(cachedir, name)
    try:
        os.makedirs(cachedir, mode=0o700, exist_ok=True)
        disk = LocalDisk(path)
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


def set_aside(disk: LocalDisk) -> str:
    """Rename the folder, with all that is in it; its new path. The caller holds its lock."""
    path = f"{disk.root}.set-aside-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    try:
        os.rename(disk.root, path)                     # a name that is taken, by a folder with something in it, is refused
    except OSError as exc:
        raise CacheUnusable(f"local state {disk.root} cannot be moved to {path}: {exc.strerror}") from None
    return path


class FolderLock:
    """Held from `take` to the end of the process."""

    def __init__(self, path: str, fd: int) -> None:
        self._path, self._fd = path, fd
        self._state = ""

    def say(self, state: str) -> None:
        """`mounted`, `checking` or `leaving`."""
        self._state = state
        data = json.dumps({"pid": os.getpid(), "state": state}).encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)

    def take_again(self) -> None:
        """After the folder was removed and made again: AlreadyMounted when somebody else was quicker. The old file stays locked."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, _ = _holder(fd)
            os.close(fd)
            raise AlreadyMounted(f"{self._path} was removed, and process {pid} uses the folder now") from None
        self._fd = fd
        self.say(self._state)


@contextlib.contextmanager
def locked(disk: SystemDisk, state: str, on_wait: Callable[[str], None], *, wait: bool = True) -> Iterator[FolderLock]:
    """The folder's lock. AlreadyMounted when another process uses the folder; one that only leaves is waited for."""
    path = disk.real_path("lock")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        lock = FolderLock(path, fd)
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
