"""A small complete filesystem in memory with the interface of s3cfs.vfs.core.Vfs: to try the mount itself."""
from __future__ import annotations

import os
import stat
import time

from s3cfs import errors
from s3cfs.meta.types import Inode
from s3cfs.vfs.content import Kind
from s3cfs.vfs.core import Caller, SetAttr, StatFs

NOREPLACE, EXCHANGE = 1, 2


class MemVfs:
    def __init__(self) -> None:
        self.inodes: dict[int, Inode] = {}
        self.names: dict[int, dict[bytes, int]] = {}
        self.content: dict[int, bytearray] = {}
        self.xattrs: dict[int, dict[bytes, bytes]] = {}
        self.opens: dict[int, int] = {}
        self.handles: dict[int, int] = {}
        self.known: dict[int, int] = {}          # look-ups that the kernel has not forgotten
        self.asked: dict[str, int] = {}          # calls that tests count
        self._cookies: dict[int, dict[bytes, int]] = {}
        self._next_cookie: dict[int, int] = {}
        self._next_handle = 1
        root = self._new(stat.S_IFDIR | 0o755, Caller(0, 0), None)
        root.nlink = 2
        root.parent = root.ino
        self.names[root.ino] = {}

    # ---- inodes

    def _new(self, mode: int, caller: Caller, parent: Inode | None, rdev: int = 0) -> Inode:
        now, ino = time.time_ns(), len(self.inodes) + 1 + self.asked.get("dropped", 0)
        gid = caller.gid
        if parent is not None and parent.mode & stat.S_ISGID:
            gid = parent.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        inode = Inode(ino, mode, 1, caller.uid, gid, rdev, 0, 0, now, now, now, 0, None, None)
        self.inodes[ino] = inode
        return inode

    def _get(self, ino: int) -> Inode:
        try:
            return self.inodes[ino]
        except KeyError:
            raise errors.StaleInode(f"inode {ino}") from None

    def _dir(self, ino: int) -> dict[bytes, int]:
        if not stat.S_ISDIR(self._get(ino).mode):
            raise errors.NotADirectory(f"inode {ino}")
        return self.names[ino]

    def _touch(self, *inodes: Inode) -> None:
        for inode in inodes:
            inode.mtime_ns = inode.ctime_ns = time.time_ns()

    def _drop_if_unused(self, inode: Inode) -> None:
        """After forget or release; at unlink the kernel still knows it."""
        if inode.nlink == 0 and not self.opens.get(inode.ino) and not self.known.get(inode.ino):
            for table in (self.inodes, self.names, self.content, self.xattrs):
                table.pop(inode.ino, None)
            self.asked["dropped"] = self.asked.get("dropped", 0) + 1

    def would_wait(self, kind: Kind) -> bool:
        return False

    async def enter(self, kind: Kind) -> None:
        pass

    async def lookup(self, parent: int, name: bytes) -> Inode | None:
        self.asked["lookup"] = self.asked.get("lookup", 0) + 1
        if name == b"boom":
            raise RuntimeError("a bug, as asked for")
        if len(name) > 255:
            raise errors.NameTooLong("name")
        ino = self._dir(parent).get(name)
        return None if ino is None else self.inodes[ino]

    async def getattr(self, ino: int) -> Inode:
        self.asked["getattr"] = self.asked.get("getattr", 0) + 1
        return self._get(ino)

    async def setattr(self, ino: int, changes: SetAttr, caller: Caller) -> Inode:
        inode = self._get(ino)
        if changes.size is not None:
            content = self.content[ino]
            del content[changes.size:]
            content.extend(bytes(changes.size - len(content)))
            inode.size = inode.alloc = changes.size
            self._touch(inode)
        if changes.uid is not None or changes.gid is not None:
            inode.uid = inode.uid if changes.uid is None else changes.uid
            inode.gid = inode.gid if changes.gid is None else changes.gid
            if stat.S_ISREG(inode.mode):
                inode.mode &= ~(stat.S_ISUID | stat.S_ISGID)
        if changes.mode is not None:
            inode.mode = stat.S_IFMT(inode.mode) | changes.mode
        inode.atime_ns = inode.atime_ns if changes.atime_ns is None else changes.atime_ns
        inode.mtime_ns = inode.mtime_ns if changes.mtime_ns is None else changes.mtime_ns
        inode.ctime_ns = time.time_ns() if changes.ctime_ns is None else changes.ctime_ns
        return inode

    def remember(self, ino: int) -> None:
        self.known[ino] = self.known.get(ino, 0) + 1

    async def forget(self, ino: int, count: int) -> None:
        left = self.known.pop(ino) - count
        assert left >= 0, "the kernel forgets what it was never told"
        if left:
            self.known[ino] = left
        inode = self.inodes.get(ino)
        if inode is not None:
            if inode.mode & 0o777 == 0o202:               # a mode nobody has
                raise RuntimeError("as asked for")
            self._drop_if_unused(inode)

    async def statfs(self) -> StatFs:
        return StatFs(4096, 1 << 28, 1 << 27, 1 << 20, 1 << 19, 255)

    # ---- names

    def _add(self, parent: int, name: bytes, inode: Inode) -> None:
        self._dir(parent)[name] = inode.ino
        number = self._next_cookie.get(parent, 0) + 1
        self._next_cookie[parent] = number
        self._cookies.setdefault(parent, {})[name] = number
        self._touch(self._get(parent))

    async def _make(self, parent: int, name: bytes, mode: int, caller: Caller, rdev: int = 0) -> Inode:
        if name in self._dir(parent):
            raise errors.EntryExists("name")
        if len(name) > 255:
            raise errors.NameTooLong("name")
        inode = self._new(mode, caller, self._get(parent), rdev)
        self._add(parent, name, inode)
        return inode

    async def create(self, parent: int, name: bytes, mode: int, caller: Caller, flags: int = 0) -> Inode:
        inode = await self._make(parent, name, stat.S_IFREG | mode, caller)
        self.content[inode.ino] = bytearray()
        self.opens[inode.ino] = 1
        return inode

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Inode:
        inode = await self._make(parent, name, mode, caller, rdev)
        if stat.S_ISREG(mode):
            self.content[inode.ino] = bytearray()
        return inode

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Inode:
        inode = await self._make(parent, name, stat.S_IFDIR | mode, caller)
        inode.nlink, inode.parent = 2, parent
        self.names[inode.ino] = {}
        self._get(parent).nlink += 1
        return inode

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Inode:
        inode = await self._make(parent, name, stat.S_IFLNK | 0o777, caller)
        inode.target, inode.size = target, len(target)
        return inode

    async def readlink(self, ino: int) -> bytes:
        target = self._get(ino).target
        if target is None:
            raise errors.InvalidArgument("not a link")
        return target

    async def link(self, ino: int, parent: int, name: bytes) -> Inode:
        inode = self._get(ino)
        if name in self._dir(parent):
            raise errors.EntryExists("name")
        self._add(parent, name, inode)
        inode.nlink += 1
        inode.ctime_ns = time.time_ns()
        return inode

    def _find(self, parent: int, name: bytes) -> Inode:
        ino = self._dir(parent).get(name)
        if ino is None:
            raise errors.NoSuchEntry("name")
        return self.inodes[ino]

    def _take(self, parent: int, name: bytes) -> None:
        inode = self._find(parent, name)
        del self.names[parent][name], self._cookies[parent][name]
        self._touch(self._get(parent))
        if stat.S_ISDIR(inode.mode):
            inode.nlink = 0
            self._get(parent).nlink -= 1
        else:
            inode.nlink -= 1
        inode.ctime_ns = time.time_ns()

    async def unlink(self, parent: int, name: bytes) -> None:
        if stat.S_ISDIR(self._find(parent, name).mode):
            raise errors.IsADirectory("name")
        self._take(parent, name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        inode = self._find(parent, name)
        if not stat.S_ISDIR(inode.mode):
            raise errors.NotADirectory("name")
        if self.names[inode.ino]:
            raise errors.DirectoryNotEmpty("name")
        self._take(parent, name)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        moved, there = self._find(parent, name), self._dir(new_parent).get(new_name)
        if flags & EXCHANGE:
            other = self._find(new_parent, new_name)
            self.names[parent][name], self.names[new_parent][new_name] = other.ino, moved.ino
        else:
            if there is not None:
                if flags & NOREPLACE:
                    raise errors.EntryExists("name")
                if there == moved.ino:
                    return
                target = self.inodes[there]
                if stat.S_ISDIR(target.mode):
                    await self.rmdir(new_parent, new_name)
                else:
                    await self.unlink(new_parent, new_name)
            if stat.S_ISDIR(moved.mode) and parent != new_parent:
                self._get(parent).nlink -= 1
                self._get(new_parent).nlink += 1
                moved.parent = new_parent
            del self.names[parent][name], self._cookies[parent][name]
            self._add(new_parent, new_name, moved)
        self._touch(self._get(parent), self._get(new_parent))
        moved.ctime_ns = time.time_ns()

    async def opendir(self, ino: int) -> int:
        self._dir(ino)
        self._next_handle += 1
        self.handles[self._next_handle] = ino
        return self._next_handle

    async def readdir(self, handle: int, cookie: int, limit: int) -> list[tuple[bytes, Inode, int]]:
        self.asked["readdir"] = self.asked.get("readdir", 0) + 1
        ino = self.handles[handle]
        cookies = self._cookies.get(ino, {})
        later = sorted((number, name) for name, number in cookies.items() if number > cookie)
        return [(name, self.inodes[self.names[ino][name]], number) for number, name in later[:limit]]

    async def releasedir(self, handle: int) -> None:
        del self.handles[handle]

    async def fsyncdir(self, ino: int) -> None:
        self._dir(ino)

    # ---- content

    async def open(self, ino: int, flags: int, caller: Caller | None = None) -> None:
        self._get(ino)
        if flags & os.O_TRUNC:
            assert caller is not None
            await self.setattr(ino, SetAttr(size=0), caller)
        self.opens[ino] = self.opens.get(ino, 0) + 1

    async def release(self, ino: int) -> None:
        self.opens[ino] -= 1
        if not self.opens[ino]:
            del self.opens[ino]
            self._drop_if_unused(self.inodes[ino])

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        self.asked["read"] = self.asked.get("read", 0) + 1
        return bytes(self.content[ino][offset:offset + size])

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        self.asked["write"] = self.asked.get("write", 0) + 1
        inode, content = self._get(ino), self.content[ino]
        if data[:4] == b"full":
            raise errors.NoSpace("as asked for")
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset:offset + len(data)] = data
        inode.size = inode.alloc = len(content)
        self._touch(inode)
        return len(data)

    async def flush(self, ino: int) -> None:
        if self._get(ino).mode & 0o777 == 0o201:         # a mode nobody has: "its writes failed"
            raise errors.DataError("as asked for")

    async def fsync(self, ino: int) -> None:
        self.asked["fsync"] = self.asked.get("fsync", 0) + 1

    # ---- extended attributes

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        self.asked["getxattr"] = self.asked.get("getxattr", 0) + 1
        try:
            return self.xattrs.get(ino, {})[name]
        except KeyError:
            raise errors.NoAttribute("name") from None

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int) -> None:
        self.xattrs.setdefault(ino, {})[name] = value

    async def removexattr(self, ino: int, name: bytes) -> None:
        if self.xattrs.get(ino, {}).pop(name, None) is None:
            raise errors.NoAttribute("name")

    async def listxattr(self, ino: int, caller: Caller | None = None) -> list[bytes]:
        return list(self.xattrs.get(ino, {}))
