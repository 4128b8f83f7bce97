"""A whole tree as it is read through the operations, as a model's nodes."""
from __future__ import annotations

import stat
from dataclasses import replace
from typing import Any

from .model import Node, Nodes, Version

READ_BYTES = 40_000           # several reads for the larger files
LIST_ENTRIES = 7


async def scan(vfs: Any, root: int) -> Nodes:
    """Everything that can be reached from `root`. DataError and the like come through: they are findings."""
    nodes: Nodes = {}
    todo = [root]
    while todo:
        ino = todo.pop()
        if ino in nodes:
            continue
        node = nodes[ino] = await _node(vfs, ino)
        todo.extend(node.entries.values())
    return nodes


async def _node(vfs: Any, ino: int) -> Node:
    inode = await vfs.getattr(ino)
    xattrs = {name: await vfs.getxattr(ino, name) for name in await vfs.listxattr(ino)}
    plain = Node(ino, inode.mode, inode.nlink, inode.uid, inode.gid, inode.rdev, xattrs=xattrs, mtime=inode.mtime_ns, ctime=inode.ctime_ns)
    kind = stat.S_IFMT(inode.mode)
    if kind == stat.S_IFDIR:
        return replace(plain, entries=await _entries(vfs, ino))
    if kind == stat.S_IFLNK:
        return replace(plain, target=await vfs.readlink(ino))
    if kind == stat.S_IFREG:
        data = await _content(vfs, ino)
        assert len(data) == inode.size, f"inode {ino} has size {inode.size} and reads as {len(data)} bytes"
        return replace(plain, versions=(Version(data, inode.mtime_ns, inode.ctime_ns),), mtime=0, ctime=0)
    return plain


async def _entries(vfs: Any, ino: int) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    handle = await vfs.opendir(ino)
    cookie = 0
    if first := await vfs.readdir(handle, 0, 2):                # a look at the beginning, and again: rewinddir
        assert [row[0] for row in await vfs.readdir(handle, 0, 2)][:1] == [first[0][0]], f"{ino} begins otherwise after a rewind"
    while rows := await vfs.readdir(handle, cookie, LIST_ENTRIES):
        for name, inode, after in rows[:LIST_ENTRIES]:
            assert name not in found, f"{name!r} is listed twice in {ino}"
            looked = await vfs.lookup(ino, name)
            assert looked is not None and looked.ino == inode.ino, f"{name!r} in {ino} is listed and not found"
            found[name] = inode.ino
            cookie = after
    await vfs.releasedir(handle)
    return found


async def _content(vfs: Any, ino: int) -> bytes:
    parts = []
    offset = 0
    await vfs.open(ino, 0)
    while data := await vfs.read(ino, offset, READ_BYTES):
        parts.append(bytes(data))
        offset += len(data)
    await vfs.release(ino)
    return b"".join(parts)
