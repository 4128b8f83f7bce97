"""Finished packs on their way to the store, a few at a time, for as long as it takes, and not a moment after writing has ended.

A pack's name is the hash of its bytes, so putting it twice is putting it once. What cannot be read whole from the local disk is never
put: `salvage` brings what is whole of it into a new pack, and the records that would have named it are made anew (pipeline.py).
"""
from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from s3cfs.blocks.journal import ClosedPack, Journal
from s3cfs.doors import Doors
from s3cfs.errors import Damaged, Exists, NotFound, StoreError
from s3cfs.history.health import Health
from s3cfs.history.signal import Signal
from s3cfs.ids import pack_key
from s3cfs.remote import Backoff, Lane, Remote

log = logging.getLogger(__name__)


class Uploads:
    """`queue` and forget; `wait` before a record names them; `retire` after it did."""

    def __init__(self, doors: Doors, journal: Journal, remote: Remote, health: Health, *, create_only: bool,
                 salvage: Callable[[ClosedPack], Awaitable[bool]] | None = None) -> None:
        """`salvage`: for a pack that cannot be read as it was written. True: the store has it all the same; False: its whole chunks
        have other places now, its lost ones are marked. Neither lock of the transactions is held when it is called."""
        self._doors, self._journal, self._remote, self._health, self._create_only = doors, journal, remote, health, create_only
        self._salvage = salvage
        self.on_arrival: Callable[[], None] = lambda: None
        self._waiting: dict[int, ClosedPack] = {}      # for a worker
        self._under_way: dict[int, ClosedPack] = {}    # not in the store yet, those that wait included
        self._arrived: dict[int, ClosedPack] = {}      # in the store; their files move to the cache after the commit that names them
        self._perhaps_there: set[int] = set()          # of those under way
        self.salvaged = 0                              # packs that were not what had been written: what is whole of them is in new ones
        self._trouble = False                          # the last attempt failed
        self._loaded_bytes = 0                         # of packs that are being sent, or are about to be
        self._wanted = Signal()
        self._moved = Signal()
        health.on_change.append(self._moved.pulse)

    def queue(self, pack: ClosedPack, *, perhaps_there: bool = False) -> None:
        """`perhaps_there`: an earlier process may have put it, and a record may name it already. Where a put would not be refused nothing
        is put in its place then: that would cost its transfer, and, on a store that keeps halves, the pack if this process died then."""
        if perhaps_there:
            self._perhaps_there.add(pack.pack_id)
        self._under_way[pack.pack_id] = pack
        self._waiting[pack.pack_id] = pack
        self._wanted.pulse()

    def arrive(self, pack: ClosedPack) -> None:
        """It is in the store, though not by our doing: in a record."""
        self._arrived[pack.pack_id] = pack
        self.on_arrival()

    @property
    def newest(self) -> int:
        """The highest pack that is under way, or arrived and not retired."""
        return max((*self._under_way, *self._arrived), default=0)

    async def wait(self, upto: int) -> None:
        """Until every pack up to this number is in the store, or one was salvaged. ReadOnly when writing ends before."""
        salvaged = self.salvaged
        while self.salvaged == salvaged and any(pack <= upto for pack in self._under_way):
            self._health.check()
            await self._moved.wait()
        self._health.check()

    def retire(self, upto: int) -> list[ClosedPack]:
        """Take those that arrived off the list."""
        return [self._arrived.pop(pack) for pack in sorted(self._arrived) if pack <= upto]

    @property
    def arrived(self) -> bool:
        return bool(self._arrived)

    @property
    def all_arrived(self) -> bool:
        """Something to retire, and nothing to wait for."""
        return bool(self._arrived) and not self._under_way

    async def run(self) -> None:
        """Until cancelled, or until writing ends."""
        async with trio.open_nursery() as nursery:
            for number in range(self._remote.slots(Lane.BULK) + 1):      # so that one more is loaded when one has been sent
                nursery.start_soon(self._work, number)

    async def _work(self, number: int) -> None:
        """The oldest pack first, whatever it takes. One that is not put, since writing has ended, stays under way: nothing may take it for
        stored. After a failure only one worker goes on until a pack has arrived: on a very slow line several would all take too long
        together, for ever."""
        backoff = Backoff(self._doors.random)
        while self._health.writable:
            if not self._waiting or (self._trouble and number) or not self._room_for(self._waiting[min(self._waiting)]):
                await self._wanted.wait()
                continue
            pack = self._waiting.pop(min(self._waiting))
            try:
                there = await self._bring(pack)
            except StoreError as exc:
                self._waiting[pack.pack_id] = pack
                self._trouble = True
                self._wanted.pulse()
                self._health.away("packs", f"store does not take packs: {exc}")
                await self._doors.clock.sleep(backoff.pause_s(exc))
            except Exception as exc:
                log.exception("pack=%s cannot be uploaded", pack.name)
                self._health.fail(exc)
            else:
                backoff.succeeded()
                self._settle(pack, there)

    def _room_for(self, pack: ClosedPack) -> bool:
        """Whether its bytes may be in memory beside those that are: one pack always may."""
        return not self._loaded_bytes or self._loaded_bytes + pack.size <= self._doors.limits.upload_memory_bytes

    def _settle(self, pack: ClosedPack, there: bool) -> None:
        if self._trouble:
            self._trouble = False
            self._wanted.pulse()
        self._health.back("packs")
        del self._under_way[pack.pack_id]
        self._perhaps_there.discard(pack.pack_id)
        if there:
            self._arrived[pack.pack_id] = pack
            self.on_arrival()
        else:
            self.salvaged += 1
        self._moved.pulse()

    async def _bring(self, pack: ClosedPack) -> bool:
        """Whether it is in the store; False: it never will be, it was salvaged."""
        self._loaded_bytes += pack.size
        try:
            return await self._put(pack)
        finally:
            self._loaded_bytes -= pack.size
            self._wanted.pulse()

    async def _put(self, pack: ClosedPack) -> bool:
        if not self._create_only and pack.pack_id in self._perhaps_there and await self._size_there(pack) == pack.size:
            return True
        try:
            data = await self._journal.load(pack.pack_id)
        except (Damaged, OSError):
            if self._salvage is None:
                raise
            return await self._salvage(pack)
        try:
            await self._remote.put(pack_key(pack.name), data, only_if_absent=self._create_only)
        except Exists:                        # the name is the hash of the bytes: they are there already, all of them or what came of a
            size = await self._size_there(pack)       # put that broke off, on a store that keeps it (S1)
            if size != pack.size:
                log.warning("pack %s was in the store with %d bytes of %d: it is put again", pack.name, size, pack.size)
                await self._remote.put(pack_key(pack.name), data)
        return True

    async def _size_there(self, pack: ClosedPack) -> int:
        try:
            return (await self._remote.stat(pack_key(pack.name))).size
        except NotFound:
            return 0
