"""Threads whose order comes from the seed: real ones, of which one runs at a time and gives way where the world is touched.

A function that runs in a `Worker` may `pause` (a store answers after a while, a disk takes its time, a retry sleeps): the event
loop goes on meanwhile, and other threads do. The thread that runs is always known, so one seed is one order.
"""
from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from .crash import Crash, Incarnation

T = TypeVar("T")
#: these always run in a worker: the store's calls take time. All others do now and then, so that they mix with the loop.
STORE_CALLS = ("RetryBackend.", "SimStore.", "Remote.", "_call_in_thread")
MIXED = 0.12


class Worker(threading.Thread):
    """One thread; `step` lets it run until it pauses or is done."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._job: Callable[[], Any] = lambda: None
        self._pause_s: float | None = None
        self._killed = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        while True:
            self._go.acquire()
            self.value, self.error = None, None
            try:
                self.value = self._job()
            except BaseException as error:
                self.error = error
            self._pause_s = None
            self._back.release()

    # ------------------------------------------------------------ called by the loop

    def begin(self, job: Callable[[], Any]) -> None:
        self._job, self._killed = job, False

    def step(self) -> float | None:
        """Seconds it wants to pause, or None: it is done."""
        self._go.release()
        self._back.acquire()
        return self._pause_s

    def kill(self) -> None:
        """The process died: it hears so where it paused, and wherever it pauses again."""
        self._killed = True
        while self.step() is not None:
            pass

    # ------------------------------------------------------------ called by itself

    def pause(self, seconds: float) -> None:
        if not self._killed:
            self._pause_s = seconds
            self._back.release()
            self._go.acquire()
        if self._killed:
            raise Crash("killed in a thread")


_idle: list[Worker] = []
_process: list[int] = []


def _worker() -> Worker:
    if _process != [os.getpid()]:                             # threads do not survive a fork
        _process[:], _idle[:] = [os.getpid()], []
    return _idle.pop() if _idle else Worker()


def current_worker() -> Worker | None:
    thread = threading.current_thread()
    return thread if isinstance(thread, Worker) else None


def pause(seconds: float) -> bool:
    """Let others go on for so long. False, and nothing happens, on the event loop itself."""
    worker = current_worker()
    if worker is not None:
        worker.pause(seconds)
    return worker is not None


class SimThreads:
    """`doors.Threads`: a hop begins and ends at moments that vary with the seed; every sync and remote call in it is a point of death.

    As with real threads it is not cancellable once begun. Most functions happen in one moment; those of the store, and some of
    the others, run in a `Worker` and mix with what else goes on.
    """

    def __init__(self, incarnation: Incarnation, rng: random.Random, *, mixed: float = MIXED) -> None:
        self._incarnation, self._rng, self._mixed = incarnation, rng, mixed
        incarnation.pause = self._pause_at_point

    def _pause_at_point(self, kind: str) -> None:
        """Within a thread's function, before it touches disk or store."""
        worker = current_worker()
        if worker is not None and kind in ("write", "sync") and self._rng.random() < 0.3:
            worker.pause(self._rng.choice([0.0, 0.0, 0.001, 0.02]))

    async def _pass_time(self) -> None:
        kind = self._rng.random()
        if kind < 0.45:
            for _ in range(self._rng.randint(0, 3)):
                await trio.lowlevel.checkpoint()
        elif kind < 0.85:
            await trio.sleep(self._rng.uniform(0.0001, 0.02))
        elif kind < 0.98:
            await trio.sleep(self._rng.uniform(0.02, 0.3))
        else:
            await trio.sleep(self._rng.uniform(0.3, 2.0))
        await self._incarnation.thawed()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        name = getattr(function, "__qualname__", type(function).__name__)
        with trio.CancelScope(shield=True):
            self._incarnation.point("hop", f"to {name}")
            await self._pass_time()
            self._incarnation.alive()
            result: T | Exception
            try:
                if not self._incarnation.untroubled and (name.startswith(STORE_CALLS) or self._rng.random() < self._mixed):
                    result = await self._in_worker(function, args)
                else:
                    result = function(*args)
            except Exception as error:
                result = error
            self._incarnation.alive()
            await self._pass_time()
            self._incarnation.point("hop", f"from {name}")
        if isinstance(result, Exception):
            raise result
        return result

    async def _in_worker(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        worker = _worker()
        worker.begin(lambda: function(*args))
        seconds = worker.step()
        while seconds is not None:
            try:
                await trio.sleep(seconds)
                await self._incarnation.thawed()
                self._incarnation.alive()
            except BaseException:
                worker.kill()
                _idle.append(worker)
                raise
            seconds = worker.step()
        value, error = worker.value, worker.error
        worker.value = worker.error = None
        _idle.append(worker)
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]
