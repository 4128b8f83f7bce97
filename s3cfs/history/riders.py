"""Small packs ride in the record of their commit: one PUT instead of two, and an fsync that waits for the store waits for one answer.

A pack of at most `ride_max_bytes` is held back when it is closed. If all that the next record needs and that is held is not more than that
together, the record takes them along (formats/record.py), and where they lie is noted with it (logbook.py); else they are put as objects.
So it costs a request less and their bytes once more: later they are packed together (packing.py). One whose bytes cannot be read whole
goes the way of any such pack: uploads.py salvages it.
"""
from __future__ import annotations

from dataclasses import dataclass

from s3cfs.blocks.journal import ClosedPack, Journal
from s3cfs.doors import Doors
from s3cfs.errors import Damaged
from s3cfs.formats.record import RIDERS_MAX, Rider
from s3cfs.history.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Passenger:
    pack: ClosedPack
    data: bytes

    @property
    def rider(self) -> Rider:
        return Rider(self.pack.pack_id, self.pack.name, self.pack.size)


class Riders:
    """`offer` and forget; `board` before a record, `landed` after it."""

    def __init__(self, doors: Doors, journal: Journal, uploads: Uploads) -> None:
        self._journal, self._uploads = journal, uploads
        self._most = doors.limits.ride_max_bytes
        self._held: dict[int, ClosedPack] = {}        # small, and in no record yet

    def offer(self, pack: ClosedPack) -> None:
        """A finished pack whose name its row has."""
        if pack.size <= self._most:
            self._held[pack.pack_id] = pack
        else:
            self._uploads.queue(pack)

    async def board(self, upto: int) -> list[Passenger]:
        """Of the packs up to this number: what rides in the record that names them. What does not is on its way as an object."""
        waiting = [pack for number, pack in sorted(self._held.items()) if number <= upto]
        if sum(pack.size for pack in waiting) > self._most or len(waiting) > RIDERS_MAX:
            for pack in waiting:
                self._put(pack)
            return []
        aboard = []
        for pack in waiting:
            try:
                aboard.append(Passenger(pack, await self._journal.load(pack.pack_id)))
            except (Damaged, OSError):
                self._put(pack)
        return aboard

    def _put(self, pack: ClosedPack) -> None:
        del self._held[pack.pack_id]
        self._uploads.queue(pack)

    def landed(self, aboard: list[Passenger]) -> None:
        """The record is in the history."""
        for one in aboard:
            del self._held[one.pack.pack_id]
            self._uploads.arrive(one.pack)
