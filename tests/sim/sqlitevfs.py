"""SQLite on the simulated disk: an apsw VFS without shared memory, below SQLite3MultipleCiphers as "multipleciphers-s3cfs-sim".

One VFS is registered for the process and finds the disk by the first part of the path (a VFS a run would leak). As
SQLite's own for Unix it makes the name of a journal or WAL durable at that file's first xSync, the database's never.
"""
from __future__ import annotations

import contextlib
import errno
import itertools
import random
import sys
from typing import Any

import apsw

from .crash import Crash, Incarnation
from .disk import FileNode, SimDisk, SimDrive, parent

VFS_NAME = "s3cfs-sim"
_NAMED_AT_SYNC = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
_disks: dict[str, SimDisk] = {}
_numbers = itertools.count(1)


def attach(incarnation: Incarnation, drive: SimDrive) -> SimDisk:
    """A disk for one life, to be found by SQLite; `detach` it when the life is over."""
    _register()
    root = f"/sim{next(_numbers)}"
    disk = SimDisk(incarnation, drive, root, VFS_NAME)
    _disks[root] = disk
    return disk


def detach(disk: SimDisk) -> None:
    """Close what a dead process left open; nothing of it reaches the disk."""
    disk.incarnation.kill("detached")
    root = disk.real_path("")
    for connection in apsw.connections():
        if connection.filename.startswith(root):
            with contextlib.suppress(Exception, Crash):
                connection.close(True)
    _disks.pop(root.rstrip("/"), None)
    for entry in disk.drive.names.values():
        if isinstance(entry, FileNode):
            entry.locks.clear()


def _find(path: str) -> tuple[SimDisk, str]:
    root, _, rest = path[1:].partition("/")
    disk = _disks.get("/" + root)
    if disk is None:
        raise apsw.CantOpenError(f"no simulated disk: {path}")
    return disk, rest


class _File:
    """SQLite's handle. A short read is filled up by apsw; there is no xShm: WAL works in exclusive locking mode only.

    The death is raised once, where it happens. After it SQLite is let to unwind: writes and syncs do nothing and say nothing,
    since SQLite rolls back and closes in places where no exception can go. Its caller hears of the death at the next door.
    """

    def __init__(self, disk: SimDisk, node: FileNode, path: str, *, sync_name: bool, delete: bool) -> None:
        self._disk, self._node, self._path = disk, node, path
        self._sync_name, self._delete = sync_name, delete
        self._level = apsw.SQLITE_LOCK_NONE

    def excepthook(self, etype: Any, evalue: Any, etraceback: Any) -> None:
        """Where SQLite takes no error: of the dead nothing is heard."""
        if not self._disk.incarnation.dead:
            sys.excepthook(etype, evalue, etraceback)

    def _dead(self) -> bool:
        """A point of death; true when it is past."""
        if self._disk.incarnation.dead:
            return True
        self._disk.incarnation.point("write", self._path)
        return False

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._node.data[offset:offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._dead():
            return
        try:
            self._disk.room(offset + len(data) - len(self._node.data), self._path)
        except OSError as error:
            raise (apsw.FullError if error.errno == errno.ENOSPC else apsw.IOError)(str(error)) from error
        self._node.write(offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        if self._dead():
            return
        self._node.truncate(newsize)

    def xSync(self, flags: int) -> None:
        if self._disk.incarnation.dead:
            return
        try:
            self._disk.sync_node(self._node, self._path)
            if self._sync_name:
                self._disk.sync_dir(parent(self._path))
                self._sync_name = False
        except OSError as error:
            raise apsw.IOError(str(error)) from error

    def xFileSize(self) -> int:
        return len(self._node.data)

    def xLock(self, level: int) -> None:
        others = [held for owner, held in self._node.locks.items() if owner != id(self)]
        top = max(others, default=apsw.SQLITE_LOCK_NONE)
        refused = (top >= apsw.SQLITE_LOCK_PENDING if level == apsw.SQLITE_LOCK_SHARED
                   else top >= apsw.SQLITE_LOCK_RESERVED if level == apsw.SQLITE_LOCK_RESERVED
                   else top > apsw.SQLITE_LOCK_NONE)
        if refused:
            raise apsw.BusyError("locked")
        if level > self._level:
            self._level = self._node.locks[id(self)] = level

    def xUnlock(self, level: int) -> None:
        self._level = min(self._level, level)
        if self._level == apsw.SQLITE_LOCK_NONE:
            self._node.locks.pop(id(self), None)
        else:
            self._node.locks[id(self)] = self._level

    def xCheckReservedLock(self) -> bool:
        return any(level >= apsw.SQLITE_LOCK_RESERVED for level in self._node.locks.values())

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE          # D3 of `disk`, and what SQLite assumes on Linux

    def xClose(self) -> None:
        self._node.locks.pop(id(self), None)
        if self._delete and not self._disk.incarnation.dead:
            self._disk.unlink(self._path)


class SimVfs(apsw.VFS):
    def __init__(self) -> None:
        super().__init__(VFS_NAME, "", maxpathname=512)

    def excepthook(self, etype: Any, evalue: Any, etraceback: Any) -> bool:
        """Called where SQLite takes no error; after a death that is expected, before it is a fault of the simulator."""
        return isinstance(evalue, Crash) or super().excepthook(etype, evalue, etraceback)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        flags[1] = flags[0]
        if path is None:                                      # a temporary file lives and dies with its handle
            return _File(SimDisk(Incarnation("temporary"), SimDrive()), FileNode(), "temporary", sync_name=False, delete=False)
        disk, inner = _find(path)
        create = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        fresh = create and not disk.exists(inner)
        try:
            node = disk.open_node(inner, create=create, empty=False)
        except OSError as error:
            raise apsw.CantOpenError(str(error)) from error
        return _File(disk, node, inner, sync_name=fresh and bool(flags[0] & _NAMED_AT_SYNC),
                     delete=bool(flags[0] & apsw.SQLITE_OPEN_DELETEONCLOSE))

    def xAccess(self, pathname: str, flags: int) -> bool:
        disk, inner = _find(pathname)
        return inner in disk.drive.names

    def xDelete(self, filename: str, syncdir: bool) -> None:
        disk, inner = _find(filename)
        if disk.incarnation.dead:
            return
        disk.unlink(inner)
        if syncdir:
            disk.sync_dir(parent(inner))

    def xFullPathname(self, name: str) -> str:
        return name

    def xRandomness(self, numbytes: int) -> bytes:
        return random.Random(numbytes).randbytes(numbytes)

    def xSleep(self, microseconds: int) -> int:
        return microseconds

    def xCurrentTime(self) -> float:
        return 2460000.5

    def xCurrentTimeInt64(self) -> int:
        return int(2460000.5 * 86_400_000)

    def xGetLastError(self) -> tuple[int, str]:
        return 0, ""


_vfs: list[SimVfs] = []


def _register() -> None:
    if not _vfs:
        _vfs.append(SimVfs())
