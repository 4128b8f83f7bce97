"""A disk below SQLite that says which thread touched it, and can be slow: the first read of each page of the database takes a while, as
from a disk whose pages the system does not hold yet; so does every sync."""
from __future__ import annotations

import threading
import time
from typing import Any

import apsw

from s3cfs.doors import SystemDisk


class SlowVfs(apsw.VFS):
    """Made on the thread of the event loop. `read_s`, `sync_s`: how long a cold read and a sync take."""

    def __init__(self, name: str, *, read_s: float = 0.0, sync_s: float = 0.0) -> None:
        self.name, self.read_s, self.sync_s = name, read_s, sync_s
        self._loop = threading.get_ident()
        self.held: set[int] = set()                      # offsets that the system holds
        self.clear()
        super().__init__(name, "unix", iVersion=1)

    def clear(self) -> None:
        self.cold_on_loop = self.cold_in_thread = 0      # reads of what was not held
        self.writes_on_loop = self.writes_in_thread = 0  # of the database itself, not of its log
        self.syncs_on_loop = self.syncs_in_thread = 0

    @property
    def on_loop(self) -> bool:
        return threading.get_ident() == self._loop

    def drop_cache(self) -> None:
        self.held.clear()
        self.clear()

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, vfs: SlowVfs, name: Any, flags: list[int]) -> None:
        self._vfs, self._main = vfs, bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        vfs = self._vfs
        if self._main and offset not in vfs.held:
            if vfs.on_loop:
                vfs.cold_on_loop += 1
            else:
                vfs.cold_in_thread += 1
            if vfs.read_s:
                time.sleep(vfs.read_s)
            vfs.held.add(offset)
        return bytes(super().xRead(amount, offset))

    def xWrite(self, data: Any, offset: int) -> None:
        if self._main:
            if self._vfs.on_loop:
                self._vfs.writes_on_loop += 1
            else:
                self._vfs.writes_in_thread += 1
            self._vfs.held.add(offset)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._vfs.on_loop:
            self._vfs.syncs_on_loop += 1
        else:
            self._vfs.syncs_in_thread += 1
        if self._vfs.sync_s:
            time.sleep(self._vfs.sync_s)
        super().xSync(flags)


class SlowDisk(SystemDisk):
    def __init__(self, root: str, vfs: SlowVfs) -> None:
        super().__init__(root)
        self._vfs = vfs
        self.sqlite_vfs = vfs.name

    def blocks_read(self) -> int:
        return self._vfs.cold_on_loop if self._vfs.on_loop else self._vfs.cold_in_thread
