"""Does create-only PUT hold in this store? Found out by trying, never by asking or by its name.

Four kinds of stores must be told apart: those that keep the promise, those that refuse the header (501, 400), those that ignore it silently
and overwrite, and those that look first and write then, and so answer 412 in sequence and let several racers win. One key is put
twice with different bytes and read back; then, in each round, several threads race for one fresh key: exactly one must win, and its
bytes be there. A server that looks first shows it in about every second round of twelve, so twenty rounds mean something.
A 409 or a lost reply in a race is no verdict on that racer; the bytes read back must still fit.
"""
from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from s3cfs.backends.base import Body
from s3cfs.backends.progress import moved
from s3cfs.errors import BucketMissing, ClockSkew, Denied, Exists, StoreError, StoreFull, Temporary, WrongRegion

RACERS = 12                        # fewer than connections in a pool
_NO_VERDICT = (Denied, BucketMissing, WrongRegion, ClockSkew, StoreFull)   # the usual mistakes say nothing about the feature

Put = Callable[[str, Body], None]
Get = Callable[[str], bytes]


def probe(put: Put, get: Get, delete: Callable[[str], None], token: str, rounds: int) -> bool:
    """True when create-only holds. `put` sends the conditional request, whatever is known so far. `token` makes the keys new.

    Temporary when a round had no clear answer.
    """
    used = [f"probe/{token}-twice"]
    with ThreadPoolExecutor(RACERS, "probe") as pool:
        try:
            if not _twice(put, get, used[0]):
                return False
            outcomes: list[Future[bool]] = []
            for number in range(rounds):
                moved()
                used.append(f"probe/{token}-{number}")
                won, unclear = _race(pool, put, used[-1])
                if len(won) > 1:
                    return False
                outcomes.append(pool.submit(_fits, get, used[-1], won, unclear))      # while the next round runs
            return all(outcome.result() for outcome in outcomes)
        finally:
            for gone in [pool.submit(delete, key) for key in used]:
                with contextlib.suppress(StoreError):  # a writer that may not delete leaves a few bytes under probe/
                    gone.result()


def _twice(put: Put, get: Get, key: str) -> bool:
    try:
        put(key, b"first")
    except Exists:
        pass       # its own first attempt, repeated on the way by something (the key is new): the second put decides
    except _NO_VERDICT:
        raise
    except StoreError as error:
        if error.retryable:
            raise
        return False
    try:
        put(key, b"second")
    except Exists:
        return get(key) == b"first"
    except StoreError as error:
        if error.retryable or isinstance(error, _NO_VERDICT):
            raise
    return False


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
        except Temporary:
            unclear.append(mine)

    for ran in [pool.submit(racer, number) for number in range(RACERS)]:
        ran.result()
    if not won and len(unclear) == RACERS:
        raise Temporary("probe", key, "no clear answer from the store, try again")
    return won, unclear


def _fits(get: Get, key: str, won: list[bytes], unclear: list[bytes]) -> bool:
    there = get(key)
    return there in (won or unclear)
