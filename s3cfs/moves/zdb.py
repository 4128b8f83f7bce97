"""What `s3cfs zdb` does: the servers of a list looked at and looked after, without a filesystem being opened."""
from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3cfs.app.store import open_store
from s3cfs.backends.wrapper import Wrapper
from s3cfs.backends.zdb import backup as backups
from s3cfs.backends.zdb import reclaim as spaces
from s3cfs.backends.zdb import restore as restores
from s3cfs.backends.zdb import status as state
from s3cfs.backends.zdb.backend import ZdbBackend
from s3cfs.backends.zdb.backup import Backup
from s3cfs.backends.zdb.link import Links
from s3cfs.backends.zdb.looking import look
from s3cfs.backends.zdb.reclaim import Space
from s3cfs.backends.zdb.restore import Restored
from s3cfs.backends.zdb.survey import Finding, Notes, Rate, Survey, Tally
from s3cfs.backends.zdb.words import Trouble
from s3cfs.config import Settings, format_size
from s3cfs.errors import ConfigError, ExitCode, StoreError

FOLDER = "zdb"                     # in the folder of local state


@contextlib.contextmanager
def opened(settings: Settings, *, check: bool = True) -> Iterator[ZdbBackend]:
    """The bare backend. ConfigError: it is of another kind. `check`: it must be one that can be used."""
    backend = open_store(settings)
    try:
        inner = backend
        while isinstance(inner, Wrapper):
            inner = inner.inner
        if not isinstance(inner, ZdbBackend):
            raise ConfigError(f"{settings.url} is no set of 0-dbs (zdb:///FILE)")
        if check:
            inner.check()
        yield inner
    finally:
        backend.close()


def status(settings: Settings) -> Mapping[str, Any]:
    """Also of servers with which nothing can be done."""
    with opened(settings, check=False) as backend:
        cluster = backend.cluster
        try:
            backend.check()
        except StoreError as error:
            looked = look(cluster.setup, cluster.fanout, lambda server: Links(server, state.POLL_S, 1), at_all=True)
            return {**state.told_without_opening(cluster.setup, looked, error.cause), "waiting": 0}
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


@dataclass(frozen=True, slots=True)
class Got:
    """What came of one server. `after`: its data has moved. `trouble`: why nothing could be done, in one line."""

    name: str
    before: Space | None = None
    after: Space | None = None
    rotten: int = 0
    trouble: str = ""

    def as_json(self) -> Mapping[str, Any]:
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        if self.before is None:
            return self.trouble
        said = (f"{self.name}: {self.before.entries:,} keys with {format_size(self.before.live)} in {format_size(self.before.written)}, "
                f"{self.before.garbage:.0%} garbage")
        if self.after is not None:
            said += f"; now in {format_size(self.after.written)}, namespace {self.after.namespace}"
        if self.rotten:
            said += f"; {self.rotten:,} values were damaged and are left out: s3cfs zdb repair makes them anew"
        return said


def reclaim(settings: Settings, names: Sequence[str], *, least: float, data_file_bytes: int, dry_run: bool,
            report: Callable[[Got], None], progress: Callable[[Mapping[str, Any]], None]) -> ExitCode:
    """Space of one server after the other (of those `names`, or of all) where at least so much (0 ... 1) is garbage."""
    with opened(settings) as backend:
        servers = {server.name: server for server in backend.cluster.setup.everyone}
    for name in names:
        if name not in servers:
            raise ConfigError(f"the list has no server {name}")
    code = ExitCode.OK
    for server in [servers[name] for name in names] or servers.values():
        def step(what: str, done: int, total: int, name: str = server.name) -> None:
            progress({"text": f"{name}, {what}", "done": done, "total": total, "unit": "keys"})

        try:
            before = spaces.space(server, data_file_bytes)
            if dry_run or before.garbage < least or not before.written:
                report(Got(server.name, before))
                continue
            done = spaces.reclaim(server, step, data_file_bytes=data_file_bytes)
            report(Got(server.name, done.before, done.after, len(done.rotten)))
        except spaces.Unwilling as error:
            report(Got(server.name, trouble=str(error)))
            code = code or ExitCode.UNSUPPORTED
        except Trouble as error:
            report(Got(server.name, trouble=f"{error}; what is there is as it was, and the same command begins anew"))
            code = ExitCode.STORE_UNREACHABLE
    return code


def back_up(settings: Settings, progress: Callable[[Mapping[str, Any]], None]) -> Backup:
    with opened(settings) as backend:
        state.ask(backend.cluster, list(backend.cluster))
        return backups.back_up(backend.cluster, _steps(progress))


def restore(settings: Settings, *, replicas_lost: bool, scan: bool | None, progress: Callable[[Mapping[str, Any]], None]) -> Restored:
    with opened(settings, check=False) as backend:
        try:
            return restores.restore(backend.cluster, _steps(progress), replicas_lost=replicas_lost, scan=scan)
        except Trouble as trouble:
            raise trouble.as_error("restore", "") from trouble


def _steps(progress: Callable[[Mapping[str, Any]], None]) -> Callable[[str, int, int | None], None]:
    return lambda what, done, total: progress({"text": what, "done": done, "total": total, "unit": "records"})


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
