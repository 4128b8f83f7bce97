"""Everything a node stands on, made of memory and a seed: time, randomness, threads, disk (the store is `store.SimStore`)."""
from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

import trio
from trio.testing import MockClock

from s3cfs.doors import Doors
from s3cfs.limits import DEFAULTS, Limits

from .crash import Crash, Incarnation, Plan
from .disk import SimDisk, SimDrive, SimFile
from .faults import DiskFaults
from .sqlitevfs import attach, detach
from .store import Bucket, SimStore, StoreFaults

__all__ = ["Bucket", "Crash", "DiskFaults", "Incarnation", "Plan", "SimClock", "SimDisk", "SimDrive", "SimFile", "SimRandomness",
           "SimStore", "SimThreads", "StoreFaults", "attach", "detach", "make_doors"]

T = TypeVar("T")
EPOCH_NS = 1_700_000_000_000_000_000


class SimClock:
    """trio's own (virtual, see `runtime`) time; the wall clock is that and an offset, which a run may move."""

    def __init__(self, incarnation: Incarnation) -> None:
        self._incarnation = incarnation
        self.wall_offset_ns = EPOCH_NS

    def time_ns(self) -> int:
        self._incarnation.alive()
        return self.wall_offset_ns + round(trio.current_time() * 1e9)

    def monotonic(self) -> float:
        self._incarnation.alive()
        return trio.current_time()

    async def sleep(self, seconds: float) -> None:
        self._incarnation.alive()
        await trio.sleep(seconds)
        self._incarnation.alive()

    def block(self, seconds: float) -> None:
        """A thread sleeps (the retry wrapper's does): since its function runs in one moment, all others oversleep."""
        self._incarnation.alive()
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(seconds)


class SimRandomness:
    """Unpredictable to nobody."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)


class SimThreads:
    """A thread is a function called at a moment that varies with the seed, before and after which others run.

    As with real threads it is not cancellable once begun. What it does happens in one moment: two threads do not mix
    within their functions, but every sync and remote call in them is a point of death.
    """

    def __init__(self, incarnation: Incarnation, rng: random.Random) -> None:
        self._incarnation, self._rng = incarnation, rng

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

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        name = getattr(function, "__qualname__", type(function).__name__)
        with trio.CancelScope(shield=True):
            self._incarnation.point("hop", f"to {name}")
            await self._pass_time()
            self._incarnation.alive()
            result: T | Exception
            try:
                result = function(*args)
            except Exception as error:
                result = error
            await self._return(name)
        if isinstance(result, Exception):
            raise result
        return result

    async def _return(self, name: str) -> None:
        self._incarnation.alive()
        await self._pass_time()
        self._incarnation.point("hop", f"from {name}")


def make_doors(incarnation: Incarnation, drive: SimDrive, seed: int, limits: Limits = DEFAULTS) -> Doors:
    """The doors of one life. `detach(doors.disk)` when it is over (`runtime.live` does)."""
    rng = random.Random(seed)
    return Doors(
        clock=SimClock(incarnation),
        random=SimRandomness(rng.getrandbits(64)),
        threads=SimThreads(incarnation, random.Random(rng.getrandbits(64))),
        disk=attach(incarnation, drive),
        limits=limits,
    )
