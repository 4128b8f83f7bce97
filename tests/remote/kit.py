"""What the tests of the remote floor share: a Remote on a backend of theirs, real threads or virtual time."""
from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import trio
import trio.testing
from trio._core import _run as trio_run

from s3cfs.backends.base import Backend
from s3cfs.doors import Clock, Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.limits import DEFAULTS
from s3cfs.remote import Remote

T = TypeVar("T")


class Jitter(SystemRandomness):
    """The longest pause each time, or the shortest."""

    def __init__(self, highest: bool = True) -> None:
        self.highest = highest
        self.asked: list[tuple[float, float]] = []

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return high if self.highest else low


class TrioClock(SystemClock):
    """A door to a test's own time."""

    def __init__(self, mock: trio.testing.MockClock) -> None:
        self._mock = mock
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self._mock.current_time()                 # from any thread

    async def sleep(self, seconds: float) -> None:
        if seconds:
            self.pauses.append(seconds)
        await trio.sleep(seconds)


class AtOnce:
    """Store threads of a test on virtual time: a call happens in one moment, on the event loop."""

    async def run(self, function: Callable[..., T], *args: Any, ended: Callable[[], None]) -> T:
        try:
            await trio.lowlevel.checkpoint()
            return function(*args)
        finally:
            ended()


def remote_to(backend: Backend, *, clock: Clock | None = None, random: Jitter | None = None, threads: Any = None, **limits: Any) -> Remote:
    made = Doors(clock or SystemClock(), random or SystemRandomness(), TrioThreads(), NoDisk(), replace(DEFAULTS, **limits))
    return Remote(backend, made if threads is None else replace(made, store_threads=threads))


class NoDisk(SystemDisk):
    def __init__(self) -> None:
        pass


def run(test: Callable[[], Awaitable[T]]) -> T:
    """In real time, which is bounded."""
    async def bounded() -> T:
        with trio.fail_after(30):
            return await test()

    return trio.run(bounded)


def ask(backend: Backend, call: Callable[[Remote], Awaitable[T]], **how: Any) -> T:
    """One thing asked of a store that stays open."""
    return run(lambda: call(remote_to(backend, **how)))


@contextlib.contextmanager
def one_order(seed: int) -> Iterator[None]:
    """Inside, trio takes its tasks in an order that comes from the seed (see tests/sim/runtime.py)."""
    private: Any = trio_run
    kept = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r
    try:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = True, random.Random(seed)
        yield
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = kept


def virtual_time() -> trio.testing.MockClock:
    """It passes when nothing else can happen."""
    return trio.testing.MockClock(autojump_threshold=0)
