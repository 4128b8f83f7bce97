"""The state machine of the delay: when it grows and shrinks, and what it does not swing for."""
from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from s3cfs.backends.consistency.bounds import Bounds
from s3cfs.backends.consistency.conditions import Evidence, Kind
from s3cfs.backends.consistency.intervals import Decision, Intervals

HOUR_S = 3600.0


@dataclass
class Machine:
    bounds: Bounds = field(default_factory=Bounds)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.intervals = Intervals(self.now)
        self.delay_s = self.bounds.lock_delay
        self.decisions: list[Decision] = []

    def hear(self, kind: Kind, age_s: float | None = None, *, after_s: float = 0.0) -> float:
        self.now += after_s
        decision = self.intervals.heard(self.bounds, self.delay_s, Evidence(kind, "get", "pack/aa/1", age_s), self.now)
        if decision is not None:
            assert decision.before == self.delay_s and decision.after != decision.before and decision.why
            self.delay_s = decision.after
            self.decisions.append(decision)
        return self.delay_s

    def wells(self, seconds: float, every_s: float = 60.0) -> float:
        """Looks soon after the delay that find what they should, for so long."""
        end = self.now + seconds
        while self.now < end:
            self.hear(Kind.WELL, self.delay_s + 1.0, after_s=every_s)
        return self.delay_s


def test_it_grows_at_least_to_what_was_seen_and_no_further_than_allowed() -> None:
    machine = Machine()
    assert machine.hear(Kind.STALE, 21.0) == 40.0, "by the factor"
    assert machine.hear(Kind.STALE, 85.0, after_s=1.0) == 85.0
    assert machine.hear(Kind.STALE, 500.0, after_s=1.0) == 90.0
    assert [(one.before, one.after) for one in machine.decisions] == [(20.0, 40.0), (40.0, 85.0), (85.0, 90.0)]
    assert "85.0 s after the change" in machine.decisions[1].why
    from_nothing = Machine(Bounds(lock_delay=0.0))
    assert from_nothing.hear(Kind.STALE, 0.2) == 1.0 and from_nothing.hear(Kind.GHOST, 7.0, after_s=1.0) == 7.0


def test_what_is_old_within_the_delay_is_covered_and_yet_no_quiet() -> None:
    machine = Machine()
    assert machine.hear(Kind.STALE, 19.0) == 20.0
    assert machine.wells(HOUR_S - 120) == 20.0
    assert machine.hear(Kind.STALE, 5.0) == 20.0
    assert machine.wells(HOUR_S - 120) == 20.0, "quiet began anew"
    assert machine.wells(180) == 10.0


@pytest.mark.parametrize("kind", [Kind.STALE, Kind.GHOST])
def test_not_again_within_a_pause_but_for_what_is_worse(kind: Kind) -> None:
    machine = Machine()
    assert machine.hear(kind) == 40.0 and machine.hear(kind, after_s=30.0) == 40.0
    assert machine.hear(kind, 60.0, after_s=1.0) == 80.0, "older than anything before"
    assert machine.hear(kind, after_s=59.0) == 80.0 and machine.hear(kind, after_s=1.0) == 90.0


def test_busy_above_a_threshold_only() -> None:
    machine = Machine()
    for _ in range(4):
        assert machine.hear(Kind.BUSY, after_s=10.0) == 20.0
    assert machine.hear(Kind.BUSY, after_s=35.0) == 20.0, "the first one is over a minute ago"
    assert machine.hear(Kind.BUSY, after_s=1.0) == 40.0
    assert machine.hear(Kind.BUSY, after_s=1.0) == 40.0, "the pause holds here, too"
    never = Machine(Bounds(busy_per_minute=0))
    assert [never.hear(Kind.BUSY) for _ in range(100)] == [20.0] * 100
    for kind in (Kind.LOST, Kind.CORRUPT, Kind.FAILED, Kind.CLASH):
        assert machine.hear(kind, 100.0, after_s=100.0) == 40.0, "says nothing of staleness"


def test_it_shrinks_after_quiet_that_was_looked_at() -> None:
    machine = Machine()
    machine.now += 30 * HOUR_S
    assert machine.delay_s == 20.0, "silence says nothing"
    assert machine.hear(Kind.WELL, 1800.0) == 20.0, "a look long after the delay neither"
    assert machine.hear(Kind.WELL, 21.0) == 20.0 and machine.hear(Kind.WELL, 21.0) == 20.0
    assert machine.hear(Kind.WELL, 21.0) == 10.0
    steps = []
    while machine.delay_s:
        before = machine.now
        machine.wells(HOUR_S)
        steps.append((machine.delay_s, machine.now - before))
    assert [step for step, _ in steps] == [5.0, 2.5, 1.25, 0.0] and all(took <= HOUR_S + 60 for _, took in steps)
    least = Machine(Bounds(lock_delay_least=15.0))
    assert least.wells(10 * HOUR_S) == 15.0 and len(least.decisions) == 1


def test_a_store_that_is_always_late_by_some_seconds_does_not_make_it_swing() -> None:
    """Each step down that has to be taken back doubles the quiet that the next one needs."""
    machine = Machine(Bounds(lock_delay=16.0))
    changes: list[float] = []
    while machine.now < 14 * 24 * HOUR_S:
        late = machine.delay_s < 12.0                      # what the store needs
        before = machine.delay_s
        machine.hear(Kind.STALE if late else Kind.WELL, machine.delay_s + (0.5 if late else 1.0), after_s=120.0)
        if machine.delay_s != before:
            changes.append(machine.now / HOUR_S)
    down = [hours for hours, decision in zip(changes, machine.decisions, strict=True) if decision.after < decision.before]
    gaps = [later - sooner for sooner, later in zip(down, down[1:], strict=False)]
    assert [round(gap) for gap in gaps[:5]] == [2, 4, 8, 16, 32] and all(round(gap) == 32 for gap in gaps[5:]), gaps
    assert machine.wells(100 * HOUR_S) == 0.0, "once it has recovered"
    recovered = [decision.after for decision in machine.decisions[-5:]]
    assert recovered == sorted(recovered, reverse=True)


def test_growth_for_something_new_is_no_step_back() -> None:
    machine = Machine()
    machine.wells(HOUR_S + 120)
    assert machine.delay_s == 10.0
    machine.hear(Kind.STALE, 30.0)
    assert machine.delay_s == 30.0 and machine.intervals.needs_quiet_s(machine.bounds) == HOUR_S, "20 s would not have covered it"
    machine.wells(HOUR_S + 120)
    assert machine.delay_s == 15.0
    machine.hear(Kind.STALE, 16.0)
    assert machine.intervals.needs_quiet_s(machine.bounds) == 2 * HOUR_S, "30 s would have"


def test_bounds_that_a_person_changes_count_at_once() -> None:
    machine = Machine()
    machine.bounds = replace(machine.bounds, grow_factor=4.0, lock_delay_most=50.0, grow_pause=0.0)
    assert machine.hear(Kind.STALE) == 50.0 and machine.hear(Kind.STALE) == 50.0 and len(machine.decisions) == 1
    machine.bounds = replace(machine.bounds, shrink_after=60.0, shrink_factor=0.1)
    assert machine.wells(120.0, every_s=30.0) == 5.0
