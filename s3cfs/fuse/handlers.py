"""FUSE requests as calls of a Vfs, and nothing else: no filesystem logic lives here.

- A file handle is the inode's number, so no table of open files can go wrong; the Vfs counts opens.
- An exception other than FUSEError that leaves a handler ends the whole mount, so every handler is `guarded`.
- No handler has a checkpoint of its own: it waits only for what the Vfs waits for.
- libfuse turns atomic O_TRUNC on: the Vfs truncates in `open`. O_APPEND is the kernel's business, which gives the offset, and so
  are set-id bits, which it takes away by a SETATTR before a write.
- With write-back a SETATTR (times) may come after the unlink: the Vfs keeps an inode until its FORGET. So every entry
  that the kernel counts as looked up is told to the Vfs (`remember`), with no await after the operation that gave it.
- pyfuse3 answers every READDIR as READDIRPLUS. What did not fit is asked for again and never kept: the kernel believes an entry
  for as long as the timeout, so it must be as of now.
- The kernel asks for security.capability before each write. ENOSYS would stop that and with it all extended attributes;
  so "has none" is remembered here, until the kernel forgets the inode or somebody sets it.
"""
from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FUSEError, ReaddirToken, RequestContext, SetattrFields, StatvfsData

from s3cfs import errors
from s3cfs.fuse.attrs import absent, entry_of, errno_of
from s3cfs.fuse.lifecycle import only_cause
from s3cfs.fuse.options import FuseOptions
from s3cfs.fuse.waiting import Waiting
from s3cfs.vfs.content import Kind
from s3cfs.vfs.core import Caller, SetAttr

if TYPE_CHECKING:
    from s3cfs.meta.types import Inode
    from s3cfs.vfs.core import Vfs

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])

READDIR_BATCH = 128                       # entries asked of the Vfs at once
DOTS = 2                                  # cookies 1 and 2 are after "." and ".."; the Vfs's start above
REMEMBERED_INODES = 200_000               # of which it is known that they have no capability
PERMISSIONS = 0o7777
CAPABILITY = b"security.capability"
ACL_PREFIX = b"system.posix_acl_"


def guarded(method: F) -> F:
    """No exception but FUSEError (and trio's Cancelled) leaves a handler."""
    name = method.__name__

    @functools.wraps(method)
    async def guard(self: Handlers, *args: Any) -> Any:
        try:
            return await method(self, *args)
        except FUSEError:
            raise
        except Exception as error:
            raise FUSEError(errno_of(only_cause(error), name, args[0] if args else "")) from None

    return cast(F, guard)


def may_wait(method: F) -> F:
    """A handler that may wait for the store, the disk or for room: not more than so many at once (waiting.py)."""
    guard = guarded(method)

    @functools.wraps(method)
    async def counted(self: Handlers, *args: Any) -> Any:
        self.waiting.come()
        try:
            return await guard(self, *args)
        finally:
            self.waiting.go()

    return cast(F, counted)


class Handlers(pyfuse3.Operations):
    """`on_init` is called when the kernel's INIT has come. It may not block."""

    supports_dot_lookup = True
    enable_acl = False

    def __init__(self, vfs: Vfs, options: FuseOptions, *, on_init: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.enable_writeback_cache = options.writeback and not options.read_only
        self._vfs = vfs
        self._on_init = on_init
        self._entry_timeout_s = options.entry_timeout_s
        self._attr_timeout_s = options.attr_timeout_s
        self._absent = absent(options.negative_timeout_s) if options.negative_timeout_s > 0 else None
        self._directories: dict[int, int] = {}  # inode numbers of open directories by handle
        self._no_capability: set[int] = set()
        self.waiting = Waiting(options.max_waiting)

    def init(self) -> None:
        self._on_init()

    def _entry(self, inode: Inode) -> EntryAttributes:
        return entry_of(inode, self._entry_timeout_s, self._attr_timeout_s)

    def _looked_up(self, inode: Inode) -> EntryAttributes:
        """An entry that the kernel counts."""
        self._vfs.remember(inode.ino)
        return entry_of(inode, self._entry_timeout_s, self._attr_timeout_s)

    async def _room(self, ctx: RequestContext) -> None:
        """Wait for room where the caller can be killed. What the Vfs then waits for itself is short."""
        if self._vfs.would_wait(Kind.GROW):
            await self.waiting.for_caller(lambda: self._vfs.enter(Kind.GROW), ctx.pid)

    def _made(self, inode: Inode) -> EntryAttributes:
        if len(self._no_capability) >= REMEMBERED_INODES:
            self._no_capability.pop()           # whatever falls out is only asked again
        self._no_capability.add(inode.ino)
        return self._looked_up(inode)

    # ---------------------------------------------------------------- inodes

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if name == b"." or name == b"..":       # an NFS server asks so for what it only has a handle of
            inode = await self._vfs.getattr(parent_inode)
            if name == b".." and inode.parent:
                inode = await self._vfs.getattr(inode.parent)
            return self._looked_up(inode)
        found = await self._vfs.lookup(parent_inode, name)
        if found is not None:
            return self._looked_up(found)
        if self._absent is None:
            raise FUSEError(errno.ENOENT)
        return self._absent

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """There is no answer to a FORGET, so pyfuse3 expects no error at all, not even a FUSEError."""
        for ino, count in inode_list:
            self._no_capability.discard(ino)
            try:
                await self._vfs.forget(ino, count)
            except Exception as error:
                errno_of(error, "forget", ino)

    @guarded
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self._vfs.getattr(inode))

    @may_wait
    async def setattr(self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None,
                      ctx: RequestContext) -> EntryAttributes:
        if fields.update_size and self._vfs.would_wait(Kind.GROW) and attr.st_size > (await self._vfs.getattr(inode)).size:
            await self._room(ctx)
        wanted = SetAttr(
            mode=attr.st_mode & PERMISSIONS if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            ctime_ns=attr.st_ctime_ns if fields.update_ctime else None)
        return self._entry(await self._vfs.setattr(inode, wanted, _caller(ctx)))

    @guarded
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        found, data = await self._vfs.statfs(), StatvfsData()
        data.f_bsize = data.f_frsize = found.block_size
        data.f_blocks = found.blocks
        data.f_bfree = data.f_bavail = found.blocks_free
        data.f_files = found.inodes
        data.f_ffree = data.f_favail = found.inodes_free
        data.f_namemax = found.name_max
        return data

    # ---------------------------------------------------------------- names

    @may_wait
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        await self._room(ctx)
        return self._made(await self._vfs.mkdir(parent_inode, name, mode & PERMISSIONS, _caller(ctx)))

    @may_wait
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        await self._room(ctx)
        return self._made(await self._vfs.mknod(parent_inode, name, mode, rdev, _caller(ctx)))

    @may_wait
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        await self._room(ctx)
        return self._made(await self._vfs.symlink(parent_inode, name, target, _caller(ctx)))

    @may_wait
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        await self._room(ctx)
        return self._looked_up(await self._vfs.link(inode, new_parent_inode, new_name))

    @guarded
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return await self._vfs.readlink(inode)

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._vfs.unlink(parent_inode, name)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._vfs.rmdir(parent_inode, name)

    @guarded
    async def rename(self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int,
                     ctx: RequestContext) -> None:
        await self._vfs.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    # ---------------------------------------------------------------- directories

    @guarded
    async def opendir(self, inode: int, ctx: RequestContext) -> FileHandleT:
        handle = await self._vfs.opendir(inode)
        self._directories[handle] = inode
        return FileHandleT(handle)

    @guarded
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        if start_id < DOTS and not await self._dots(self._directories[fh], start_id, token):
            return
        cookie = max(start_id - DOTS, 0)
        reply, remember = pyfuse3.readdir_reply, self._vfs.remember
        while batch := await self._vfs.readdir(fh, cookie, READDIR_BATCH):
            for name, inode, cookie in batch:
                if not reply(token, name, self._entry(inode), cookie + DOTS):
                    return
                remember(inode.ino)

    async def _dots(self, ino: int, start_id: int, token: ReaddirToken) -> bool:
        """Give "." and ".." as far as they are wanted and fit (the kernel does not count them as looked up)."""
        here = await self._vfs.getattr(ino)
        if start_id == 0 and not pyfuse3.readdir_reply(token, b".", self._entry(here), 1):
            return False
        parent = await self._vfs.getattr(here.parent) if here.parent and here.nlink else here
        return pyfuse3.readdir_reply(token, b"..", self._entry(parent), DOTS)

    @guarded
    async def releasedir(self, fh: int) -> None:
        self._directories.pop(fh, None)
        await self._vfs.releasedir(fh)

    @may_wait
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._vfs.fsyncdir(self._directories[fh])

    # ---------------------------------------------------------------- content

    @may_wait
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            await self._room(ctx)
        await self._vfs.open(inode, flags, _caller(ctx) if flags & os.O_TRUNC else None)
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    @may_wait
    async def create(self, parent_inode: int, name: bytes, mode: int, flags: int,
                     ctx: RequestContext) -> tuple[FileInfo, EntryAttributes]:
        await self._room(ctx)
        inode = await self._vfs.create(parent_inode, name, mode & PERMISSIONS, _caller(ctx), flags)
        return FileInfo(fh=FileHandleT(inode.ino), keep_cache=True), self._made(inode)

    @may_wait
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._vfs.read(fh, off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._vfs.write(fh, off, buf)

    @guarded
    async def flush(self, fh: int) -> None:
        """At each close: errors of earlier writes are told here."""
        await self._vfs.flush(fh)

    @may_wait
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._vfs.fsync(fh)

    @guarded
    async def release(self, fh: int) -> None:
        await self._vfs.release(fh)

    # ---------------------------------------------------------------- extended attributes

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        if name == CAPABILITY:
            if inode in self._no_capability:
                raise FUSEError(errno.ENODATA)
            try:
                return await self._vfs.getxattr(inode, name)
            except errors.NoAttribute:
                self._no_capability.add(inode)
                raise FUSEError(errno.ENODATA) from None
        if name.startswith(ACL_PREFIX):
            raise FUSEError(errno.ENOTSUP)
        return await self._vfs.getxattr(inode, name)

    @may_wait
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """pyfuse3 has looked whether the attribute is there when the caller asked for create or replace."""
        await self._room(ctx)
        await self._vfs.setxattr(inode, name, value, 0)
        if name == CAPABILITY:       # afterwards: who asked while it waited was told that there is none, and it was remembered
            self._no_capability.discard(inode)

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._vfs.removexattr(inode, name)

    @guarded
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        return await self._vfs.listxattr(inode, _caller(ctx))


def _caller(ctx: RequestContext) -> Caller:
    return Caller(uid=ctx.uid, gid=ctx.gid, pid=ctx.pid, umask=ctx.umask)
