"""So many requests a minute on average, none of them held up: what has to be asked now is asked now, and new work waits for it."""
from __future__ import annotations

from s3cfs.doors import Clock

LONGEST_NAP_S = 30.0


class Pace:
    """Requests may run into debt; whoever begins something new waits (`room`) until that is paid, and while the store asks for patience."""

    def __init__(self, clock: Clock, per_minute: float) -> None:
        self._clock, self._per_s = clock, per_minute / 60
        self._left, self._as_of = 0.0, clock.monotonic()
        self._held_until = 0.0

    def spend(self) -> None:
        """A request is made."""
        self._earn()
        self._left -= 1

    def hold(self, seconds: float) -> None:
        """The store asked for it (Retry-After)."""
        self._held_until = max(self._held_until, self._clock.monotonic() + seconds)

    @property
    def held_s(self) -> float:
        return max(0.0, self._held_until - self._clock.monotonic())

    async def patience(self) -> None:
        """While the store asks for it."""
        while self.held_s:
            await self._clock.sleep(min(self.held_s + 0.001, LONGEST_NAP_S))

    async def room(self) -> None:
        while True:
            self._earn()
            wait_s = max(-self._left / self._per_s, self.held_s)
            if wait_s <= 0:
                return
            await self._clock.sleep(min(wait_s + 0.001, LONGEST_NAP_S))

    def _earn(self) -> None:
        """What is not used is not saved up: no bursts."""
        now = self._clock.monotonic()
        self._left = min(0.0, self._left + (now - self._as_of) * self._per_s)
        self._as_of = now
