"""Finished packs on their way to the store, a few at a time, for as long as it takes.

A pack's name is the hash of its bytes, so putting it twice is putting it once. What cannot be read whole from the local disk is never
put, and ends writing: no record may name it.
"""
from __future__ import annotations

import logging
from collections.abc import Iterable

import trio

from s3cfs.blocks.journal import ClosedPack, Journal
from s3cfs.doors import Doors
from s3cfs.errors import Exists, StoreError
from s3cfs.history.health import Health, State
from s3cfs.ids import pack_key
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_LONGEST_S = 1.0, 30.0


class Uploads:
    """`queue` and forget; `wait` before a record names them; `retire` after it did."""

    def __init__(self, doors: Doors, journal: Journal, remote: Remote, health: Health, *, create_only: bool) -> None:
        self._doors, self._journal, self._remote, self._health, self._create_only = doors, journal, remote, health, create_only
        self._under_way: dict[int, trio.Event] = {}
        self._todo: list[ClosedPack] = []
        self._done: list[ClosedPack] = []          # in the store; their files move to the cache after the commit that names them
        self._wanted = trio.Event()

    def queue(self, pack: ClosedPack) -> None:
        self._under_way[pack.pack_id] = trio.Event()
        self._todo.append(pack)
        self._wanted.set()

    def known(self) -> list[int]:
        """Packs that are under way, or arrived and not retired."""
        return [*self._under_way, *(pack.pack_id for pack in self._done)]

    def busy_with(self, packs: Iterable[int]) -> bool:
        return any(pack in self._under_way for pack in packs)

    async def wait(self, pack_id: int, at_most_s: float) -> bool:
        """Whether it is in the store (or given up, see Health) by then."""
        event = self._under_way.get(pack_id)
        if event is not None:
            with trio.move_on_after(at_most_s):
                await event.wait()
        return event is None or event.is_set()

    def retire(self, packs: Iterable[int]) -> list[ClosedPack]:
        """Take those that arrived off the list."""
        chosen = set(packs)
        gone = [pack for pack in self._done if pack.pack_id in chosen]
        self._done = [pack for pack in self._done if pack.pack_id not in chosen]
        return gone

    @property
    def arrived(self) -> bool:
        return bool(self._done)

    async def run(self) -> None:
        """Until cancelled."""
        limiter = trio.CapacityLimiter(self._doors.limits.uploads_at_once)

        async def one(pack: ClosedPack) -> None:
            async with limiter:
                await self._upload(pack)

        async with trio.open_nursery() as nursery:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                while self._todo:
                    nursery.start_soon(one, self._todo.pop(0))

    async def _upload(self, pack: ClosedPack) -> None:
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._put(pack)
                break
            except StoreError as exc:
                if self._health.state is State.OK:
                    self._health.enter(State.AWAY, f"store does not take packs: {exc}")
                await self._doors.clock.sleep(self._doors.random.uniform(delay_s / 2, delay_s))
                delay_s = min(2 * delay_s, RETRY_LONGEST_S)
            except Exception as exc:
                log.exception("pack=%s cannot be uploaded", pack.name)
                self._health.fail(exc)
                self._under_way[pack.pack_id].set()
                return
        if self._health.state is State.AWAY:
            self._health.enter(State.OK)
        self._done.append(pack)
        self._under_way.pop(pack.pack_id).set()

    async def _put(self, pack: ClosedPack) -> None:
        data = await self._journal.load(pack.pack_id)
        try:
            await self._remote.put(pack_key(pack.name), data, only_if_absent=self._create_only)
        except Exists:
            pass                              # the name is the hash of the bytes: they are there already
