"""SQLite on the simulated disk: an apsw VFS below SQLite3MultipleCiphers as "multipleciphers-s3cfs-sim".

All bytes are in `disk.FileNode`, so what was synced and what was not is known. Locks and the shared memory of the WAL's index are
SQLite's own: each database is also an empty real file in a folder of this process, opened below by "unix-excl", which keeps that
memory on the heap. So several connections of one process work as they do in what ships; a process that died takes the index along, as
it does there (the first connection of the next makes it anew).

One VFS is registered for the process and finds the disk by the path (a VFS a run would leak). As SQLite's own for Unix it makes
the name of a journal or WAL durable at that file's first xSync, the database's never.
"""
from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import os
import random
import shutil
import sys
import tempfile
from typing import Any

import apsw

from .crash import Crash, Incarnation
from .disk import FileNode, SimDisk, SimDrive, parent

VFS_NAME, BELOW = "s3cfs-sim", "unix-excl"
_NAMED_AT_SYNC = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
_disks: dict[str, SimDisk] = {}
_numbers = itertools.count(1)
_folder: list[tuple[int, str]] = []                           # (process, its folder)


def _real_folder() -> str:
    if not _folder or _folder[0][0] != os.getpid():
        made = tempfile.mkdtemp(prefix="s3cfs-sim-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        _folder[:] = [(os.getpid(), made)]
        atexit.register(shutil.rmtree, made, ignore_errors=True)
    return _folder[0][1]


def attach(incarnation: Incarnation, drive: SimDrive) -> SimDisk:
    """A disk for one life, to be found by SQLite; `detach` it when the life is over."""
    _register()
    root = f"{_real_folder()}/{next(_numbers)}"
    os.mkdir(root)
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
    shutil.rmtree(root, ignore_errors=True)


def _find(path: str) -> tuple[SimDisk, str]:
    start = len(_real_folder()) + 1
    end = path.index("/", start)
    disk = _disks.get(path[:end])
    if disk is None:
        raise apsw.CantOpenError(f"no simulated disk: {path}")
    return disk, path[end + 1:]


def _error(error: OSError) -> Exception:
    return (apsw.FullError if error.errno == errno.ENOSPC else apsw.IOError)(str(error))


class _File:
    """SQLite's handle of a WAL, a journal or a temporary file. A short read is filled up by apsw.

    The death is raised once, where it happens. After it SQLite is let to unwind: writes and syncs do nothing and say nothing,
    since SQLite rolls back and closes in places where no exception can go. Its caller hears of the death at the next door.
    """

    _disk: SimDisk
    _node: FileNode
    _path: str
    _sync_name = False
    _delete = False

    def at(self, disk: SimDisk, node: FileNode, path: str, *, sync_name: bool = False, delete: bool = False) -> _File:
        self._disk, self._node, self._path = disk, node, path
        self._sync_name, self._delete = sync_name, delete
        return self

    def excepthook(self, etype: Any, evalue: Any, etraceback: Any, /) -> None:
        """Where SQLite takes no error: of the dead nothing is heard."""
        if not self._disk.incarnation.dead:
            sys.excepthook(etype, evalue, etraceback)

    def _dead(self, call: str) -> bool:
        """A point of death; true when it is past. May fail, as the disk does."""
        if self._disk.incarnation.dead:
            return True
        self._disk.incarnation.point("write", self._path)
        try:
            self._disk.trouble(call, self._path)
        except OSError as error:
            raise _error(error) from error
        return False

    def xRead(self, amount: int, offset: int) -> bytes:
        if not self._disk.incarnation.dead:
            try:
                self._disk.trouble("db_read", self._path)
            except OSError as error:
                raise apsw.IOError(str(error)) from error
        return bytes(self._node.data[offset:offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._dead("db_write"):
            return
        try:
            self._disk.room(offset + len(data) - len(self._node.data), self._path)
        except OSError as error:
            raise _error(error) from error
        self._node.write(offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        if self._dead("db_truncate"):
            return
        self._node.truncate(newsize)

    def xSync(self, flags: int) -> None:
        if self._disk.incarnation.dead:
            return
        try:
            self._disk.sync_node(self._node, self._path, "db_fsync")
            if self._sync_name:
                self._disk.sync_dir(parent(self._path))
                self._sync_name = False
        except OSError as error:
            raise _error(error) from error

    def xFileSize(self) -> int:
        return len(self._node.data)

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE          # D3 of `disk`, and what SQLite assumes on Linux

    def xClose(self) -> None:
        if self._delete and not self._disk.incarnation.dead:
            self._disk.unlink(self._path)


class _Side(_File):
    """Nothing but the database itself is ever locked."""

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False


class _Database(_File, apsw.VFSFile):  # type: ignore[misc]
    """Locks and shared memory are those of the real file below."""

    def __init__(self, name: Any) -> None:
        apsw.VFSFile.__init__(self, BELOW, name, [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, 0])

    def xClose(self) -> None:
        apsw.VFSFile.xClose(self)


class SimVfs(apsw.VFS):
    def __init__(self) -> None:
        super().__init__(VFS_NAME, BELOW, maxpathname=512)

    def excepthook(self, etype: Any, evalue: Any, etraceback: Any) -> bool:
        """Called where SQLite takes no error; after a death that is expected, before it is a fault of the simulator."""
        return isinstance(evalue, Crash) or super().excepthook(etype, evalue, etraceback)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        flags[1] = flags[0]
        if path is None:                                      # a temporary file lives and dies with its handle
            return _Side().at(SimDisk(Incarnation("temporary"), SimDrive()), FileNode(), "temporary")
        disk, inner = _find(path)
        create = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        fresh = create and not disk.exists(inner)
        try:
            node = disk.open_node(inner, create=create, empty=False, call="db_open")
        except OSError as error:
            raise apsw.CantOpenError(str(error)) from error
        file = _Database(name) if flags[0] & apsw.SQLITE_OPEN_MAIN_DB else _Side()
        return file.at(disk, node, inner, sync_name=fresh and bool(flags[0] & _NAMED_AT_SYNC),
                       delete=bool(flags[0] & apsw.SQLITE_OPEN_DELETEONCLOSE))

    def xAccess(self, pathname: str, flags: int) -> bool:
        disk, inner = _find(pathname)
        return inner in disk.drive.names

    def xDelete(self, filename: str, syncdir: bool) -> None:
        disk, inner = _find(filename)
        if disk.incarnation.dead:
            return
        try:
            disk.unlink(inner, "db_delete")
            if syncdir:
                disk.sync_dir(parent(inner))
        except OSError as error:
            raise _error(error) from error

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
