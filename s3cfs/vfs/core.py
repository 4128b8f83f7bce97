"""class Vfs: every operation of the filesystem, on inodes and names. `fuse`, the gateways and the simulator call nothing else.

INVARIANT (atomic operations). Each operation first reads and validates, then writes, and between the first read that it relies on
and its last write nothing suspends: the methods of Meta are `async` but never give way, and so are those of Content that are
marked so. An operation is therefore atomic to all others, no transaction ends in the middle of one, and an error leaves nothing
half done. What may wait (room for the change, `truncate`, `before_replace`, `read`, `write`, `fsync`, `release`) is awaited
before the validation, or everything is validated again after it. So is `warmth`: while the disk is slow, what an operation will ask the
metadata is brought into memory first. There are no locks.

Who must call what around the kernel's cache of inodes:
- `remember(ino)` for each entry handed to the kernel that it counts as a look-up: the replies to lookup, create, mknod,
  mkdir, symlink, link, and each READDIRPLUS entry that went into a reply (not `.` and `..`, not a negative entry), without awaiting
  anything between the operation's return and the call.
- `await forget(ino, n)` for each FORGET; `await forget_all()` once the filesystem is unmounted.
- A gateway without such a cache calls neither; then an inode goes with its last name and last release.
- `await recover_orphans()` at start, before anything is open, by a mount that may write.
An unlinked inode stays until it is neither open nor known; `getattr`, `setattr` and I/O on it work until then, and StaleInode after.

Errors are errors.FsError. Names are bytes, times nanoseconds. atime never moves by itself (attrs.py). "." and ".." are looked up, but
not listed: `readdir` gives real entries only.
"""
from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from s3cfs.doors import Clock
from s3cfs.errors import InvalidArgument, IsADirectory, NotADirectory
from s3cfs.meta.types import Inode
from s3cfs.vfs.attrs import Attrs
from s3cfs.vfs.content import Content, Gate, Kind, Transactions
from s3cfs.vfs.lifetimes import Lifetimes
from s3cfs.vfs.listing import LAST_WINDOW, Entry, Listing
from s3cfs.vfs.tree import Tree, is_dir, is_file
from s3cfs.vfs.types import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    ROOT_CALLER,
    XATTR_CREATE,
    XATTR_REPLACE,
    Caller,
    SetAttr,
    StatFs,
)
from s3cfs.vfs.xattrs import Xattrs

if TYPE_CHECKING:
    from s3cfs.meta import Meta

__all__ = ["RENAME_EXCHANGE", "RENAME_NOREPLACE", "ROOT_CALLER", "XATTR_CREATE", "XATTR_REPLACE", "Caller", "SetAttr", "StatFs", "Vfs"]


class Vfs:
    def __init__(self, meta: Meta, content: Content, transactions: Transactions, clock: Clock, *, read_only: bool,
                 writeback: bool = False) -> None:
        """`writeback`: a kernel caches writes, so what `write` brings was accepted long ago (Kind.PAGES)."""
        self._write_kind = Kind.PAGES if writeback else Kind.GROW
        self._content, self._transactions, self._read_only = content, transactions, read_only
        self._gate = Gate(transactions, read_only)
        self._lifetimes = Lifetimes(meta, content, self._gate)
        self._tree = Tree(meta, content, self._gate, self._lifetimes, clock.time_ns)
        self._attrs = Attrs(meta, content, self._gate, clock.time_ns)
        self._xattrs = Xattrs(meta, content, self._gate, clock.time_ns)
        self._meta, self._warmth = meta, meta.warmth
        self._listings: dict[int, Listing] = {}
        self._next_handle = 1
        self.remember = self._lifetimes.remember        # (ino) -> None

    def would_wait(self, kind: Kind) -> bool:
        """Whether a change of this kind would have to wait for room, perhaps for long. No await: for whoever shares out workers."""
        return self._transactions.would_wait(kind)

    async def enter(self, kind: Kind) -> None:
        """Wait for room as a change of this kind would, before it is begun: this can be cancelled."""
        await self._gate.enter(kind)

    # ------------------------------------------------------------ lifetimes

    async def forget(self, ino: int, count: int) -> None:
        """The kernel forgets `count` look-ups. Never raises for what it did not know."""
        await self._lifetimes.forget(ino, count)

    async def forget_all(self) -> None:
        """Unmounted: the kernel knows nothing any more."""
        await self._lifetimes.forget_all()

    async def recover_orphans(self) -> int:
        """Drop inodes that a crash left without a name; how many."""
        return 0 if self._read_only else await self._lifetimes.recover()

    # ------------------------------------------------------------ names

    async def lookup(self, parent: int, name: bytes) -> Inode | None:
        if self._warmth.cold:
            await self._warmth.name(parent, name)
        return await self._tree.lookup(parent, name)

    async def create(self, parent: int, name: bytes, mode: int, caller: Caller, flags: int = os.O_RDWR) -> Inode:
        """A new regular file, counted as open; EntryExists when the name is taken."""
        if self._warmth.cold:
            await self._warmth.name(parent, name)
        return await self._tree.make_node(parent, name, stat.S_IFREG | mode & 0o7777, 0, caller, users=flags)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Inode:
        if self._warmth.cold:
            await self._warmth.name(parent, name)
        return await self._tree.make_node(parent, name, mode, rdev, caller)

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Inode:
        if self._warmth.cold:
            await self._warmth.name(parent, name)
        return await self._tree.mkdir(parent, name, mode, caller)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Inode:
        if self._warmth.cold:
            await self._warmth.name(parent, name)
        return await self._tree.symlink(parent, name, target, caller)

    async def link(self, ino: int, parent: int, name: bytes) -> Inode:
        if self._warmth.cold:
            await self._warmth.inode(ino)
            await self._warmth.name(parent, name)
        await self._tree.link(ino, parent, name)
        return await self._attrs.get(ino)

    async def unlink(self, parent: int, name: bytes) -> None:
        if self._warmth.cold:
            await self._warmth.name(parent, name, removes=True)
        await self._tree.unlink(parent, name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        if self._warmth.cold:
            await self._warmth.name(parent, name, removes=True)
        await self._tree.rmdir(parent, name)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        """`flags`: 0, RENAME_NOREPLACE or RENAME_EXCHANGE. Stages the source first when a file takes another one's name."""
        if self._warmth.cold:
            await self._warmth.name(parent, name)
            await self._warmth.name(new_parent, new_name, removes=True)
        await self._tree.rename(parent, name, new_parent, new_name, flags)

    # ------------------------------------------------------------ attributes

    async def getattr(self, ino: int) -> Inode:
        if self._warmth.cold:
            await self._warmth.inode(ino)
        return await self._attrs.get(ino)

    async def setattr(self, ino: int, wanted: SetAttr, caller: Caller) -> Inode:
        if self._warmth.cold:
            await self._warmth.inode(ino)
        return await self._attrs.set(ino, wanted, caller)

    async def readlink(self, ino: int) -> bytes:
        if self._warmth.cold:
            await self._warmth.inode(ino)
        inode = await self._attrs.row(ino)
        if inode.target is None:
            raise InvalidArgument(f"inode {ino} is not a symbolic link")
        return inode.target

    async def statfs(self) -> StatFs:
        return self._attrs.statfs()

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        if self._warmth.cold:
            await self._warmth.inode(ino)
        return await self._xattrs.get(ino, name)

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        if self._warmth.cold:
            await self._warmth.inode(ino)
        await self._xattrs.set(ino, name, value, flags)

    async def listxattr(self, ino: int, caller: Caller | None = None) -> list[bytes]:
        if self._warmth.cold:
            await self._warmth.inode(ino)
        return await self._xattrs.list(ino, caller)

    async def removexattr(self, ino: int, name: bytes) -> None:
        if self._warmth.cold:
            await self._warmth.inode(ino)
        await self._xattrs.remove(ino, name)

    # ------------------------------------------------------------ files

    async def open(self, ino: int, flags: int, caller: Caller | None = None) -> None:
        """`flags` of open(2). The kernel passes O_TRUNC on here, and leaves the set-id bits of the file to us then.

        With no room for more, opening for writing is what fails: the pages that are written then could not be refused any more.
        """
        if self._warmth.cold:
            await self._warmth.inode(ino)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if writes or flags & os.O_TRUNC:
            await self._gate.enter(Kind.GROW)
        if flags & os.O_TRUNC:
            await self._attrs.resize(await self._attrs.row(ino), 0)
        inode = await self._attrs.row(ino)      # after the waits
        if is_dir(inode) and writes:
            raise IsADirectory(f"inode {ino} is a directory")
        if stat.S_ISLNK(inode.mode):
            raise InvalidArgument(f"inode {ino} is a symbolic link")
        if flags & os.O_TRUNC and caller is not None:
            await self._attrs.lose_set_ids(ino, caller)
        await self._content.open(ino, flags)

    async def release(self, ino: int) -> None:
        try:
            await self._content.release(ino)
        finally:
            await self._lifetimes.unused(ino)

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        if self._warmth.cold:
            await self._warmth.extents([(ino, offset, offset + size)])
        return await self._content.read(ino, offset, size)

    async def write(self, ino: int, offset: int, data: bytes, caller: Caller | None = None) -> int:
        """`caller` only from gateways: a kernel clears set-id bits with a SETATTR of its own before the write."""
        if self._warmth.cold:
            await self._warmth.inode(ino)
        await self._gate.enter(self._write_kind if caller is None else Kind.GROW)
        written = await self._content.write(ino, offset, data)
        if caller is not None:
            await self._attrs.lose_set_ids(ino, caller)
        return written

    async def flush(self, ino: int) -> None:
        await self._content.flush(ino)

    async def fsync(self, ino: int) -> None:
        if self._warmth.cold:
            await self._warmth.inode(ino)
        await self._content.fsync(ino)

    # ------------------------------------------------------------ directories

    async def opendir(self, ino: int) -> int:
        """A handle for readdir."""
        if self._warmth.cold:
            await self._warmth.inode(ino)
        if not is_dir(await self._attrs.row(ino)):
            raise NotADirectory(f"inode {ino} is not a directory")
        handle = self._next_handle
        self._next_handle += 1
        self._listings[handle] = Listing(self._meta, ino)
        return handle

    async def readdir(self, handle: int, cookie: int, limit: int) -> list[Entry]:
        """(name, inode, cookie to go on after it), about `limit`, as of now; [] at the end and only there. `cookie` is 0 (from the start,
        as rewinddir) or any that any handle of this directory ever gave, before a remount too. Entries are as many as the last reply took
        and some more: give back the cookie of the last one used. What changed meanwhile is never served from memory."""
        overlay = self._content.overlay
        listing = self._listing(handle)
        if self._warmth.wary:
            await self._warmth.children(listing.ino, cookie, min(limit, LAST_WINDOW) + 1)
        return [(name, overlay(inode) if is_file(inode) else inode, after)
                for name, inode, after in await listing.read(cookie, limit)]

    async def releasedir(self, handle: int) -> None:
        self._listings.pop(handle, None)

    async def fsyncdir(self, ino: int) -> None:
        """All operations done before are kept: names, modes, times (of the whole filesystem, not of this directory alone)."""
        await self._transactions.durable()

    def _listing(self, handle: int) -> Listing:
        try:
            return self._listings[handle]
        except KeyError:
            raise InvalidArgument(f"no such directory handle: {handle}") from None
