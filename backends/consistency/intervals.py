"""How long the protective delay is to be: it grows on evidence that answers are older than that, and shrinks after quiet. Pure.

    grows    by `grow_factor`, at least to the age at which something old was seen; not again within `grow_pause`, but for what was older.
             Answers that were old within the delay are no reason: it covers them.
    shrinks  by `shrink_factor` after `shrink_after` of quiet, each time. Quiet is that nothing bad was told and that some looks, soon after
             the delay, found what they should: silence of an idle mount says nothing.

Hysteresis: a step down that had to be taken back doubles the quiet that the next one needs (up to 32 times), until one of them
stands. So where answers are always late by some seconds the delay does not swing between two values, and a store that recovers is believed
at the usual pace.
"""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from s3cfs.backends.consistency.bounds import Bounds
from s3cfs.backends.consistency.conditions import Evidence, Kind

MINUTE_S = 60.0
LEAST_STEP_S = 1.0                 # from 0 it grows to this, and from below it shrinks to 0
QUIET_LOOKS = 3                    # that quiet is made of, at least
DOUBLINGS_MAX = 5
UNQUIET = frozenset((Kind.STALE, Kind.GHOST, Kind.LOST, Kind.CORRUPT))


@dataclass(frozen=True, slots=True)
class Decision:
    before: float
    after: float
    why: str                       # one line, for people
    evidence: Evidence


class Intervals:
    """`heard` for everything that is told. The delay itself is its caller's."""

    def __init__(self, now: float) -> None:
        self._quiet_since = now
        self._looks = 0                            # that were well, since then
        self._grown = float("-inf")                # when
        self._grown_for = 0.0                      # the age that was evidence for it
        self._shrunk: tuple[float, float] | None = None        # when, and from which delay
        self._taken_back = 0                       # steps down, in a row
        self._busy: deque[float] = deque()

    def heard(self, bounds: Bounds, delay_s: float, evidence: Evidence, now: float) -> Decision | None:
        """What is to become of the delay, if anything."""
        if evidence.kind is Kind.WELL:
            return self._well(bounds, delay_s, evidence, now)
        if evidence.kind in UNQUIET:
            self._unquiet(now)
        if evidence.kind in (Kind.STALE, Kind.GHOST):
            return self._old(bounds, delay_s, evidence, now)
        if evidence.kind is Kind.BUSY and self._is_busy(bounds, now):
            self._unquiet(now)
            text = f"the store asked {len(self._busy)} times within a minute to be spared"
            return self._grow(bounds, delay_s, evidence, now, 0.0, text) if self._may_grow(bounds, now) else None
        return None

    def needs_quiet_s(self, bounds: Bounds) -> float:
        """Before the next step down."""
        return bounds.shrink_after * 2.0 ** min(self._taken_back, DOUBLINGS_MAX)

    def quiet_s(self, now: float) -> float:
        return now - self._quiet_since

    # ------------------------------------------------------------ up

    def _old(self, bounds: Bounds, delay_s: float, evidence: Evidence, now: float) -> Decision | None:
        age_s = evidence.age_s
        if age_s is not None and age_s < delay_s:
            return None
        worse = age_s is not None and age_s > self._grown_for
        if not (worse or self._may_grow(bounds, now)):
            return None
        what = "what had been deleted was there" if evidence.kind is Kind.GHOST else "an answer was old"
        when = "" if age_s is None else f", {age_s:.1f} s after the change"
        return self._grow(bounds, delay_s, evidence, now, age_s or 0.0, what + when)

    def _may_grow(self, bounds: Bounds, now: float) -> bool:
        return now - self._grown >= bounds.grow_pause

    def _grow(self, bounds: Bounds, delay_s: float, evidence: Evidence, now: float, seen_s: float, why: str) -> Decision | None:
        if self._shrunk is not None and seen_s < self._shrunk[1] and now - self._shrunk[0] < self.needs_quiet_s(bounds):
            self._taken_back += 1                  # where it was before that would have been right
        self._shrunk, self._grown, self._grown_for = None, now, seen_s
        return self._step(bounds, delay_s, max(delay_s * bounds.grow_factor, seen_s, LEAST_STEP_S), why, evidence)

    def _is_busy(self, bounds: Bounds, now: float) -> bool:
        """One more; whether that is too many."""
        self._busy.append(now)
        while self._busy[0] <= now - MINUTE_S or len(self._busy) > max(1, bounds.busy_per_minute):
            self._busy.popleft()
        return len(self._busy) >= bounds.busy_per_minute > 0

    # ------------------------------------------------------------ down

    def _well(self, bounds: Bounds, delay_s: float, evidence: Evidence, now: float) -> Decision | None:
        soon_s = 2.0 * delay_s * (1.0 + bounds.lock_jitter) + 2.0 * min(bounds.check_delays, default=0.0)
        if evidence.age_s is None or evidence.age_s > soon_s:
            return None                            # says nothing of how long a delay has to be
        self._looks += 1
        if self._looks < QUIET_LOOKS or self.quiet_s(now) < self.needs_quiet_s(bounds) or delay_s <= bounds.lock_delay_least:
            return None
        if self._shrunk is not None:               # the one before stands
            self._taken_back = 0
        wanted = delay_s * bounds.shrink_factor
        why = f"{self._looks} looks in {self.quiet_s(now) / 3600:.1f} h found what they should, and none found anything old"
        self._unquiet(now)
        self._shrunk, self._grown_for = (now, delay_s), 0.0
        return self._step(bounds, delay_s, wanted if wanted >= LEAST_STEP_S else 0.0, why, evidence)

    def _unquiet(self, now: float) -> None:
        """Quiet begins anew."""
        self._quiet_since, self._looks = now, 0

    def _step(self, bounds: Bounds, before: float, wanted: float, why: str, evidence: Evidence) -> Decision | None:
        after = min(max(wanted, bounds.lock_delay_least), bounds.lock_delay_most)
        return Decision(before, after, why, evidence) if after != before else None
