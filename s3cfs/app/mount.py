"""mount: a daemon that serves one filesystem at one mount point until it is unmounted, then brings the rest to the store.

Order of a start: what can be said on the terminal first (mount point, FUSE, store, passphrase), then the fork, then local state,
log, office, kernel. Order of an end: the kernel lets go, everything is staged, committed and put, the log gets a final RELEASE.
"""
from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from s3cfs import limits
from s3cfs.config import MountOptions, Settings
from s3cfs.control import Handler, Progress, control_server, register, unregister
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import ConfigError, ExitCode, S3cfsError, StoreError, UsageError
from s3cfs.formats.chunker import SLOW
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.fuse import mountpoint as mountpoints
from s3cfs.fuse.lifecycle import Report, daemonise, extend_timeout, reopen_logs, sd_notify, watch_signals
from s3cfs.fuse.options import FuseOptions
from s3cfs.fuse.session import Leaving, Mounted, serve
from s3cfs.history.commits import Options as CommitOptions

from .host import process_alive, this_host
from .local import FolderLock, folder_name, locked, open_folder
from .memory import bound_the_allocator
from .node import Node, NodeOptions, open_node
from .status import status
from .store import FIRST_TIMEOUT_S, impatient, open_store, patient, read_superblock, unlock

log = logging.getLogger(__name__)

LOG_MAX_BYTES, LOG_FILES = 10 * limits.MIB, 3
STOP_NOTICE_S = 5.0


def mount(settings: Settings, mountpoint: str, options: MountOptions) -> int:
    """Mount and return when the mount answers (in the foreground: when it has ended). Errors are raised; 0 otherwise."""
    mountpoints.check_fuse()
    path = mountpoints.prepare(mountpoint, nonempty=options.nonempty)
    first = impatient(open_store(settings, timeout_s=FIRST_TIMEOUT_S))
    first.check()
    found = read_superblock(first)
    keyring = unlock(found, settings)
    first.close()                                   # connections and their threads do not survive a fork
    if SLOW:
        _say(SLOW)
    disk = open_folder(options.cachedir, folder_name(found, settings.url))
    log_path = Path(options.log_file) if options.log_file else Path(disk.root, "log")

    def run(report: Report) -> None:
        _set_up_logging(options, None if options.foreground else log_path)
        if SLOW:
            log.warning("%s", SLOW)
        bound_the_allocator()
        with locked(disk, "mounted", report.progress if not options.foreground else _say) as lock:
            trio.run(_Daemon(settings, path, options, found, keyring, disk, lock, report).run)

    daemonise(run, foreground=options.foreground, log_path=log_path, on_progress=_say)
    return ExitCode.OK


def _say(text: str) -> None:
    sys.stderr.write(f"s3cfs: {text}\n")
    sys.stderr.flush()


def _set_up_logging(options: MountOptions, path: Path | None) -> None:
    """To a rotating file, or to stderr in the foreground (where the journal collects it); key=value lines."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler()
    else:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
            handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_MAX_BYTES, backupCount=LOG_FILES,
                                                           encoding="utf-8", errors="backslashreplace")
        except OSError as exc:
            raise ConfigError(f"log file {path}: {exc.strerror}") from None
    stamp = "" if path is None and os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    handler.setFormatter(logging.Formatter(f"{stamp}%(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(options.log_level.upper())
    for chatty in ("boto3", "botocore", "urllib3", "s3transfer"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _Daemon:
    def __init__(self, settings: Settings, path: str, options: MountOptions, found: Superblock, keyring: KeyRing, disk: SystemDisk,
                 lock: FolderLock, report: Report) -> None:
        self.settings, self.path, self.options = settings, path, options
        self.superblock, self.keyring, self.disk, self.lock, self.report = found, keyring, disk, lock, report
        self.doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), disk)
        self.leaving = Leaving()
        self.started = self.doors.clock.monotonic()
        self.node: Node | None = None
        self.stopped = trio.Event()
        self.no_more_retries = threading.Event()
        self.registration: Path | None = None

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._signals)
                try:
                    await self._serve()
                finally:
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            if self.registration is not None:
                unregister(self.registration)

    async def _signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await watch_signals(leave=self.leaving.ask, reload=reopen_logs)

    async def _serve(self) -> None:
        socket = self.disk.real_path("control.sock")
        backend = patient(open_store(self.settings), stop=self.no_more_retries, on_retry=self._retrying)
        async with control_server(socket, self._handlers()):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cancel_when_urgent, scope)
                    async with open_node(self.doors, backend, self.keyring, self.superblock, self._node_options(), self._progress) as node:
                        self.node = node
                        nursery.start_soon(self._notify_status)
                        await serve(node.vfs, self.path, self._fuse_options(), leaving=self.leaving,
                                    on_mounted=lambda mounted: self._mounted(mounted, socket))
                        self.lock.say("leaving")
                        sd_notify(STOPPING=1, STATUS="bringing the last changes to the store")
                        await node.vfs.forget_all()
                    nursery.cancel_scope.cancel()
            self.stopped.set()

    async def _cancel_when_urgent(self, scope: trio.CancelScope) -> None:
        await self.leaving.urgent.wait()
        if self.node is not None:
            log.warning("leaving at once: %d bytes stay in %s and go to the store at the next mount",
                        self.node.commits.lag_bytes(), self.disk.root)
        self.no_more_retries.set()
        scope.cancel()

    def _retrying(self, error: StoreError, pause_s: float) -> None:
        log.debug("store call repeated in %.1f s: %s", pause_s, error)
        if self.node is not None:
            self.node.remote.retrying(error, pause_s)

    def _mounted(self, mounted: Mounted, socket: str) -> None:
        self.registration = register(mounted.device, mounted.mountpoint, self.settings.url, socket)
        sd_notify(READY=1, STATUS=f"{self.settings.url} on {mounted.mountpoint}", MAINPID=os.getpid())
        self.report.mounted(mountpoint=mounted.mountpoint, pid=os.getpid())

    def _progress(self, what: str, done: int, total: int) -> None:
        if total == 0:
            log.info("%s", what)
            self.report.progress(what)
        if total == 0 or done == total:
            extend_timeout(60, what)

    async def _notify_status(self) -> None:
        """While systemd waits for the end, it is told that something moves."""
        await self.leaving.requested.wait()
        while True:
            if self.node is not None:
                extend_timeout(4 * STOP_NOTICE_S, f"{self.node.lag_bytes()} bytes still to go")
            await self.doors.clock.sleep(STOP_NOTICE_S)

    # ---------------------------------------------------------------- options

    def _node_options(self) -> NodeOptions:
        options = self.options
        commit, _, commit_hash = (options.expect_commit or "0").partition(":")
        return NodeOptions(
            read_only=options.read_only, sole_writer=options.sole_writer, force=options.takeover, level=options.compress,
            cache_bytes=options.cache_size, kernel_times=not options.no_writeback, min_commit=int(commit), expect_hash=commit_hash,
            commits=CommitOptions(sync_remote=options.sync == "remote", commit_interval_s=options.commit_interval,
                                  max_lag_s=options.max_lag, journal_max_bytes=options.journal_size),
            owner=(os.geteuid(), os.getegid()), host=this_host(), process_alive=process_alive)

    def _fuse_options(self) -> FuseOptions:
        options = self.options
        try:
            return FuseOptions(source=self.settings.url, read_only=options.read_only, allow_other=options.allow_other,
                               writeback=not options.no_writeback, nonempty=options.nonempty, loop=options.loop, extra=options.fuse_options)
        except ValueError as exc:
            raise UsageError(str(exc)) from None

    # ---------------------------------------------------------------- the control socket

    def _handlers(self) -> dict[str, Handler]:
        return {"stat": self._stat, "flush": self._flush, "drop-cache": self._drop_cache, "log-level": self._log_level,
                "wait": self._wait, "ping": self._ping}

    def _running(self) -> Node:
        if self.node is None:
            raise S3cfsError("the mount is still starting")
        return self.node

    async def _ping(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        return {"pid": os.getpid()}

    async def _stat(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        return status(self._running(), url=self.settings.url, mountpoint=self.path, started=self.started)

    async def _flush(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        node = self._running()
        async with _reporting(node, progress, "bringing changes to the store"):
            await node.flush()
        return {"commit": node.writer.tip.n if node.writer else node.tip.n}

    async def _drop_cache(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        node = self._running()
        before = node.cache.used_bytes
        await node.drop_cache()
        return {"freed_bytes": before - node.cache.used_bytes}

    async def _log_level(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        level = str(args.get("level", "")).upper()
        if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise UsageError("the level is debug, info, warning or error")
        logging.getLogger().setLevel(level)
        return {"level": level.lower()}

    async def _wait(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """After an unmount: the answer comes when everything is in the store; the process ends right after."""
        node = self._running()
        async with _reporting(node, progress, "bringing changes to the store"):
            await self.stopped.wait()
        health = node.commits.health
        if not node.options.read_only and not health.writable:
            kept = S3cfsError(f"{health.message}; {node.lag_bytes()} bytes are kept in {self.disk.root}")
            kept.exit_code = health.error().exit_code
            raise kept
        return {}


@contextlib.asynccontextmanager
async def _reporting(node: Node, progress: Progress, text: str) -> AsyncIterator[None]:
    """Progress lines while something is brought to the store: bytes done of what there was."""
    total = max(1, node.lag_bytes())

    async def report() -> None:
        while True:
            left = node.lag_bytes()
            await progress({"done": max(0, total - left), "total": total, "unit": "bytes", "text": text})
            await node.doors.clock.sleep(0.3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report)
        yield
        nursery.cancel_scope.cancel()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
