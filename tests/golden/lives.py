"""The lives of a filesystem that has a bit of everything: for golden stores, and for the second reader's own test of today's program.

Each life is a mount of its own on a new machine, which knows nothing but the store. Together they leave every kind of object and of row:
inline data, holes, overlays, files with one content, many small ones, hard links, links, devices, attributes; renamed, replaced, cut,
removed; several epochs, writers that died in office, an inode that somebody had open, trash that nobody swept, a chunk that is
marked as bad; two writers at once; a damaged record that a repair went back past; checkpoints and records after them.
"""
from __future__ import annotations

import contextlib
import hashlib
import random
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from s3cfs import ids
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.base import Backend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.types import Body, Capabilities
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import S3cfsError
from s3cfs.formats import superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Argon2Params, Superblock
from s3cfs.history.office import Takeover
from s3cfs.history.retreat import Retreat, find_retreat
from s3cfs.limits import Limits
from s3cfs.meta import Inode
from s3cfs.remote import Remote
from s3cfs.vfs.types import RENAME_EXCHANGE, ROOT_CALLER, SetAttr

KIB = 1 << 10
PASSPHRASE = "golden filesystem"
NOW_NS = 1_750_000_000_123_456_789
COSTS = Argon2Params(memory_kib=64, passes=1, lanes=1)
SIZES = (16 * KIB, 64 * KIB, 256 * KIB)


class Small(MemoryBackend):
    """A store in memory that states a largest object."""

    def __init__(self, largest: int | None = None, *, create_only: bool = True) -> None:
        super().__init__(create_only=create_only)
        self._largest = largest

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, largest_object_bytes=self._largest)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        assert self._largest is None or len(data) <= self._largest, key
        super().put(key, data, only_if_absent)


class Death(Exception):
    """The process ends here: nothing is flushed, nobody signs off."""


def doors(folder: Path, checkpoint_after: int = 0) -> Doors:
    """A checkpoint whenever there can be one, in several parts; removals that leave trash."""
    return Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(str(folder)),
                 Limits(checkpoint_min_log_bytes=checkpoint_after, checkpoint_part_bytes=8 * KIB, sweep_rows=3))


def new_superblock(plain: bool) -> tuple[Superblock, KeyRing, str | None]:
    return superblock.create("golden", SystemRandomness(), plain, *SIZES, None if plain else PASSPHRASE, now_ns=NOW_NS,
                             argon2=COSTS)


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


async def write(node: Node, parent: int, name: bytes, pieces: dict[int, bytes], mode: int = 0o644) -> int:
    made = await node.vfs.create(parent, name, mode, ROOT_CALLER)
    for offset, data in pieces.items():
        await node.vfs.write(made.ino, offset, data)
    await node.vfs.flush(made.ino)
    await node.vfs.release(made.ino)
    await node.vfs.setattr(made.ino, SetAttr(mtime_ns=NOW_NS + made.ino), ROOT_CALLER)
    return made.ino


async def change(node: Node, name: bytes, pieces: dict[int, bytes], size: int | None = None) -> int:
    """Write into the file of that name in the root folder."""
    ino = await found(node, name)
    await node.vfs.open(ino, 2)
    for offset, data in pieces.items():
        await node.vfs.write(ino, offset, data)
    if size is not None:
        await node.vfs.setattr(ino, SetAttr(size=size), ROOT_CALLER)
    await node.vfs.flush(ino)
    await node.vfs.release(ino)
    return ino


async def found(node: Node, name: bytes) -> int:
    inode = await node.vfs.lookup(1, name)
    assert inode is not None
    return inode.ino


async def first(node: Node) -> None:
    vfs = node.vfs
    await write(node, 1, b"inline", {0: b"a file of few bytes lives in its row\n"})
    await write(node, 1, b"text", {0: b"gold does not tarnish. " * 20_000})
    await write(node, 1, b"noise", {0: noise(7, 120_000)}, 0o600)
    await write(node, 1, b"noise again", {0: b"shifted" + noise(7, 120_000)})
    await write(node, 1, b"empty", {})
    folder = (await vfs.mkdir(1, "Ordner für später".encode(), 0o2755, ROOT_CALLER)).ino
    sparse = await write(node, folder, b"sparse", {1 << 20: b"x" * 5000, 5 << 20: b"the end"})
    await vfs.link(sparse, 1, b"second name")
    await vfs.symlink(folder, b"link", b"../text", ROOT_CALLER)
    await vfs.mknod(folder, b"fifo", stat.S_IFIFO | 0o620, 0, ROOT_CALLER)
    await vfs.mknod(folder, b"socket", stat.S_IFSOCK | 0o600, 0, ROOT_CALLER)
    await vfs.mknod(folder, b"null", stat.S_IFCHR | 0o666, (1 << 8) | 3, ROOT_CALLER)
    await vfs.mknod(folder, b"disk", stat.S_IFBLK | 0o660, (259 << 8) | 7, ROOT_CALLER)
    await vfs.setxattr(sparse, b"user.colour", b"gold\0")
    await vfs.setxattr(sparse, b"user.empty", b"")
    await vfs.setxattr(folder, b"user.large", noise(8, 3000))
    await vfs.setattr(folder, SetAttr(uid=1000, gid=1001), ROOT_CALLER)
    many = (await vfs.mkdir(1, b"many", 0o700, ROOT_CALLER)).ino
    for number in range(40):
        await write(node, many, b"%d" % number, {0: b"small %d " % number * (number * 20)})
    await write(node, many, b"no \xff UTF-8, \x01 and \n", {0: noise(9, 700)})


async def second(node: Node) -> None:
    """Over what is there: overlays, a cut, a removal, a name that becomes another."""
    await change(node, b"text", dict.fromkeys(range(0, 400_000, 40_960), b"overlaid " * 300), 430_000)
    await change(node, b"inline", {10: b"A FILE"})
    await node.vfs.unlink(1, b"noise again")
    await node.vfs.rename(1, b"inline", 1, b"renamed")
    await node.flush()
    await node.vfs.removexattr(await found(node, b"second name"), b"user.empty")
    await node.vfs.setxattr(await found(node, b"second name"), b"user.colour", b"blue")
    many = await found(node, b"many")
    for number in range(0, 40, 3):
        await node.vfs.unlink(many, b"%d" % number)
    inner = (await node.vfs.mkdir(many, b"inner", 0o755, ROOT_CALLER)).ino
    await node.vfs.rename(many, b"1", inner, b"moved")
    await node.vfs.rename(many, b"2", many, b"4")                         # over another file
    await node.vfs.rename(many, b"5", many, b"7", RENAME_EXCHANGE)


async def third(node: Node) -> None:
    """Dies in office, with a file without a name that was open, and what a large removal left behind."""
    vfs = node.vfs
    await write(node, 1, b"holes", {page * 50_000: noise(page, 9_000) for page in range(8)})
    held = await write(node, 1, b"held", {0: noise(10, 3000)})
    await node.flush()
    node.sweeper.finish = trio.sleep_forever  # type: ignore[method-assign]
    await vfs.open(held, 2)
    await vfs.unlink(1, b"held")
    await change(node, b"holes", {}, 10_000)                             # eight extents, of which seven are trash now
    await change(node, b"holes", {120_000: noise(11, 5000)})             # ... and some of that range is the file's again
    gone = (await node.meta.extents(await found(node, b"noise"), 0, 1))[0][1]
    await vfs.unlink(1, b"noise")
    node.commits.check_writable()
    node.meta.mark_bad(gone.id)
    await node.flush()
    raise Death


async def fourth(node: Node) -> None:
    """Takes over from the dead, and dies before it says anything of its own."""
    raise Death


async def fifth(node: Node) -> None:
    """What rode in records is packed anew: chunks of older epochs in a pack of this one. And a record after the last checkpoint."""
    assert node.packing is not None and node.commits.writing is not None and await node.packing.step()
    await node.flush()
    await node.commits.writing.checkpoints.finished()
    await write(node, 1, b"last words", {0: b"after the checkpoint, " * 100})


LIVES: tuple[Callable[[Node], Awaitable[None]], ...] = (first, second, third, fourth, fifth)


async def live(what: Callable[[Node], Awaitable[None]], backend: Backend, keyring: KeyRing, block: Superblock) -> dict[str, Any]:
    """One life on a machine of its own; the tree that it leaves, {} of one that died."""
    try:
        async with _mounted(backend, keyring, block) as node:
            await what(node)
            await node.sweeper.finish()
            await node.flush()
            return await tree(node)
    except Death:
        return {}


async def rivals(backend: Backend, keyring: KeyRing, block: Superblock) -> dict[str, Any]:
    """Two at once: the second takes over from the first, which goes on until it is told. The tree that the second leaves.

    Without create-only puts the first one's last record lies in the store and is in no history.
    """
    seen: dict[str, Any] = {}
    with contextlib.suppress(S3cfsError):
        async with _mounted(backend, keyring, block) as one:
            await write(one, 1, b"of the first", {0: b"in the history"})
            await one.flush()
            async with _mounted(backend, keyring, block) as other:
                await write(other, 1, b"of the second", {0: b"in the history, too"})
                await other.flush()
                await write(one, 1, b"too late", {0: b"in no history"})
                with contextlib.suppress(S3cfsError):
                    await one.flush()
                await change(other, b"of the first", {0: b"I"})
                await other.sweeper.finish()
                await other.flush()
                seen = await tree(other)
    return seen


async def going_back(backend: Backend, keyring: KeyRing, block: Superblock) -> dict[str, Any]:
    """A commit's record is damaged, and a repair leaves it and all after it out. The tree that this leaves."""
    async with _mounted(backend, keyring, block, checkpoint_after=1 << 30) as node:
        await write(node, 1, b"given up", {0: b"in no history any more"})
        await node.flush()
        key = node.commits.writing.logbook.tip.key if node.commits.writing else ""
    data = backend.get(key)
    backend.put(key, data[:100] + bytes(20) + data[120:])
    with tempfile.TemporaryDirectory() as local:
        here = doors(Path(local))
        retreat = await find_retreat(here, Remote(backend, here), keyring, None)
    async with _mounted(backend, keyring, block, retreat=retreat) as node:
        await write(node, 1, b"gone on", {0: b"after the repair"})
        await node.flush()
        return await tree(node)


@contextlib.asynccontextmanager
async def _mounted(backend: Backend, keyring: KeyRing, block: Superblock, *, retreat: Retreat | None = None,
                   checkpoint_after: int = 0) -> AsyncIterator[Node]:
    """On a machine that knows nothing but the store; takes over from whoever is there."""
    with tempfile.TemporaryDirectory() as local:
        try:
            options = NodeOptions(takeover=Takeover.YES, retreat=retreat)
            async with open_node(doors(Path(local), checkpoint_after), backend, keyring, block, options) as node:
                yield node
        except BaseExceptionGroup as group:
            errors = leaves(group)
            raise errors[0] if len(errors) == 1 else group from None


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group of groups."""
    return [leaf for one in error.exceptions for leaf in leaves(one)] if isinstance(error, BaseExceptionGroup) else [error]


async def tree(node: Node) -> dict[str, Any]:
    """Everything a user can see, by path (bytes as Latin-1)."""
    seen: dict[str, Any] = {}

    async def look(path: bytes, inode: Inode) -> None:
        entry: dict[str, Any] = {"ino": inode.ino, "mode": inode.mode, "nlink": inode.nlink, "uid": inode.uid, "gid": inode.gid,
                                 "rdev": inode.rdev, "size": inode.size, "mtime_ns": inode.mtime_ns, "ctime_ns": inode.ctime_ns}
        names = await node.vfs.listxattr(inode.ino)
        if names:
            entry["xattrs"] = {name.decode(): (await node.vfs.getxattr(inode.ino, name)).hex() for name in names}
        if inode.target is not None:
            entry["target"] = inode.target.decode()
        if stat.S_ISREG(inode.mode):
            entry["alloc"] = inode.alloc
            entry["sha256"] = hashlib.sha256(await node.vfs.read(inode.ino, 0, inode.size)).hexdigest()
        seen[path.decode("latin-1")] = entry
        if stat.S_ISDIR(inode.mode):
            handle, cookie = await node.vfs.opendir(inode.ino), 0
            while entries := await node.vfs.readdir(handle, cookie, 1000):
                for name, child, cookie in entries:  # noqa: B007
                    await look(path + b"/" + name, child)
            await node.vfs.releasedir(handle)

    await look(b"", await node.vfs.getattr(ids.ROOT_INO))
    return seen
