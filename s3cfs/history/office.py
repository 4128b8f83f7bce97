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
A taker that reads a record after its claim which makes it stop (the writer lives) withdraws its claim; so a writer that sees a higher claim
looks a few times more before it believes that it is deposed.

Each record says under which tier it was written, and the newest one says under which tier the filesystem is: T1 and T2 do not see one
another. The first writer of all claims in T2's way even under T1, since another machine may have tried the store at the same
moment and found T2; so does the first T1 writer of a history that was T2. Then the first of all seals number 1 in a folder that all know
(log.GENESIS): on a store that is late two may both see no log, and not each other's claims. From T1 to T2 only `restate` leads, when
nobody is in office.

Tier `sole`: the owner declared that nobody else writes; the same as T2 (detection goes on, as well as it can).

Whom a taker may follow, without `Takeover.YES`:
    nobody yet, or a final RELEASE              at once
    a process that is known to be gone           at once: one of this machine that ended, or the one whose local state the taker has
    a process of this machine that lives         never
    RELEASE of a writer that was idle            never; at once with `Takeover.IDLE`: an idle writer is still a writer
    any other record                             after a silence: a living writer is never silent for so long without a RELEASE

INVARIANT F1: a record that `append` returned for is in the history for ever.
INVARIANT F4: nobody takes office beside a writer that may live, unless told to; of two at once one does.
INVARIANT F2: the bytes of a record with changes are durable locally before their first PUT, and every retry sends those same bytes.
"""
from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from s3cfs import ids
from s3cfs.doors import Doors
from s3cfs.errors import AlreadyMounted, Damaged, Deposed, Exists, NotFound, StoreError, Temporary, Unsupported
from s3cfs.formats import record
from s3cfs.formats.record import Kind, Record, Rider
from s3cfs.formats.seal import Seals
from s3cfs.history.log import Host, Tip, described, epoch_of, find_tip, moment, newest_epoch, number_of, read_record, tip_of
from s3cfs.remote import Backoff, Remote

log = logging.getLogger(__name__)

T = TypeVar("T")
LOOK_EVERY_S = 3.0                         # at the log, while waiting for silence
CLAIM_LOOKS_S = (0.5, 1.0, 2.0, 4.0)       # between looks at a claim that may be withdrawn
THREAD_MIN_BYTES = 64 << 10                # a changeset is encoded in a thread from this size


class Tier(enum.StrEnum):
    T1 = "T1"
    T2 = "T2"
    SOLE = "sole"


class Takeover(enum.StrEnum):
    """Whom a mount throws out."""

    NO = "no"                      # nobody who may live
    IDLE = "idle"                  # a writer that had nothing to say: for nodes that vanish and are made again by a program
    YES = "yes"                    # anybody


class Writer:
    """One writer's time in office. `claim` first, then `append`, one at a time, then `append(RELEASE)`."""

    def __init__(self, doors: Doors, remote: Remote, tier: Tier, sealer_for: Callable[[int], Seals], host: Host,
                 process_alive: Callable[[Host], bool], *, every_s: float = 0.0, former: str = "",
                 kept_in: str = "the local state of this machine",
                 newest: Callable[[], Awaitable[Tip]] | None = None) -> None:
        """`every_s`: while it has something to say this writer may be silent for so long; its records tell those who wait for silence.

        `former`: the writer that this local state belonged to before; whoever holds its lock knows that it is gone.
        `kept_in`: where changes stay that are in no commit, for messages.
        `newest` tells the tip where the newest record cannot be read (retreat.py).
        """
        self._every_s, self._former, self._kept_in = every_s, former, kept_in
        self._look = newest or (lambda: find_tip(remote, sealer_for(0)))
        self._doors, self._remote, self.tier = doors, remote, tier
        self._sealer_for, self._host, self._alive = sealer_for, host, process_alive
        self.nonce = doors.random.bytes(8).hex()
        self.epoch = 0                       # 0: not claimed
        self.tip = Tip()
        self.last_size = 0                   # bytes of the last record appended, without riders
        self.away_since: float | None = None  # monotonic; set while the store does not answer an append
        self.away_cause = ""
        self.took_over: str | None = None     # from whom, when it had not signed off for good
        self.own: dict[str, bytes] = {}       # by key: the records that it took office with

    @property
    def signed_off(self) -> bool:
        """It said that it has nothing to say: with `Takeover.IDLE` others may take office at any moment."""
        return self.tip.signed_off

    # ---------------------------------------------------------------- taking over

    async def claim(self, tip: Tip, *, takeover: Takeover = Takeover.NO, on_wait: Callable[[str], None] = lambda text: None) -> Tip:
        """Become the writer after `tip`, which the caller has read; returns the tip that the caller must read up to.

        See the module's text for whom it follows, and after which wait. AlreadyMounted otherwise.
        """
        before = await self._wait_for_silence(tip, takeover, on_wait)
        if self._by_seal(before):
            await self._claim_by_seal(before, takeover)
        else:
            await self._claim_by_listing(before, takeover)
        if before.n and not before.unmounted and not self._gone(before):
            self.took_over = (f"took this filesystem over from {described(before)}, whose last word is of {moment(before.time_ns)}; "
                              "what it has not sent stays there")
            on_wait(self.took_over)
        return self.tip

    def _by_seal(self, tip: Tip) -> bool:
        """How office is taken after `tip`: T1's way, or T2's."""
        before = tip.info.get("tier")
        if before == Tier.T1 and self.tier is not Tier.T1:
            raise Unsupported("claim", tip.folder, "this filesystem stands on create-only puts; a writer without them could not be fenced "
                              "from one with them")
        return self.tier is Tier.T1 and before == Tier.T1

    def _gone(self, tip: Tip) -> bool:
        """Whether the writer of `tip` is known to have ended."""
        owner = Host.from_info(tip.info)
        return (bool(self._former) and tip.writer == self._former) or (
            owner is not None and self._host.same_machine(owner) and not self._alive(owner))

    def _may_follow(self, tip: Tip, takeover: Takeover) -> bool:
        """True: at once; False: after a silence. AlreadyMounted: not at all."""
        if tip.n == 0 or takeover is Takeover.YES or tip.unmounted or self._gone(tip):
            return True
        owner = Host.from_info(tip.info)
        if owner and self._host.same_machine(owner):
            raise AlreadyMounted(f"this filesystem is mounted by process {owner.pid} of this machine")
        if not tip.signed_off:
            return False
        if takeover is Takeover.NO:
            raise AlreadyMounted(f"this filesystem is mounted on {described(tip)}, idle since {moment(tip.time_ns)}. Unmount it there; or, "
                                 "if that machine is gone or shall write no more, mount with --takeover (what it has not sent stays there)")
        return True

    async def _wait_for_silence(self, tip: Tip, takeover: Takeover, on_wait: Callable[[str], None]) -> Tip:
        if self._may_follow(tip, takeover):
            return tip
        quiet_since = self._doors.clock.monotonic()
        silence_s = self._doors.limits.takeover_silence_s + float(tip.info.get("every", 0))
        on_wait(f"the last writer, {described(tip)}, did not sign off; waiting {silence_s:.0f} s to see whether it lives")
        while self._doors.clock.monotonic() - quiet_since < silence_s:
            await self._doors.clock.sleep(LOOK_EVERY_S)
            over = self._doors.clock.monotonic() - quiet_since >= silence_s
            if not (over or await self._has_follower(tip)):
                continue
            now = await self._newest()
            if (now.key, now.hash) != (tip.key, tip.hash):
                if now.signed_off and self._may_follow(now, takeover):
                    return now
                raise self._lives(now)
        return tip

    async def _has_follower(self, tip: Tip) -> bool:
        """Whether something may have come after `tip`: with one request, or two. `_newest` knows for certain, with six.

        The next record can only lie behind `tip` in its folder, SEALs too; a CLAIM's writer has put its claim before.
        """
        try:
            await self._remote.get(ids.record_key(tip.folder, tip.n + 1))
        except NotFound:
            return self.tier is not Tier.T1 and max(await self._claims(), default=(0, "")) > (tip.epoch, tip.writer)
        return True

    async def _newest(self) -> Tip:
        return await self._look()

    def _lives(self, tip: Tip) -> AlreadyMounted:
        return AlreadyMounted(f"this filesystem is mounted on {described(tip)} and being written to. Unmount it there; or, if that "
                              "machine shall write no more, mount with --takeover (what it has not sent stays there)")

    def _refuse_if_alive(self, tip: Tip, now: Tip, takeover: Takeover) -> None:
        """`now` came after `tip`, which office was to be taken after."""
        if (now.key, now.hash) == (tip.key, tip.hash) or takeover is Takeover.YES or self._gone(now):
            return
        if now.kind in (Kind.SEAL, Kind.CLAIM):
            raise AlreadyMounted(f"{described(now)} took this filesystem over just now")
        if not (now.signed_off and self._may_follow(now, takeover)):
            raise self._lives(now)

    async def _claim_by_seal(self, tip: Tip, takeover: Takeover, least: int = 0) -> None:
        while True:
            epoch = max(least, tip.epoch + 1, epoch_of(tip.folder) + 1)
            own = ids.epoch_prefix(epoch, self.nonce)
            key = ids.record_key(tip.folder, tip.n + 1)
            seal = self._record(Kind.SEAL, tip, epoch, {"next": own}, key)
            data = record.encode(seal, self._sealer_for(epoch))
            if await self._put_until_answered(key, data) is None:
                break
            found, there = await read_record(self._remote, key, self._sealer_for(epoch))
            now = tip_of(key, there, found)
            if found.kind is Kind.SEAL:
                raise AlreadyMounted(f"{described(now)} took this filesystem over just now")
            if tip.current:                       # what came is in no chain with what is gone back to
                raise self._lives(now)
            self._refuse_if_alive(tip, now, takeover)
            tip = now
        self.epoch, self.tip = epoch, tip_of(key, data, seal)
        self.own[key] = data

    async def _claim_by_listing(self, before: Tip, takeover: Takeover, *, restating: bool = False) -> None:
        epoch = max([await newest_epoch(self._remote), *(epoch for epoch, _ in await self._claims())]) + 1
        mine = (epoch, self.nonce)
        say = record.encode(self._record(Kind.CLAIM, Tip(), epoch, {}, ""), self._sealer_for(epoch))
        await self._put_overwriting(ids.claim_key(*mine), say)
        highest = max(await self._claims(), default=(0, ""))
        if highest > mine:
            await self._tidy(mine)
            raise AlreadyMounted("another machine is taking this filesystem over")
        if highest < mine:
            raise Unsupported("claim", ids.claim_key(*mine), "this store does not list what it has just stored, so two machines that write "
                              "would not notice one another. Try again; if it stays so, only --sole-writer is left")
        try:
            tip = await self._newest()             # after the claim: what comes later is deposed
            by_seal = not restating and self._by_seal(tip)           # a T1 writer was first: it looks at no claims
            self._refuse_if_alive(before, tip, takeover)
        except (AlreadyMounted, Unsupported):
            await self._tidy(mine)
            raise
        if by_seal:
            await self._tidy(mine)
            await self._claim_by_seal(tip, takeover)
            return
        first = self.tier is Tier.T1 and not (tip.n or restating)
        if first:                              # others may see no log either, and not each other's claims
            await self._claim_by_seal(tip, takeover, epoch)
            self.epoch, tip = 0, self.tip
        key = ids.log_key(epoch, self.nonce, tip.n + 1)
        claim = self._record(Kind.CLAIM, tip, epoch, {}, key)
        data = record.encode(claim, self._sealer_for(epoch))
        if not first:
            await self._put_overwriting(key, data)
        elif await self._put_until_answered(key, data) is not None:
            raise self._lives(tip)
        if await self._outranked(mine):
            raise AlreadyMounted("another machine took this filesystem over just now")
        self.epoch, self.tip = epoch, tip_of(key, data, claim)
        self.own[key] = data
        for other in await self._claims():
            if other < mine:
                await self._tidy(other)

    async def _outranked(self, mine: tuple[int, str]) -> tuple[int, str] | None:
        """The claim above `mine`, if there is one that stays: a taker that finds a living writer withdraws."""
        for pause_s in (*CLAIM_LOOKS_S, None):
            highest = max(await self._until_answered(self._claims), default=(0, ""))
            if highest <= mine:
                return None
            records = await self._until_answered(partial(self._remote.folders, ids.epoch_prefix(*highest)))
            if records or pause_s is None:
                return highest
            await self._doors.clock.sleep(pause_s)
        raise AssertionError("the last look returns")

    async def _claim_of(self, who: tuple[int, str]) -> bytes | None:
        try:
            return await self._remote.get(ids.claim_key(*who))
        except NotFound:
            return None

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

    def _record(self, kind: Kind, tip: Tip, epoch: int, info: dict[str, Any], key: str, changeset: bytes = b"",
                riders: Sequence[Rider] = ()) -> Record:
        """What follows `tip` as `key`; a claim, which has none, is in no run."""
        left_out = tip.n - number_of(tip.key)
        info = {"by": self._host.to_info(), "tier": str(self.tier), "prev_key": tip.key, **({"skips": left_out} if left_out else {}),
                **({"run": list(tip.run_of_next(key))} if key else {}), **info}
        if every_s := max(self._every_s, info.get("every", 0.0)):
            info["every"] = every_s
        return Record(kind, tip.n + 1, epoch, self.nonce, tip.hash, self._doors.clock.time_ns(), info, changeset,
                      tuple(riders))

    async def append(self, kind: Kind, info: dict[str, Any], changeset: bytes = b"", riders: Sequence[Rider] = (),
                     cargo: Sequence[bytes] = (), *, keep: Callable[[int, bytes], Awaitable[None]] | None = None) -> Tip:
        """Append the next record; returns when it is in the history (F1). Deposed when another writer took over.

        `cargo`: the riders' bytes. `keep(n, data)` makes the object's bytes durable before the first PUT (F2). While the store is away this
        waits and tries again, for ever: cancel it to stop.
        """
        if not self.epoch:
            raise Deposed("not the writer")
        n = self.tip.n + 1
        key = ids.record_key(self.tip.folder, n) if self.tier is Tier.T1 else ids.log_key(self.epoch, self.nonce, n)
        made = self._record(kind, self.tip, self.epoch, info, key, changeset, riders)
        sealer = self._sealer_for(self.epoch)
        encode = partial(record.encode, made, sealer, cargo=cargo)
        data = await self._doors.threads.run(encode) if len(changeset) >= THREAD_MIN_BYTES else encode()
        if keep is not None:
            await keep(made.n, data)
        if self.tier is Tier.T1:
            there = await self._put_until_answered(key, data)
            if there is not None:
                raise self._deposed(there, made.n)
        else:
            await self._put_overwriting(key, data)
            while (above := await self._outranked((self.epoch, self.nonce))) is not None:
                claim = await self._until_answered(partial(self._claim_of, above))
                if claim is not None:             # else it was withdrawn just now
                    raise self._deposed(claim, 1)
        self.last_size = record.head_bytes(data)
        self.tip = tip_of(key, data, made)
        return self.tip

    def _deposed(self, data: bytes, n: int) -> Deposed:
        """Out of office; `data` is the record or claim of whoever took it."""
        self.epoch = 0
        try:
            taker = tip_of("", data, record.decode(data, n, self._sealer_for(0)))
            who, when = described(taker), f" at {moment(taker.time_ns)}"
        except Damaged:
            who, when = "another machine", ""
        return Deposed(f"{who} took this filesystem over{when}: nothing more is written here, and changes that are in no commit stay in "
                       f"{self._kept_in}")

    async def restate(self, tip: Tip, tier: Tier, *, takeover: Takeover = Takeover.NO) -> Tip:
        """Note in the log that the filesystem is under `tier` from now on, after `tip`, whose writer has left office.

        For a store that changed; nobody may mount meanwhile. AlreadyMounted when somebody is, or may be, in office.
        """
        if not (self._may_follow(tip, takeover)):
            raise AlreadyMounted(f"the last writer, {described(tip)}, did not sign off: mount and unmount the filesystem first, or give "
                                 "--takeover if it is certainly gone")
        self.tier = Tier.T2                       # whose records need no create-only put
        await self._claim_by_listing(tip, takeover, restating=True)
        return await self.append(Kind.RELEASE, {"final": True, "tier": str(tier)})

    async def _put_until_answered(self, key: str, data: bytes) -> bytes | None:
        """Create-only PUT, settled: None when `data` is what the store holds now, else the other's bytes."""
        async def attempt() -> bytes | None:
            try:
                await self._remote.put(key, data, only_if_absent=True)
                return None
            except Exists:
                try:
                    there = await self._remote.get(key)
                except NotFound:
                    raise Temporary("get", key, "the key is taken, and the store does not show yet by what") from None
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
        began, backoff = clock.monotonic(), Backoff(self._doors.random)
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
                await clock.sleep(backoff.pause_s(exc))
            else:
                if self.away_since is not None:
                    log.warning("store answers again after %.0f s", clock.monotonic() - self.away_since)
                self.away_since, self.away_cause = None, ""
                return answer
