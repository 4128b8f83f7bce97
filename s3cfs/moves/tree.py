"""The tree of one of our own filesystems, as a source for planting: a node that is mounted by nobody, and only reads."""
from __future__ import annotations

import stat
from collections.abc import Sequence

from s3cfs import ids
from s3cfs.app.node import Node
from s3cfs.errors import Damaged, DataError, NotFound
from s3cfs.meta import Chunk, Inode

from .source import Child, Extent, Lost, Thing, Totals

NAMES, ROWS = 500, 256             # in one answer


class OwnTree:
    """A Source. What several files share is fetched once: the node has a cache."""

    def __init__(self, node: Node) -> None:
        """`node` is read-only, and so one moment of the filesystem."""
        self._node, self._vfs, self._meta = node, node.vfs, node.meta

    @property
    def identity(self) -> str:
        return f"s3cfs {self._node.superblock.fs_id.hex()}"

    async def totals(self) -> Totals:
        found = await self._node.doors.threads.run(self._meta.beside.totals)
        return Totals(found.inodes, found.file_bytes)

    async def root(self) -> Thing:
        return _thing(await self._vfs.getattr(ids.ROOT_INO))

    async def children(self, folder: int, after: int) -> Sequence[Child]:
        handle = await self._vfs.opendir(folder)
        try:
            return [Child(name, _thing(inode), cookie) for name, inode, cookie in await self._vfs.readdir(handle, after, NAMES)]
        finally:
            await self._vfs.releasedir(handle)

    async def xattrs(self, ino: int) -> Sequence[tuple[bytes, bytes]]:
        return [(name, await self._vfs.getxattr(ino, name)) for name in await self._vfs.listxattr(ino)]

    async def extents(self, ino: int, offset: int) -> Sequence[Extent]:
        inode = await self._vfs.getattr(ino)
        if inode.data is not None:
            return [Extent(0, len(inode.data))] if inode.data and not offset else []
        found: list[Extent] = []
        for row, _ in await self._meta.extents(ino, offset, max(offset, inode.size), ROWS):
            if row.off >= offset:                                  # one for each chunk: what is lost is lost for it alone
                found.append(Extent(row.off, min(row.off + row.len, inode.size) - row.off))
        return found

    async def read(self, ino: int, extent: Extent) -> bytes:
        inode = await self._vfs.getattr(ino)
        start, end = extent.offset, extent.offset + extent.length
        if inode.data is not None:
            return inode.data[start:end]
        rows = await self._meta.extents(ino, start, end)
        parts = await self._chunks([chunk for _, chunk in rows])
        data = bytearray(extent.length)
        for (row, _), part in zip(rows, parts, strict=True):
            first, last = max(row.off, start), min(row.off + row.len, end)
            data[first - start:last - start] = part[row.coff + first - row.off:row.coff + last - row.off]
        return bytes(data)

    async def _chunks(self, chunks: Sequence[Chunk]) -> list[bytes]:
        """Lost, where one is damaged or missing; whatever else keeps it from being had is the caller's to try again."""
        for last in (False, True):
            try:
                return await self._node.blocks.chunks(chunks)
            except DataError as error:
                if isinstance(error.__cause__, NotFound | Damaged):
                    raise Lost(str(error), missing=isinstance(error.__cause__, NotFound)) from error
                if last or error.__cause__ is not None:            # without one: somebody else asked for it, and heard the reason
                    raise
        raise AssertionError


def _thing(inode: Inode) -> Thing:
    names = 1 if stat.S_ISDIR(inode.mode) else inode.nlink
    return Thing(inode.ino, inode.mode, inode.uid, inode.gid, inode.size, inode.atime_ns, inode.mtime_ns, inode.ctime_ns, inode.rdev, names,
                 inode.target or b"")
