"""Where the layers end: slots by lane, and a thread for each call of the blocking backend.

A slot is taken before the thread and given back when the thread has ended, not when its caller has left: what a silent store holds of
slots and threads is bounded by their number, however many callers it has disappointed.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import trio

from s3cfs.backends.base import Backend, Listing
from s3cfs.backends.layer import Call, Lane, Store
from s3cfs.backends.progress import Progress, moved, told_to
from s3cfs.backends.types import Body, Capabilities, Degraded, ObjectInfo
from s3cfs.doors import Clock, Doors
from s3cfs.errors import StoreError
from s3cfs.limits import Limits

T = TypeVar("T")
PAGE = 1000                        # entries of a listing, after which it has moved


def slots_of(limits: Limits, capabilities: Capabilities) -> Mapping[Lane, int]:
    """How many calls of each lane run at once."""
    return {Lane.READ: max(1, min(limits.downloads_at_once, capabilities.parallel_reads)),
            Lane.BULK: max(1, min(limits.uploads_at_once, capabilities.parallel_writes)),
            Lane.URGENT: limits.urgent_at_once, Lane.QUIET: 1}


class Slots:
    """Of one lane. First come, first served."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._limiter = trio.CapacityLimiter(count)
        self.last_answer = float("-inf")           # by the clock's `monotonic`: when an answer, or a part of one, last came

    async def take(self) -> object:
        slot = object()
        await self._limiter.acquire_on_behalf_of(slot)
        return slot

    def give_back(self, slot: object) -> None:
        self._limiter.release_on_behalf_of(slot)

    @property
    def waiting(self) -> int:
        return self._limiter.statistics().tasks_waiting

    @property
    def busy(self) -> int:
        return self._limiter.borrowed_tokens


class Lines(Store):
    def __init__(self, backend: Backend, doors: Doors) -> None:
        self.backend = backend
        self._clock: Clock = doors.clock
        self._threads = doors.store_threads
        self.slots = {lane: Slots(count) for lane, count in slots_of(doors.limits, backend.capabilities).items()}
        self._moved = trio.Event()                 # a slot was given back

    @property
    def capabilities(self) -> Capabilities:
        return self.backend.capabilities

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        return await self.run(call, lambda: self.backend.get(key, offset, size))

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        return await self.run(call, lambda: self.backend.put(key, data, only_if_absent))

    async def stat(self, key: str, call: Call) -> ObjectInfo:
        return await self.run(call, lambda: self.backend.stat(key))

    async def examine(self, key: str, call: Call) -> str | None:
        return await self.run(call, lambda: self.backend.examine(key))

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        await self.run(call, lambda: self.backend.delete(keys[0]) if len(keys) == 1 else self.backend.delete_many(keys))

    async def folders(self, prefix: str, call: Call) -> list[str]:
        return await self.run(call, lambda: list(self.backend.folders(prefix)))

    async def list(self, prefix: str, call: Call) -> list[ObjectInfo]:
        return await self.run(call, lambda: _listed(self.backend, prefix, call))

    async def run(self, call: Call, function: Callable[[], T]) -> T:
        """A blocking call of the backend in its turn; for what is no operation of a Store, too."""
        slots = self.slots[call.lane]
        with call.progress.queued(lambda: slots.last_answer):
            slot = await slots.take()
            if call.lane is Lane.QUIET:
                try:
                    await self._until_nobody_waits()
                except BaseException:
                    slots.give_back(slot)
                    raise
        if call.running is not None:
            call.running.began()
        return await self._threads.run(self._in_thread, call, function, ended=partial(self._ended, slots, slot, call))

    def _ended(self, slots: Slots, slot: object, call: Call) -> None:
        slots.give_back(slot)
        if call.running is not None:
            call.running.ended()
        self._moved.set()
        self._moved = trio.Event()

    async def _until_nobody_waits(self) -> None:
        while any(slots.waiting for slots in self.slots.values()):
            await self._moved.wait()

    def _in_thread(self, call: Call, function: Callable[[], T]) -> T:
        flow = Flow(call.progress, self.slots[call.lane], self._clock)
        try:
            with told_to(flow.moved):
                answer = function()
        except StoreError as error:
            if not error.retryable:
                flow.moved()
            raise
        flow.moved()
        return answer


class Flow:
    """What comes in one thread."""

    def __init__(self, progress: Progress, slots: Slots, clock: Clock) -> None:
        self._progress, self._slots, self._clock = progress, slots, clock
        self._since = clock.monotonic()

    def moved(self) -> None:
        now = self._slots.last_answer = self._clock.monotonic()
        self._progress.count(self._since, now)
        self._since = now


def _listed(backend: Backend, prefix: str, call: Call) -> list[ObjectInfo]:
    """All of it. One that broke off goes on where it was at the next attempt, if it can (`Listing`)."""
    rest = call.progress.rest
    kept: tuple[Iterator[ObjectInfo], list[ObjectInfo]] | None = rest.pop(prefix, None)
    listing, found = kept if kept is not None else (backend.list(prefix), [])
    try:
        for info in listing:
            found.append(info)
            if len(found) % PAGE == 0:
                moved()
    except StoreError:
        if isinstance(listing, Listing):
            rest[prefix] = listing, found
        raise
    return found
