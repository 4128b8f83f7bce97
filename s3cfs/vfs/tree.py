"""Operations on names: what POSIX wants created, counted, stamped and refused.

See core.py for the invariant on waiting. Times: a change of a directory's entries stamps its mtime and ctime; a change of an
inode's links, or of its name, stamps its ctime.
"""
from __future__ import annotations

import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from s3cfs import limits
from s3cfs.errors import (
    DataError,
    DirectoryNotEmpty,
    EntryExists,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoSuchEntry,
    NotADirectory,
    NotPermitted,
    StaleInode,
    TooManyLinks,
)
from s3cfs.ids import ROOT_INO
from s3cfs.meta.types import Inode
from s3cfs.vfs.content import Content, Gate, Kind
from s3cfs.vfs.lifetimes import Lifetimes
from s3cfs.vfs.types import RENAME_EXCHANGE, RENAME_NOREPLACE, Caller

if TYPE_CHECKING:
    from s3cfs.meta import Meta

_FORMAT = 0o170000
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_NODES = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, *_DEVICES)
_DEPTH_MAX = 1_000_000          # a deeper directory is a loop in a damaged tree


def is_dir(inode: Inode) -> bool:
    return inode.mode & _FORMAT == stat.S_IFDIR


def is_file(inode: Inode) -> bool:
    return inode.mode & _FORMAT == stat.S_IFREG


def check_name(name: bytes) -> None:
    if len(name) > limits.NAME_MAX_BYTES:
        raise NameTooLong(f"a name has at most {limits.NAME_MAX_BYTES} bytes")
    if not name:
        raise NoSuchEntry("an empty name")
    if b"/" in name or b"\0" in name:
        raise InvalidArgument(f"not a name: {name!r}")


class Tree:
    def __init__(self, meta: Meta, content: Content, gate: Gate, lifetimes: Lifetimes, time_ns: Callable[[], int]) -> None:
        self._meta, self._content, self._gate, self._lifetimes, self._time_ns = meta, content, gate, lifetimes, time_ns

    # ------------------------------------------------------------ looking

    async def lookup(self, parent: int, name: bytes) -> Inode | None:
        inode = await self._meta.lookup(parent, name)
        if inode is not None:
            return self._content.overlay(inode) if is_file(inode) else inode
        folder = await self._folder(parent, name)
        if name == b".":
            return folder
        return await self._meta.get(folder.parent) if name == b".." else None

    async def _folder(self, ino: int, name: bytes) -> Inode:
        folder = await self._meta.get(ino)
        if folder is None:
            raise StaleInode(f"inode {ino} is gone")
        if not is_dir(folder):
            raise NotADirectory(f"inode {ino} is not a directory")
        check_name(name)
        return folder

    async def _entry(self, parent: int, name: bytes) -> Inode:
        inode = await self._meta.lookup(parent, name)
        if inode is None:
            raise NoSuchEntry(f"inode {parent} has no entry {name!r}")
        return inode

    # ------------------------------------------------------------ making

    async def _free_place(self, parent: int, name: bytes) -> Inode:
        """The folder, when a new entry may be made in it."""
        folder = await self._folder(parent, name)
        if name in (b".", b"..") or await self._meta.lookup(parent, name) is not None:
            raise EntryExists(f"inode {parent} has an entry {name!r} already")
        if not folder.nlink:
            raise NoSuchEntry(f"directory {parent} was removed")
        return folder

    async def make_node(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller, *, users: int | None = None) -> Inode:
        """A file, FIFO, socket or device; with `users` (flags of open) it is counted as open as well."""
        kind = mode & _FORMAT or stat.S_IFREG
        if kind == stat.S_IFDIR:
            raise NotPermitted("mknod makes no directories")
        if kind not in _NODES:
            raise InvalidArgument(f"not a type of file: {mode:o}")
        await self._gate.enter(Kind.GROW)
        folder = await self._free_place(parent, name)
        bits = mode & 0o7777 & ~caller.umask
        gid = caller.gid
        if folder.mode & stat.S_ISGID:
            gid = folder.gid
            if bits & stat.S_ISGID and bits & stat.S_IXGRP and not caller.may_keep_setgid(gid):
                bits &= ~stat.S_ISGID
        now = self._time_ns()
        inode = await self._meta.new_inode(kind | bits, caller.uid, gid, rdev if kind in _DEVICES else 0, now, nlink=1)
        await self._enter(folder, name, inode, now)
        if users is not None:
            await self._content.open(inode.ino, users)
        return inode

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Inode:
        await self._gate.enter(Kind.GROW)
        folder = await self._free_place(parent, name)
        if folder.nlink >= limits.LINK_MAX:
            raise TooManyLinks(f"directory {parent} has {folder.nlink} links")
        bits, gid = mode & 0o1777 & ~caller.umask, caller.gid
        if folder.mode & stat.S_ISGID:
            bits, gid = bits | stat.S_ISGID, folder.gid
        now = self._time_ns()
        inode = await self._meta.new_inode(stat.S_IFDIR | bits, caller.uid, gid, 0, now, nlink=2, parent_dir=parent)
        await self._enter(folder, name, inode, now, links=1)
        return inode

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Inode:
        if not target:
            raise NoSuchEntry("an empty target")
        if b"\0" in target:
            raise InvalidArgument("a target with a zero byte")
        if len(target) > limits.SYMLINK_MAX_BYTES:
            raise NameTooLong(f"a target has at most {limits.SYMLINK_MAX_BYTES} bytes")
        await self._gate.enter(Kind.GROW)
        folder = await self._free_place(parent, name)
        gid = folder.gid if folder.mode & stat.S_ISGID else caller.gid
        now = self._time_ns()
        inode = await self._meta.new_inode(stat.S_IFLNK | 0o777, caller.uid, gid, 0, now, nlink=1, target=target)
        await self._enter(folder, name, inode, now)
        return inode

    async def link(self, ino: int, parent: int, name: bytes) -> None:
        await self._gate.enter(Kind.GROW)
        folder = await self._free_place(parent, name)
        inode = await self._meta.get(ino)
        if inode is None:
            raise StaleInode(f"inode {ino} is gone")
        if is_dir(inode):
            raise NotPermitted("a directory has one name")
        if not inode.nlink:
            raise NoSuchEntry(f"inode {ino} was removed")
        if inode.nlink >= limits.LINK_MAX:
            raise TooManyLinks(f"inode {ino} has {inode.nlink} links")
        now = self._time_ns()
        await self._relink(inode, 1, now)
        await self._enter(folder, name, inode, now)

    async def _enter(self, folder: Inode, name: bytes, inode: Inode, now: int, links: int = 0) -> None:
        await self._meta.link_name(folder.ino, name, inode.ino)
        await self._stamp_folder(folder, now, links)

    async def _stamp_folder(self, folder: Inode, now: int, links: int = 0) -> None:
        if links:
            await self._meta.update_inode(folder.ino, nlink=folder.nlink + links, mtime_ns=now, ctime_ns=now)
        else:
            await self._meta.update_inode(folder.ino, mtime_ns=now, ctime_ns=now)

    async def _relink(self, inode: Inode, links: int, now: int) -> None:
        """Change the link count of something that is no directory (it keeps at least one) and stamp it."""
        if links:
            await self._meta.update_inode(inode.ino, nlink=inode.nlink + links, ctime_ns=now)
        else:
            await self._meta.update_inode(inode.ino, ctime_ns=now)
        if is_file(inode) and self._content.overlay(inode) is not inode:
            await self._content.set_times(inode.ino, ctime_ns=now)

    # ------------------------------------------------------------ removing

    async def unlink(self, parent: int, name: bytes) -> None:
        await self._gate.enter(Kind.SHRINK)
        folder = await self._folder(parent, name)
        if name in (b".", b".."):
            raise IsADirectory(f"{name!r} cannot be unlinked")
        inode = await self._entry(parent, name)
        if is_dir(inode):
            raise IsADirectory(f"{name!r} is a directory")
        now = self._time_ns()
        await self._meta.unlink_name(parent, name)
        await self._stamp_folder(folder, now)
        await self._lose_name(inode, now)

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self._gate.enter(Kind.SHRINK)
        folder = await self._folder(parent, name)
        if name == b".":
            raise InvalidArgument("'.' cannot be removed")
        if name == b"..":
            raise DirectoryNotEmpty("'..' cannot be removed")
        inode = await self._entry(parent, name)
        if not is_dir(inode):
            raise NotADirectory(f"{name!r} is not a directory")
        if not await self._meta.is_empty(inode.ino):
            raise DirectoryNotEmpty(f"{name!r} is not empty")
        now = self._time_ns()
        await self._meta.unlink_name(parent, name)
        await self._stamp_folder(folder, now, links=-1)
        await self._lifetimes.unlinked(inode.ino, now)

    async def _lose_name(self, inode: Inode, now: int) -> None:
        if inode.nlink > 1:
            await self._relink(inode, -1, now)
        else:
            await self._lifetimes.unlinked(inode.ino, now)

    # ------------------------------------------------------------ renaming

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
            raise InvalidArgument(f"flags of rename: {flags}")
        staged = 0
        while True:
            await self._gate.enter(Kind.SHRINK)
            folder, new_folder, source, target = await self._rename_check(parent, name, new_parent, new_name, flags)
            if target is not None and target.ino == source.ino:
                return
            if target is None or flags or not is_file(source) or not is_file(target) or staged == source.ino:
                break
            await self._content.before_replace(source.ino)      # may wait: look at everything again
            staged = source.ino
        now = self._time_ns()
        if flags == RENAME_EXCHANGE:
            assert target is not None
            await self._exchange(folder, name, new_folder, new_name, source, target, now)
            return
        gained = int(is_dir(source))
        if target is not None:
            await self._meta.unlink_name(new_parent, new_name)
        await self._meta.move_name(parent, name, new_parent, new_name)
        freed = int(target is not None and is_dir(target))
        if parent == new_parent:
            await self._stamp_folder(folder, now, links=-freed)
        else:
            await self._stamp_folder(folder, now, links=-gained)
            await self._stamp_folder(new_folder, now, links=gained - freed)
        await self._moved(source, new_parent, now)
        if target is not None:
            if is_dir(target):
                await self._lifetimes.unlinked(target.ino, now)
            else:
                await self._lose_name(target, now)

    async def _rename_check(self, parent: int, name: bytes, new_parent: int, new_name: bytes,
                            flags: int) -> tuple[Inode, Inode, Inode, Inode | None]:
        """(folder, new folder, source, target). Refuses in the order in which Linux does."""
        folder = await self._folder(parent, name)
        new_folder = folder if new_parent == parent else await self._folder(new_parent, b"any")
        if name in (b".", b"..") or new_name in (b".", b".."):
            raise InvalidArgument("'.' and '..' cannot be renamed")
        source = await self._entry(parent, name)
        check_name(new_name)
        target = await self._meta.lookup(new_parent, new_name)
        if target is not None and flags == RENAME_NOREPLACE:
            raise EntryExists(f"inode {new_parent} has an entry {new_name!r} already")
        if target is None and flags == RENAME_EXCHANGE:
            raise NoSuchEntry(f"inode {new_parent} has no entry {new_name!r}")
        if parent != new_parent:
            if is_dir(source) and await self._is_below(new_folder, source.ino):
                raise InvalidArgument("a directory cannot move into itself")
            if target is not None and is_dir(target) and await self._is_below(folder, target.ino):
                if flags == RENAME_EXCHANGE:
                    raise InvalidArgument("a directory cannot move into itself")
                raise DirectoryNotEmpty(f"{new_name!r} is not empty")
        if not new_folder.nlink:
            raise NoSuchEntry(f"directory {new_parent} was removed")
        gained = is_dir(source)
        if target is not None and target.ino != source.ino:
            if flags != RENAME_EXCHANGE:
                if is_dir(source) and not is_dir(target):
                    raise NotADirectory(f"{new_name!r} is not a directory")
                if is_dir(target) and not is_dir(source):
                    raise IsADirectory(f"{new_name!r} is a directory")
                if is_dir(target) and not await self._meta.is_empty(target.ino):
                    raise DirectoryNotEmpty(f"{new_name!r} is not empty")
            elif is_dir(target) and not is_dir(source) and parent != new_parent and folder.nlink >= limits.LINK_MAX:
                raise TooManyLinks(f"directory {parent} has {folder.nlink} links")
            gained = gained and not is_dir(target)
        if gained and parent != new_parent and new_folder.nlink >= limits.LINK_MAX:
            raise TooManyLinks(f"directory {new_parent} has {new_folder.nlink} links")
        return folder, new_folder, source, target

    async def _exchange(self, folder: Inode, name: bytes, new_folder: Inode, new_name: bytes, source: Inode, target: Inode,
                        now: int) -> None:
        await self._meta.unlink_name(new_folder.ino, new_name)
        await self._meta.move_name(folder.ino, name, new_folder.ino, new_name)
        await self._meta.link_name(folder.ino, name, target.ino)
        if folder.ino == new_folder.ino:
            await self._stamp_folder(folder, now)
        else:
            gained = int(is_dir(source)) - int(is_dir(target))
            await self._stamp_folder(folder, now, links=-gained)
            await self._stamp_folder(new_folder, now, links=gained)
        await self._moved(source, new_folder.ino, now)
        await self._moved(target, folder.ino, now)

    async def _moved(self, inode: Inode, parent: int, now: int) -> None:
        if is_dir(inode):
            await self._meta.update_inode(inode.ino, parent=parent, ctime_ns=now)
        else:
            await self._relink(inode, 0, now)

    async def _is_below(self, folder: Inode, ino: int) -> bool:
        """Whether `folder` is directory `ino` or lies in it. Up to the root: as many reads as it is deep."""
        here = folder
        for _ in range(_DEPTH_MAX):
            if here.ino == ino:
                return True
            if here.ino == ROOT_INO:
                return False
            above = await self._meta.get(here.parent)
            if above is None:
                return False            # a removed directory
            here = above
        raise DataError(f"directory {folder.ino} lies in a loop of directories")
