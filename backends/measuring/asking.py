"""One attempt of one request, in a thread, with nobody's patience: what it was like is what is measured."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from s3cfs.backends.measuring.pace import Pace
from s3cfs.backends.measuring.tally import Hour, Tally
from s3cfs.backends.progress import losses_told_to
from s3cfs.doors import Doors
from s3cfs.errors import NotFound, StoreError, Temporary, Throttled

T = TypeVar("T")

AT_ONCE = 32
HOLD_MAX_S = 900.0                 # a Retry-After beyond that is noted, and not obeyed to its end


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """`asked` by the monotonic clock."""

    asked: float
    took_s: float
    value: T


class Asking:
    def __init__(self, doors: Doors, pace: Pace, tally: Tally) -> None:
        self.doors, self.pace, self.tally = doors, pace, tally
        self._room = trio.CapacityLimiter(AT_ONCE)
        self._running, self._one_ended = 0, trio.Event()       # calls, those included that nobody waits for any more

    def now(self) -> float:
        return self.doors.clock.monotonic()

    def hour(self) -> Hour:
        return self.tally.hour(self.doors.clock.time_ns())

    async def ask(self, operation: str, function: Callable[[], T], *, small: bool = True) -> Answer[T]:
        """StoreError, which is counted; that nothing is there is an answer, and counted as one. `small`: its time is a latency."""
        self.pace.spend()                                  # before anything else runs, so that nobody begins on the same money
        async with self._room:
            self.hour().counts["requests"] += 1
            asked, lost = self.now(), list[bool]()

            def call() -> T:
                with losses_told_to(lambda: lost.append(True)):
                    return function()

            self._running += 1
            try:
                value = await self.doors.store_threads.run(call, ended=self._ended)
            except NotFound:
                self._answered(operation if small else "", asked)
                raise
            except StoreError as error:
                self._failed(error, bool(lost))
                raise
            except Exception as error:                     # a third party's bug is a measurement, too
                failure = StoreError(operation, "", f"unexpected {type(error).__name__}: {error}")
                self._failed(failure, bool(lost))
                raise failure from error
            finally:
                self.hour().counts["broken"] += len(lost)
            self._answered(operation if small else "", asked)
            return Answer(asked, self.now() - asked, value)

    async def quiet(self) -> None:
        """Until no call runs: a put that was given up may still take effect."""
        while self._running:
            self._one_ended = trio.Event()
            await self._one_ended.wait()

    def _ended(self) -> None:
        self._running -= 1
        self._one_ended.set()

    def _answered(self, operation: str, asked: float) -> None:
        if operation:
            self.tally.answered(operation, self.now() - asked)

    def _failed(self, error: StoreError, counted: bool) -> None:
        """`counted`: the connections that were lost in it are."""
        if not (counted and isinstance(error, Temporary) and error.status is None):
            self.tally.note_trouble(self.hour(), error)
        if isinstance(error, Throttled) and error.retry_after is not None:
            self.pace.hold(min(error.retry_after, HOLD_MAX_S))
