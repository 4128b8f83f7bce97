"""A small filesystem in memory or in a folder, ways to damage it, and fsck run on it without a command line."""
from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio

from s3cfs import ids
from s3cfs.app.fsck import FsckResult, check_filesystem
from s3cfs.app.host import process_alive, this_host
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.base import Backend
from s3cfs.check import Line
from s3cfs.config import FsckOptions
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.formats import superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Argon2Params, Superblock
from s3cfs.limits import DEFAULTS, Limits
from s3cfs.vfs.types import ROOT_CALLER

KIB = 1024
CHEAP = Argon2Params(8, 1, 1)
BIG = 400 * KIB                      # of the file that the damage is aimed at: several chunks of one pack


def doors(path: Path, limits: Limits = DEFAULTS) -> Doors:
    return Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(str(path)), limits)


@dataclass
class World:
    """One filesystem: its store, its keys, and what its files must hold."""

    backend: Backend
    root: Path
    superblock: Superblock
    keyring: KeyRing
    content: dict[str, bytes] = field(default_factory=dict)
    folders: int = 0
    limits: Limits = DEFAULTS

    @classmethod
    def make(cls, backend: Backend, root: Path, *, plain: bool = False) -> World:
        backend.create()
        made, keyring, _ = superblock.create("test", SystemRandomness(), plain, 16 * KIB, 64 * KIB, 256 * KIB, None if plain else "secret",
                                             argon2=CHEAP, now_ns=0)
        for copy in (1, 2):
            backend.put(ids.super_key(1, copy), superblock.encode(made))
        return cls(backend, root, made, keyring)

    def folder(self) -> Path:
        """A local state folder that nobody used yet."""
        self.folders += 1
        return self.root / f"state{self.folders}"

    def on_node(self, work: Callable[[Node], Awaitable[None]], folder: Path | None = None, **options: Any) -> Path:
        where = folder or self.folder()
        options = {"host": this_host(), "process_alive": process_alive, **options}

        async def main() -> None:
            async with open_node(doors(where, self.limits), self.backend, self.keyring, self.superblock, NodeOptions(**options)) as node:
                await work(node)
        trio.run(main)
        return where

    def fill(self, folder: Path | None = None, seed: int = 1) -> Path:
        """/big (one pack), /sub/other (another pack), /sub/link (the same inode as /big), /small (inline)."""
        rng = random.Random(seed)

        async def work(node: Node) -> None:
            sub = await node.vfs.mkdir(1, b"sub", 0o755, ROOT_CALLER)
            big = await self.write(node, 1, b"big", rng.randbytes(BIG))
            await node.flush()
            await node.vfs.link(big, sub.ino, b"link")
            await self.write(node, sub.ino, b"other", rng.randbytes(100 * KIB))
            await node.flush()
            await self.write(node, 1, b"small", b"hello")
            await node.flush()
        self.content = {"/big": b"", "/sub/link": b"", "/sub/other": b"", "/small": b""}
        used = self.on_node(work, folder)
        rng = random.Random(seed)
        big = rng.randbytes(BIG)
        self.content = {"/big": big, "/sub/link": big, "/sub/other": rng.randbytes(100 * KIB), "/small": b"hello"}
        return used

    @staticmethod
    async def write(node: Node, parent: int, name: bytes, data: bytes) -> int:
        made = await node.vfs.create(parent, name, 0o644, ROOT_CALLER)
        for at in range(0, len(data), 64 * KIB):
            await node.vfs.write(made.ino, at, data[at:at + 64 * KIB])
        await node.vfs.flush(made.ino)
        await node.vfs.release(made.ino)
        return made.ino

    # ------------------------------------------------------------ objects

    def keys(self, prefix: str) -> list[str]:
        return sorted(info.key for info in self.backend.list(prefix))

    def log(self) -> list[str]:
        return sorted(self.keys("log/"), key=lambda key: ids.parse_log_key(key)[3])

    def pack_of(self, path: str) -> str:
        """Key of the pack that the file's first chunk lies in."""
        found: list[str] = []

        async def work(node: Node) -> None:
            ino = 1
            for name in path.strip("/").split("/"):
                inode = await node.meta.lookup(ino, name.encode())
                assert inode is not None
                ino = inode.ino
            (_, chunk), *_ = await node.meta.extents(ino, 0, 1)
            pack = await node.meta.pack(chunk.pack)
            assert pack.name is not None
            found.append(ids.pack_key(pack.name))
        self.on_node(work, read_only=True)
        return found[0]

    def overwrite(self, key: str, data: bytes) -> None:
        self.backend.delete(key)
        self.backend.put(key, data)

    def flip(self, key: str, at: int) -> None:
        data = bytearray(self.backend.get(key))
        data[at] ^= 0x10
        self.overwrite(key, bytes(data))

    def truncate(self, key: str, size: int) -> None:
        self.overwrite(key, self.backend.get(key)[:size])

    # ------------------------------------------------------------ looking

    def fsck(self, *, local: Path | None = None, full: bool = False, repair: bool = False, automatic: bool = False) -> Checked:
        lines: list[Line] = []
        events: list[Any] = []
        before = {info.key: self.backend.get(info.key) for info in self.backend.list("")}
        options = FsckOptions(repair=repair, full=full, cachedir=str(local) if local else None, automatic=automatic)
        result = trio.run(check_filesystem, lambda: cast(Backend, Unclosed(self.backend)), self.superblock, self.keyring,
                          SystemDisk(str(local)) if local else None, options, lines.append, events.append)
        after = {info.key: self.backend.get(info.key) for info in self.backend.list("")}
        if not repair:
            assert after == before, "a check that repairs nothing wrote to the store"
        kept = {key: data for key, data in before.items() if not key.startswith("claim/")}
        assert all(after.get(key) == data for key, data in kept.items()), "an object was overwritten or deleted"
        assert all(set(event) == {"done", "total", "unit", "text"} for event in events)
        return Checked(result, lines, len(after) - len(before))

    def read_everything(self, folder: Path | None = None, *, read_only: bool = True) -> dict[str, bytes | str]:
        """Content of each file as it comes from the store alone (or from `folder`), or the name of the error."""
        found: dict[str, bytes | str] = {}

        async def work(node: Node) -> None:
            for path, expected in self.content.items():
                ino = 1
                for name in path.strip("/").split("/"):
                    inode = await node.vfs.lookup(ino, name.encode())
                    assert inode is not None
                    ino = inode.ino
                try:
                    found[path] = await node.vfs.read(ino, 0, len(expected) + 1)
                except Exception as error:
                    found[path] = type(error).__name__
        self.on_node(work, folder, read_only=read_only)
        return found


class Unclosed:
    """The same backend for several users, each of whom closes what it was given."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def close(self) -> None:
        pass


@dataclass
class Checked:
    result: FsckResult
    lines: list[Line]
    new_objects: int

    @property
    def code(self) -> int:
        return self.result.exit_code

    @property
    def errors(self) -> list[str]:
        return [line.text for line in self.lines if line.severity == "error"]

    @property
    def notes(self) -> list[str]:
        return [line.text for line in self.lines if line.severity == "note"]

    def names(self, *words: str) -> bool:
        """Is there an error with all of these words?"""
        return any(all(word in text for word in words) for text in self.errors)
