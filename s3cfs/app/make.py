"""mkfs: a superblock, twice. Everything else begins with the first mount."""
from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from s3cfs import ids
from s3cfs.config import Secret, Settings
from s3cfs.doors import SystemClock, SystemRandomness
from s3cfs.errors import Exists, FilesystemExists, StoreError
from s3cfs.formats import superblock
from s3cfs.limits import chunk_sizes

from .store import FIRST_TIMEOUT_S, impatient, open_store


@dataclass(frozen=True, slots=True)
class MkfsResult:
    fs_id: str                                    # hex
    recovery_key: str | None = field(repr=False)  # shown once, kept nowhere
    location: str


def mkfs(settings: Settings, *, label: str, plain: bool, passphrase: Secret | None, show: Callable[[MkfsResult], None]) -> MkfsResult:
    """Make a filesystem in an existing bucket or folder. FilesystemExists when there is one already.

    `show` is called before anything is written, and what it raises ends this: no filesystem whose recovery key nobody has seen.
    """
    backend = impatient(open_store(settings, timeout_s=FIRST_TIMEOUT_S))
    try:
        backend.create()
        backend.check()
        taken = f"{backend.location} holds an s3cfs filesystem already"
        if any(True for _ in backend.list("super/")):
            raise FilesystemExists(taken)
        if any(True for _ in backend.list("log/")):
            raise FilesystemExists(f"{backend.location} holds the log of a filesystem whose superblock is gone: choose another place")
        made, _, recovery_key = superblock.create(
            label, SystemRandomness(), plain, *chunk_sizes(backend.capabilities), passphrase.reveal() if passphrase else None,
            now_ns=SystemClock().time_ns())
        result = MkfsResult(made.fs_id.hex(), recovery_key, backend.location)
        create_only = backend.probe_create_only(rounds=1)
        show(result)
        try:
            backend.put(ids.super_key(made.n), superblock.encode(made), only_if_absent=create_only)
        except Exists:
            raise FilesystemExists(taken) from None
        with contextlib.suppress(StoreError):              # the first mount makes up for it
            backend.put(ids.super_key(made.n, 2), superblock.encode(made))
        return result
    finally:
        backend.close()
