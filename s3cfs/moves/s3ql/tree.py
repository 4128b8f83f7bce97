"""A filesystem of S3QL as a Source: its tree from the database, its data from the store, or from blocks that a crash left in the cache."""
from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import trio

from s3cfs.errors import Corrupt, Damaged, NotFound
from s3cfs.moves.source import Child, Extent, Finding, Kind, Lost, Thing, Totals
from s3cfs.remote import Remote

from .database import PAGE_ROWS, ROOT, BlockRow, Database, InodeRow, Summary
from .envelope import open_object
from .opening import Opened
from .place import Place
from .stores import DATA

T = TypeVar("T")

LOCKED = "it was made immutable (s3qllock), and is not any more"


class S3qlTree:
    def __init__(self, remote: Remote, place: Place, opened: Opened, report: Callable[[Finding], None]) -> None:
        """`report`: what is wrong in the metadata. Damaged."""
        self._remote, self._opened, self._report = remote, opened, report
        self._run = remote.doors.threads.run
        self._sql = Database(opened.database)
        self._one_at_a_time = trio.Lock()
        self._walked: set[int] = set()             # folders with several names, which should not be
        self._cached: dict[int, list[int]] = {}    # inode -> its cached blocks
        for ino, number in sorted(opened.cached):
            self._cached.setdefault(ino, []).append(number)
        self.identity = f"S3QL, {place.identity}"
        self.from_cache = 0                        # blocks
        self.fetched = self.fetched_bytes = 0      # objects, and their plaintext

    def close(self) -> None:
        self._sql.close()

    async def _ask(self, question: Callable[..., T], *args: Any) -> T:
        async with self._one_at_a_time:
            return await self._run(question, *args)

    async def prepare(self) -> Summary:
        """Once, first: what is there, and what is wrong with the metadata as such is reported."""
        for text in await self._ask(self._sql.prepare):
            self._report(Finding(Kind.DAMAGED, b"", f"metadata of S3QL: {text}"))
        if count := await self._ask(self._sql.nameless):
            self._report(Finding(Kind.NOTE, b"", f"{count} files have no name (they were open at a crash), and are not imported"))
        return await self._ask(self._sql.summary)

    # ---------------------------------------------------------------- the tree

    async def totals(self) -> Totals:
        found = await self._ask(self._sql.summary)
        return Totals(sum(found.inodes.values()), found.block_bytes)

    async def root(self) -> Thing:
        row = await self._ask(self._sql.root)
        if row is None or not stat.S_ISDIR(row.mode):
            raise Damaged("the metadata of S3QL have no root")
        return self._thing(row, 1, None, True)

    async def children(self, folder: int, after: int) -> Sequence[Child]:
        while rows := await self._ask(self._sql.children, folder, after):
            found: list[Child] = []
            for row in rows:
                after = row.name_id
                if row.name is None or row.inode is None:
                    what = f"an entry of it ({row.name!r}) leads to inode {row.ino}, which is not there or damaged"
                    self._report(Finding(Kind.DAMAGED, b"", f"folder {folder}: {what}"))
                elif stat.S_ISDIR(row.inode.mode) and not self._first_time(row.ino, row.names):
                    self._report(Finding(Kind.DAMAGED, row.name, "a folder with several names: it is imported under the first"))
                else:
                    found.append(Child(row.name, self._thing(row.inode, row.names, row.target, row.xattrs), after))
            if found:
                return found
        return []

    def _first_time(self, ino: int, names: int) -> bool:
        if ino == ROOT or ino in self._walked:
            return False
        if names > 1:
            self._walked.add(ino)
        return True

    def _thing(self, row: InodeRow, names: int, target: bytes | None, xattrs: bool) -> Thing:
        size = row.size
        for number in self._cached.get(row.id, ())[-1:]:       # its size was not written yet
            size = max(size, number * self._opened.params.block_bytes + self._opened.cached[row.id, number].size)
        return Thing(row.id, row.mode, row.uid, row.gid, size if stat.S_ISREG(row.mode) else 0, row.atime_ns, row.mtime_ns, row.ctime_ns,
                     row.rdev, names, target or b"", xattrs, (LOCKED,) if row.locked else ())

    async def xattrs(self, ino: int) -> Sequence[tuple[bytes, bytes]]:
        return await self._ask(self._sql.xattrs, ino)

    # ---------------------------------------------------------------- data

    async def extents(self, ino: int, offset: int) -> Sequence[Extent]:
        size = self._opened.params.block_bytes
        first = -(-offset // size)
        while True:
            rows = await self._ask(self._sql.blocks, ino, first)
            following = rows[-1].blockno + 1 if len(rows) == PAGE_ROWS else None
            found = {row.blockno: self._extent(row) for row in rows}
            for number in self._cached.get(ino, ()):
                if first <= number and (following is None or number < following):
                    found[number] = Extent(number * size, min(self._opened.cached[ino, number].size, size))
            answer = [found[number] for number in sorted(found) if found[number].length]
            if answer or following is None:
                return answer
            first = following

    def _extent(self, row: BlockRow) -> Extent:
        size = self._opened.params.block_bytes
        length = size if row.length is None else min(max(row.length, 0), size)
        return Extent(row.blockno * size, length, row.hash if row.refcount > 1 else None)

    async def read(self, ino: int, extent: Extent) -> bytes:
        number = extent.offset // self._opened.params.block_bytes
        cached = self._opened.cached.get((ino, number))
        if cached is not None:
            return await self._run(self._from_cache, cached.path, extent.length)
        row = await self._ask(self._sql.block, ino, number)
        if row is None or row.length is None:
            raise Lost("the metadata of S3QL name a block that they do not know", missing=True)
        name = f"s3ql_data_{row.obj_id}"
        try:
            return await self._object(row, name)
        except Damaged:                            # once more: it may have been the way
            return await self._object(row, name, last=True)

    async def _object(self, row: BlockRow, name: str, *, last: bool = False) -> bytes:
        try:
            data = await self._remote.get(f"{DATA}{row.obj_id}")
            plain = await self._run(self._verified, name, data, row)
        except NotFound:
            why = " (S3QL notes that its upload failed)" if row.hash is None else ""
            raise Lost(f"{name} is not there{why}", missing=True) from None
        except Corrupt as error:
            raise Lost(f"{name}: {error}", missing=False) from None
        except Damaged as error:
            if last:
                raise Lost(f"{name}: {error}", missing=False) from None
            raise
        self.fetched += 1
        self.fetched_bytes += len(plain)
        return plain

    def _verified(self, name: str, data: bytes, row: BlockRow) -> bytes:
        length = row.length or 0
        _, plain = open_object(name, data, self._opened.passphrase, max(length, self._opened.params.block_bytes))
        if len(plain) != length:
            raise Damaged(f"it holds {len(plain)} bytes instead of {length}")
        if row.hash is not None and hashlib.sha256(plain).digest() != row.hash:
            raise Damaged("its content is not what the metadata say")
        return plain

    def _from_cache(self, path: str, length: int) -> bytes:
        try:
            with open(path, "rb") as file:
                data = file.read(length)
        except OSError as error:
            raise Lost(f"cached block {os.path.basename(path)}: {error.strerror}", missing=True) from None
        if len(data) != length:
            raise Lost(f"cached block {os.path.basename(path)} became shorter", missing=False)
        self.from_cache += 1
        return data
