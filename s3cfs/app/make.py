"""mkfs: a superblock, twice. Everything else begins with the first mount."""
from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from s3cfs import ids
from s3cfs.config import Secret, Settings
from s3cfs.doors import SystemClock, SystemRandomness
from s3cfs.errors import Exists, FilesystemExists, StoreError
from s3cfs.formats import superblock
from s3cfs.limits import chunk_sizes
from s3cfs.remote import Remote

from .store import first_look
from .superblocks import find_copies


@dataclass(frozen=True, slots=True)
class MkfsResult:
    fs_id: str                                    # hex
    recovery_key: str | None = field(repr=False)  # shown once, kept nowhere
    location: str


def mkfs(settings: Settings, *, label: str, plain: bool, passphrase: Secret | None, show: Callable[[MkfsResult], None]) -> MkfsResult:
    """Make a filesystem in an existing bucket or folder. FilesystemExists when there is one already.

    `show` is called before anything is written, and what it raises ends this: no filesystem whose recovery key nobody has seen.
    """
    return first_look(settings, partial(_make, label, plain, passphrase, show))


async def _make(label: str, plain: bool, passphrase: Secret | None, show: Callable[[MkfsResult], None], remote: Remote) -> MkfsResult:
    await remote.create()
    await remote.check()
    taken = f"{remote.location} holds an s3cfs filesystem already"
    if await find_copies(remote):
        raise FilesystemExists(taken)
    if await remote.folders("log/"):
        raise FilesystemExists(f"{remote.location} holds the log of a filesystem whose superblock is gone: choose another place")
    made, _, recovery_key = superblock.create(
        label, SystemRandomness(), plain, *chunk_sizes(remote.capabilities), passphrase.reveal() if passphrase else None,
        now_ns=SystemClock().time_ns())
    result = MkfsResult(made.fs_id.hex(), recovery_key, remote.location)
    create_only = await remote.probe_create_only(rounds=1)
    show(result)
    try:
        await remote.put(ids.super_key(made.n), superblock.encode(made), only_if_absent=create_only)
    except Exists:
        raise FilesystemExists(taken) from None
    with contextlib.suppress(StoreError):                  # the first mount makes up for it
        await remote.put(ids.super_key(made.n, 2), superblock.encode(made))
    return result
