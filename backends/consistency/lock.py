"""The consistency lock: operations on one key follow one another, and an answer that is older than what was done is never given.

For stores that need time: a gateway that goes on with a put whose caller has left, caches that show what was there before, deletes of
what was just written that do not take. It works per key (grants.py, turns.py):

- Many readers or one writer, in the order in which they asked. After a write or delete, answered or not, nobody has the key for the
  protective delay. A delete of several keys has all of them at once. Who waits holds nothing, no thread and no slot, and no other key.
- A put or delete whose caller was cancelled goes on in its thread. It keeps its key until that has ended (`Running`), and the delay
  counts from then; so its repetition waits.
- A listing waits for the writes below its prefix that were under way when it was asked for, and for the delays of then. Writes do not
  wait for listings: S3 promises what was put before, and what changes while a listing runs may be in it or not. Nor does it wait for
  what begins later, so that a log that is always written to cannot keep it for ever.
- What a key must hold is known for a while (truth.py) and compared with each answer that is whole and that no write was beside (judge.py).
  A part of an object says nothing about the rest, so of a key that may have had other content before, all is read, and cut.
- What is wrong is asked for again (`Stale`, `Corrupt`): the promise of `Remote` ends that, and so does the end of what is known. A listing
  that is wrong again and again is put right by what is known. What another machine did to such a key is believed after `lock_memory` at
  the latest.
- Who reads a small object during its delay gets what was put and acknowledged, without a request (young.py): a mount reads its own records.
- What is known and what is in a delay survives a restart (keep.py).

Time in which the lock holds a call back is no silence of the store; but while another call has the key, it is that one's silence, and after
an old answer it is the store's.

INVARIANT H1: while a key has a writer, also one whose caller has left, or is in its delay, nobody else reads or writes it; a caller that
has left waits for nothing and holds nothing else.
INVARIANT H2: no answer is older than the last change of its keys that ended before it was asked for, as long as that is known.
"""
from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import trio

from s3cfs.backends.consistency import bounds, judge
from s3cfs.backends.consistency.bounds import Mode
from s3cfs.backends.consistency.conditions import Changed, Conditions, Evidence, Kind, Stale
from s3cfs.backends.consistency.grants import Ticket
from s3cfs.backends.consistency.judge import Wrong
from s3cfs.backends.consistency.keep import Keep
from s3cfs.backends.consistency.truth import Content, Held, Known, Listing, Sizes, Truth
from s3cfs.backends.consistency.turns import NAME, OLD, Turns
from s3cfs.backends.consistency.young import Young
from s3cfs.backends.layer import Call, Lane, Layer, Running, Store
from s3cfs.backends.progress import Progress
from s3cfs.backends.types import Body, Degraded, ObjectInfo
from s3cfs.doors import Doors
from s3cfs.errors import ConfigError, Corrupt, Exists, NotFound, StoreError, Temporary, Throttled

T = TypeVar("T")

LISTING = f"{NAME} listing"        # in `Call.kept`, with operation and prefix
KEYS_TOLD = 10                     # of a listing that is wrong
DONE, PERHAPS, FAILED, REFUSED, UNKNOWN = "done", "perhaps", "failed", "refused", "unknown"      # how a write ended; REFUSED needs no delay


class _Change(Running):
    """One write: what it is, what of it is under way, how it ended."""

    def __init__(self, held: Held, above: Running | None, *, only: bool = False, data: Body | None = None) -> None:
        """`above`: of a layer that wants to know, too."""
        super().__init__()
        self.held, self.only, self.data = held, only, data
        self.outcome, self.sent = PERHAPS, False
        self.name = ""             # in `Keep`
        self._above = above

    def began(self) -> None:
        self.sent = True
        super().began()
        if self._above is not None:
            self._above.began()

    def ended(self) -> None:
        super().ended()
        if self._above is not None:
            self._above.ended()


class Lock(Layer):
    """See the module's text."""

    name = NAME
    keeps_state = True

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.truth = Truth(bounds.KEYS_KNOWN)
        self.turns = Turns(conditions)
        self._young = Young()
        self._keep: Keep | None = None                 # while its background work runs
        self._ended = trio.Event()                     # there is something to write down
        self._told: Counter[Kind] = Counter()
        self._put_right = self._restored = 0
        conditions.watch(self.turns.bounds_changed)

    def stand_on(self, below: Store, doors: Doors, folder: str) -> None:
        super().stand_on(below, doors, folder)
        self.turns.stand_on(doors)

    @property
    def _bounds(self) -> bounds.Bounds:
        return self.conditions.bounds

    @property
    def _now(self) -> float:
        return self.doors.clock.monotonic()

    # ------------------------------------------------------------ life

    async def run(self) -> None:
        keep = Keep(self.doors.disk, self.state, self.doors.clock)
        self._restore(keep)                            # before anything is asked: nothing is awaited
        self._keep = keep
        try:
            while True:
                await self._ended.wait()
                await self.doors.clock.sleep(bounds.SAVE_EVERY)
                self._ended = trio.Event()
                keep.save()
                oldest = self._now - max(self._bounds.lock_memory, self.turns.longest_s)
                self.truth.tidy(oldest)
                keep.tidy(oldest)
        finally:
            self._keep = None
            keep.close()

    def _restore(self, keep: Keep) -> None:
        """What earlier processes did, as if this one had done it so long ago. What has no end may still be under way."""
        now, longest_s = self._now, self.turns.longest_s
        matters_s = max(self._bounds.lock_memory, longest_s)
        for one in keep.load():
            if not one.outcome and one.began_ago <= matters_s:
                one.outcome, one.delay_s = PERHAPS, self.turns.delay_s()
                keep.ended(one.name, one.outcome, False, one.delay_s)
            if not one.outcome or one.ended_ago > matters_s:
                continue
            self._restored += len(one.keys)
            for key in one.keys:
                self._settle(key, one.held, one.outcome, one.only, now - one.ended_ago)
            rest_s = min(one.delay_s - one.ended_ago, longest_s)
            if rest_s > 0.0:
                ticket = Ticket("write", one.keys, True, "an earlier process", now - one.ended_ago, Progress())
                self.turns.grants.force(ticket, ticket.since)
                self.turns.give_back(ticket, rest_s)
        keep.save()

    # ------------------------------------------------------------ for people

    def status(self) -> Mapping[str, Any]:
        return {"mode": str(self._bounds.lock_mode), "delay_s": self.conditions.delay_s, **self.turns.status(), "known": len(self.truth),
                "stale": self._told[Kind.STALE], "ghosts": self._told[Kind.GHOST], "lost": self._told[Kind.LOST],
                "corrupt": self._told[Kind.CORRUPT], "put_right": self._put_right, "restored": self._restored,
                "not_kept": 0 if self._keep is None else self._keep.failures}

    def settings(self) -> Mapping[str, str]:
        return {option: value for option, value in self._bounds.told().items() if option.startswith("lock-")}

    def change(self, setting: str, value: str) -> None:
        if setting not in self.settings():
            raise ConfigError(f"layer {NAME} has no setting {setting!r}")
        self.conditions.change(setting, value)

    # ------------------------------------------------------------ writing

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        # Where nothing was there before nothing older can be shown, and its size is enough to know it by.
        is_first = only_if_absent and self.truth.of(key, -math.inf) is None
        held = Content(len(data), b"") if is_first or self.turns.mode is Mode.OFF else await self._content(data)
        change = _Change(held, call.running, only=only_if_absent, data=data)
        return await self._write("put", (key,), change, call, lambda call: self.below.put(key, data, only_if_absent, call))

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        change = _Change(None, call.running)
        await self._write("delete", tuple(dict.fromkeys(keys)), change, call, lambda call: self.below.delete(keys, call))

    async def _write(self, operation: str, keys: tuple[str, ...], change: _Change, call: Call, send: Callable[[Call], Awaitable[T]]) -> T:
        ticket = await self.turns.take(operation, keys, True, call)
        try:
            if self._keep is not None:
                change.name = self._keep.began(keys, change.held)
            for key in keys:
                self.truth.begins(key, change.held)
                self._young.forget(key)
            answer = await send(replace(call, running=change))
            change.outcome = DONE
            return answer
        except Exists:
            change.outcome = REFUSED
            self._refuse_ghost(keys[0], call)
            raise
        except StoreError as error:
            if not isinstance(error, Temporary | Corrupt) and len(keys) == 1:      # of several some may be gone
                change.outcome = FAILED
            raise
        finally:
            ticket.given_up = change.count > 0
            change.when_none(partial(self._written, ticket, change))
            if self._keep is not None:
                self._keep.save()                              # before its caller hears of it

    def _written(self, ticket: Ticket, change: _Change) -> None:
        """Nothing of it is under way any more. It touches no disk and does not fail."""
        if not change.sent:
            change.outcome = REFUSED
        elif change.outcome != REFUSED and (self.turns.mode is Mode.OFF or ticket.beside):
            change.outcome = UNKNOWN                           # which came last
        delay_s = 0.0 if change.outcome == REFUSED else self.turns.delay_s()
        for key in ticket.keys:
            self._settle(key, change.held, change.outcome, change.only, self._now)
        self.turns.give_back(ticket, delay_s)
        if change.data is not None and change.outcome == DONE:
            self._young.keep(ticket.keys[0], change.data, self._now + delay_s)
        if self._keep is not None and change.name:
            self._keep.ended(change.name, change.outcome, change.only, delay_s)
            self._ended.set()

    def _settle(self, key: str, held: Held, outcome: str, only: bool, at: float) -> None:
        if outcome == DONE:
            self.truth.done(key, held, at, only=only)
        elif outcome == PERHAPS:
            self.truth.perhaps(key, held, at)
        elif outcome == UNKNOWN:
            self.truth.forget(key)
        else:
            self.truth.failed(key, held)

    def _refuse_ghost(self, key: str, call: Call) -> None:
        """The store says that a key is taken where everything was deleted. So it did not carry the put out: it may be asked again."""
        known = self.truth.of(key, self._now - self._bounds.lock_memory)
        if known is not None and known.base is None and not known.perhaps and self.turns.mode is not Mode.OFF:
            self._tell("put", key, known, Wrong(Kind.GHOST, "an object, where everything was deleted"), call)
            raise Throttled("put", key, "the store still shows what was deleted", refused=True)

    # ------------------------------------------------------------ reading

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        if self.turns.mode is Mode.OFF:
            return await self.below.get(key, offset, size, call)
        if (data := self._of_young(key, call)) is not None and offset >= 0 and (size is None or size >= 0):
            return bytes(data[offset:None if size is None else offset + size])
        ticket = await self.turns.take("get", (key,), False, call)
        try:
            return await self._get(key, offset, size, call)
        finally:
            self.turns.give_back(ticket)

    async def _get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        asked = self.truth.changes
        known = self._known(key, asked)
        is_part = offset > 0 or size is not None
        if is_part and known is not None and not known.only and offset >= 0 and (size is None or size >= 0):
            data = await self._get(key, 0, None, call)
            return data[offset:None if size is None else offset + size]
        try:
            data = await self.below.get(key, offset, size, call)
        except NotFound:
            self._compare("get", key, asked, call, lambda known: self._of_size(known, None))
            self._seen(key, None)
            raise
        if is_part:
            self._compare("get", key, asked, call, lambda known: judge.of_part(known, offset, size, len(data)))
        elif (known := self._compare("get", key, asked, call, lambda known: self._of_size(known, len(data)))) is not None:
            hashed = any(held is not None and held.digest for held in known.may_be)
            found = await self._content(data) if hashed else Content(len(data), b"")
            self._compare("get", key, asked, call, lambda known: judge.of_content(known, found))
            self.truth.seen(key, lambda held: held is not None and held.agrees(found), surely=hashed)
        return data

    async def stat(self, key: str, call: Call) -> ObjectInfo:
        if self.turns.mode is Mode.OFF:
            return await self.below.stat(key, call)
        if (data := self._of_young(key, call)) is not None:
            return ObjectInfo(key, len(data))
        ticket = await self.turns.take("stat", (key,), False, call)
        asked = self.truth.changes
        try:
            info = await self.below.stat(key, call)
            self._compare("stat", key, asked, call, lambda known: self._of_size(known, info.size))
            self._seen(key, info.size)
            return info
        except NotFound:
            self._compare("stat", key, asked, call, lambda known: self._of_size(known, None))
            self._seen(key, None)
            raise
        finally:
            self.turns.give_back(ticket)

    def _of_young(self, key: str, call: Call) -> Body | None:
        """What it holds, for whom would have to wait otherwise. Who looks after the store wants to hear the store."""
        return self._young.of(key, self._now) if self.turns.mode is Mode.BLOCK and call.lane is not Lane.QUIET else None

    async def _content(self, data: Body) -> Content:
        digest = _digest(data) if len(data) <= bounds.SMALL_BODY else await self.doors.threads.run(_digest, data)
        return Content(len(data), digest)

    def _known(self, key: str, asked: int) -> Known | None:
        """What it must hold in an answer that was asked for when there had been so many changes, if that can be said."""
        known = self.truth.of(key, self._now - self._bounds.lock_memory)
        return None if known is None or known.number > asked or self.turns.grants.is_written(key) else known

    def _of_size(self, known: Known, size: int | None) -> Wrong | None:
        return judge.of_size(known, known.sizes, size, self._now - known.since, self.turns.longest_s)

    def _compare(self, operation: str, key: str, asked: int, call: Call, verdict: Callable[[Known], Wrong | None]) -> Known | None:
        """What is known of it, and then it is as it must be; Stale, Corrupt if not."""
        known = self._known(key, asked)
        if known is not None and (wrong := verdict(known)) is not None:
            self._tell(operation, key, known, wrong, call)
            text = f"the store shows {wrong.text} {self._now - known.since:.1f} s ago"
            raise Changed(operation, key, text) if wrong.kind is Kind.CORRUPT else Stale(operation, key, text, absent=wrong.absent)
        return known

    def _seen(self, key: str, size: int | None) -> None:
        self.truth.seen(key, lambda held: size == (None if held is None else held.size), surely=False)

    def _tell(self, operation: str, key: str, known: Known, wrong: Wrong, call: Call) -> None:
        now = self._now
        age_s = now - known.since
        text = f"{operation} of {key} by {call.caller or 'somebody'} shows {wrong.text} {age_s:.1f} s ago"
        self._told[wrong.kind] += 1
        call.kept[OLD] = True
        self.turns.warnings.say(now, key, f"{NAME}: {text}")
        self.conditions.tell(Evidence(wrong.kind, operation, key, age_s, text))
        self.turns.grants.extend(key, now, min(self.conditions.delay_s, bounds.AGAIN_MOST))

    # ------------------------------------------------------------ listings

    async def folders(self, prefix: str, call: Call) -> list[str]:
        listing = await self._begin_listing("folders", prefix, call)
        names = await self.below.folders(prefix, call)
        missing = judge.of_folders(prefix, set(names), self._known_below(listing), self._now, self.turns.longest_s)
        return [*names, *missing] if self._is_wrong("folders", listing, list(missing.values()), call) else names

    async def _begin_listing(self, operation: str, prefix: str, call: Call) -> Listing:
        """The same one at each attempt of its call: it may go on where the one before broke off."""
        listing: Listing = call.kept.setdefault(f"{LISTING} {operation} {prefix}", Listing(prefix, self._now))
        await self.turns.before_listing(operation, prefix, listing.at, call)
        self.truth.sends(listing)
        return listing

    def _known_below(self, listing: Listing) -> Sequence[tuple[str, Known, Sizes]]:
        return () if self.turns.mode is Mode.OFF else self.truth.below(listing, self._now - self._bounds.lock_memory)

    def _is_wrong(self, operation: str, listing: Listing, wrong: Sequence[judge.Found], call: Call) -> bool:
        """Stale, the first times."""
        if not wrong:
            return False
        for key, known, one in wrong[:KEYS_TOLD]:
            self._tell(operation, key, known, one, call)
        listing.times_old += 1
        if listing.times_old < bounds.LISTINGS_ASKED:
            key, _, one = wrong[0]
            raise Stale(operation, listing.prefix, f"{len(wrong)} keys there are not shown as they must be, among them {key}: {one.text}")
        self._put_right += 1
        return True

    async def list(self, prefix: str, call: Call) -> list[ObjectInfo]:
        listing = await self._begin_listing("list", prefix, call)
        infos = await self.below.list(prefix, call)
        if not (known := self._known_below(listing)):
            return infos
        found = {info.key: info for info in infos}
        wrong = judge.of_listing(found, known, self._now, self.turns.longest_s)
        if self._is_wrong("list", listing, wrong, call):
            return judge.put_right(found, wrong)
        for key, _, _ in known:
            self._seen(key, found[key].size if key in found else None)
        return infos


def _digest(data: Body) -> bytes:
    """SHA-256: what OpenSSL does without the interpreter's lock, and most processors have instructions for."""
    return hashlib.sha256(data).digest()[:16]
