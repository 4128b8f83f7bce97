"""What is told to the kernel outside of answers: sizes of its read-ahead and of its dirty data, and what it must drop or keep."""
from __future__ import annotations

import logging
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import InodeT

log = logging.getLogger(__name__)

BDI = Path("/sys/class/bdi")
CONNECTIONS = Path("/sys/fs/fuse/connections")
STALE_MODES_MAX = 10_000


def tune(device: str, *, read_ahead_kib: int, dirty_bytes: int) -> dict[str, str]:
    """Set what the BDI of this device ("major:minor") lets us; returns what was set. Only root may: others keep the defaults.

    Reads are no larger than the read-ahead, so with a store behind it decides the speed of a sequential read. What the kernel
    holds back of written data is neither in a transaction nor bounded by us otherwise.
    """
    wanted = {"read_ahead_kb": str(read_ahead_kib)}
    if dirty_bytes:
        wanted |= {"max_bytes": str(dirty_bytes), "strict_limit": "1"}
    done = {}
    for name, value in wanted.items():
        try:
            with open(BDI / device / name, "r+") as file:
                file.write(value)
        except OSError as error:
            log.debug("device=%s %s=%s not set: %s", device, name, value, error)
        else:
            done[name] = value
    return done


def abort(device: str) -> bool:
    """End a FUSE connection by force: every waiting request fails. For a mount whose daemon does not answer any more."""
    try:
        with open(CONNECTIONS / device.partition(":")[2] / "abort", "w") as file:
            file.write("1")
    except OSError:
        return False
    return True


class StaleModes:
    """Invalidates attributes in a thread of its own: the notify calls may wait for locks that only a handler's answer frees."""

    def __init__(self) -> None:
        self._inodes: set[int] = set()
        self._wanted = trio.Event()

    def add(self, ino: int) -> None:
        if len(self._inodes) < STALE_MODES_MAX:
            self._inodes.add(ino)
            self._wanted.set()

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            inodes, self._inodes = self._inodes, set()
            await trio.to_thread.run_sync(self._invalidate, inodes, abandon_on_cancel=True)

    @staticmethod
    def _invalidate(inodes: set[int]) -> None:
        for ino in inodes:
            try:
                pyfuse3.invalidate_inode(InodeT(ino), attr_only=True)
            except OSError as error:          # ENOENT: the kernel does not know it any more
                log.debug("inode=%d not invalidated: %s", ino, error)
