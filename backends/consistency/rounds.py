"""The checker's rounds: what is due is looked at, what is not as it must be gets time and is looked at again, what stays so is a find.

A look passes the lock below like any request; so it is made when the protective delay of the key is over, and a folder is listed for
looks only when no key in it is that young. One look at a time.
"""
from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping, Sequence

import trio

from s3cfs.backends.consistency.book import Book
from s3cfs.backends.consistency.conditions import Conditions, Evidence, Kind, Stale, trouble
from s3cfs.backends.consistency.looks import Looks, Saw, Seen, judged
from s3cfs.backends.consistency.repair import Outcome, delete_again, repair
from s3cfs.backends.consistency.watch import TRANSIENT, Watch, Watched
from s3cfs.backends.layer import Store
from s3cfs.backends.settling import SETTLES_S
from s3cfs.doors import Clock
from s3cfs.errors import StoreError

log = logging.getLogger(__name__)

TRIES = 5                          # of one look or repair that gets no answer
REPAIRS_MAX = 3                    # of one object
CONFIRM_S = 5.0                    # until the second look at what seems to be wrong


class Rounds:
    def __init__(self, below: Store, clock: Clock, conditions: Conditions, watch: Watch, looks: Looks, book: Book) -> None:
        self._below, self._clock, self._conditions = below, clock, conditions
        self._watch, self._looks, self._book = watch, looks, book

    def _now(self) -> float:
        return self._clock.monotonic()

    def _note(self, what: str, watched: Watched, text: str, level: int) -> None:
        self._book.note(what, watched.key, text, self._now() - watched.since, level)

    async def run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            due = self._watch.next_due()
            wait_s = math.inf if due is None else max(due - self._now(), self._looks.wait_s())
            if wait_s > 0:
                await self._looks.wake.wait(wait_s)
                await self._clock.sleep(0.0)
            elif (watched := self._watch.take(self._now())) is not None:
                try:
                    await self._look(watched)
                except StoreError as error:
                    self._unanswered(watched, error)

    async def _look(self, watched: Watched) -> None:
        """At one object, or at its folder and with it at others. StoreError: there was no answer, or none to a repair."""
        now = self._now()
        if (free_at := watched.since + self._conditions.protective_s) > now:
            self._watch.again(watched, free_at)
            return
        if group := self._by_listing(watched, now):
            self._book.done["listings"] += 1
            with contextlib.suppress(Stale):       # of which keys was told by whoever knew; this one is asked for directly
                await self._judge_all(group, await self._looks.in_folder(watched.folder))
                return
        content = watched.content
        self._book.done["contents" if content else "stats"] += 1
        seen = await self._looks.at(watched)
        if self._watch.get(watched.key) is watched:
            await self._judge(watched, seen, "get" if content else "stat")

    def _by_listing(self, watched: Watched, now: float) -> Sequence[Watched]:
        """Those of its folder whose turn it is, or nearly, to be looked at by a listing; [] when there is to be none."""
        delays, beside = self._conditions.bounds.check_delays, self._watch.in_folder(watched.folder)
        if any(now - each.since < self._conditions.protective_s for each in beside):
            return []                              # the listing would have to wait in the lock
        group = [each for each in beside if each.look % 2 and each.look < len(delays) and not each.content
                 and now - each.since >= delays[each.look] / 2]
        return group if watched in group and self._looks.folders.worth(watched.folder, len(group)) else []

    async def _judge_all(self, group: Sequence[Watched], sizes: Mapping[str, int]) -> None:
        for each in group:
            if self._watch.get(each.key) is each:
                try:
                    await self._judge(each, Seen(judged(each, sizes.get(each.key))), "list")
                except StoreError as error:
                    self._unanswered(each, error)

    async def _judge(self, watched: Watched, seen: Seen, operation: str) -> None:
        now, saw = self._now(), seen.saw
        age_s, most_s = now - watched.since, self._plausible_s()
        if saw is Saw.MISSING and watched.kind in TRANSIENT:
            self._watch.forget(watched.key)
            return
        is_late = saw in (Saw.MISSING, Saw.GHOST) or (saw is Saw.WRONG and (watched.rewritten or seen.old) and age_s < most_s)
        if not seen.told and watched.put_here and (is_late or saw is Saw.WELL):
            self._conditions.tell(evidence_of(watched, saw, operation, now))
        if saw is Saw.WELL:
            self._is_well(watched, now)
            return
        watched.misses += 1
        if is_late and age_s < most_s:
            self._watch.again(watched, watched.since + max(age_s + 1.0, min(2.0 * age_s, most_s)))
        elif watched.misses < 2:
            self._watch.again(watched, now + min(CONFIRM_S, most_s / 4))
        else:
            await self._find(watched, saw)

    def _is_well(self, watched: Watched, now: float) -> None:
        watched.content = False
        self._book.is_there(watched.key)
        self._watch.looked(watched, now)

    def _plausible_s(self) -> float:
        """Later than this what was put must be there: its owner says what the longest delay is that makes sense."""
        limits = self._conditions.bounds
        return min(SETTLES_S, max(2.0 * limits.lock_delay_most, *limits.check_delays[:1], 0.0))

    def _unanswered(self, watched: Watched, error: StoreError) -> None:
        self._book.done["unanswered"] += 1
        watched.failures += 1
        log.debug("look at %s: %s", watched.key, error)
        if error.retryable and not isinstance(error, Stale):
            self._conditions.tell(Evidence(trouble(error), error.operation, watched.key, text=str(error)))
        if watched.failures < TRIES and error.retryable:       # behind the pause that the store gets
            self._watch.again(watched, self._now() + (CONFIRM_S if isinstance(error, Stale) else 0.0))
        else:
            self._watch.looked(watched, self._now())

    # ------------------------------------------------------------ finds

    async def _find(self, watched: Watched, saw: Saw) -> None:
        """It had its time, and was seen so twice."""
        if saw is Saw.GHOST:
            await self._delete_again(watched)
            return
        if saw is Saw.MISSING:
            watched.content = False
            saw = (await self._looks.at(watched)).saw              # a listing may have said so, or an answer that was old
            if self._watch.get(watched.key) is not watched:
                return
            if saw is Saw.WELL:
                self._book.done["unlisted"] += 1
                self._note("find", watched, "it is there, and was in no listing of its folder", logging.WARNING)
                self._watch.looked(watched, self._now())
                return
        if watched.key in self._book.finds:                        # and is no news
            self._watch.forget(watched.key)
            return
        kind = Kind.LOST if saw is Saw.MISSING else Kind.CORRUPT
        if watched.failures == 0:
            self._conditions.tell(Evidence(kind, "stat", watched.key, self._now() - watched.since))
        what = "it is not in the store" if saw is Saw.MISSING else "the store holds other bytes than were put"
        outcome = Outcome.REFUSED
        if watched.repairs < REPAIRS_MAX:
            watched.repairs += 1
            outcome = await repair(self._looks, self._below, self._watch, watched, saw)
        text = f"{what}: {outcome.value}"
        self._book.done[outcome.name.lower()] += 1
        if outcome is Outcome.NO_ORIGINAL and not watched.put_here:
            self._watch.forget(watched.key)                    # who asked for it knows what it means
            return
        if outcome in (Outcome.REPAIRED, Outcome.THERE):
            self._note("repair", watched, text, logging.WARNING)
            self._book.finds.pop(watched.key, None)
            self._anew(watched, content=outcome is Outcome.REPAIRED)
            return
        self._book.find(watched.key, text)
        self._note("find", watched, text, logging.ERROR)
        self._watch.looked(watched, self._now())

    def _anew(self, watched: Watched, *, content: bool) -> None:
        """What was repaired is looked at like something new, its content where that is known."""
        if self._watch.get(watched.key) is watched:
            self._watch.add(Watched(watched.key, True, self._now(), watched.size, watched.digest, watched.body, content,
                                    repairs=watched.repairs))

    async def _delete_again(self, watched: Watched) -> None:
        """A delete that did not take. Keys are written once: nobody else can have put it."""
        if not watched.repairs and watched.put_here and self._below.capabilities.may_delete:
            await delete_again(self._looks, self._below, self._watch, watched)
            self._book.done["deleted_again"] += 1
            self._note("repair", watched, "it had been deleted and was there still: deleted once more", logging.WARNING)
            if self._watch.get(watched.key) is watched:
                self._watch.add(Watched(watched.key, False, self._now(), repairs=1))
            return
        self._note("find", watched, "it had been deleted and does not go", logging.WARNING)
        self._watch.forget(watched.key)


def evidence_of(watched: Watched, saw: Saw, operation: str, now: float) -> Evidence:
    """That somebody saw this; of what is other bytes than it should be: that it is old."""
    kind = {Saw.WELL: Kind.WELL, Saw.GHOST: Kind.GHOST}.get(saw, Kind.STALE)
    return Evidence(kind, operation, watched.key, now - watched.since, f"saw {saw.value}")
