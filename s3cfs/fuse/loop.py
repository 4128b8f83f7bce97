"""The request loop: lets pyfuse3 receive requests without passes of trio's scheduler.

    async with request_loop("hybrid") as kind:    # kind: "hybrid", or "stock" where it cannot work
        await pyfuse3.main()

Stock pyfuse3 spends about 80 % of the time of a small request in trio: its lock is a pass of the scheduler, and its
wait_readable another one with five system calls. The loop here does without both, for 1.7 to 4 times the requests per second.

It stands where pyfuse3 looks for the name `trio`, and needs one private thing of trio, the descriptor of its epoll. Both are
checked, and where one is not as expected the stock loop runs and the log says so: the loop is tried, never required.

Both loops arm the alarm (alarm.py) when they have said that there is something to read: it may be gone by then.
"""
from __future__ import annotations

import contextlib
import logging
import re
import select
import time
import types
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pyfuse3
import trio

from s3cfs.fuse.alarm import ReadAlarm, read_alarm

log = logging.getLogger(__name__)

# ranges [from, below) of versions whose inner workings are the ones that are relied upon here
TRIO_VERSIONS = ((0, 22), (1, 0))
PYFUSE3_VERSIONS = ((3, 3), (4, 0))


class _ReadLock:
    """What pyfuse3 uses of trio.Lock, without a checkpoint when it is free.

    A release wakes nobody: usually the same task takes the lock again for the next request, and a hand-over would cost
    a pass of trio's scheduler. Only when the task stops running with the lock free does HybridLoop.after_task_step
    hand it to the first waiter, so requests are still received while a handler waits for something.
    """

    def __init__(self) -> None:
        self.held = False
        self.waiters: deque[trio.lowlevel.Task] = deque()

    async def __aenter__(self) -> None:
        if not self.held:
            self.held = True
            return
        task = trio.lowlevel.current_task()
        self.waiters.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self.waiters.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)  # returns holding the lock

    async def __aexit__(self, *_: object) -> None:
        self.held = False


class _Facade(types.SimpleNamespace):
    """A module as pyfuse3 sees it: what is not replaced is the real module's."""

    def __init__(self, real: types.ModuleType, **replaced: Any) -> None:
        super().__init__(**replaced)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class HybridLoop(trio.abc.Instrument):
    """Receives requests by poll() while no other task of trio can run.

    pyfuse3's workers do, for each request: take a lock, wait_readable(fuse fd), read, handle. Here, while no other task can run,
    the wait blocks in poll() on the FUSE descriptor *and* trio's own epoll descriptor, which is readable as soon as trio has
    anything to do (sockets, threads that finished, signals). Fairness: a real checkpoint, which lets timers, sockets and
    cancellation in,
      - at once when another task is runnable or trio's epoll has an event,
      - after MAX_REQUESTS requests or MAX_SECONDS, whichever is first.
    A timer alone makes no descriptor readable, so it may be up to POLL_MS or MAX_SECONDS late.
    With nothing to do for POLL_MS the worker parks in trio's own wait_readable: idle costs nothing.

    Which tasks are runnable is counted by trio's public instrument hooks.
    """

    kind = "hybrid"
    MAX_REQUESTS = 64
    MAX_SECONDS = 0.002
    POLL_MS = 1

    def __init__(self, alarm: ReadAlarm) -> None:
        self._alarm = alarm
        self._epoll_fd = epoll_fd()
        self._fuse_fd = -1
        self._poller = select.poll()
        self._runnable: set[trio.lowlevel.Task] = set()  # scheduled, and not running yet
        self._lock = _ReadLock()
        self._closing = False
        self._requests_left = 0
        self._pass_due = 0.0
        lowlevel = _Facade(trio.lowlevel, wait_readable=self.wait_readable, notify_closing=self.notify_closing)
        self.facade = _Facade(trio, Lock=lambda: self._lock, lowlevel=lowlevel)

    # trio calls these on every schedule and step, so they do next to nothing
    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self._runnable.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._runnable.discard(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        lock = self._lock
        if lock.waiters and not lock.held:
            lock.held = True
            trio.lowlevel.reschedule(lock.waiters.popleft())

    # what pyfuse3 calls
    async def wait_readable(self, fd: int) -> None:
        """Return when `fd` is readable (or in error, as after an unmount); raise ClosedResourceError when closing."""
        if fd != self._fuse_fd:
            self._fuse_fd = fd
            self._poller = select.poll()
            self._poller.register(fd, select.POLLIN)
            self._poller.register(self._epoll_fd, select.POLLIN)
        self._requests_left -= 1
        if self._requests_left <= 0 or self._runnable or time.monotonic() > self._pass_due:
            await self._pass()
        while not self._closing:
            ready = self._poller.poll(0 if self._runnable else self.POLL_MS)
            if any(number == fd for number, _ in ready):
                if len(ready) > 1:            # trio has something too: it goes before the next request
                    self._requests_left = 0
                self._alarm.arm()
                return
            if ready or self._runnable:
                await self._pass()
            else:
                self._alarm.disarm()
                await trio.lowlevel.wait_readable(fd)
                self._new_allowance()
                self._alarm.arm()
                return
        raise trio.ClosedResourceError("the FUSE session ends")

    def notify_closing(self, fd: int) -> None:
        self._closing = True                  # for a worker that is inside a checkpoint of _pass
        trio.lowlevel.notify_closing(fd)      # for one that is parked

    async def _pass(self) -> None:
        await trio.lowlevel.checkpoint()
        self._new_allowance()

    def _new_allowance(self) -> None:
        self._requests_left = self.MAX_REQUESTS
        self._pass_due = time.monotonic() + self.MAX_SECONDS


class StockLoop(trio.abc.Instrument):
    """pyfuse3's own loop, with the alarm armed while it may read."""

    kind = "stock"

    def __init__(self, alarm: ReadAlarm) -> None:
        self._alarm = alarm
        self.facade = _Facade(trio, lowlevel=_Facade(trio.lowlevel, wait_readable=self.wait_readable))

    async def wait_readable(self, fd: int) -> None:
        self._alarm.disarm()
        await trio.lowlevel.wait_readable(fd)
        self._alarm.arm()


def epoll_fd() -> int:
    """Descriptor of the epoll of the running trio; RuntimeError when this trio has none where we know it."""
    try:
        from trio._core._run import GLOBAL_RUN_CONTEXT
        poller = GLOBAL_RUN_CONTEXT.runner.io_manager._epoll
    except (ImportError, AttributeError) as exc:
        raise RuntimeError(f"trio {trio.__version__} keeps its epoll elsewhere: {exc}") from None
    if not isinstance(poller, select.epoll) or poller.closed:
        raise RuntimeError(f"trio {trio.__version__} does not run on epoll")
    return poller.fileno()


def check_versions(trio_version: str, pyfuse3_version: str) -> None:
    """RuntimeError when one of them is outside of what is known to work."""
    for name, text, (first, below) in (("trio", trio_version, TRIO_VERSIONS), ("pyfuse3", pyfuse3_version, PYFUSE3_VERSIONS)):
        found = re.match(r"(\d+)\.(\d+)", text)
        if not found or not first <= (int(found[1]), int(found[2])) < below:
            raise RuntimeError(f"not known to work with {name} {text}")


@contextlib.asynccontextmanager
async def request_loop(kind: str) -> AsyncIterator[str]:
    """Inside, pyfuse3.main() runs with this loop; yields the kind that really runs."""
    if kind not in ("hybrid", "stock"):
        raise ValueError(f"no such request loop: {kind}")
    with read_alarm() as alarm:
        if getattr(pyfuse3, "trio", None) is not trio:
            log.warning("stock request loop instead of the fast one: pyfuse3 does not look for trio where it could be replaced")
            alarm.arm()                       # for good, since nothing says when it reads
            yield "stock"
            return
        loop = _choose(kind, alarm)
        trio.lowlevel.add_instrument(loop)
        pyfuse3.trio = loop.facade  # type: ignore[attr-defined]
        try:
            yield loop.kind
        finally:
            pyfuse3.trio = trio  # type: ignore[attr-defined]
            with contextlib.suppress(KeyError):
                trio.lowlevel.remove_instrument(loop)


def _choose(kind: str, alarm: ReadAlarm) -> HybridLoop | StockLoop:
    if kind == "hybrid":
        try:
            check_versions(trio.__version__, pyfuse3.__version__)
            return HybridLoop(alarm)
        except RuntimeError as exc:
            log.warning("stock request loop instead of the fast one: %s", exc)
    return StockLoop(alarm)
