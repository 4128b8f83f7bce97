"""One mounted session: from the kernel's INIT to the last request.

    await serve(vfs, mountpoint, options, on_mounted=..., leaving=leaving)

It ends, always with nothing mounted, when
  - the kernel unmounts (umount, fusermount3 -u): nothing is held back by the kernel then;
  - `leaving.requested` is set: the mount is taken away by a helper process while requests are still answered, so that the kernel
    hands over what it holds back. Users that do not let go, and other mount namespaces that have it too, get GRACE_S, then ENOTCONN;
  - `leaving.urgent` is set, or the task is cancelled: at once, and what the kernel holds back is lost.
When it has returned no request is being handled, and the caller may bring everything to the store.
"""
from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyfuse3
import trio

from s3cfs.errors import ExitCode, S3cfsError
from s3cfs.fuse import kernel, mountpoint
from s3cfs.fuse.handlers import Handlers
from s3cfs.fuse.helper import DETACHED
from s3cfs.fuse.lifecycle import only_cause
from s3cfs.fuse.loop import request_loop
from s3cfs.fuse.mounttable import MountEntry, elsewhere, entry_at
from s3cfs.fuse.options import FuseOptions

if TYPE_CHECKING:
    from s3cfs.vfs.core import Vfs

log = logging.getLogger(__name__)

HELPER = Path(__file__).with_name("helper.py")
GRACE_S = 5.0              # for those who still use a mount that was told to leave
FORGET_S = 5.0             # for libmount's lock on its table
URGENT_S = 2.0             # for requests that are being handled, when it is urgent
ANSWER_S = 30.0            # a mount that does not answer within this is given up
SWITCH_INTERVAL_S = 0.0002  # the loop gets the interpreter back soon when threads compute


class MountFailed(S3cfsError):
    """The kernel or fusermount3 refused the mount."""

    exit_code = ExitCode.MOUNT_FAILED


@dataclass(slots=True)
class Leaving:
    """A wish to end, seen by whoever works on it: `requested` orderly, `urgent` at once."""

    requested: trio.Event = field(default_factory=trio.Event)
    urgent: trio.Event = field(default_factory=trio.Event)

    def ask(self) -> None:
        """The first time: leave in order; again: at once."""
        if self.requested.is_set():
            self.urgent.set()
        self.requested.set()


@dataclass(frozen=True, slots=True)
class Mounted:
    """What came of it. `device` is "major:minor"; `tuned` what the kernel was told through sysfs; `loop` the one that runs."""

    mountpoint: str
    device: str
    loop: str
    tuned: dict[str, str]


async def serve(vfs: Vfs, path: str, options: FuseOptions, *, on_mounted: Callable[[Mounted], None],
                leaving: Leaving | None = None) -> None:
    """Mount `vfs` at `path` and answer requests until the mount ends. One at a time per process.

    `on_mounted` is called once, when a request from another process has been answered; it must not touch the mount.
    """
    leaving = leaving or Leaving()
    mountpoint.check_fuse()
    path = mountpoint.prepare(path, nonempty=options.nonempty)
    alive = trio.Event()
    handlers = Handlers(vfs, options, on_init=alive.set)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _mount(handlers, path, options)
    mounted: MountEntry | None = None
    requests = trio.CancelScope()
    try:
        mounted = entry_at(path)
        async with request_loop(options.loop) as loop, trio.open_nursery() as nursery:
            nursery.start_soon(_leave, leaving, path, requests)
            nursery.start_soon(handlers.waiting.look_after)
            nursery.start_soon(_announce, path, options, loop, alive, on_mounted)
            with requests:
                await pyfuse3.main(min_tasks=1, max_tasks=options.max_tasks)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:      # one cause, not the nurseries it came through
        cause = only_cause(group)
        if not _is_abort(cause):
            raise cause from None
        log.info("mountpoint=%s the kernel ended the connection: %s", path, cause)
    finally:
        pyfuse3.close()          # also unmounts (lazily) if nobody has
        _take_away(path, mounted)
        if os.geteuid() == 0:
            _forget(path)
        log.info("mountpoint=%s unmounted", path)


def _is_abort(cause: BaseException) -> bool:
    """The kernel let the connection go, and says so in another way than libfuse takes for an end (ENODEV): seen at one in some hundreds of
    unmounts under load (Linux 6.18)."""
    return isinstance(cause, OSError) and cause.errno == errno.ECONNABORTED and "fuse_session" in str(cause)


def _take_away(path: str, mounted: MountEntry | None) -> None:
    """Of a connection that was aborted libfuse thinks that its mount is gone."""
    entry = entry_at(path)
    if entry is not None and mounted is not None and entry.device == mounted.device:
        log.warning("mountpoint=%s the connection was aborted: the mount is taken away", path)
        with contextlib.suppress(S3cfsError):      # gone in this moment, or the user's to take away
            mountpoint.unmount(path, lazy=True)


async def _announce(path: str, options: FuseOptions, loop: str, alive: trio.Event, on_mounted: Callable[[Mounted], None]) -> None:
    with trio.move_on_after(ANSWER_S):
        await alive.wait()
        entry = entry_at(path)
        if entry is None:
            return               # unmounted already: main() ends by itself
        tuned = kernel.tune(entry.device, read_ahead_kib=options.read_ahead_kib, dirty_bytes=options.dirty_bytes)
        if await _helper("background", entry.device.partition(":")[2], str(options.max_background)) == 0:
            tuned["max_background"] = str(options.max_background)
        status = await _helper("probe", path)
        if status == 0:
            if os.geteuid() == 0 and await _helper("note", path, entry.source):
                log.debug("mountpoint=%s umount(8) does not know that there is a helper", path)
            log.info("mountpoint=%s device=%s loop=%s tuned=%s mounted", path, entry.device, loop, tuned)
            on_mounted(Mounted(path, entry.device, loop, tuned))
            return
        if entry_at(path) is None:
            return
        raise MountFailed(f"{path}: mounted, but a look from another process failed")
    raise MountFailed(f"{path}: mounted, but it did not answer within {ANSWER_S:.0f} s")


async def _leave(leaving: Leaving, path: str, requests: trio.CancelScope) -> None:
    """Take the mount away when asked; main() ends when the kernel has let go."""
    async def now() -> None:
        await leaving.urgent.wait()
        log.warning("mountpoint=%s leaving at once", path)
        pyfuse3.terminate()      # no new requests; those that are being handled may end
        await trio.sleep(URGENT_S)
        requests.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(now)
        await leaving.requested.wait()
        log.info("mountpoint=%s leaving", path)
        entry = entry_at(path)
        status = await _helper("unmount", path)
        if status in (0, DETACHED):            # 0: main() ends now, unless it is mounted elsewhere too
            if status == DETACHED:
                log.warning("mountpoint=%s in use: its users have %.0f s", path, GRACE_S)
            await trio.sleep(GRACE_S)
            others = elsewhere(entry.device) if entry else []
            if others:
                log.warning("mountpoint=%s ends, though it is still mounted: %s", path,
                            ", ".join(f"{where} (mount namespace of process {pid})" if pid else where for pid, where in others[:5]))
        else:
            log.error("mountpoint=%s cannot be unmounted (helper ended with %d): ending it by force", path, status)
        pyfuse3.terminate()


async def _helper(*arguments: str) -> int:
    """Run the helper; a cancellation leaves it to itself, since it may hang in a mount that is about to end."""
    process = await trio.lowlevel.open_process([sys.executable, "-I", "-S", str(HELPER), *arguments],
                                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                               start_new_session=True)
    return await process.wait()


def _forget(path: str) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-I", "-S", str(HELPER), "forget", path], check=False, timeout=FORGET_S,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _mount(handlers: Handlers, path: str, options: FuseOptions) -> None:
    """pyfuse3.init, with what libfuse and fusermount3 say on stderr as the reason of a failure."""
    with _stderr_kept() as said:
        try:
            pyfuse3.init(handlers, path, options.mount_options())
        except RuntimeError as error:
            reason = said() or str(error)
            raise MountFailed(f"{path}: {reason}") from None


@contextlib.contextmanager
def _stderr_kept() -> Iterator[Callable[[], str]]:
    """C code's stderr goes to memory; yields a function that tells its last line."""
    memory, before = os.memfd_create("stderr", os.MFD_CLOEXEC), os.dup(2)

    def last_line() -> str:
        lines = [line for line in os.pread(memory, 4096, 0).decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    try:
        os.dup2(memory, 2)
        yield last_line
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(memory)
