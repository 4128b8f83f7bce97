"""How long to wait for a store, and how to try again: the one backoff, and the one clock of promises.

Full jitter, uniform(0, min(cap, first * 2^n)), since many machines meet the same outage. A Retry-After is a lower bound.
Whoever waits looks at the clock every few seconds. If that was not possible for much longer, this process was stopped or its machine
suspended: what it slept through does not count (`Patience.now`).
"""
from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from s3cfs.doors import Clock, Randomness
from s3cfs.errors import Throttled

FIRST_BACKOFF_S = 0.25
BACKOFF_MAX_S = 20.0
DOUBLINGS_MAX = 16
LOOK_S = 5.0                       # who waits looks at the clock as often
LEAST_S = 0.001                    # what rounding leaves is less than a clock moves


class Backoff:
    """Of one call, or of one task that tries again and again."""

    def __init__(self, random: Randomness) -> None:
        self._random = random
        self._failures = 0

    def pause_s(self, error: Exception | None = None) -> float:
        """It failed once more, with `error`: seconds until the next attempt."""
        longest = min(BACKOFF_MAX_S, FIRST_BACKOFF_S * 2.0 ** min(self._failures, DOUBLINGS_MAX))
        self._failures += 1
        pause = self._random.uniform(0.0, longest)
        if isinstance(error, Throttled) and error.retry_after is not None:
            pause += error.retry_after
        return pause

    def succeeded(self) -> None:
        self._failures = 0


class Patience:
    """For all who wait for one store. Event-loop thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting = 0                          # who looks at the clock
        self._seen = self._slept = 0.0             # when it was last looked at; what was slept through

    def now(self) -> float:
        """Monotonic seconds without what this process slept through."""
        moment = self._clock.monotonic()
        if self._waiting and moment - self._seen > 2 * LOOK_S:
            self._slept += moment - self._seen - LOOK_S
        self._seen = moment
        return moment - self._slept

    def counted(self, moment: float) -> float:
        """A moment of the clock, since the last sleep, by `now`."""
        return moment - self._slept

    async def wait(self, event: trio.Event, left: Callable[[float], float]) -> bool:
        """Until the event (True), or until nothing is left at `now`: `left(now)` says how many seconds are."""
        self.now()
        self._waiting += 1
        try:
            while not event.is_set():
                seconds = left(self.now())
                if seconds <= 0:
                    return False
                with trio.move_on_after(min(max(seconds, LEAST_S), LOOK_S)) as scope:
                    await event.wait()
                if scope.cancelled_caught:
                    await self._clock.sleep(0.0)         # by the door of time: a process that is stopped does not pass it
            return True
        finally:
            self.now()                                   # while this one still counts as looking
            self._waiting -= 1

    async def within(self, left: Callable[[float], float], job: Callable[[], Awaitable[None]]) -> bool:
        """Whether the job was done before nothing was left (as `wait` has it); else it is cancelled. Its errors are raised as they are."""
        done = trio.Event()
        failures: list[Exception] = []

        async def run() -> None:
            try:
                await job()
            except Exception as error:                   # by hand past the nursery, which would make a group of it
                failures.append(error)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            if not await self.wait(done, left):
                nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return done.is_set()
