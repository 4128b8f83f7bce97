"""Sums over all chunks and packs, for `s3cfs stat`: exact at every call where that is quick, else counted in a thread and remembered.

What took long is not done again soon: figures are kept for `KEPT` times as long as counting took. Whoever asks waits a moment for new ones,
and then gets those there are; their age is told with them.
"""
from __future__ import annotations

import logging

import trio

from s3cfs.doors import Doors
from s3cfs.errors import S3cfsError
from s3cfs.meta import Meta, Totals

log = logging.getLogger(__name__)

KEPT = 30
PATIENCE_S = 5.0


class Figures:
    def __init__(self, doors: Doors, meta: Meta) -> None:
        self._doors, self._meta = doors, meta
        self._known: Totals | None = None
        self._as_of = self._took_s = 0.0
        self._wanted, self._counted = trio.Event(), trio.Event()

    async def get(self) -> tuple[Totals | None, float]:
        """(sums, their age in seconds: 0 is now). None: not counted yet, ask again."""
        counters = self._meta.counters
        if counters.next_chunk + counters.next_pack <= self._doors.limits.count_rows:
            return self._meta.totals(), 0.0
        if self._known is None or self._age_s() > KEPT * self._took_s:
            self._wanted.set()
            with trio.move_on_after(PATIENCE_S):
                await self._counted.wait()
        if self._known is None:
            return None, 0.0
        return self._known._replace(inodes=counters.inodes, file_bytes=counters.used_bytes), self._age_s()

    def _age_s(self) -> float:
        return self._doors.clock.monotonic() - self._as_of

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wanted.wait()
            began = self._doors.clock.monotonic()
            try:
                self._known = await self._doors.threads.run(self._meta.beside.totals)
                self._as_of, self._took_s = began, self._doors.clock.monotonic() - began
            except S3cfsError as error:
                log.warning("chunks cannot be counted: %s", error)
            self._wanted, counted = trio.Event(), self._counted
            self._counted = trio.Event()
            counted.set()
