"""How a server is taken to be, by what came of calls. The clock is the test's."""
from __future__ import annotations

import pytest

from s3cfs.backends.zdb import health
from s3cfs.backends.zdb.health import Health, Latencies, Space
from s3cfs.backends.zdb.words import Condition, Trouble

MIB = 1 << 20
ROOMY = Space(entries=3, used=MIB, limit=0, disk_free=1000 * MIB)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watched(clock):
    return Health(clock=clock, wall=clock)


def met(condition: Condition, words: str = "said") -> Trouble:
    return Trouble(condition, words, "a")


def test_what_is_new_is_well(watched):
    assert watched.may_read and watched.may_write
    assert watched.status.condition is Condition.OK


def test_one_that_failed_is_left_alone_longer_each_time_and_tried_by_one(watched, clock):
    waited = []
    for _ in range(8):
        watched.begins()
        watched.failed(met(Condition.UNREACHABLE, "connection refused"))
        assert not watched.may_read and not watched.may_write
        began = clock.now
        while not watched.may_read:
            clock.now += 0.5
        waited.append(clock.now - began)
        watched.begins()
        assert not watched.may_read, "one tries it, the others go on leaving it alone"
        clock.now += 100
    assert waited[:4] == [1, 2, 4, 8] and waited[-1] == health.LEFT_ALONE_MAX_S
    assert watched.status.words == "connection refused" and watched.status.since == 1000.0
    watched.begins()
    watched.answered(False, 0.1)
    assert watched.may_read and watched.may_write and watched.status.words == ""


def test_calls_that_fail_together_are_one_failure(watched, clock):
    for _ in range(3):
        for _ in range(8):
            watched.begins()
        for _ in range(8):
            watched.failed(met(Condition.UNREACHABLE))
        clock.now += 4
        assert watched.may_read
    watched.begins()
    for _ in range(8):
        watched.failed(met(Condition.UNREACHABLE))
    clock.now += 7.9
    assert not watched.may_read
    clock.now += 0.1
    assert watched.may_read


@pytest.mark.parametrize("condition", [Condition.LOW_SPACE, Condition.DISK_FULL, Condition.READ_ONLY, Condition.WORM])
def test_what_cannot_be_written_can_be_read(watched, clock, condition):
    watched.failed(met(condition))
    assert watched.may_read
    assert watched.may_write == (condition is Condition.WORM), "a worm takes new keys"
    watched.answered(False, 0.1)
    assert watched.status.condition is condition, "a read says nothing of writing"
    clock.now += health.REFUSED_S
    assert watched.may_write, "it is tried again"
    watched.answered(True, 0.1)
    assert watched.status.condition is Condition.OK


def test_a_refused_command_says_nothing_of_the_server(watched):
    watched.failed(met(Condition.OK, "Key not found"))
    assert watched.status.condition is Condition.OK and watched.may_write
    watched.failed(met(Condition.DAMAGED, "Internal Error"))
    assert watched.may_read and watched.may_write and watched.status.damaged == 1


def test_what_a_poll_found_holds(watched, clock):
    watched.measured(ROOMY, Condition.LOW_SPACE, "1 MiB left")
    assert watched.may_read and not watched.may_write and watched.status.space == ROOMY
    watched.measured(ROOMY, Condition.OK, "")
    assert watched.may_write
    watched.failed(met(Condition.DISK_FULL))
    watched.measured(ROOMY, Condition.OK, "")
    assert not watched.may_write, "only a write can tell"
    clock.now += health.REFUSED_S
    watched.measured(ROOMY, Condition.OK, "")
    assert watched.status.condition is Condition.OK


def test_room():
    assert ROOMY.room == 1000 * MIB and not ROOMY.is_low
    assert Space(1, 90 * MIB, 100 * MIB, 1000 * MIB).room == 10 * MIB
    assert Space(1, 99 * MIB, 100 * MIB, 1000 * MIB).is_low
    assert Space(1, 0, 0, 63 * MIB).is_low
    over = Space(1, 101 * MIB, 100 * MIB, 1000 * MIB)
    assert over.room == 0 and over.is_low


def test_late_is_what_takes_twice_as_long_as_nine_of_ten():
    latencies = Latencies(usual_s=0.5)
    for _ in range(7):
        assert latencies.delay_s(5 * MIB) == 0.5, "too few to go by"
        latencies.note(5 * MIB, 100.0)
    for number in range(20):
        latencies.note(100, 0.1 if number < 18 else 1.0)
    latencies.note(5 * MIB, 100.0)
    assert latencies.delay_s(100) == pytest.approx(2.0)      # the eighteenth of twenty is the first of the slow ones
    for _ in range(64):
        latencies.note(100, 0.0001)
    assert latencies.delay_s(100) == 0.02 and latencies.delay_s(5 * MIB) == 3.0
