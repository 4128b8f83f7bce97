"""What befalls a machine while it works: the store goes away and comes back, clocks jump, a machine is suspended or stopped."""
from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, fields, replace

import trio

from .crash import Incarnation
from .doors import SimClock
from .runtime import jump
from .store import StoreFaults


@dataclass(frozen=True)
class Families:
    """Which kinds of trouble a story may have. Deaths of process, machine and disk, and bad lines, it always may."""

    disk: bool = True             # calls of the disk fail, SQLite's too
    outage: bool = True           # the store is away for seconds to hours
    clocks: bool = True           # the wall clock jumps both ways, machines are suspended and stopped
    two: float = 0.34             # so many stories: another machine mounts the same bucket, in turns and at once
    office: bool = True           # an idle writer is a writer still: nobody else is let in without force
    endings: bool = True          # a mount whose writing has ended does not leave as if all were well
    resources: bool = True        # memory, requests, silence are judged
    age: bool = True              # half the logs begin with a high number, near the border of a range

    def without(self, names: str) -> Families:
        """"disk,two": these are off. A name that does not exist is an error."""
        return replace(self, **_switched(names, False))

    @classmethod
    def only(cls, names: str) -> Families:
        return replace(cls(**{each.name: False for each in fields(cls)}), **_switched(names, True))


def _switched(names: str, on: bool) -> dict[str, bool]:
    return {name: on for name in names.split(",") if name}


@dataclass
class Nature:
    """The troubles of one life. `fair_since`: from this virtual time on nothing has kept the system from doing its work."""

    families: Families
    rng: random.Random
    incarnation: Incarnation
    clock: SimClock
    faults: StoreFaults
    alone: bool = True                             # no other machine runs at this time
    fair_since: float = math.inf
    away_last: float = -math.inf                   # the store was away, or a machine asleep, at that time
    slept_last: float = -math.inf                  # the machine was asleep or stopped at that time
    turned_back: bool = False                      # the wall clock went back
    latest_ns: int = 0                             # what it showed before that
    told: list[str] = field(default_factory=list)

    def mounted(self) -> None:
        self.fair_since = trio.current_time()

    def unfair(self, for_s: float = 0.0) -> None:
        if self.fair_since < math.inf:
            self.fair_since = max(self.fair_since, trio.current_time() + for_s)

    async def run(self) -> None:
        """Until cancelled. Most lives are quiet."""
        kinds = [kind for kind in ("outage", "clocks") if getattr(self.families, kind)]
        if not kinds or self.rng.random() < 0.6:
            return
        for _ in range(self.rng.randint(1, 4)):
            await trio.sleep(math.exp(self.rng.uniform(-2.0, 5.0)))
            if self.incarnation.dead:
                return
            await (self._outage() if self.rng.choice(kinds) == "outage" else self._clock())

    async def _outage(self) -> None:
        seconds = math.exp(self.rng.uniform(0.0, 8.8 if self.rng.random() < 0.2 else 6.0))
        self.told.append(f"store away for {seconds:.0f} s")
        self.faults.away = True
        try:
            await trio.sleep(seconds)
        finally:
            self.faults.away = False
            self.away_last = trio.current_time()
            self.unfair(self.faults.hang_s)                          # what was asked in its last moments hangs still

    async def _clock(self) -> None:
        kind = self.rng.choice(["wall", "suspend", "stop"])
        seconds = math.exp(self.rng.uniform(0.0, 9.0))
        if kind == "wall":
            seconds *= self.rng.choice([-1, -1, 1, 1000])
            self.latest_ns = max(self.latest_ns, self.clock.time_ns())
            self.turned_back = self.turned_back or seconds < 0
            self.clock.wall_offset_ns += round(seconds * 1e9)
        elif kind == "suspend" and self.alone:
            jump(seconds)
            self.away_last = self.slept_last = trio.current_time()
            self.unfair()
        else:
            self.incarnation.frozen_until = self.slept_last = trio.current_time() + seconds
            if self.fair_since < math.inf:
                self.fair_since = max(self.fair_since, self.slept_last)
        self.told.append(f"{kind} {seconds:.0f} s")
        if kind != "wall":
            await trio.sleep(max(0.0, self.incarnation.frozen_until - trio.current_time()))
            self.away_last = trio.current_time()
            self.unfair()

    def was_away(self, since: float) -> bool:
        return self.faults.away or max(self.away_last, self.incarnation.frozen_until) >= since
