"""What the commands of this floor stand on: an open store with room for many calls, a folder on the local disk, a filesystem's rows."""
from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import trio

from s3cfs.app.local import folder_name, locked, open_folder
from s3cfs.app.opening import DATABASE, load_meta
from s3cfs.app.store import open_store
from s3cfs.config import Settings
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import AlreadyMounted, Damaged, Diverged, ObjectMissing, RolledBack, S3cfsError, StoreError
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.history.log import Tip
from s3cfs.limits import DEFAULTS, MIB
from s3cfs.meta import Meta
from s3cfs.remote import Remote

OnProgress = Callable[[Mapping[str, Any]], None]
FOLDER = "moves"                   # in the folder of local state: what walks remember
ROOM_BYTES = 96 * MIB              # of objects in memory


@contextlib.asynccontextmanager
async def opened(settings: Settings, at_once: int) -> AsyncIterator[Remote]:
    """A store for many calls at once: as many as asked for, if it bears them. It is closed at the end."""
    with tempfile.TemporaryDirectory(prefix="s3cfs-", ignore_cleanup_errors=True) as scratch:
        limits = replace(DEFAULTS, downloads_at_once=at_once, uploads_at_once=at_once)
        doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(scratch), limits)
        async with Remote(open_store(settings), doors).running() as remote:
            yield remote


@contextlib.contextmanager
def remembered(cachedir: str, what: str, found: Superblock, *of: str) -> Iterator[SystemDisk]:
    """The folder in which a walk of this kind, over this filesystem, keeps its ledger; locked. It is not removed."""
    mark = hashlib.blake2b("\0".join(of).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    disk = open_folder(os.path.join(cachedir, FOLDER), f"{what}-{found.fs_id.hex()[:8]}-{mark}")
    with locked(disk, f"{what} under way", lambda text: None, wait=False):
        yield disk


@contextlib.contextmanager
def told_of(remote: Remote) -> Iterator[None]:
    """Where there are two stores, an error says which of them it is about."""
    try:
        yield
    except StoreError as error:
        place = f"({remote.location})"
        if place not in error.cause:
            error.cause = f"{error.cause or type(error).__name__} {place}"
        raise


class Room:
    """Bytes in memory: whoever wants more than there is waits. One that is larger than all of it gets in alone."""

    def __init__(self, most: int = ROOM_BYTES) -> None:
        self._most, self._used = most, 0
        self._left = trio.Event()

    @contextlib.asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        while self._used and self._used + size > self._most:
            await self._left.wait()
        self._used += size
        try:
            yield
        finally:
            self._used -= size
            self._left.set()
            self._left = trio.Event()


class Rows:
    """A filesystem's metadata as the store has it: from the local state where that lies idle and has nothing of its own, else from a
    checkpoint and the log, in a temporary folder. Asked again, it goes on from where it was."""

    def __init__(self, settings: Settings, found: Superblock, keyring: KeyRing, cachedir: str | None, progress: OnProgress) -> None:
        """`cachedir` None: the store alone."""
        self._settings, self._superblock, self._keyring, self._progress = settings, found, keyring, progress
        self._cachedir = cachedir
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    @contextlib.asynccontextmanager
    async def at_tip(self, remote: Remote) -> AsyncIterator[tuple[Meta, Tip]]:
        """Both at the newest record. ObjectMissing, Damaged where the way there is broken."""
        with contextlib.ExitStack() as stack:
            found = await self._local(remote, stack) or await self._load(remote, self._own())
            try:
                yield found
            finally:
                with contextlib.suppress(S3cfsError):
                    found[0].close()

    async def _local(self, remote: Remote, stack: contextlib.ExitStack) -> tuple[Meta, Tip] | None:
        if self._cachedir is None or self._scratch is not None:
            return None
        name = folder_name(self._superblock, self._settings.url)
        if not _exists(os.path.join(self._cachedir, name, DATABASE)):
            return None
        disk = open_folder(self._cachedir, name)
        try:
            stack.enter_context(locked(disk, "checking", lambda text: None, wait=False))
            meta, tip = await self._load(remote, disk)
        except (AlreadyMounted, Damaged, Diverged, ObjectMissing, RolledBack):
            return None                                            # fsck says what is wrong with it
        if not meta.last_outbox_id() and not meta.unsent():
            return meta, tip
        meta.close()
        return None

    def _own(self) -> SystemDisk:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="s3cfs-rows-", ignore_cleanup_errors=True)
        return SystemDisk(self._scratch.name)

    async def _load(self, remote: Remote, disk: SystemDisk) -> tuple[Meta, Tip]:
        disk.makedirs("journal")
        doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), disk)
        meta, _, tip = await load_meta(doors, remote, self._keyring, self._tell)
        return meta, tip

    def _tell(self, what: str, done: int, total: int) -> None:
        self._progress({"done": done, "total": total or None, "unit": "steps", "text": what})

    def close(self) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()


def _exists(path: str) -> bool:
    return os.path.exists(path)
