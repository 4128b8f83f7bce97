"""How long, how fast and how closely is measured."""
from __future__ import annotations

from dataclasses import dataclass

from s3cfs.limits import MIB

HOUR_S = 3600.0
CHANGES = ("put", "overwrite", "delete")
VIEWS = ("get", "stat", "list", "folders")

# When it is looked once more, after a change was seen everywhere: what is deleted may come back minutes later.
LATER_S = {"put": (2.0, 10.0, 30.0), "overwrite": (2.0, 10.0, 30.0), "delete": (2.0, 10.0, 30.0, 120.0, 600.0)}
LATER_VIEWS = {"put": 1, "overwrite": 1, "delete": 2}      # how many of the views, any of them, each time

LOOK_MAX_S = 600.0                 # a change that is not shown within so long counts as never
FIRST_PAUSE_S = 0.1
GROWTH = 0.2                       # a pause is so much of the age of the change: what is measured is too long by that much at most
READERS = 4                        # with connections of their own; each look is taken by any of them
REQUEST_OVERHEAD_S = 300.0         # what a key's life may take beside what is waited on purpose


@dataclass(frozen=True, slots=True)
class Plan:
    """A short run looks on for a shorter time: what takes minutes has no room in it, and the report says so."""

    seconds: float
    rate: float = 60.0                       # requests a minute
    traffic: int = 512 * MIB                 # bytes an hour, up and down together, for throughput; 0: none is measured
    object_bytes: int = 8 * MIB              # of one object that is put and got for it

    @property
    def look_max_s(self) -> float:
        return min(LOOK_MAX_S, self.seconds / 4)

    def later_s(self, change: str) -> tuple[float, ...]:
        part = min(1.0, self.seconds / HOUR_S)
        return tuple(later * part for later in LATER_S[change])

    @property
    def life_s(self) -> float:
        """Of one key, at most."""
        return sum(self.look_max_s + 2 * self.later_s(change)[-1] for change in CHANGES) + REQUEST_OVERHEAD_S

    @property
    def transfers_every_s(self) -> float:
        return 2 * self.object_bytes / self.traffic * HOUR_S
