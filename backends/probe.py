"""Does create-only PUT hold in this store? Found out by trying, never by asking or by its name.

Three kinds of stores must be told apart: those that keep the promise, those that refuse the header (501, 400), and those that
ignore it silently and overwrite. So one key is put twice with different bytes and read back, and then a small race of
several threads on one fresh key must have exactly one winner whose bytes are there.
A 409 or a lost reply in the race is no verdict on that racer; the bytes read back must still fit.
"""
from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from s3cfs.backends.base import Body
from s3cfs.errors import BucketMissing, ClockSkew, Denied, Exists, StoreError, StoreFull, Temporary, WrongRegion

RACERS = 4
_NO_VERDICT = (Denied, BucketMissing, WrongRegion, ClockSkew, StoreFull)   # the usual mistakes say nothing about the feature


def probe(put: Callable[[str, Body], None], get: Callable[[str], bytes], delete: Callable[[str], None], token: str) -> bool:
    """True when create-only holds. `put` sends the conditional request, whatever is known so far. `token` makes the keys new."""
    keys = [f"probe/{token}-twice", f"probe/{token}-race"]
    try:
        return _twice(put, get, keys[0]) and _race(put, get, keys[1])
    finally:
        for key in keys:
            with contextlib.suppress(StoreError):      # a writer that may not delete leaves a few bytes under probe/
                delete(key)


def _twice(put: Callable[[str, Body], None], get: Callable[[str], bytes], key: str) -> bool:
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


def _race(put: Callable[[str, Body], None], get: Callable[[str], bytes], key: str) -> bool:
    start = threading.Barrier(RACERS)
    won: list[bytes] = []
    unclear: list[bytes] = []
    failed: list[BaseException] = []

    def racer(number: int) -> None:
        mine = b"racer %d" % number
        try:
            start.wait()
            put(key, mine)
            won.append(mine)
        except Exists:
            pass
        except Temporary:
            unclear.append(mine)
        except BaseException as error:  # handed to the caller below
            failed.append(error)

    threads = [threading.Thread(target=racer, args=(number,), name=f"probe-{number}", daemon=True) for number in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    if not won and len(unclear) == RACERS:
        raise Temporary("probe", key, "no clear answer from the store, try again")
    there = get(key)
    return there in won if len(won) == 1 else not won and there in unclear
