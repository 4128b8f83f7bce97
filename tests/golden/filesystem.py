"""Makes a golden filesystem: a whole store as two mounts and a checkpoint leave it, and the tree that must come out of it.

    python -m tests.golden.filesystem FOLDER

Made once for each format version, into tests/golden/v<version>/filesystem/ (`store/` and tree.json), and never changed afterwards:
tests/golden/test_filesystem.py asks every later s3cfs to mount it.
"""
from __future__ import annotations

import hashlib
import json
import random
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import trio

from s3cfs import ids
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.registry import open_backend
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.formats import superblock
from s3cfs.formats.superblock import Argon2Params
from s3cfs.limits import Limits
from s3cfs.meta import Inode
from s3cfs.vfs.types import ROOT_CALLER, SetAttr

PASSPHRASE = "golden filesystem"
NOW_NS = 1_750_000_000_123_456_789


def doors(folder: Path) -> Doors:
    return Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(str(folder)),
                 Limits(checkpoint_min_log_bytes=0))                 # one after the first commit that can have one


async def write(node: Node, parent: int, name: bytes, pieces: dict[int, bytes], mode: int = 0o644) -> int:
    made = await node.vfs.create(parent, name, mode, ROOT_CALLER)
    for offset, data in pieces.items():
        await node.vfs.write(made.ino, offset, data)
    await node.vfs.flush(made.ino)
    await node.vfs.release(made.ino)
    await node.vfs.setattr(made.ino, SetAttr(mtime_ns=NOW_NS + made.ino), ROOT_CALLER)
    return made.ino


async def first_life(node: Node) -> None:
    noise = random.Random(7).randbytes(200_000)
    vfs = node.vfs
    await write(node, 1, b"inline", {0: b"a file of few bytes lives in its row\n"})
    await write(node, 1, b"text", {0: b"gold does not tarnish. " * 20_000})
    await write(node, 1, b"noise", {0: noise}, 0o600)
    await write(node, 1, b"noise again", {0: b"shifted" + noise})
    folder = (await vfs.mkdir(1, "Ordner für später".encode(), 0o2755, ROOT_CALLER)).ino
    sparse = await write(node, folder, b"sparse", {1 << 20: b"x" * 5000, 5 << 20: b"the end"})
    await vfs.link(sparse, 1, b"second name")
    await vfs.symlink(folder, b"link", b"../text", ROOT_CALLER)
    await vfs.mknod(folder, b"fifo", stat.S_IFIFO | 0o620, 0, ROOT_CALLER)
    await vfs.mknod(folder, b"null", stat.S_IFCHR | 0o666, (1 << 8) | 3, ROOT_CALLER)
    await vfs.setxattr(sparse, b"user.colour", b"gold\0")
    await vfs.setattr(folder, SetAttr(uid=1000, gid=1001), ROOT_CALLER)


async def second_life(node: Node) -> None:
    vfs = node.vfs
    text = await vfs.lookup(1, b"text")
    assert text is not None
    await vfs.open(text.ino, 2)
    for page in range(0, 400_000, 40_960):                      # scattered pages: an overlay chunk
        await vfs.write(text.ino, page, b"overlaid " * 300)
    await vfs.setattr(text.ino, SetAttr(size=430_000), ROOT_CALLER)
    await vfs.flush(text.ino)
    await vfs.release(text.ino)
    await vfs.unlink(1, b"noise again")
    await vfs.rename(1, b"inline", 1, b"renamed")


async def tree(node: Node) -> dict[str, Any]:
    """Everything a user can see, by path."""
    found: dict[str, Any] = {}

    async def look(path: str, inode: Inode) -> None:
        entry: dict[str, Any] = {"ino": inode.ino, "mode": inode.mode, "nlink": inode.nlink, "uid": inode.uid, "gid": inode.gid,
                                 "rdev": inode.rdev, "size": inode.size, "mtime_ns": inode.mtime_ns}
        names = await node.vfs.listxattr(inode.ino)
        if names:
            entry["xattrs"] = {name.decode(): (await node.vfs.getxattr(inode.ino, name)).hex() for name in names}
        if inode.target is not None:
            entry["target"] = inode.target.decode()
        if stat.S_ISREG(inode.mode):
            entry["alloc"] = inode.alloc
            entry["sha256"] = hashlib.sha256(await node.vfs.read(inode.ino, 0, inode.size)).hexdigest()
        found[path] = entry
        if stat.S_ISDIR(inode.mode):
            handle = await node.vfs.opendir(inode.ino)
            for name, child, _ in await node.vfs.readdir(handle, 0, 1000):
                await look(f"{path}/{name.decode()}", child)
            await node.vfs.releasedir(handle)

    await look("", await node.vfs.getattr(ids.ROOT_INO))
    return found


def make(folder: Path) -> None:
    random_source = SystemRandomness()
    found, keyring, recovery_key = superblock.create("golden", random_source, False, 16 << 10, 64 << 10, 256 << 10, PASSPHRASE,
                                                     now_ns=NOW_NS, argon2=Argon2Params(memory_kib=64, passes=1, lanes=1))
    folder.mkdir(parents=True)
    backend = open_backend(f"local://{folder}/store")
    assert isinstance(backend, LocalBackend)
    backend.create()
    for copy in (1, 2):
        backend.put(ids.super_key(1, copy), superblock.encode(found))

    async def live(what: Any) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as local:
            async with open_node(doors(Path(local)), backend, keyring, found, NodeOptions()) as node:
                await what(node)
                await node.flush()
                return await tree(node)

    trio.run(live, first_life)
    expected = trio.run(live, second_life)
    (folder / "tree.json").write_text(json.dumps({"passphrase": PASSPHRASE, "recovery_key": recovery_key, "tree": expected}, indent=1))


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
