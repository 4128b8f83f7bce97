"""The writer's own end of the log: one record after another, and what this machine notes of each.

INVARIANT C3: the outbox loses a row only in the local transaction that notes the record which carried it: `_note`, the one place where
either happens, awaits nothing.
INVARIANT F2 (with office.py): the bytes of a record that carries changes are durable here before their first PUT. Records without
changes (signs of life) are not kept: one that arrived without an answer says nothing that the next process must recognise. So they need
no local disk and go out however slow it is.
"""
from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from s3cfs.doors import Doors
from s3cfs.formats.record import Kind, Rider, bases
from s3cfs.history.backlog import Backlog
from s3cfs.history.health import Health
from s3cfs.history.localtip import LocalTip, pending_name
from s3cfs.history.log import Tip
from s3cfs.history.office import Writer
from s3cfs.history.riders import Passenger
from s3cfs.meta import Meta

log = logging.getLogger(__name__)


class Logbook:
    def __init__(self, doors: Doors, meta: Meta, writer: Writer, health: Health, backlog: Backlog) -> None:
        self._doors, self._meta, self._writer, self._health, self._backlog = doors, meta, writer, health, backlog
        self._turn = trio.Lock()                  # the next record names the one before
        self._kept: list[int] = []                # records whose bytes are kept locally
        self.last_append = doors.clock.monotonic()
        self.signed_off = False                   # the newest record is, or is about to be, a RELEASE

    @property
    def in_office(self) -> bool:
        return bool(self._writer.epoch) and self._health.writable

    @property
    def tip(self) -> Tip:
        return self._writer.tip

    async def commit(self, upto: int, count: int, changeset: bytes, aboard: Sequence[Passenger] = ()) -> Tip:
        """A COMMIT with the rows of the outbox up to `upto`, `count` transactions, and what rides in it. Returns when it is in the history
        and noted.

        While it goes up nothing else can be appended: a large one is announced, so that on a slow line the silence is not taken for death.
        """
        async with self._turn:
            silent_s = (len(changeset) + sum(one.pack.size for one in aboard)) / self._doors.limits.slow_line_bytes_s
            if silent_s > self._doors.limits.heartbeat_s:
                await self._append(Kind.COMMIT, {"outbox": 0, "transactions": 0, "every": silent_s})
            return await self._append(Kind.COMMIT, {"outbox": upto, "transactions": count}, changeset, upto, aboard)

    async def sign_of_life(self) -> None:
        """An empty COMMIT."""
        async with self._turn:
            await self._append(Kind.COMMIT, {"outbox": 0, "transactions": 0})

    async def sign_off(self, *, final: bool) -> None:
        """A RELEASE. `signed_off` is set before it is put: whoever relies on this office meanwhile asks again."""
        async with self._turn:
            self.signed_off = True
            await self._append(Kind.RELEASE, {"final": final})

    async def _append(self, kind: Kind, info: dict[str, object], changeset: bytes = b"", upto: int = 0,
                      aboard: Sequence[Passenger] = ()) -> Tip:
        riders = [one.rider for one in aboard]
        try:
            tip = await self._writer.append(kind, info, changeset, riders, [one.data for one in aboard], keep=self._keep if upto else None)
        except Exception as exc:
            self._health.fail(exc)
            raise
        self.last_append = self._doors.clock.monotonic()
        self.signed_off = kind is Kind.RELEASE
        self._note(tip, upto, riders)
        self._health.back("log")
        return tip

    def _note(self, tip: Tip, upto: int, riders: Sequence[Rider]) -> None:
        """C3, and where riders lie: from now on rows of the history name them."""
        LocalTip.load(self._meta).advanced(tip, self._writer.last_size).save(self._meta)
        if upto:
            self._meta.drop_outbox(upto)
            self._backlog.drop(upto)
        for rider, base in bases(self._writer.last_size, riders):
            self._meta.note_riding(rider.pack, tip.key, base)

    # ---------------------------------------------------------------- F2

    async def _keep(self, n: int, data: bytes) -> None:
        """The bytes go when a durable transaction notes that the record arrived."""
        self._kept.append(n)
        await self._doors.threads.run(self._keep_in_thread, n, data)

    def _keep_in_thread(self, n: int, data: bytes) -> None:
        disk = self._doors.disk
        file = disk.open(pending_name(n), create=True)
        try:
            file.pwrite(data, 0)
            file.fsync()
        finally:
            file.close()
        disk.sync_dir("journal")

    def noted(self) -> list[int]:
        """Kept records that the open transaction, or an earlier one, notes."""
        if not self._kept:
            return []
        n = LocalTip.load(self._meta).n
        return [kept for kept in self._kept if kept <= n]

    def let_go(self, records: list[int]) -> None:
        """That transaction is on disk. What the disk does not let go of is tried again after the next one: it harms nobody."""
        for n in records:
            try:
                self._doors.disk.unlink(pending_name(n))
            except OSError as error:
                log.warning("%s stays for now: %s", pending_name(n), error)
                return
            self._kept.remove(n)
