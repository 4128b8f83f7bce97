"""Attributes: setattr with its rules for set-id bits and times, and statfs.

- Setting what is there already writes nothing, not even ctime (a re-run of rsync dirties nothing). But a kernel that writes back keeps the
  times of files itself and sends its ctime along: that is taken over in any case, or ctime would go back when it drops its cache.
- noatime: reading never changes atime; an atime set explicitly is kept. Relatime would turn the first read of each file
  into a change that is shipped to the store.
- chown takes the set-user-ID bit and (with group execution) the set-group-ID bit from anything but a directory, whoever
  asks, as Linux does; truncation and writing take them when the caller is not root. A Linux kernel sends that as a mode of its
  own in the same SETATTR, then that mode counts; only for open with O_TRUNC it leaves it to the filesystem.
"""
from __future__ import annotations

import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from s3cfs import limits
from s3cfs.errors import FileTooLarge, InvalidArgument, IsADirectory, StaleInode
from s3cfs.meta.types import Inode, InodeColumns
from s3cfs.vfs.content import Content, Gate, Kind
from s3cfs.vfs.tree import is_dir, is_file
from s3cfs.vfs.types import Caller, SetAttr, StatFs

if TYPE_CHECKING:
    from s3cfs.meta import Meta

_BLOCK_BYTES = 4096
_TOTAL_BYTES = 1 << 50          # what statfs shows as the size of an object store, doubled as long as less than half is free
_TOTAL_INODES = 1 << 40
_ID_MAX = 2**32 - 2             # the last one means "leave it" in chown(2)
_TIME_MIN_NS, _TIME_MAX_NS = -(2**63), 2**63 - 1


def without_set_ids(inode: Inode, caller: Caller) -> int:
    """The mode that is left after a chown, or after a write by somebody who is not root."""
    mode = inode.mode & ~stat.S_ISUID
    if mode & stat.S_IXGRP or not caller.may_keep_setgid(inode.gid):
        mode &= ~stat.S_ISGID
    return mode


class Attrs:
    def __init__(self, meta: Meta, content: Content, gate: Gate, time_ns: Callable[[], int]) -> None:
        self._meta, self._content, self._gate, self._time_ns = meta, content, gate, time_ns

    async def row(self, ino: int) -> Inode:
        """As it is in the metadata, without what is pending."""
        inode = await self._meta.get(ino)
        if inode is None:
            raise StaleInode(f"inode {ino} is gone")
        return inode

    async def get(self, ino: int) -> Inode:
        inode = await self.row(ino)
        return self._content.overlay(inode) if is_file(inode) else inode

    async def set(self, ino: int, wanted: SetAttr, caller: Caller) -> Inode:
        for number in (wanted.uid, wanted.gid):
            if number is not None and not 0 <= number <= _ID_MAX:
                raise InvalidArgument(f"not an owner: {number}")
        grows = wanted.size is not None and wanted.size > (await self.get(ino)).size
        await self._gate.enter(Kind.GROW if grows else Kind.SHRINK)
        if wanted.size is not None:
            await self.resize(await self.row(ino), wanted.size)
        row = await self.row(ino)           # after the wait
        shown = self._content.overlay(row) if is_file(row) else row
        columns = self._differences(shown, wanted, caller)
        if not columns:
            return shown
        await self._meta.update_inode(ino, **columns)
        if shown is not row:
            await self._content.set_times(ino, mtime_ns=columns.get("mtime_ns"), ctime_ns=columns["ctime_ns"])
        return await self.get(ino)

    async def resize(self, inode: Inode, size: int) -> None:
        """May wait."""
        if is_dir(inode):
            raise IsADirectory(f"inode {inode.ino} is a directory")
        if not is_file(inode) or size < 0:
            raise InvalidArgument(f"inode {inode.ino} cannot be given the size {size}")
        if size > limits.FILE_MAX_BYTES:
            raise FileTooLarge(f"a file has at most {limits.FILE_MAX_BYTES} bytes")
        await self._content.truncate(inode.ino, size, self._time_ns())

    def _differences(self, shown: Inode, wanted: SetAttr, caller: Caller) -> InodeColumns:
        columns = InodeColumns()
        mode = self._mode(shown, wanted, caller)
        if mode != shown.mode:
            columns["mode"] = mode
        if wanted.uid is not None and wanted.uid != shown.uid:
            columns["uid"] = wanted.uid
        if wanted.gid is not None and wanted.gid != shown.gid:
            columns["gid"] = wanted.gid
        if wanted.atime_ns is not None and (atime := _clamp(wanted.atime_ns)) != shown.atime_ns:
            columns["atime_ns"] = atime
        if wanted.mtime_ns is not None and (mtime := _clamp(wanted.mtime_ns)) != shown.mtime_ns:
            columns["mtime_ns"] = mtime
        if wanted.ctime_ns is not None:
            ctime = _clamp(wanted.ctime_ns)
            if columns or ctime != shown.ctime_ns:
                columns["ctime_ns"] = ctime
        elif columns:
            columns["ctime_ns"] = self._time_ns()
        return columns

    @staticmethod
    def _mode(shown: Inode, wanted: SetAttr, caller: Caller) -> int:
        mode = shown.mode
        if wanted.mode is not None:
            mode = stat.S_IFMT(mode) | wanted.mode & 0o7777
            group = wanted.gid if wanted.gid is not None else shown.gid
            if mode & stat.S_ISGID and not caller.may_keep_setgid(group):
                mode &= ~stat.S_ISGID
            return mode
        chown = wanted.uid is not None or wanted.gid is not None
        if not is_dir(shown) and (chown or (wanted.size is not None and caller.uid != 0)):
            mode = without_set_ids(shown, caller)
        return mode

    async def lose_set_ids(self, ino: int, caller: Caller) -> None:
        """After a write or an open with O_TRUNC by `caller`. Never suspends."""
        if caller.uid == 0:
            return
        row = await self.row(ino)
        if row.mode & (stat.S_ISUID | stat.S_ISGID) and (mode := without_set_ids(row, caller)) != row.mode:
            await self._meta.update_inode(ino, mode=mode)

    def statfs(self) -> StatFs:
        """Used is the truth (bytes in files, before deduplication); an object store has no size, so the total is a stable large one."""
        counters = self._meta.counters
        total = _TOTAL_BYTES
        while counters.used_bytes > total // 2:
            total *= 2
        used = -(-counters.used_bytes // _BLOCK_BYTES)
        blocks = total // _BLOCK_BYTES
        return StatFs(_BLOCK_BYTES, blocks, blocks - used, _TOTAL_INODES, _TOTAL_INODES - counters.inodes, limits.NAME_MAX_BYTES)


def _clamp(time_ns: int) -> int:
    """Years 1677 to 2262, as a filesystem with 64 bits of nanoseconds does."""
    return min(max(time_ns, _TIME_MIN_NS), _TIME_MAX_NS)
