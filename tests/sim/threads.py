"""Threads whose order comes from the seed: real ones, of which one runs at a time and gives way where the world is touched.

A function that runs in a `Worker` may `pause` (a store answers after a while, a disk takes its time): the event
loop goes on meanwhile, and other threads do. The thread that runs is always known, so one seed is one order.
"""
from __future__ import annotations

import contextlib
import contextvars
import os
import random
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from .crash import Crash, Incarnation

T = TypeVar("T")
MIXED = 0.12                       # how often what is no call of the store runs in a worker, so that it mixes with the loop


class Worker(threading.Thread):
    """One thread; `step` lets it run until it pauses or is done."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._job: Callable[[], Any] = lambda: None
        self._pause_s: float | None = None
        self.until: float | None = None           # when it wants to go on, or None: it is done
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

    As with real threads it is not cancellable once begun. Most functions happen in one moment; some run in a `Worker` and mix
    with what else goes on.
    """

    def __init__(self, incarnation: Incarnation, rng: random.Random, *, mixed: float = MIXED) -> None:
        self._incarnation, self._rng, self._mixed = incarnation, rng, mixed
        incarnation.pause = self._pause_at_point

    def _pause_at_point(self, kind: str) -> None:
        """Within a thread's function, before it touches disk or store."""
        worker = current_worker()
        if worker is not None and kind in ("write", "sync") and self._rng.random() < 0.3:
            worker.pause(self._rng.choice([0.0, 0.0, 0.001, 0.02]))

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        name = getattr(function, "__qualname__", type(function).__name__)
        with trio.CancelScope(shield=True):
            self._incarnation.point("hop", f"to {name}")
            await _pass_time(self._rng, self._incarnation)
            self._incarnation.alive()
            result: T | Exception
            try:
                if not self._incarnation.untroubled and self._rng.random() < self._mixed:
                    worker = _begun(function, args)
                    try:
                        result = await _finished(worker, self._incarnation)
                    except trio.Cancelled:                    # the dead are not shielded
                        _drop(worker)
                        raise
                else:
                    result = function(*args)
            except Exception as error:
                result = error
            self._incarnation.alive()
            await _pass_time(self._rng, self._incarnation)
            self._incarnation.point("hop", f"from {name}")
        if isinstance(result, Exception):
            raise result
        return result


class SimStoreThreads:
    """`doors.StoreThreads`: always in a worker, since the store's calls take time. A cancelled one goes on by itself, and so may still
    take effect, in this life or after it."""

    def __init__(self, incarnation: Incarnation, rng: random.Random) -> None:
        self._incarnation, self._rng = incarnation, rng

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        name = getattr(function, "__qualname__", type(function).__name__)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._incarnation.point("hop", f"to the store: {name}")
            await _pass_time(self._rng, self._incarnation)
            self._incarnation.alive()
            if self._incarnation.untroubled:
                return function(*args)
            worker = _begun(function, args)
            try:
                result: T = await _finished(worker, self._incarnation)
            except trio.Cancelled:
                if self._incarnation.dead:
                    _drop(worker)
                else:
                    done, ended = ended, lambda: None
                    trio.lowlevel.spawn_system_task(self._abandoned, worker, done, context=contextvars.copy_context())
                raise
        finally:
            ended()
        await _pass_time(self._rng, self._incarnation)
        self._incarnation.point("hop", f"from the store: {name}")
        return result

    async def _abandoned(self, worker: Worker, ended: Callable[[], None]) -> None:
        try:
            await _finished(worker, self._incarnation)
        except trio.Cancelled:                                # the world ends
            _drop(worker)
            raise
        except (Exception, Crash):                            # nobody hears of it
            pass
        finally:
            with contextlib.suppress(Crash):                  # whom it would tell may be dead, and looks at the clock
                ended()


async def _pass_time(rng: random.Random, incarnation: Incarnation) -> None:
    kind = rng.random()
    if kind < 0.45:
        for _ in range(rng.randint(0, 3)):
            await trio.lowlevel.checkpoint()
    elif kind < 0.85:
        await trio.sleep(rng.uniform(0.0001, 0.02))
    elif kind < 0.98:
        await trio.sleep(rng.uniform(0.02, 0.3))
    else:
        await trio.sleep(rng.uniform(0.3, 2.0))
    await incarnation.thawed()


def _begun(function: Callable[..., T], args: tuple[Any, ...]) -> Worker:
    worker = _worker()
    worker.begin(lambda: function(*args))
    worker.until = _moment(worker.step())
    return worker


def _moment(pause_s: float | None) -> float | None:
    return None if pause_s is None else trio.current_time() + pause_s


def _drop(worker: Worker) -> None:
    """Its process is gone."""
    worker.kill()
    _idle.append(worker)


async def _finished(worker: Worker, incarnation: Incarnation) -> Any:
    """What it returns or raises. When cancelled it is left where it paused, for `_finished` again or for `_drop`."""
    while worker.until is not None:
        await trio.sleep_until(worker.until)
        await incarnation.thawed()
        try:
            incarnation.alive()
        except Crash:
            _drop(worker)
            raise
        worker.until = _moment(worker.step())
    value, error = worker.value, worker.error
    worker.value = worker.error = None
    _idle.append(worker)
    if error is not None:
        raise error
    return value
