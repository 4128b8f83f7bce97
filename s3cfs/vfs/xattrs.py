"""Extended attributes: which names exist, and their bounds.

`user.` (files and directories only), `trusted.` and `security.` are kept as they are. Anything else, `system.posix_acl_*` above
all, is not supported and says so. Linux' own bounds hold: 255 bytes a name, 64 KiB a value, and all names of
an inode fit in one listxattr (64 KiB).
"""
from __future__ import annotations

import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from s3cfs import limits
from s3cfs.errors import EntryExists, InvalidArgument, NoAttribute, NoSpace, NotPermitted, NotSupported, RangeError, StaleInode, TooBig
from s3cfs.meta.types import Inode
from s3cfs.vfs.content import Content, Gate, Kind
from s3cfs.vfs.tree import is_dir, is_file
from s3cfs.vfs.types import XATTR_CREATE, XATTR_REPLACE, Caller

if TYPE_CHECKING:
    from s3cfs.meta import Meta

_USER, _TRUSTED = b"user.", b"trusted."
_SPACES = (_USER, _TRUSTED, b"security.")
LIST_MAX_BYTES = 65536              # XATTR_LIST_MAX


def _check_name(name: bytes) -> None:
    if not 0 < len(name) <= limits.XATTR_NAME_MAX_BYTES:
        raise RangeError(f"an attribute's name has 1 to {limits.XATTR_NAME_MAX_BYTES} bytes")
    if not name.startswith(_SPACES):
        raise NotSupported(f"attributes {name.partition(b'.')[0].decode(errors='replace')}.* are not supported")


class Xattrs:
    def __init__(self, meta: Meta, content: Content, gate: Gate, time_ns: Callable[[], int]) -> None:
        self._meta, self._content, self._gate, self._time_ns = meta, content, gate, time_ns

    async def _row(self, ino: int) -> Inode:
        inode = await self._meta.get(ino)
        if inode is None:
            raise StaleInode(f"inode {ino} is gone")
        return inode

    async def get(self, ino: int, name: bytes) -> bytes:
        """NoAttribute also for an inode that is gone: the kernel asks for `security.capability` before each write."""
        _check_name(name)
        value = await self._meta.get_xattr(ino, name)
        if value is None:
            if name in _SPACES and _has_user_attributes(await self._row(ino)):
                raise InvalidArgument(f"not an attribute's name: {name!r}")
            raise NoAttribute(f"inode {ino} has no attribute {name!r}")
        return value

    async def list(self, ino: int, caller: Caller | None) -> list[bytes]:
        """`trusted.*` is shown to root only (and when nobody says who asks)."""
        await self._row(ino)
        names = await self._meta.list_xattrs(ino)
        if caller is not None and caller.uid != 0:
            names = [name for name in names if not name.startswith(_TRUSTED)]
        return names

    async def set(self, ino: int, name: bytes, value: bytes, flags: int) -> None:
        if flags & ~(XATTR_CREATE | XATTR_REPLACE):
            raise InvalidArgument(f"flags of setxattr: {flags}")
        _check_name(name)
        if len(value) > limits.XATTR_VALUE_MAX_BYTES:
            raise TooBig(f"an attribute has at most {limits.XATTR_VALUE_MAX_BYTES} bytes")
        await self._gate.enter(Kind.GROW)
        inode = await self._row(ino)
        _check_change(inode, name)
        present = await self._meta.get_xattr(ino, name)
        if present is not None and flags & XATTR_CREATE:
            raise EntryExists(f"inode {ino} has an attribute {name!r} already")
        if present is None:
            if flags & XATTR_REPLACE:
                raise NoAttribute(f"inode {ino} has no attribute {name!r}")
            if sum(map(len, names := await self._meta.list_xattrs(ino))) + len(names) + len(name) + 1 > LIST_MAX_BYTES:
                raise NoSpace(f"the names of all attributes of inode {ino} would exceed {LIST_MAX_BYTES} bytes")
        if present == value:
            return
        await self._meta.set_xattr(ino, name, value)
        await self._stamp(inode)

    async def remove(self, ino: int, name: bytes) -> None:
        _check_name(name)
        await self._gate.enter(Kind.SHRINK)
        inode = await self._row(ino)
        _check_change(inode, name)
        if await self._meta.get_xattr(ino, name) is None:
            raise NoAttribute(f"inode {ino} has no attribute {name!r}")
        await self._meta.remove_xattr(ino, name)
        await self._stamp(inode)

    async def _stamp(self, inode: Inode) -> None:
        now = self._time_ns()
        await self._meta.update_inode(inode.ino, ctime_ns=now)
        if is_file(inode) and self._content.overlay(inode) is not inode:
            await self._content.set_times(inode.ino, ctime_ns=now)


def _has_user_attributes(inode: Inode) -> bool:
    return is_file(inode) or is_dir(inode)


def _check_change(inode: Inode, name: bytes) -> None:
    """In the order in which Linux refuses."""
    if name.startswith(_USER) and not _has_user_attributes(inode):
        raise NotPermitted(f"attributes user.* are for files and directories, not for type {stat.S_IFMT(inode.mode):o}")
    if name in _SPACES or b"\0" in name:
        raise InvalidArgument(f"not an attribute's name: {name!r}")
