"""Computers that a story plays on: a drive, clocks of their own, processes that are born and die."""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from s3cfs.history.log import Host
from s3cfs.history.office import Takeover

from .crash import Incarnation
from .disk import SimDrive
from .doors import EPOCH_NS
from .history import History

DAY_NS = 86_400 * 10**9


@dataclass(frozen=True)
class Who:
    """Who mounts, and how."""

    host: Host = field(default_factory=Host)
    process_alive: Callable[[Host], bool] = lambda host: True
    takeover: Takeover = Takeover.IDLE         # a machine that is gone may have been idle, and nobody can ask it


class Machine:
    """`alive` says what /proc would: whether a process of this machine still runs."""

    def __init__(self, name: str, wall_offset_ns: int = EPOCH_NS) -> None:
        self.name = name
        self.drive = SimDrive()
        self.wall_offset_ns = wall_offset_ns
        self.branch: History | None = None         # what happened here, and may be in no history
        self.unsent = False                        # it may hold changes that are not in the store,
        self.stale = False                         # and another machine has been in office since
        self._boots, self._pids = 1, 100
        self._processes: dict[int, Incarnation] = {}

    @classmethod
    def draw(cls, name: str, rng: random.Random) -> Machine:
        """Some machines' clocks are wrong by days."""
        return cls(name, EPOCH_NS + (round(rng.gauss(0.0, 3.0) * DAY_NS) if rng.random() < 0.3 else 0))

    def process(self, incarnation: Incarnation, takeover: Takeover = Takeover.IDLE) -> Who:
        """A new one."""
        self._pids += 1
        self._processes[self._pids] = incarnation
        host = Host(f"{self.name}-boot-{self._boots}", f"{self.name}-namespace", self._pids, self._pids * 7, self.name)
        return Who(host, self.alive, takeover)

    def wall_ns(self, now_s: float) -> int:
        """What its clock shows."""
        return self.wall_offset_ns + round(now_s * 1e9)

    def alive(self, host: Host) -> bool:
        found = self._processes.get(host.pid)
        return found is not None and not found.dead and host.start_ticks == host.pid * 7

    def power_cut(self, rng: random.Random) -> str:
        """It boots anew; a word on what became of what was not synced."""
        self._boots += 1
        self._processes.clear()
        return self.drive.power_cut(rng)

    def lose_disk(self, *, sent: bool = False) -> None:
        """`sent`: what happened here may be in the store, though nobody has looked."""
        left = self.branch.left_with(self.branch.floors_of(remote=True)) if sent and self.branch is not None else None
        self.drive, self.unsent, self.branch = SimDrive(), False, left
