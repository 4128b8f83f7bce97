"""Everything a node stands on, made of memory and a seed: time, randomness, threads, disk (the store is `store.SimStore`)."""
from __future__ import annotations

import random

import trio

from s3cfs.doors import Doors
from s3cfs.limits import DEFAULTS, Limits

from .crash import Crash, Incarnation, Plan
from .disk import SimDisk, SimDrive, SimFile
from .faults import DiskFaults
from .runtime import now
from .sqlitevfs import attach, detach
from .store import Bucket, SimStore, StoreFaults
from .threads import SimStoreThreads, SimThreads

__all__ = ["Bucket", "Crash", "DiskFaults", "Incarnation", "Plan", "SimClock", "SimDisk", "SimDrive", "SimFile", "SimRandomness",
           "SimStore", "SimStoreThreads", "SimThreads", "StoreFaults", "attach", "detach", "make_doors"]

EPOCH_NS = 1_700_000_000_000_000_000


class SimClock:
    """trio's own (virtual, see `runtime`) time; the wall clock is that and an offset, which a run may move."""

    def __init__(self, incarnation: Incarnation) -> None:
        self._incarnation = incarnation
        self.wall_offset_ns = EPOCH_NS

    def time_ns(self) -> int:
        self._incarnation.alive()
        return self.wall_offset_ns + round(now() * 1e9)

    def monotonic(self) -> float:
        self._incarnation.alive()
        return now()

    async def sleep(self, seconds: float) -> None:
        self._incarnation.alive()
        await trio.sleep(seconds)
        await self._incarnation.thawed()
        self._incarnation.alive()


class SimRandomness:
    """Unpredictable to nobody."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)


def make_doors(incarnation: Incarnation, drive: SimDrive, seed: int, limits: Limits = DEFAULTS) -> Doors:
    """The doors of one life. `detach(doors.disk)` when it is over (`runtime.live` does)."""
    rng = random.Random(seed)
    return Doors(
        clock=SimClock(incarnation),
        random=SimRandomness(rng.getrandbits(64)),
        threads=SimThreads(incarnation, random.Random(rng.getrandbits(64))),
        disk=attach(incarnation, drive),
        limits=limits,
        store_threads=SimStoreThreads(incarnation, random.Random(rng.getrandbits(64))),
    )
