"""Does create-only PUT hold in this store? Found out by trying, never by asking or by its name.

Four kinds of stores must be told apart: those that keep the promise, those that refuse the header (501, 400), those that ignore it silently
and overwrite, and those that look first and write then, and so answer 412 in sequence and let several racers win. One key is put
twice with different bytes and read back; then, in each round, several threads race for one fresh key: exactly one must win, and its
bytes be there. A server that looks first shows it in about every second round of twelve, so twenty rounds mean something.
A 409 or a lost reply in a race is no verdict on that racer; the bytes read back must still fit.

A store may be busy, lose answers, or not show yet what was put: that says nothing about create-only puts. What may pass is tried again, and
for what is read back it has a minute to appear.
"""
from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from s3cfs.backends.base import Body
from s3cfs.backends.progress import moved
from s3cfs.errors import BucketMissing, ClockSkew, Denied, Exists, NotFound, StoreError, StoreFull, Temporary, Throttled, WrongRegion

RACERS = 12                        # fewer than connections in a pool
PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0)      # before each further attempt at what may pass
SHOWN_WITHIN_S, LOOK_EVERY_S = 60.0, 0.25
_NO_VERDICT = (Denied, BucketMissing, WrongRegion, ClockSkew, StoreFull)   # the usual mistakes say nothing about the feature

Put = Callable[[str, Body], None]
Get = Callable[[str], bytes]
pause = time.sleep                 # a probe blocks in its thread
T = TypeVar("T")


def probe(put: Put, get: Get, delete: Callable[[str], None], token: str, rounds: int) -> bool:
    """True when create-only holds. `put` sends the conditional request, whatever is known so far. `token` makes the keys new.

    Temporary when a round had no clear answer.
    """
    used = [f"probe/{token}-twice"]
    with ThreadPoolExecutor(RACERS, "probe") as pool, ThreadPoolExecutor(RACERS, "probe") as readers:
        try:
            if not _twice(put, get, used[0]):
                return False
            outcomes: list[Future[bool]] = []
            for number in range(rounds):
                moved()
                won, unclear = _surely(partial(_new_race, pool, put, used, f"probe/{token}-{number}"))
                if len(won) > 1:
                    return False
                outcomes.append(readers.submit(_fits, get, used[-1], won, unclear))      # while the next round runs
            return all(outcome.result() for outcome in outcomes)
        finally:
            for gone in [pool.submit(delete, key) for key in used]:
                with contextlib.suppress(StoreError):  # a writer that may not delete leaves a few bytes under probe/
                    gone.result()


def _twice(put: Put, get: Get, key: str) -> bool:
    try:
        _surely(lambda: put(key, b"first"))
    except Exists:
        pass       # its own first attempt, repeated on the way by something (the key is new): the second put decides
    except _NO_VERDICT:
        raise
    except StoreError as error:
        if error.retryable:
            raise
        return False
    try:
        _surely(lambda: put(key, b"second"))
    except Exists:
        return _shown(get, key) == b"first"
    except StoreError as error:
        if error.retryable or isinstance(error, _NO_VERDICT):
            raise
    return False


def _new_race(pool: ThreadPoolExecutor, put: Put, used: list[str], name: str) -> tuple[list[bytes], list[bytes]]:
    """For a key that nobody has raced for."""
    used.append(f"{name}-{len(used)}")
    return _race(pool, put, used[-1])


def _race(pool: ThreadPoolExecutor, put: Put, key: str) -> tuple[list[bytes], list[bytes]]:
    """What the winners put, and what those put who got no clear answer."""
    start = threading.Barrier(RACERS)
    won: list[bytes] = []
    unclear: list[bytes] = []

    def racer(number: int) -> None:
        mine = b"racer %d" % number
        start.wait()
        try:
            put(key, mine)
            won.append(mine)
        except Exists:
            pass
        except Temporary:                                  # Throttled too
            unclear.append(mine)

    for ran in [pool.submit(racer, number) for number in range(RACERS)]:
        ran.result()
    if not won and len(unclear) == RACERS:
        raise Temporary("probe", key, "no clear answer from the store, try again")
    return won, unclear


def _fits(get: Get, key: str, won: list[bytes], unclear: list[bytes]) -> bool:
    there = _shown(get, key)
    return there in (won or unclear)


def _surely(call: Callable[[], T]) -> T:
    """What may pass is tried again: a put too, since whoever finds its own bytes there has lost nothing."""
    for pause_s in PAUSES_S:
        try:
            return call()
        except StoreError as error:
            if not error.retryable:
                raise
            moved()
            pause(pause_s + (isinstance(error, Throttled) and error.retry_after or 0.0))
    return call()


def _shown(get: Get, key: str) -> bytes:
    """What is there: something is. Temporary when the store does not show it in time."""
    until = time.monotonic() + SHOWN_WITHIN_S
    while True:
        try:
            return _surely(lambda: get(key))
        except NotFound:
            if time.monotonic() > until:
                raise Temporary("probe", key, "the store does not show what is there") from None
        moved()
        pause(LOOK_EVERY_S)
