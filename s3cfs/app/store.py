"""From settings to an open store, its superblock and its keys."""
from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import trio

from s3cfs.backends.base import Backend
from s3cfs.backends.registry import backend_type, open_backend
from s3cfs.backends.url import StoreUrl
from s3cfs.check.dump import dump as dump_object
from s3cfs.config import Settings
from s3cfs.doors import Doors, Randomness, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import ConfigError, WrongPassphrase
from s3cfs.formats import superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.limits import DEFAULTS
from s3cfs.remote import Remote

from .superblocks import read_superblock

log = logging.getLogger(__name__)

T = TypeVar("T")
TIMEOUT = "tcp-timeout"
FIRST_DEADLINE_S = 10.0        # at start a person waits: no network is said soon,
FIRST_TIMEOUT_S = 6.0          # and that a store is silent; a tcp-timeout that was set is kept


def open_store(settings: Settings, *, timeout_s: float | None = None) -> Backend:
    """The bare backend; makes no request. `timeout_s`: for a store that says nothing, unless the settings have one."""
    if settings.url.startswith("memory://"):
        raise ConfigError("memory:// ends with the process that holds it: it is for tests")
    options = settings.backend_options
    if timeout_s is not None and TIMEOUT in backend_type(StoreUrl.parse(settings.url).scheme).OPTIONS:
        options = {TIMEOUT: f"{timeout_s:g}", **options}
    return open_backend(settings.url, options, login=settings.login or "",
                        password=settings.password.reveal() if settings.password else "")


@contextlib.asynccontextmanager
async def remote_of(bare: Backend, *, deadline_s: float = DEFAULTS.store_deadline_s) -> AsyncIterator[Remote]:
    """For a command without a filesystem's local state. `bare` is closed at the end."""
    with tempfile.TemporaryDirectory(prefix="s3cfs-", ignore_cleanup_errors=True) as scratch:
        doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(scratch),
                      replace(DEFAULTS, store_deadline_s=deadline_s))
        async with Remote(bare, doors).running() as remote:
            yield remote


def first_look(settings: Settings, look: Callable[[Remote], Awaitable[T]]) -> T:
    """What a command starts on: trouble is reported soon. No thread is left of it, so that the process may fork."""
    async def main() -> T:
        async with remote_of(open_store(settings, timeout_s=FIRST_TIMEOUT_S), deadline_s=FIRST_DEADLINE_S) as remote:
            return await look(remote)

    return trio.run(main)


def unlock(found: Superblock, settings: Settings, random: Randomness | None = None) -> KeyRing:
    """The keys; asks for the passphrase where the settings say so. WrongPassphrase."""
    secret = settings.passphrase if found.plain else settings.need_passphrase()    # plain, though a passphrase is set: refused below
    source, text = random or SystemRandomness(), secret.reveal() if secret else None
    try:
        return superblock.unlock(found, passphrase=text, random=source)
    except WrongPassphrase as wrong:
        try:                               # whoever lost the passphrase gives the recovery key in its place
            return superblock.unlock(found, recovery_key=text, random=source)
        except WrongPassphrase:
            raise wrong from None


def dump(settings: Settings, key: str, *, rows: bool = False) -> Mapping[str, Any]:
    """What one object says, for `s3cfs debug dump`. Superblocks need no key."""
    async def look(remote: Remote) -> Mapping[str, Any]:
        await remote.check()
        keyring = None if key.startswith("super/") else unlock(await read_superblock(remote), settings)
        return await dump_object(remote, key, keyring, rows=rows)

    return first_look(settings, look)
