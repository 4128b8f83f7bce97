"""Who may append to the log: one writer at a time.

Tier T1 (the store has create-only PUT). Every append is a create-only PUT on the next number in the *current* folder. A taker
puts a SEAL there that names its own, new folder; from then on that folder is current. So each number is contended for in exactly one
place, of several contenders one wins [S4], and a deposed writer finds a SEAL where its record should go. A taker that dies right
after its SEAL leaves an
empty current folder, and the next taker seals number n + 1 in *that*: nobody waits for the dead. SEALs are never deleted.

Tier T2 (linearizable PUT, GET and LIST, without create-only). Writers only write in their own folders, so nothing is ever
overwritten. A taker puts
`claim/<branch>/<epoch>-<nonce>`, lists the claims, withdraws when a higher one is there, then reads the tip and appends a CLAIM
record to its own folder.
A writer lists the claims after each PUT and acknowledges only if none is higher: whoever claimed before that PUT will depose it, whoever
claims after it will read the record. A record that arrives late in a deposed folder is in no history, since nobody's `prev` names it.

A T2 history may go on as T1 (its first T1 writer claims in T2's way, since a T2 zombie would overwrite a SEAL), never the
other way round: each record says under which tier it was written.

Tier `sole`: the owner declared that nobody else writes; the same as T2 (detection goes on, as well as it can).

INVARIANT F1: a record that `append` returned for is in the history for ever.
INVARIANT F2: the bytes of a record are durable locally before their first PUT, and every retry sends those same bytes.
"""
from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from s3cfs import ids
from s3cfs.doors import Doors
from s3cfs.errors import AlreadyMounted, Deposed, Exists, StoreError, Unsupported
from s3cfs.formats import record
from s3cfs.formats.record import Kind, Record
from s3cfs.formats.seal import Seals
from s3cfs.history.log import Tip, epoch_of, find_tip, list_log, read_record, tip_of
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_FIRST_S, RETRY_LONGEST_S = 0.5, 15.0


class Tier(enum.StrEnum):
    T1 = "T1"
    T2 = "T2"
    SOLE = "sole"


@dataclass(frozen=True, slots=True)
class Host:
    """Who writes, as precisely as a computer can be named, so that a dead process of this very machine is known to be dead."""

    boot_id: str = ""
    pid_namespace: str = ""
    pid: int = 0
    start_ticks: int = 0           # of the process, since boot: a pid alone is reused
    name: str = ""

    def to_info(self) -> dict[str, Any]:
        return {"boot": self.boot_id, "ns": self.pid_namespace, "pid": self.pid, "start": self.start_ticks, "host": self.name}

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> Host | None:
        raw = info.get("by")
        if not isinstance(raw, dict):
            return None
        return cls(str(raw.get("boot", "")), str(raw.get("ns", "")), int(raw.get("pid", 0)), int(raw.get("start", 0)),
                   str(raw.get("host", "")))

    def same_machine(self, other: Host) -> bool:
        return bool(self.boot_id) and self.boot_id == other.boot_id and self.pid_namespace == other.pid_namespace


class Writer:
    """One writer's time in office. `claim` first, then `append`, one at a time, then `append(RELEASE)`."""

    def __init__(self, doors: Doors, remote: Remote, tier: Tier, sealer_for: Callable[[int], Seals], host: Host,
                 process_alive: Callable[[Host], bool], *, every_s: float = 0.0) -> None:
        """`every_s`: while it has something to say this writer may be silent for so long; its records tell those who wait for silence."""
        self._every_s = every_s
        self._doors, self._remote, self.tier = doors, remote, tier
        self._sealer_for, self._host, self._alive = sealer_for, host, process_alive
        self.nonce = doors.random.bytes(8).hex()
        self.epoch = 0                       # 0: not claimed
        self.tip = Tip()
        self.last_size = 0                   # bytes of the last record appended
        self.away_since: float | None = None  # monotonic; set while the store does not answer an append
        self.away_cause = ""

    # ---------------------------------------------------------------- taking over

    async def claim(self, tip: Tip, *, force: bool = False, on_wait: Callable[[str], None] = lambda text: None) -> Tip:
        """Become the writer after `tip`, which the caller has read; returns the tip that the caller must read up to.

        Waits for silence unless the last writer released, is a dead process of this machine, or `force`. AlreadyMounted when it lives.
        """
        tip = await self._wait_for_silence(tip, force, on_wait)
        if self._by_seal(tip):
            owner = Host.from_info(tip.info)
            await self._claim_by_seal(tip, force or (owner is not None and self._host.same_machine(owner) and not self._alive(owner)))
        else:
            await self._claim_by_listing()
        return self.tip

    def _by_seal(self, tip: Tip) -> bool:
        """How office is taken after `tip`: T1's way, or T2's."""
        before = tip.info.get("tier")
        if before == Tier.T1 and self.tier is not Tier.T1:
            raise Unsupported("claim", tip.folder, "this store had create-only PUT at the last mount and does not seem to have it now; "
                              "a writer without it could not be fenced from one with it")
        return self.tier is Tier.T1 and before in (None, Tier.T1)

    async def _wait_for_silence(self, tip: Tip, force: bool, on_wait: Callable[[str], None]) -> Tip:
        owner = Host.from_info(tip.info)
        if tip.n == 0 or force:
            return tip
        if owner and self._host.same_machine(owner):
            if not self._alive(owner):
                return tip
            if not (tip.kind is Kind.RELEASE and tip.info.get("final")):
                raise AlreadyMounted(f"this filesystem is mounted by process {owner.pid} of this machine")
        if tip.kind is Kind.RELEASE:
            return tip
        who = f" on {owner.name}" if owner and owner.name else ""
        quiet_since = self._doors.clock.monotonic()
        silence_s = self._doors.limits.takeover_silence_s + float(tip.info.get("every", 0))
        on_wait(f"the last writer{who} did not sign off; waiting {silence_s:.0f} s to see whether it lives")
        while self._doors.clock.monotonic() - quiet_since < silence_s:
            await self._doors.clock.sleep(3.0)
            now = await find_tip(self._remote, self._sealer_for(0))
            if now.kind is Kind.RELEASE:
                return now
            if (now.key, now.hash) != (tip.key, tip.hash):
                raise AlreadyMounted(f"this filesystem is mounted{who} and being written to")
        return tip

    async def _claim_by_seal(self, tip: Tip, over_records: bool) -> None:
        """`over_records`: a record of the last writer that arrived meanwhile is no reason to stop: it is known to be dead, or `force`."""
        while True:
            epoch = max(tip.epoch, epoch_of(tip.folder)) + 1
            own = ids.epoch_prefix(epoch, self.nonce)
            key = f"{tip.folder}{tip.n + 1}"
            data = record.encode(self._record(Kind.SEAL, tip, epoch, {"next": own}), self._sealer_for(epoch))
            if await self._put_until_answered(key, data) is None:
                break
            found, there = await read_record(self._remote, key, self._sealer_for(epoch))
            if found.kind is Kind.SEAL:
                raise AlreadyMounted("another machine took this filesystem over just now")
            if not over_records and found.kind is not Kind.RELEASE:
                raise AlreadyMounted("this filesystem is mounted elsewhere and being written to")
            tip = tip_of(key, there, found)
        self.epoch = epoch
        self.tip = Tip(tip.n + 1, key, record.object_hash(data), epoch, Kind.SEAL, {"next": own})

    async def _claim_by_listing(self) -> None:
        epochs = [epoch for epoch, _ in await list_log(self._remote)] + [epoch for epoch, _ in await self._claims()]
        epoch = max(epochs, default=0) + 1
        mine = (epoch, self.nonce)
        await self._put_overwriting(ids.claim_key(*mine), b"s3cfs claim\n")
        if max(await self._claims()) > mine:
            await self._tidy(mine)
            raise AlreadyMounted("another machine is taking this filesystem over")
        tip = await find_tip(self._remote, self._sealer_for(epoch))   # after the claim: what comes later is deposed
        if tip.info.get("tier") == Tier.T1 and self._by_seal(tip):       # a T1 writer was first: it looks at no claims
            await self._claim_by_seal(tip, False)
            return
        key = ids.log_key(epoch, self.nonce, tip.n + 1)
        claim = self._record(Kind.CLAIM, tip, epoch, {})
        data = record.encode(claim, self._sealer_for(epoch))
        await self._put_overwriting(key, data)
        claims = await self._claims()
        if max(claims) > mine:
            raise AlreadyMounted("another machine took this filesystem over just now")
        self.epoch = epoch
        self.tip = Tip(claim.n, key, record.object_hash(data), epoch, Kind.CLAIM, claim.info)
        for other in claims:
            if other < mine:
                await self._tidy(other)

    async def _tidy(self, claim: tuple[int, str]) -> None:
        """A claim below the highest deposes nobody any more. Should it stay (these credentials may not delete), no harm is done."""
        try:
            await self._remote.delete(ids.claim_key(*claim))
        except StoreError as exc:
            log.info("an old claim stays: %s", exc)

    async def _claims(self) -> list[tuple[int, str]]:
        found = []
        for info in await self._remote.list(ids.claim_prefix()):
            epoch, _, nonce = info.key.rpartition("/")[2].partition("-")
            if epoch.isdigit():
                found.append((int(epoch), nonce))
        return found

    # ---------------------------------------------------------------- appending

    def _record(self, kind: Kind, tip: Tip, epoch: int, info: dict[str, Any], changeset: bytes = b"") -> Record:
        info = {"by": self._host.to_info(), "tier": str(self.tier), "prev_key": tip.key,
                **({"every": self._every_s} if self._every_s else {}), **info}
        return Record(kind, tip.n + 1, epoch, self.nonce, tip.hash, self._doors.clock.time_ns(), info, changeset)

    async def append(self, kind: Kind, info: dict[str, Any], changeset: bytes = b"", *,
                     keep: Callable[[int, bytes], Awaitable[None]] | None = None) -> Tip:
        """Append the next record; returns when it is in the history (F1). Deposed when another writer took over.

        `keep(n, data)` makes the bytes durable before the first PUT (F2). While the store is away this waits and tries
        again, for ever: cancel it to stop.
        """
        if not self.epoch:
            raise Deposed("not the writer")
        made = self._record(kind, self.tip, self.epoch, info, changeset)
        data = record.encode(made, self._sealer_for(self.epoch))
        if keep is not None:
            await keep(made.n, data)
        key = f"{self.tip.folder}{made.n}" if self.tier is Tier.T1 else ids.log_key(self.epoch, self.nonce, made.n)
        if self.tier is Tier.T1:
            if await self._put_until_answered(key, data) is not None:
                self.epoch = 0
                raise Deposed("another machine took this filesystem over; what it has not got is kept here and nothing more is written")
        else:
            await self._put_overwriting(key, data)
            claims = await self._until_answered(self._claims)
            if max(claims, default=(0, "")) > (self.epoch, self.nonce):
                self.epoch = 0
                raise Deposed("another machine took this filesystem over; what it has not got is kept here and nothing more is written")
        self.last_size = len(data)
        self.tip = Tip(made.n, key, record.object_hash(data), made.epoch, kind, made.info)
        return self.tip

    async def _put_until_answered(self, key: str, data: bytes) -> bytes | None:
        """Create-only PUT, settled: None when `data` is what the store holds now, else the other's bytes."""
        async def attempt() -> bytes | None:
            try:
                await self._remote.put(key, data, only_if_absent=True)
                return None
            except Exists:
                there = await self._remote.get(key)
                return None if there == data else there
        return await self._until_answered(attempt)

    async def _put_overwriting(self, key: str, data: bytes) -> None:
        """Plain PUT, into a folder only this writer writes to."""
        await self._until_answered(lambda: self._remote.put(key, data))

    async def _until_answered(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat until the store answers. While claiming only for so long; once in office for ever, whatever it says:
        credentials and buckets come back, and until then everything is kept here.
        """
        clock = self._doors.clock
        began, delay_s = clock.monotonic(), RETRY_FIRST_S
        while True:
            try:
                answer = await attempt()
            except StoreError as exc:
                if not self.epoch and (not exc.retryable or clock.monotonic() - began > self._doors.limits.store_deadline_s):
                    raise
                if self.away_since is None:
                    self.away_since = began
                    log.warning("store does not answer: %s", exc)
                self.away_cause = str(exc)
                await clock.sleep(self._doors.random.uniform(delay_s / 2, delay_s))
                delay_s = min(2 * delay_s, RETRY_LONGEST_S)
            else:
                if self.away_since is not None:
                    log.warning("store answers again after %.0f s", clock.monotonic() - self.away_since)
                self.away_since, self.away_cause = None, ""
                return answer
