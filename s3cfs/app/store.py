"""From settings to an open store, its superblock and its keys."""
from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from s3cfs.backends.base import Backend
from s3cfs.backends.registry import backend_type, open_backend
from s3cfs.backends.retry import RetryBackend
from s3cfs.backends.url import StoreUrl
from s3cfs.check.dump import dump as dump_object
from s3cfs.config import Settings
from s3cfs.doors import Randomness, SystemRandomness
from s3cfs.errors import ConfigError, StoreError, WrongPassphrase
from s3cfs.formats import superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock

from .superblocks import read_superblock

log = logging.getLogger(__name__)

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


def patient(bare: Backend, *, stop: threading.Event | None = None,
            on_retry: Callable[[StoreError, float], None] | None = None) -> Backend:
    """What a filesystem runs on: calls that may be repeated are, until `stop` is set."""
    return RetryBackend(bare, sleep=stop.wait if stop is not None else time.sleep, on_retry=on_retry)


def impatient(bare: Backend) -> Backend:
    """What a command starts on: trouble is reported soon."""
    return RetryBackend(bare, deadline_s=FIRST_DEADLINE_S)


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
    backend = impatient(open_store(settings, timeout_s=FIRST_TIMEOUT_S))
    try:
        backend.check()
        keyring = None if key.startswith("super/") else unlock(read_superblock(backend), settings)
        return dump_object(backend, key, keyring, rows=rows)
    finally:
        backend.close()
