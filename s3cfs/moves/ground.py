"""The filesystem that a tree is planted into: found or made, opened for writing without a mount, and the folder in it."""
from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from s3cfs.app.host import process_alive, this_host
from s3cfs.app.local import LocalDisk, folder_name, locked, open_folder
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.app.store import first_look, open_store, unlock
from s3cfs.app.superblocks import heal, read_copies
from s3cfs.config import MountOptions, Settings
from s3cfs.doors import Doors, SystemClock, SystemRandomness, TrioThreads
from s3cfs.errors import NoFilesystem, UsageError
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.history.commits import Options as CommitOptions
from s3cfs.history.office import Takeover
from s3cfs.remote import Remote
from s3cfs.vfs.core import Vfs
from s3cfs.vfs.types import ROOT_CALLER

OnProgress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Ground:
    settings: Settings
    options: MountOptions
    superblock: Superblock
    keyring: KeyRing


def find(settings: Settings, options: MountOptions) -> Ground | None:
    """An existing filesystem, unlocked; None when there is none. Outside of any event loop."""
    async def look(remote: Remote) -> Ground | None:
        await remote.create()                          # a folder; mkfs would make it too
        await remote.check()
        try:
            copies = await read_copies(remote)
        except NoFilesystem:
            return None
        keyring = unlock(copies.superblock, settings)
        await heal(remote, copies)
        return Ground(settings, options, copies.superblock, keyring)

    return first_look(settings, look)


@contextlib.asynccontextmanager
async def opened(ground: Ground, progress: OnProgress) -> AsyncIterator[Node]:
    """At work, as the only writer; everything is in the store at the end. AlreadyMounted, and whatever a mount may raise."""
    def tell(what: str, done: int, total: int) -> None:
        progress({"done": done, "total": total or None, "unit": "steps", "text": what})

    options = ground.options
    disk: LocalDisk = open_folder(options.cachedir, folder_name(ground.superblock, ground.settings.url))
    wanted = NodeOptions(
        sole_writer=options.sole_writer, takeover=Takeover(options.takeover), place=disk.root, level=options.compress,
        cache_bytes=options.cache_size, kernel_times=True, owner=(os.geteuid(), os.getegid()), host=this_host(),
        process_alive=process_alive,
        commits=CommitOptions(commit_interval_s=options.commit_interval, journal_max_bytes=options.journal_size))
    doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), disk)
    with locked(disk, "writing", lambda text: tell(text, 0, 0), wait=False):
        async with open_node(doors, open_store(ground.settings), ground.keyring, ground.superblock, wanted, tell) as node:
            yield node


async def folder_at(vfs: Vfs, path: str) -> int:
    """The inode of a folder, made if it is not there, and what is above it. UsageError when something else is in the way."""
    ino = 1
    for name in filter(None, os.fsencode(path).split(b"/")):
        if name in (b".", b".."):
            raise UsageError("the folder to import into is named by a path without '.' and '..'")
        found = await vfs.lookup(ino, name) or await vfs.mkdir(ino, name, 0o755, ROOT_CALLER)
        if not stat.S_ISDIR(found.mode):
            raise UsageError(f"{path}: {os.fsdecode(name)} is there and no folder")
        ino = found.ino
    return ino
