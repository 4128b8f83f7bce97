"""A filesystem of very many, very small objects in a folder, quickly: no sync, packs of one chunk."""
from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import trio

from s3cfs import ids
from s3cfs.app.fsck import check_filesystem
from s3cfs.app.host import process_alive, this_host
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.base import Body
from s3cfs.backends.local import LocalBackend
from s3cfs.check import Line
from s3cfs.config import FsckOptions
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import Exists
from s3cfs.formats import superblock
from s3cfs.formats.superblock import Argon2Params
from s3cfs.limits import DEFAULTS, KIB
from s3cfs.vfs.types import ROOT_CALLER

PASSPHRASE = "correct horse battery staple"
CHUNKS = (KIB, 4 * KIB, 8 * KIB)
A_MOUNT = 12                       # files: it keeps its packs open
FILE_BYTES = 4096 * KIB
FOUR = bytes(b"acgt"[byte & 3] for byte in range(256))       # a block of the disk is then enough for an object
LIMITS = replace(DEFAULTS, pack_target_bytes=KIB, ride_max_bytes=0, short_sync_s=60.0)


class Unsynced(LocalBackend):
    """What it holds need not outlive the machine."""

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        path = os.path.join(self._root, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(path, "xb" if only_if_absent else "wb") as file:
                file.write(data)
        except FileExistsError:
            raise Exists("put", key, "the key is taken") from None


class UnsyncedDisk(SystemDisk):
    def sync_dir(self, path: str) -> None:
        pass


def contents(files: int, size: int = FILE_BYTES, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    for number in range(files):
        yield f"f{number}", random.Random(f"{seed} {number}").randbytes(size).translate(FOUR)


def make(folder: Path, state: Path, files: int, size: int = FILE_BYTES, *, plain: bool = False) -> str:
    """Files of random bytes, some 4 KiB in an object, some of them a mount. The filesystem's id."""
    backend = Unsynced(str(folder))
    backend.create()
    made, keyring, _ = superblock.create("seeded", SystemRandomness(), plain, *CHUNKS, None if plain else PASSPHRASE,
                                         argon2=Argon2Params(8, 1, 1), now_ns=0)
    for copy in (1, 2):
        backend.put(ids.super_key(1, copy), superblock.encode(made))

    async def main() -> None:
        doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), UnsyncedDisk(str(state)), LIMITS)
        options = NodeOptions(host=this_host(), process_alive=process_alive, packing=False)
        names = contents(files, size)
        while some := list(itertools.islice(names, A_MOUNT)):
            async with open_node(doors, backend, keyring, made, options) as node:
                for name, data in some:
                    await write(node, name, data)
                    await node.flush()

    trio.run(main)
    return made.fs_id.hex()


def check(folder: Path, state: Path, files: int, size: int = FILE_BYTES) -> None:
    """That the store in a folder is whole, by fsck, and gives those files, with a local state that is new."""
    backend = LocalBackend(str(folder))
    found = superblock.decode(backend.get(ids.super_key(1)), 1)
    keyring = superblock.unlock(found, passphrase=PASSPHRASE, random=SystemRandomness())

    async def main() -> None:
        lines: list[Line] = []
        checked = await check_filesystem(lambda: LocalBackend(str(folder)), found, keyring, None, FsckOptions(full=True), lines.append,
                                         lambda event: None)
        assert not checked.exit_code, lines
        doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), UnsyncedDisk(str(state)))
        async with open_node(doors, backend, keyring, found, NodeOptions(read_only=True)) as node:
            for name, data in contents(files, size):
                inode = await node.vfs.lookup(ids.ROOT_INO, name.encode())
                assert inode is not None and inode.size == len(data)
                for at in range(0, size, 1024 * KIB):
                    assert await node.vfs.read(inode.ino, at, 1024 * KIB) == data[at:at + 1024 * KIB], f"{name} at {at}"

    trio.run(main)


async def write(node: Node, name: str, data: bytes) -> None:
    made = await node.vfs.create(ids.ROOT_INO, name.encode(), 0o644, ROOT_CALLER)
    for at in range(0, len(data), 128 * KIB):
        await node.vfs.write(made.ino, at, data[at:at + 128 * KIB])
    await node.vfs.flush(made.ino)
    await node.vfs.release(made.ino)
