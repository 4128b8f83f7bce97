"""A look every few seconds while a mount runs: what others may take away beside it, and what the service manager shows.

The local state, the control socket and the entry in the registry are files that anybody with a broom can remove. The latter two are
made again. Without its local state the mount goes on with the files it has open; from then on an fsync waits for the store, since the
local disk keeps nothing. And what a burst of work leaves of memory is given back to the kernel.
"""
from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import trio

from s3cfs.errors import S3cfsError
from s3cfs.fuse.lifecycle import extend_timeout, reopen_logs, sd_notify
from s3cfs.fuse.session import Leaving

from .local import FolderLock, LocalDisk
from .memory import Burst, give_back
from .node import Node
from .status import headline, state_of

log = logging.getLogger(__name__)

LOOK_S = 3.0
STOP_NOTICE_S = 20.0               # what systemd is asked for at each look while the end takes its time


class Watch:
    def __init__(self, node: Node, disk: LocalDisk, lock: FolderLock, leaving: Leaving, keep_socket: Callable[[], None]) -> None:
        self._node, self._disk, self._lock, self._leaving, self._keep_socket = node, disk, lock, leaving, keep_socket
        self._registration: Path | None = None
        self._register: Callable[[], Path] | None = None
        self._gone, self._lost = False, trio.Event()
        self._burst = Burst()
        self._state, self._said = "", ""

    def mounted(self, registration: Path, register: Callable[[], Path]) -> None:
        self._registration, self._register = registration, register

    def unmounted(self) -> None:
        self._gone = True
        sd_notify(STOPPING=1)
        self.look()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bring_to_the_store)
            while True:
                try:
                    self.look()
                except (OSError, S3cfsError) as error:
                    log.error("%s", error)
                if self._burst.is_over(self._node.moved_bytes()):
                    await self._node.doors.threads.run(give_back)
                await self._node.doors.clock.sleep(LOOK_S)

    async def _bring_to_the_store(self) -> None:
        """What the local disk does not keep does not wait for its commit's time."""
        await self._lost.wait()
        while self._node.commits.health.writable:
            with contextlib.suppress(S3cfsError):          # health says it
                await self._node.flush()
            await self._node.doors.clock.sleep(LOOK_S)

    def look(self) -> None:
        self._disk.look()
        if self._disk.lost and not self._node.commits.health.volatile:
            self._without_local_state()
        self._tell()
        self._keep_socket()
        if self._registration is not None and self._register is not None and not self._registration.exists():
            log.warning("the entry %s was removed; it is made again", self._registration)
            self._register()

    def _without_local_state(self) -> None:
        self._node.commits.health.volatile = True
        self._lost.set()
        reopen_logs()                                  # the old one was removed, too
        self._lock.take_again()

    def _tell(self) -> None:
        state, message = state_of(self._node)
        if state != (self._state or "ok"):
            (log.info if state in ("ok", "read-only") else log.error)("state=%s %s", state, message or "")
        self._state = state
        said = headline(self._node)
        if self._gone or self._leaving.requested.is_set():
            said = f"leaving; {said}"
            extend_timeout(STOP_NOTICE_S)
        if said != self._said:
            sd_notify(STATUS=said)
            self._said = said
        if _minds_the_dog():
            sd_notify(WATCHDOG=1)


def _minds_the_dog() -> bool:
    """Whether systemd wants a sign of life from this very process (WatchdogSec=)."""
    return bool(os.environ.get("WATCHDOG_USEC")) and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
