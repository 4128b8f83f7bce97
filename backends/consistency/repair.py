"""An object that the store lost, or holds with other bytes, put there again: the same bytes under the same key, and never anything else.

What is missing is put create-only where the store can: should it be there after all, nothing is touched. Other bytes are overwritten
only by what its source vouches for (a pack's name is the hash of its bytes): of an object that two writers have put, in a race that the
store did not notice, neither overwrites the other's. And they are never deleted: parts of them may be good, and a store that does not let
itself be overwritten keeps what it has.
"""
from __future__ import annotations

import enum

from s3cfs.backends.consistency.looks import PUT_S, Looks, Saw
from s3cfs.backends.consistency.watch import Watch, Watched
from s3cfs.backends.layer import Call, Store
from s3cfs.errors import Exists, StoreError


class Outcome(enum.Enum):
    REPAIRED = "put again from the local copy"
    THERE = "there after all"
    NO_ORIGINAL = "no local copy is left"
    REFUSED = "the store refuses to take it again"


class Overtaken(StoreError):
    """Somebody has put or deleted the object meanwhile: what was found is no matter any more."""


async def repair(looks: Looks, below: Store, watch: Watch, watched: Watched, saw: Saw) -> Outcome:
    """StoreError that may pass: try again later; Overtaken."""
    data = await (looks.original(watched) if saw is Saw.MISSING else looks.vouched(watched))
    if data is None:
        return Outcome.NO_ORIGINAL
    create_only = saw is Saw.MISSING and below.capabilities.create_only is True

    async def put(call: Call) -> None:
        if watch.get(watched.key) is not watched:                      # its turn, and the budget's, took their time
            raise Overtaken("put", watched.key, "there is no need any more")
        await below.put(watched.key, data, create_only, call)

    try:
        await looks.ask("put", watched.key, put, PUT_S)
    except Overtaken:
        raise
    except Exists:
        return Outcome.THERE if create_only else Outcome.REFUSED
    except StoreError as error:
        if error.retryable:
            raise
        return Outcome.REFUSED
    if watched.size < 0:
        watched.size = len(data)
    return Outcome.REPAIRED


async def delete_again(looks: Looks, below: Store, watch: Watch, watched: Watched) -> None:
    """StoreError that may pass; Overtaken."""
    async def delete(call: Call) -> None:
        if watch.get(watched.key) is not watched:
            raise Overtaken("delete", watched.key, "there is no need any more")
        await below.delete([watched.key], call)

    await looks.ask("delete", watched.key, delete)
