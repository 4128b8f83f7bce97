"""Trees to compare: what a filesystem of ours holds, entry by entry, and a source made of plain values that can die and lose things."""
from __future__ import annotations

import hashlib
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from s3cfs.app.node import Node
from s3cfs.moves.source import Child, Extent, Lost, Thing, Totals
from s3cfs.vfs.types import ROOT_CALLER

Entry = dict[str, Any]
Tree = dict[bytes, Entry]


async def tree_of(node: Node, top: int = 1) -> Tree:
    """By path; the root is b"". `same_as`: the first path, in order, of the same inode."""
    vfs, found, inos = node.vfs, Tree(), dict[bytes, int]()
    left = [(b"", top)]
    while left:
        path, ino = left.pop()
        row = await vfs.getattr(ino)
        entry: Entry = {"mode": row.mode, "uid": row.uid, "gid": row.gid,
                        "atime": row.atime_ns, "mtime": row.mtime_ns, "ctime": row.ctime_ns,
                        "xattrs": {name: await vfs.getxattr(ino, name) for name in sorted(await vfs.listxattr(ino))}}
        if stat.S_ISREG(row.mode):
            await vfs.open(ino, 0)
            entry["size"], content = row.size, hashlib.sha256()
            for at in range(0, row.size, 1 << 20):
                content.update(await vfs.read(ino, at, 1 << 20))
            entry["content"] = content.hexdigest()
            await vfs.release(ino)
        elif stat.S_ISLNK(row.mode):
            entry["target"] = row.target
        elif stat.S_ISDIR(row.mode):
            handle, cookie = await vfs.opendir(ino), 0
            while rows := await vfs.readdir(handle, cookie, 100):
                for name, inode, cookie in rows:  # noqa: B007
                    left.append((path + b"/" + name if path else name, inode.ino))
            await vfs.releasedir(handle)
        else:
            entry["rdev"] = row.rdev
        if not stat.S_ISDIR(row.mode):
            entry["names"] = row.nlink
        found[path], inos[path] = entry, ino
    first: dict[int, bytes] = {}
    for path in sorted(found):
        found[path]["same_as"] = first.setdefault(inos[path], path)
    return found


def differences(expected: Tree, found: Tree, without: Sequence[str] = ()) -> list[str]:
    """In words; empty when they are equal."""
    said = [f"missing: {path!r}" for path in expected.keys() - found.keys()]
    said += [f"not expected: {path!r}" for path in found.keys() - expected.keys()]
    for path in expected.keys() & found.keys():
        for key in sorted(expected[path].keys() | found[path].keys()):
            if key not in without and expected[path].get(key) != found[path].get(key):
                said.append(f"{path!r}: {key} is {found[path].get(key)!r}, not {expected[path].get(key)!r}")
    return sorted(said)


class Killed(Exception):
    """Where a process would have died."""


@dataclass
class Values:
    """A Source: things by number, entries by folder, data by number as {offset: bytes}."""

    things: dict[int, Thing]
    entries: dict[int, list[tuple[bytes, int]]]
    data: dict[int, dict[int, bytes]] = field(default_factory=dict)
    attributes: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    gone: set[tuple[int, int]] = field(default_factory=set)        # (ino, offset) that cannot be read
    identity: str = "values"
    calls: int = 0
    dies_at: int = 0                                               # at this call
    flush_at: int = 0                                              # what is done by then is in the store
    flush: Callable[[], Awaitable[None]] | None = None
    one_at_a_time: trio.Lock = field(default_factory=trio.Lock)
    reads: list[tuple[int, int]] = field(default_factory=list)

    async def _count(self) -> None:
        async with self.one_at_a_time:
            self.calls += 1
            if self.calls == self.flush_at and self.flush is not None:
                await self.flush()
            if self.calls == self.dies_at:
                raise Killed

    async def totals(self) -> Totals:
        return Totals(len(self.things), sum(len(part) for parts in self.data.values() for part in parts.values()))

    async def root(self) -> Thing:
        return self.things[1]

    async def children(self, folder: int, after: int) -> Sequence[Child]:
        await self._count()
        some = self.entries.get(folder, [])[after:after + 3]
        return [Child(name, self.things[ino], after + number) for number, (name, ino) in enumerate(some, 1)]

    async def xattrs(self, ino: int) -> Sequence[tuple[bytes, bytes]]:
        await self._count()
        return list(self.attributes.get(ino, {}).items())

    async def extents(self, ino: int, offset: int) -> Sequence[Extent]:
        await self._count()
        parts = [(at, part) for at, part in sorted(self.data.get(ino, {}).items()) if at >= offset][:2]
        return [Extent(at, len(part), hashlib.sha256(part).digest() if self._often(part) else None) for at, part in parts]

    def _often(self, wanted: bytes) -> bool:
        return sum(part == wanted for parts in self.data.values() for part in parts.values()) > 1

    async def read(self, ino: int, extent: Extent) -> bytes:
        await self._count()
        if (ino, extent.offset) in self.gone:
            raise Lost(f"block {extent.offset} is not there", missing=True)
        self.reads.append((ino, extent.offset))
        return self.data[ino][extent.offset]

    def tree(self) -> Tree:
        """As `tree_of` has it."""
        found, inos = Tree(), dict[bytes, int]()
        left = [(b"", 1)]
        while left:
            path, ino = left.pop()
            thing = self.things[ino]
            entry: Entry = {"mode": thing.mode, "uid": thing.uid, "gid": thing.gid, "atime": thing.atime_ns, "mtime": thing.mtime_ns,
                            "ctime": thing.ctime_ns, "xattrs": dict(sorted(self.attributes.get(ino, {}).items()))}
            if stat.S_ISREG(thing.mode):
                content = bytearray(thing.size)
                for at, part in self.data.get(ino, {}).items():
                    if (ino, at) not in self.gone:
                        content[at:at + len(part)] = part
                entry["size"], entry["content"] = thing.size, hashlib.sha256(content[:thing.size]).hexdigest()
            elif stat.S_ISLNK(thing.mode):
                entry["target"] = thing.target
            elif stat.S_ISDIR(thing.mode):
                left += [(path + b"/" + name if path else name, below) for name, below in self.entries.get(ino, [])]
            else:
                entry["rdev"] = thing.rdev
            if not stat.S_ISDIR(thing.mode):
                entry["names"] = thing.names
            found[path], inos[path] = entry, ino
        first: dict[int, bytes] = {}
        for path in sorted(found):
            found[path]["same_as"] = first.setdefault(inos[path], path)
        return found


async def add_file(node: Node, parent: int, name: bytes, data: bytes) -> int:
    made = await node.vfs.create(parent, name, 0o644, ROOT_CALLER)
    await node.vfs.write(made.ino, 0, data)
    await node.vfs.flush(made.ino)
    await node.vfs.release(made.ino)
    return made.ino
