"""A run: keys live their lives, large objects come and go, until the time is over or somebody stops it; then it is tidied up."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio

from s3cfs.backends.base import Backend
from s3cfs.backends.measuring.asking import Answer, Asking
from s3cfs.backends.measuring.life import Life
from s3cfs.backends.measuring.litter import Litter
from s3cfs.backends.measuring.pace import Pace
from s3cfs.backends.measuring.plan import FIRST_PAUSE_S, GROWTH, HOUR_S, Plan
from s3cfs.backends.measuring.tally import Tally
from s3cfs.doors import Doors
from s3cfs.errors import NotFound, StoreError

LIVES_MAX = 500                    # at once
TICK_S = 5.0                       # at most
TIDYING_MAX_S = 120.0
MEGA = 1e6


class Measurement:
    """`run` once. The backends are bare, and each has connections of its own; who made them closes them."""

    def __init__(self, doors: Doors, writer: Backend, readers: Sequence[Backend], plan: Plan, tally: Tally,
                 on_tick: Callable[[], None] = lambda: None) -> None:
        """`tally` may have counts of an earlier run, and `on_tick`, called every few seconds, may look at it."""
        self._doors, self._writer, self._readers, self._plan, self._tally = doors, writer, readers, plan, tally
        self._on_tick = on_tick
        self._asking = Asking(doors, Pace(doors.clock, plan.rate), tally)
        self._litter = Litter(self._asking, writer)
        self._lives = trio.Semaphore(LIVES_MAX)
        self._before_s, self._began = tally.measured_s, doors.clock.monotonic()

    @property
    def _left_s(self) -> float:
        """Of the plan, at the beginning of this run."""
        return max(0.0, self._plan.seconds - self._before_s)

    async def run(self, stop: trio.Event) -> None:
        """Until the plan's time is over, that of earlier runs included, or `stop` is set. It is set afterwards."""
        self._began = self._asking.now()
        try:
            async with trio.open_nursery() as nursery:
                for work in (self._keys, self._transfers, self._sweeps, self._ticks):
                    nursery.start_soon(work)
                nursery.start_soon(self._over, stop)
                await stop.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._ticked()
            with trio.move_on_after(TIDYING_MAX_S, shield=True):
                with trio.move_on_after(TIDYING_MAX_S / 4):
                    await self._asking.quiet()
                await self._litter.tidy()

    async def _over(self, stop: trio.Event) -> None:
        await self._doors.clock.sleep(self._left_s)
        stop.set()

    async def _ticks(self) -> None:
        while True:
            await self._doors.clock.sleep(min(TICK_S, self._plan.seconds / 20))
            self._ticked()

    def _ticked(self) -> None:
        self._tally.measured_s = self._before_s + min(self._asking.now() - self._began, self._left_s)
        self._on_tick()

    async def _sweeps(self) -> None:
        while True:
            await self._litter.sweep()
            await self._doors.clock.sleep(HOUR_S)

    # ------------------------------------------------------------ small ones

    async def _keys(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await self._lives.acquire()
                await self._asking.pace.room()
                await nursery.start(self._live)

    async def _live(self, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()                                  # and spends at once
        key = self._litter.key(self._plan.life_s, Life.NAME)
        ended = False
        try:
            await Life(self._asking, self._writer, self._readers, self._plan, key).run()
            ended = True
        finally:
            self._lives.release()
            self._tally.cut += not ended
        await self._litter.remove([key])

    # ------------------------------------------------------------ large ones

    async def _transfers(self) -> None:
        if not self._plan.traffic or not self._plan.object_bytes:
            return
        while True:
            await self._asking.pace.room()
            began = self._asking.now()
            await self._transfer(self._litter.key(self._plan.life_s, "large"))
            pause = self._plan.transfers_every_s * self._doors.random.uniform(0.8, 1.2)
            await self._doors.clock.sleep(max(0.0, began + pause - self._asking.now()))

    async def _transfer(self, key: str) -> None:
        size = self._plan.object_bytes
        data = self._doors.random.bytes(size)
        try:
            put = await self._asking.ask("put", partial(self._writer.put, key, data), small=False)
            self._asking.hour().put_mb_s.add(_mb_s(size, put.took_s))
            self._asking.hour().put_s.add(put.took_s)
            got = await self._get(key)
            if got is not None:
                self._asking.hour().get_mb_s.add(_mb_s(size, got.took_s))
                self._asking.hour().get_s.add(got.took_s)
                if got.value != data:
                    self._tally.note_wrong(f"an object of {size} bytes was got as {len(got.value)} others")
        except StoreError:
            pass                                               # counted
        await self._litter.remove([key])

    async def _get(self, key: str) -> Answer[bytes] | None:
        """When it is shown; None: not within the time that is looked for anything."""
        reader = self._readers[min(int(self._doors.random.uniform(0, len(self._readers))), len(self._readers) - 1)]
        since = self._asking.now()
        while (age := self._asking.now() - since) <= self._plan.look_max_s:
            try:
                return await self._asking.ask("get", partial(reader.get, key), small=False)
            except NotFound:
                await self._doors.clock.sleep(max(FIRST_PAUSE_S, GROWTH * age))
        return None


def _mb_s(size: int, took_s: float) -> float:
    return size / MEGA / max(took_s, 1e-6)
