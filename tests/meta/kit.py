"""What the tests of the metadata share: a driver for methods that never suspend, and a VFS that fails on demand."""
from __future__ import annotations

import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import apsw

from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.ids import ChunkId, PackName
from s3cfs.limits import DEFAULTS, Limits
from s3cfs.meta import Extent, Meta

T = TypeVar("T")
KEY = bytes(range(32))
FILE, FOLDER = 0o100644, 0o040755


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result; the methods of this engine must never suspend."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it suspended")


class Disk(SystemDisk):
    def __init__(self, root: str, vfs: str | None = None) -> None:
        super().__init__(root)
        self.sqlite_vfs = vfs


def doors(root: Path | str, vfs: str | None = None, limits: Limits = DEFAULTS) -> Doors:
    return Doors(SystemClock(), SystemRandomness(), TrioThreads(1), Disk(str(root), vfs), limits)


def open_meta(root: Path | str, key: bytes | None = KEY, name: str = "meta.db", vfs: str | None = None, limits: Limits = DEFAULTS) -> Meta:
    return Meta.open(doors(root, vfs, limits), name, key)


async def add_file(meta: Meta, name: bytes, content: bytes = b"x" * 4096, parent: int = 1, pack: int | None = None) -> int:
    """A file of one extent with a chunk of its own."""
    if pack is None:
        pack = await meta.new_pack(1)
        await meta.close_pack(pack, PackName(f"1-{pack:064x}"), 100)
    inode = await meta.new_inode(FILE, 1, 2, 0, 10, nlink=1)
    await meta.link_name(parent, name, inode.ino)
    if content:
        chunk = await meta.add_chunk(ChunkId(name.ljust(32, b".")[:32]), pack, 16, 90, len(content))
        await meta.replace(inode.ino, 0, len(content), [Extent(0, len(content), chunk, 0)])
        await meta.update_inode(inode.ino, size=len(content))
    return inode.ino


async def add_folder(meta: Meta, name: bytes, parent: int = 1) -> int:
    inode = await meta.new_inode(FOLDER, 0, 0, 0, 10, nlink=2, parent_dir=parent)
    await meta.link_name(parent, name, inode.ino)
    above = await meta.get(parent)
    assert above
    await meta.update_inode(parent, nlink=above.nlink + 1)
    return inode.ino


async def populate(meta: Meta, files: int, tag: bytes = b"f") -> None:
    folder = await add_folder(meta, tag + b"-folder")
    for number in range(files):
        ino = await add_file(meta, tag + b"%d" % number, b"y" * (number % 7) * 100, folder)
        await meta.set_xattr(ino, b"user.n", b"%d" % number * (1 + number % 50))
    await meta.add_orphan((await meta.new_inode(FILE, 0, 0, 0, 1, nlink=0)).ino)


def sql(meta: Meta, text: str, *args: Any) -> list[tuple[Any, ...]]:
    """Behind the metadata's back."""
    return meta._engine.connection.execute(text, args).fetchall()


class Vfs(apsw.VFS):
    """The system's own; `error` is raised by every write and sync while it is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: Exception | None = None
        super().__init__(name, "unix", iVersion=1)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return VfsFile(self, name, flags)


class VfsFile(apsw.VFSFile):
    def __init__(self, vfs: Vfs, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        super().__init__("unix", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        if self._vfs.error:
            raise self._vfs.error
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._vfs.error:
            raise self._vfs.error
        super().xSync(flags)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))
