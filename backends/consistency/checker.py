"""The background checker: looks again at what was written and deleted, repairs what the store lost, and lets the delay follow what is seen.

A layer above the lock. All traffic passes it, so it knows what was put and deleted here (watch.py) and hears every error. It looks at
each object soon after and again at growing intervals (rounds.py): existence and size, by turns asked for directly and by a listing of
its folder, one for many; of a sample the content. At once where the traffic is suspicious. When nothing is left to look at, it makes no
request.

What is not as it must be gets time first, looks at growing distances: an old answer is no loss. Only what is missing when the store has
had the longest time that is plausible is repaired (repair.py), from the local copy, or it is reported: in the log, in `status`, as
degraded. An object that was deleted and does not go is deleted once more. Claims and probes come and go by others' hands; their absence
is no find.

Everything that is told (conditions.py) passes the book (book.py) and its state machine (intervals.py); what they decide is kept, over a
remount too (decisions.py, keeping.py).
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import trio

from s3cfs.backends.consistency import bounds as names
from s3cfs.backends.consistency.book import Book
from s3cfs.backends.consistency.budget import Budget
from s3cfs.backends.consistency.conditions import Conditions, Evidence, Kind, Stale, trouble
from s3cfs.backends.consistency.decisions import Decisions
from s3cfs.backends.consistency.intervals import UNQUIET
from s3cfs.backends.consistency.keeping import Keeping
from s3cfs.backends.consistency.looks import Looks, Saw, judged
from s3cfs.backends.consistency.rounds import Rounds, evidence_of
from s3cfs.backends.consistency.suspicion import Storm
from s3cfs.backends.consistency.watch import BODY_BYTES, TRANSIENT, Watch, Watched
from s3cfs.backends.layer import Call, Layer, Store
from s3cfs.backends.types import Body, Degraded, ObjectInfo
from s3cfs.doors import Doors
from s3cfs.errors import ConfigError, Corrupt, NotFound, Temporary

HASTE_S = 10.0                     # one object is not looked at out of turn again within this
HASTENED = 20                      # objects that are looked at when a storm is over
OWN = tuple(option for option in names.OPTIONS if not option.startswith("lock-"))
THE_LOCKS = tuple(option for option in names.OPTIONS if option.startswith("lock-delay"))


class Checker(Layer):
    """See the module's text."""

    name = "checker"
    keeps_state = True

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self._storm = Storm()

    def stand_on(self, below: Store, doors: Doors, folder: str) -> None:
        super().stand_on(below, doors, folder)
        conditions, decisions, budget = self.conditions, Decisions(), Budget()
        self._budget, self._decisions = budget, decisions
        self._keeping = Keeping(doors, self.state, conditions, budget, decisions)
        self._book = Book(doors.clock, conditions, decisions, self._keeping.wake.set)
        self._looks = Looks(below, doors, conditions, budget, self.originals)
        self._watch = Watch(lambda: conditions.bounds.check_delays, lambda: max(2, conditions.bounds.checks_per_minute // 2),
                            lambda count: min(count - 1, int(doors.random.uniform(0.0, count))))
        self._rounds = Rounds(below, doors.clock, conditions, self._watch, self._looks, self._book)
        conditions.listen(self._heard)
        conditions.watch(self._looks.wake.set)

    def _now(self) -> float:
        return self.doors.clock.monotonic()

    async def run(self) -> None:
        await self._keeping.take_over()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keeping.run)
                await self._rounds.run()
        finally:
            with trio.CancelScope(shield=True):
                await self._keeping.save()

    # ------------------------------------------------------------ traffic

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        former = self._watch.forget(key)
        with self._noticing("put", key):
            answer = await self.below.put(key, data, only_if_absent, call)
        watched = Watched(key, True, self._now(), len(data), rewritten=former is not None)
        if self.doors.random.uniform(0.0, 1.0) < self.conditions.bounds.check_sample:
            watched.digest, watched.content = await self._looks.digest(data), True
        if len(data) <= BODY_BYTES:
            watched.body = bytes(data)
        self._begin(watched)
        return answer

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        former = [self._watch.forget(key) is not None for key in keys]
        with self._noticing("delete", keys[0] if keys else ""):
            await self.below.delete(keys, call)
        for key, known in zip(keys, former, strict=True):
            self._begin(Watched(key, False, self._now(), rewritten=known))

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        began = self._now()
        with self._noticing("get", key):
            data = await self.below.get(key, offset, size, call)
        self._is_there("get", key, began)
        return data

    async def stat(self, key: str, call: Call) -> ObjectInfo:
        began = self._now()
        with self._noticing("stat", key):
            info = await self.below.stat(key, call)
        self._is_there("stat", key, began)
        return info

    async def folders(self, prefix: str, call: Call) -> list[str]:
        with self._noticing("folders", prefix):
            return await self.below.folders(prefix, call)

    async def list(self, prefix: str, call: Call) -> list[ObjectInfo]:
        began = self._now()
        with self._noticing("list", prefix):
            infos = await self.below.list(prefix, call)
        self._looks.folders.note(prefix, len(infos))
        if known := [watched for watched in self._watch.below(prefix) if watched.put_here and watched.since < began]:
            sizes = {info.key: info.size for info in infos}
            for watched in known:
                saw = judged(watched, sizes.get(watched.key))
                if saw is not Saw.WELL and not (saw is Saw.MISSING and watched.kind in TRANSIENT):
                    self._suspect(watched, saw, "list")
        return infos

    @contextlib.contextmanager
    def _noticing(self, operation: str, key: str) -> Iterator[None]:
        began = self._now()
        try:
            yield
        except Stale:                              # whoever knew has told
            raise
        except NotFound:
            self._is_missing(operation, key, began)
            raise
        except Corrupt:
            self._hasten(self._watch.get(key), content=True)
            raise
        except Temporary as error:
            self.conditions.tell(Evidence(trouble(error), operation, key, text=str(error)))
            raise
        if self._storm.over():
            for watched in self._watch.newest(HASTENED):
                self._hasten(watched)

    def _begin(self, watched: Watched) -> None:
        if self.conditions.bounds.check_delays:
            self._watch.add(watched)
            self._looks.wake.set()

    # ------------------------------------------------------------ suspicion

    def _is_missing(self, operation: str, key: str, began: float) -> None:
        watched = self._watch.get(key)
        if watched is None and operation == "get" and self.originals.has(key):         # who asks has read that it is there
            self._begin(Watched(key, True, self._now(), put_here=False))
            self._hasten(self._watch.get(key))
        elif watched is not None and watched.there and watched.since < began and watched.kind not in TRANSIENT:
            self._suspect(watched, Saw.MISSING, operation)

    def _is_there(self, operation: str, key: str, began: float) -> None:
        self._book.is_there(key)
        watched = self._watch.get(key)
        if watched is not None and not watched.there and watched.since < began:
            self._suspect(watched, Saw.GHOST, operation)

    def _suspect(self, watched: Watched, saw: Saw, operation: str) -> None:
        """Somebody's request did not see what it should."""
        if saw is Saw.WRONG or not watched.put_here:
            self._hasten(watched, content=saw is Saw.WRONG)
        else:
            self.conditions.tell(evidence_of(watched, saw, operation, self._now()))

    def _heard(self, evidence: Evidence) -> None:
        if evidence.kind is Kind.FAILED:
            self._storm.failed(self._now())
        if evidence.kind in UNQUIET:
            self._hasten(self._watch.get(evidence.key), content=evidence.kind is Kind.CORRUPT)

    def _hasten(self, watched: Watched | None, *, content: bool = False) -> None:
        """Look at it at once, out of turn."""
        if watched is None or self._now() - watched.hastened < HASTE_S:
            return
        watched.hastened, watched.content = self._now(), watched.content or (content and watched.there)
        self._watch.again(watched, self._now())
        self._looks.wake.set()

    # ------------------------------------------------------------ what people see and change

    def status(self) -> Mapping[str, Any]:
        looks, book, done, now = self._looks, self._book, self._book.done, self._now()
        told: dict[str, Any] = {
            "delay_s": round(self.conditions.delay_s, 3), "watched": len(self._watch), "looks": done["stats"] + done["contents"],
            "listings": done["listings"], "dropped": self._watch.dropped, "repaired": done["repaired"], "unrepaired": len(book.finds),
            "seen": {str(kind): book.seen[kind] for kind in Kind},
            "done": {name: done[name] for name in ("contents", "unanswered", "unlisted", "there", "deleted_again")},
            "spent": {"requests": looks.requests, "bytes": looks.bytes_read,
                      "bytes_today": self._budget.spent_bytes(self.doors.clock.time_ns())},
            "quiet": {"seconds": round(book.intervals.quiet_s(now), 1), "needed": book.intervals.needs_quiet_s(self.conditions.bounds)}}
        return {**told, "degraded": book.degraded} if book.degraded else told

    def settings(self) -> Mapping[str, str]:
        told = self.conditions.bounds.told()
        return {option: told[option] for option in ((*OWN, *THE_LOCKS) if not self.conditions.locks else OWN)}

    def change(self, setting: str, value: str) -> None:
        if setting not in self.settings():
            raise ConfigError(f"layer {self.name} has no setting {setting!r}")
        self.conditions.change(setting, value)

    def decisions(self) -> Sequence[Mapping[str, Any]]:
        return list(self._decisions.entries)
