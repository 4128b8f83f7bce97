"""What large removals left behind goes in the background, in bounded steps (meta/content.py says why and how).

Each step passes the gate like any other change, so it is part of the next transaction and waits where changes wait. It holds back while
the open transaction is not small, since ending a large one takes long, and while much waits for the store: a removal in the background
must not take the room of those who write.
"""
from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from s3cfs.doors import Doors
from s3cfs.errors import NoSpace, S3cfsError
from s3cfs.meta import Meta

from .content import Gate, Kind, Transactions

log = logging.getLogger(__name__)

PAUSE_S = 0.03                 # about what a step takes: requests come between
RETRY_S = 1.0
OPEN_SHARE = 0.5               # of an open transaction: the rest is for the next one
OUTBOX_SHARE = 0.25            # of its bound


class Sweeper:
    def __init__(self, doors: Doors, meta: Meta, transactions: Transactions, outbox_bytes: Callable[[], int]) -> None:
        """`outbox_bytes`: of changes that wait for the store."""
        self._clock, self._meta, self._waiting_bytes = doors.clock, meta, outbox_bytes
        self._gate = Gate(transactions, False)
        self._most_waiting = doors.limits.outbox_max_bytes * OUTBOX_SHARE
        self._wanted = trio.Event()
        meta.when_trash_comes(lambda: self._wanted.set())
        if meta.has_trash:
            self._wanted.set()

    async def run(self) -> None:
        """Until cancelled, or writing has ended."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                await self.finish()
            except S3cfsError as error:           # writing has ended, and the next transaction says so
                log.info("sweeping ends: %s", error)
                return

    async def finish(self) -> None:
        """Sweep until nothing is left."""
        while self._meta.has_trash:
            if self._meta.open_share > OPEN_SHARE:
                await self._clock.sleep(PAUSE_S)
                continue
            if self._waiting_bytes() + self._meta.open_bytes > self._most_waiting:
                await self._clock.sleep(RETRY_S)
                continue
            if self._meta.warmth.wary:
                await self._meta.warmth.trash()
            try:
                await self._gate.enter(Kind.SHRINK)
            except NoSpace:
                await self._clock.sleep(RETRY_S)
                continue
            await trio.lowlevel.checkpoint_if_cancelled()         # where the gate was open nothing else has looked
            self._meta.sweep()
            await self._clock.sleep(PAUSE_S)
