"""The checker's book: all evidence passes it, it keeps count, lets the delay follow, and notes every decision and find."""
from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from s3cfs.backends.consistency.conditions import Conditions, Evidence, Kind
from s3cfs.backends.consistency.decisions import Decisions
from s3cfs.backends.consistency.intervals import Decision, Intervals
from s3cfs.backends.consistency.watch import TRANSIENT
from s3cfs.doors import Clock

log = logging.getLogger(__name__)

FINDS_KEPT = 100                   # that could not be repaired


class Book:
    def __init__(self, clock: Clock, conditions: Conditions, decisions: Decisions, on_entry: Callable[[], None]) -> None:
        self._clock, self._conditions, self._decisions, self._on_entry = clock, conditions, decisions, on_entry
        self.intervals = Intervals(clock.monotonic())
        self.seen: Counter[Kind] = Counter()
        self.done: Counter[str] = Counter()
        self.finds: OrderedDict[str, str] = OrderedDict()          # what could not be repaired, and why
        conditions.listen(self._heard)
        conditions.watch(self._changed)
        self._told = conditions.bounds.told()

    # ------------------------------------------------------------ the delay

    def _heard(self, evidence: Evidence) -> None:
        if evidence.kind in (Kind.STALE, Kind.LOST) and evidence.key.partition("/")[0] in TRANSIENT:
            return
        self.seen[evidence.kind] += 1
        conditions = self._conditions
        decision = self.intervals.heard(conditions.bounds, conditions.delay_s, evidence, self._clock.monotonic())
        if decision is not None:
            conditions.delay_s = decision.after
            self._decided(decision)

    def _decided(self, decision: Decision) -> None:
        evidence = decision.evidence
        log.info("the protective delay is %.1f s now, was %.1f s: %s", decision.after, decision.before, decision.why)
        self._add({"what": "delay", "from": decision.before, "to": decision.after, "why": decision.why, "evidence": str(evidence.kind),
                   "operation": evidence.operation, "kind": evidence.key.partition("/")[0],
                   "age_s": None if evidence.age_s is None else round(evidence.age_s, 1)})

    def _changed(self) -> None:
        """By a person."""
        before, self._told = self._told, self._conditions.bounds.told()
        for setting, value in self._told.items():
            if value != before[setting]:
                self._add({"what": "setting", "setting": setting, "from": before[setting], "to": value, "why": "told so",
                           "delay_s": self._conditions.delay_s})

    # ------------------------------------------------------------ finds

    def find(self, key: str, text: str) -> None:
        """It is not as it must be, and that could not be mended."""
        self.finds[key] = text
        if len(self.finds) > FINDS_KEPT:
            self.finds.popitem(last=False)

    def is_there(self, key: str) -> None:
        if self.finds.pop(key, None):
            self.note("found", key, "there again", level=logging.WARNING)

    @property
    def degraded(self) -> str | None:
        """One line for people."""
        if not self.finds:
            return None
        key, text = next(reversed(self.finds.items()))
        count = len(self.finds)
        return f"{count} object{'s are' if count > 1 else ' is'} lost or damaged there; {key}: {text}"

    def note(self, what: str, key: str, text: str, age_s: float | None = None, level: int = logging.INFO) -> None:
        log.log(level, "checker: %s: %s", key, text)
        age_s = None if age_s is None else round(age_s, 1)
        self._add({"what": what, "key": key, "kind": key.partition("/")[0], "why": text, "age_s": age_s})

    def _add(self, entry: Mapping[str, Any]) -> None:
        self._decisions.add({"time": self._clock.time_ns() / 1e9, **entry})
        self._on_entry()
