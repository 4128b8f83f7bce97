"""One call: its promise, its attempts, and who watches the clock beside them (INVARIANT Q1, see remote.py)."""
from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import trio

from s3cfs.backends.layer import Call, Lane
from s3cfs.backends.progress import Progress
from s3cfs.doors import Doors
from s3cfs.errors import Corrupt, S3cfsError, StoreError, Temporary, Throttled

from .patience import Backoff, Patience

log = logging.getLogger(__name__)

T = TypeVar("T")


def retryable(error: StoreError) -> bool:
    return error.retryable


def surely_not_carried_out(error: StoreError) -> bool:
    return isinstance(error, Corrupt) or (isinstance(error, Throttled) and error.refused)


def never(error: StoreError) -> bool:
    return False


@dataclass
class Errand(Generic[T]):
    """`do` once. StoreError, whatever goes wrong."""

    operation: str
    key: str
    lane: Lane
    attempt: Callable[[Call], Awaitable[T]]
    may_repeat: Callable[[StoreError], bool]

    async def do(self, doors: Doors, patience: Patience, on_retry: Callable[[StoreError], None]) -> T:
        """`on_retry(error)`: an attempt failed and there will be another."""
        self._doors, self._patience, self._on_retry = doors, patience, on_retry
        self._progress = Progress(doors.clock.monotonic)
        self._kept: dict[str, Any] = {}
        self._caller = trio.lowlevel.current_task().name
        self._end = patience.now() + doors.limits.store_deadline_s
        self._last: StoreError | None = None
        answers: list[T] = []

        async def ask() -> None:
            answers.append(await self._attempts())

        if await patience.within(self._left, ask):
            return answers[0]
        before = f"; before that: {self._last.cause}" if self._last is not None else ""
        raise Temporary(self.operation, self.key, f"no answer within {doors.limits.store_deadline_s:g} s{before}")

    def _left(self, now: float) -> float:
        """Seconds of the promise; `now` is patience's."""
        return self._end + self._progress.came_s - now

    async def _attempts(self) -> T:
        clock, backoff = self._doors.clock, Backoff(self._doors.random)
        while True:
            self._progress.attempt()
            try:
                until = clock.monotonic() + self._left(self._patience.now())
                return await self.attempt(Call(self.lane, until, self._progress, self._kept, self._caller))
            except S3cfsError as error:
                if not isinstance(error, StoreError) or not self.may_repeat(error):
                    raise
                pause_s = backoff.pause_s(error)
                if pause_s > self._left(self._patience.now()):       # its caller has better things to do than to wait here
                    raise
                self._last = error
            except Exception as error:
                log.exception("%s %s: the backend raised what no backend may", self.operation, self.key)
                raise StoreError(self.operation, self.key, f"unexpected {type(error).__name__}: {error}") from error
            log.debug("store call repeated in %.1f s: %s", pause_s, self._last)
            self._on_retry(self._last)
            await clock.sleep(pause_s)
