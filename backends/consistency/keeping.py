"""What a checker keeps for the next mount: its decisions, the delay that it came to, what it has spent of a day's bytes."""
from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import trio

from s3cfs.backends.consistency.bounds import DAY_S
from s3cfs.backends.consistency.budget import Budget
from s3cfs.backends.consistency.conditions import Conditions
from s3cfs.backends.consistency.decisions import Decisions
from s3cfs.backends.consistency.looks import Wake
from s3cfs.doors import Doors

log = logging.getLogger(__name__)

SAVE_EVERY_S = 6 * 3600.0          # though nothing was decided
CLOCK_BACK_S = 3600.0              # so far a wall clock may have gone back since


class Keeping:
    def __init__(self, doors: Doors, folder: str, conditions: Conditions, budget: Budget, decisions: Decisions) -> None:
        self._doors, self._folder, self._conditions, self._budget, self._decisions = doors, folder, conditions, budget, decisions
        self._turn = trio.Lock()
        self.wake = Wake()                         # something was decided

    async def take_over(self) -> None:
        """What an earlier mount left, where that makes sense today."""
        before_s = self._conditions.delay_s
        try:
            earlier, state = await self._doors.threads.run(self._decisions.load, self._doors.disk, self._folder)
        except OSError as error:
            log.warning("%s cannot be read: %s", self._folder, error)
            return
        self._decisions.came_before(earlier)
        try:
            self._budget.take_over(state.get("bytes", {}))
            self._take_over_delay(state, before_s)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            log.warning("%s: not what is kept there: %s", self._folder, error)

    def _take_over_delay(self, state: Mapping[str, Any], before_s: float) -> None:
        """`before_s`: the delay when this mount began. It may have grown since: then not below that."""
        conditions, limits = self._conditions, self._conditions.bounds
        if not state or float(state["lock_delay"]) != limits.lock_delay:         # its owner wants another one now
            return
        now_s = self._doors.clock.time_ns() / 1e9
        ago_s = now_s - float(state["time"])
        kept_s = min(max(float(state["delay_s"]), limits.lock_delay_least), limits.lock_delay_most)
        if conditions.delay_s != before_s:
            kept_s = max(kept_s, conditions.delay_s)
        if not -CLOCK_BACK_S <= ago_s <= DAY_S or kept_s == conditions.delay_s:
            return
        self._decisions.add({"time": now_s, "what": "delay", "from": conditions.delay_s, "to": kept_s,
                             "why": f"as an earlier mount left it {max(0.0, ago_s) / 60:.0f} min ago"})
        conditions.delay_s = kept_s

    async def run(self) -> None:
        while True:
            await self.wake.wait(SAVE_EVERY_S)
            await self.save()

    async def save(self) -> None:
        async with self._turn:
            state = {"time": self._doors.clock.time_ns() / 1e9, "delay_s": self._conditions.delay_s,
                     "lock_delay": self._conditions.bounds.lock_delay, "bytes": self._budget.kept()}
            entries = self._decisions.take_unsaved()
            try:
                await self._doors.threads.run(self._decisions.save, entries, state)
            except OSError as error:
                self._decisions.not_saved(entries)
                log.debug("%s cannot be written: %s", self._folder, error)
