"""The process behind a mount, from its first look at the local state to the last byte in the store."""
from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from s3cfs.config import MountOptions, Settings
from s3cfs.control import control_server, register, scrape, socket_path, unregister
from s3cfs.doors import Doors, SystemClock, SystemRandomness, TrioThreads
from s3cfs.errors import Interrupted, S3cfsError, UsageError
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.fuse.lifecycle import Report, extend_timeout, reopen_logs, sd_notify, watch_signals
from s3cfs.fuse.options import FuseOptions
from s3cfs.fuse.session import Leaving, Mounted, serve
from s3cfs.history.commits import Options as CommitOptions
from s3cfs.history.office import Takeover

from .answers import Answers, Life
from .host import process_alive, this_host
from .local import FolderLock, LocalDisk
from .memory import keep_the_start
from .metrics import Metrics
from .node import NodeOptions, open_node
from .opening import DATABASE
from .store import open_store
from .watch import Watch

log = logging.getLogger(__name__)


class Daemon:
    """`run` once."""

    def __init__(self, settings: Settings, path: str, options: MountOptions, found: Superblock, keyring: KeyRing, disk: LocalDisk,
                 lock: FolderLock, report: Report, listeners: Sequence[socket.socket] = ()) -> None:
        """`listeners`: where metrics are served."""
        self.settings, self.path, self.options = settings, path, options
        self.superblock, self.keyring, self.disk, self.lock, self.report = found, keyring, disk, lock, report
        self.doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), disk)
        self.leaving = Leaving()
        self.life = Life(settings.url, path, self.doors.clock.monotonic())
        self._listeners, self._metrics = listeners, Metrics(self.doors.clock, self.life.status)
        self._socket = socket_path()
        self._registration: Path | None = None
        self._watch: Watch | None = None

    async def run(self) -> None:
        """S3cfsError when it cannot begin, or when at the end something is not in the store."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._signals)
                if self._listeners:
                    nursery.start_soon(scrape.serve, self._listeners, self._metrics.page)
                try:
                    await self._serve()
                finally:
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            if self._registration is not None:
                unregister(self._registration)

    async def _signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await watch_signals(leave=self.leaving.ask, reload=reopen_logs)

    async def _serve(self) -> None:
        """Whoever waits on the control socket hears of an error before it ends the process."""
        async with control_server(self._socket, Answers(self.life).handlers()) as keep_socket:
            try:
                await self._filesystem(keep_socket)
                self.life.failure = self._left_behind()
            except Exception as error:
                cause = _first(error)
                if not isinstance(cause, S3cfsError):
                    raise
                node = self.life.node
                ended = node is not None and not node.options.read_only and not node.commits.health.writable
                self.life.failure = self._left_behind() if ended else cause
            self.life.ended.set()
        if self.life.failure is not None:
            sd_notify(STATUS=str(self.life.failure))
            raise self.life.failure

    async def _filesystem(self, keep_socket: Callable[[], None]) -> None:
        backend = open_store(self.settings)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_when_urgent, scope)
                async with open_node(self.doors, backend, self.keyring, self.superblock, self._node_options(), self._progress) as node:
                    self.life.node = node
                    self.disk.keep_an_eye_on("", "lock", DATABASE)
                    self._watch = Watch(node, self.disk, self.lock, self.leaving, keep_socket)
                    nursery.start_soon(self._watch.run)
                    keep_the_start()
                    await serve(node.vfs, self.path, self._fuse_options(), leaving=self.leaving, on_mounted=self._mounted)
                    self.lock.say("leaving")
                    self._watch.unmounted()
                    await node.vfs.forget_all()
                nursery.cancel_scope.cancel()

    def _left_behind(self) -> S3cfsError | None:
        """What is to be told at the end: writing had ended, or the end was hurried, and something is not in the store."""
        node = self.life.node
        if node is None:
            return Interrupted("interrupted before it was mounted")
        if node.options.read_only:
            return None
        health, left = node.commits.health, node.lag_bytes()
        if health.writable and not left:
            return None
        kept = f"{left} bytes " + ("are lost with the folder of the local state" if health.volatile else f"are kept in {self.disk.root}")
        if health.writable:
            return Interrupted(f"the upload was interrupted; {kept} and go to the store at the next mount" if not health.volatile else kept)
        error = S3cfsError(f"{health.message}; {kept}")
        error.exit_code = health.error().exit_code
        return error

    async def _cancel_when_urgent(self, scope: trio.CancelScope) -> None:
        await self.leaving.requested.wait()
        if self.life.node is not None:                    # else nothing is mounted, and nothing of ours can be lost
            await self.leaving.urgent.wait()
            log.warning("leaving at once: %d bytes stay in %s and go to the store at the next mount",
                        self.life.node.commits.lag_bytes(), self.disk.root)
        scope.cancel()

    def _mounted(self, mounted: Mounted) -> None:
        assert self._watch is not None

        def enter() -> Path:
            return register(mounted.device, mounted.mountpoint, self.settings.url, self._socket)

        self._registration = enter()
        self._watch.mounted(self._registration, enter)
        sd_notify(READY=1, MAINPID=os.getpid(), STATUS=f"{self.settings.url} on {mounted.mountpoint}")
        self.report.mounted(mountpoint=mounted.mountpoint, pid=os.getpid())

    def _progress(self, what: str, done: int, total: int) -> None:
        if total == 0:
            log.info("%s", what)
            self.report.progress(what)
        if total == 0 or done == total:
            extend_timeout(60, what)

    # ---------------------------------------------------------------- options

    def _node_options(self) -> NodeOptions:
        options = self.options
        commit, _, commit_hash = (options.expect_commit or "0").partition(":")
        return NodeOptions(
            read_only=options.read_only, sole_writer=options.sole_writer, takeover=Takeover(options.takeover), place=self.disk.root,
            level=options.compress, cache_bytes=options.cache_size, kernel_times=not options.no_writeback, min_commit=int(commit),
            expect_hash=commit_hash,
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


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
