"""What `s3cfs zdb` does: the servers of a list looked at and looked after, without a filesystem being opened."""
from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from s3cfs.app.store import open_store
from s3cfs.backends.wrapper import Wrapper
from s3cfs.backends.zdb import status as state
from s3cfs.backends.zdb.backend import ZdbBackend
from s3cfs.backends.zdb.survey import Finding, Notes, Rate, Survey, Tally
from s3cfs.config import Settings
from s3cfs.errors import ConfigError

FOLDER = "zdb"                     # in the folder of local state


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[ZdbBackend]:
    """The bare backend. ConfigError: it is of another kind."""
    backend = open_store(settings)
    try:
        inner = backend
        while isinstance(inner, Wrapper):
            inner = inner.inner
        if not isinstance(inner, ZdbBackend):
            raise ConfigError(f"{settings.url} is no set of 0-dbs (zdb:///FILE)")
        inner.check()
        yield inner
    finally:
        backend.close()


def status(settings: Settings) -> Mapping[str, Any]:
    with opened(settings) as backend:
        cluster = backend.cluster
        state.ask(cluster, list(cluster))
        return {**state.told(cluster), "waiting": 0}


def survey(settings: Settings, cachedir: str, *, mend: bool, deep: bool, rate: int | None, hands: int, restart: bool,
           report: Callable[[Finding], None], progress: Callable[[Mapping[str, Any]], None]) -> Tally:
    """All objects, looked at or repaired. What ends it, KeyboardInterrupt too: the next run goes on."""
    with opened(settings) as backend, _notes(settings.url, cachedir) as notes:
        if restart:
            notes.remove()
        stop = threading.Event()
        state.ask(backend.cluster, list(backend.cluster))
        return Survey(backend.replicas, mend=mend, deep=deep, hands=hands, rate=Rate(rate, stop), notes=notes, report=report,
                      progress=progress, stop=stop).run()


@contextlib.contextmanager
def _notes(url: str, cachedir: str) -> Iterator[Notes]:
    """Of this store, for one run at a time: a second one beside it begins at the beginning."""
    folder = os.path.join(cachedir, FOLDER)
    path = os.path.join(folder, hashlib.blake2b(url.encode(), digest_size=8).hexdigest())
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        yield Notes(None)                              # a read-only machine can repair, too
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Notes(f"{path}.json")
    except BlockingIOError:
        yield Notes(None)
    finally:
        os.close(lock)
