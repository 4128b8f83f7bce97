"""Tries again what may succeed later, with a bound in time and with jitter; a wrapper with the contract's interface.

| call | tried again after |
|---|---|
| get, stat, delete, list, check, put | every retryable error |
| put with only_if_absent | what was surely not carried out: Throttled said by the store itself, Corrupt (it checked and refused) |
| probe_create_only | never: it is made of many puts, its caller asks again |

An ambiguous create-only put is not repeated here: the repetition would find the key taken by its own first attempt and report
a race lost that was won. Only the caller knows what it wrote and can read it back.
Full jitter, uniform(0, min(cap, first * 2^n)), since many machines meet the same outage; a Retry-After is a lower bound, and one
beyond the deadline ends the attempt at once: its caller has better things to do than to wait here.
The deadline counts from when the call was asked for, if the caller says so (`asked_at`), else from its beginning: who waited for a
slot has waited already. A first attempt is always made. One that took longer than any may (the process was stopped, or its machine
suspended) does not count.
The sleep is an argument: an `Event.wait` makes it end at once when the mount does (a true answer means: stop trying).
"""
from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from s3cfs.backends.base import Backend, Body, Degraded, Listing, ObjectInfo
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import Corrupt, StoreError, Throttled
from s3cfs.limits import DEFAULTS

FIRST_BACKOFF_S = 0.25
BACKOFF_MAX_S = 20.0
DOUBLINGS_MAX = 16
STOOD_STILL_S = 60.0               # no attempt takes so long by itself: connections time out before

T = TypeVar("T")
_caller = threading.local()        # `asked`: what `asked_at` said


@contextlib.contextmanager
def asked_at(moment: float) -> Iterator[None]:
    """The first call that this thread makes inside was asked for at `moment` (of the wrapper's clock, seconds)."""
    _caller.asked = moment
    try:
        yield
    finally:
        vars(_caller).clear()


def _any_retryable(error: StoreError) -> bool:
    return error.retryable


def _surely_not_carried_out(error: StoreError) -> bool:
    return isinstance(error, Corrupt) or (isinstance(error, Throttled) and error.refused)


class RetryBackend(Wrapper):
    """`inner` with patience."""

    def __init__(self, inner: Backend, *, deadline_s: float = DEFAULTS.store_deadline_s,
                 clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep,
                 uniform: Callable[[float, float], float] = random.uniform,
                 on_retry: Callable[[StoreError, float], None] | None = None) -> None:
        """`on_retry(error, seconds until the next attempt)` is called from the thread of the call."""
        super().__init__(inner)
        self._deadline_s, self._clock, self._sleep, self._uniform, self._on_retry = deadline_s, clock, sleep, uniform, on_retry
        self._retries = 0
        self._lock = threading.Lock()

    @property
    def retries(self) -> int:
        """Attempts beyond the first, of all calls so far."""
        return self._retries

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        return self._patiently(lambda: self.inner.get(key, offset, size))

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        may_repeat = _surely_not_carried_out if only_if_absent else _any_retryable
        return self._patiently(lambda: self.inner.put(key, data, only_if_absent), may_repeat)

    def stat(self, key: str) -> ObjectInfo:
        return self._patiently(lambda: self.inner.stat(key))

    def delete(self, key: str) -> None:
        self._patiently(lambda: self.inner.delete(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = self._patiently(lambda: self.inner.list(prefix))
        return self._resumed(found) if isinstance(found, Listing) else self._restarted(prefix, found)

    def delete_many(self, keys: Sequence[str]) -> None:
        self._patiently(lambda: self.inner.delete_many(keys))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._patiently(lambda: list(self.inner.folders(prefix))))

    def check(self) -> None:
        self._patiently(self.inner.check)

    def _resumed(self, found: Listing) -> Iterator[ObjectInfo]:
        while (info := self._patiently(lambda: next(found, None))) is not None:
            yield info

    def _restarted(self, prefix: str, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        """Listings that die of an error: from the beginning again, without what was handed out."""
        seen: set[str] = set()
        current: list[Iterator[ObjectInfo]] = [found]

        def following() -> ObjectInfo | None:
            if not current:
                current.append(self.inner.list(prefix))
            try:
                return next((info for info in current[0] if info.key not in seen), None)
            except StoreError:
                current.clear()
                raise

        while (info := self._patiently(following)) is not None:
            seen.add(info.key)
            yield info

    def _patiently(self, call: Callable[[], T], may_repeat: Callable[[StoreError], bool] = _any_retryable) -> T:
        end = vars(_caller).pop("asked", self._clock()) + self._deadline_s
        attempt = 0
        while True:
            begun = self._clock()
            try:
                return call()
            except StoreError as error:
                if not may_repeat(error):
                    raise
                took = self._clock() - begun
                if took > STOOD_STILL_S:
                    end += took
                pause = self._uniform(0.0, min(BACKOFF_MAX_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, DOUBLINGS_MAX)))
                if isinstance(error, Throttled) and error.retry_after is not None:
                    pause += error.retry_after
                if self._clock() + pause > end:
                    raise
                if self._on_retry is not None:
                    self._on_retry(error, pause)
                if self._sleep(pause):
                    raise
            attempt += 1
            with self._lock:
                self._retries += 1
