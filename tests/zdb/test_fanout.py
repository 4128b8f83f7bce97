"""Calls on several servers at once. Nothing here sleeps: calls wait for what the test lets happen."""
from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from s3cfs.backends.progress import losses_told_to, lost, moved, told_to
from s3cfs.backends.zdb.fanout import Fanout, Round
from s3cfs.backends.zdb.words import Condition, Trouble

LONG_S = 20.0                      # patience that no test uses up


@pytest.fixture
def fanout():
    made = Fanout()
    yield made
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "s3cfs zdb"]


class Servers:
    """Calls by name: those that are `silent` end when the test says so."""

    def __init__(self, silent: str = "", failing: str = "") -> None:
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self._silent, self._failing = silent, failing

    def call(self, name: str) -> str:
        self.asked.append(name)
        if name in self._silent:
            assert self.go_on.wait(LONG_S)
        if name in self._failing:
            raise Trouble(Condition.UNREACHABLE, "connection refused", name)
        return name.upper()


def value_of(round_: Round[str, str], silence_s: float = LONG_S) -> str | None:
    done = round_.next(silence_s)
    assert done is not None
    return done.value


def test_all_of_them(fanout):
    outcome = fanout.all("abcd", Servers(failing="c").call)
    assert outcome.good == {"a": "A", "b": "B", "d": "D"}
    assert outcome.bad["c"].condition is Condition.UNREACHABLE


def test_the_first_that_are_needed_and_no_others(fanout):
    servers = Servers()
    assert fanout.first(3, "abcde", servers.call, LONG_S).good == {"a": "A", "b": "B", "c": "C"}
    assert sorted(servers.asked) == ["a", "b", "c"]


def test_another_one_for_each_that_fails_or_has_nothing_of_use(fanout):
    servers = Servers(failing="a")
    outcome = fanout.first(2, "abcde", servers.call, LONG_S, lambda value: value != "B")
    assert outcome.good == {"c": "C", "d": "D"} and outcome.poor == {"b": "B"} and list(outcome.bad) == ["a"]
    assert sorted(servers.asked) == ["a", "b", "c", "d"]


def test_a_silent_one_costs_the_delay_and_no_more(fanout):
    servers = Servers(silent="b")
    outcome = fanout.first(2, "abcd", servers.call, 0.0)
    assert "a" in outcome.good and outcome.good.keys() <= {"a", "c", "d"}
    servers.go_on.set()


def test_too_few(fanout):
    outcome = fanout.first(3, "abcd", Servers(failing="bd").call, LONG_S)
    assert outcome.good.keys() == {"a", "c"} and outcome.bad.keys() == {"b", "d"}


def test_a_round_goes_on_while_its_owner_has_left(fanout):
    servers = Servers(silent="b")
    round_: Round[str, str] = fanout.round()
    for name in "ab":
        round_.start(name, partial(servers.call, name))
    assert value_of(round_) == "A"
    assert round_.next(0.01) is None and round_.pending == {"b"}
    servers.go_on.set()
    assert value_of(round_) == "B"
    assert round_.next(LONG_S) is None


def test_movement_is_told_in_the_thread_that_waits_and_keeps_its_patience_awake(fanout, monkeypatch):
    told: list[int] = []
    losses: list[bool] = []
    may_end = threading.Event()

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr("s3cfs.backends.zdb.fanout.time", clock)

    def call() -> str:
        lost()
        while not may_end.wait(0.001):
            moved()
        return "done"

    def tell() -> None:
        told.append(threading.get_ident())
        clock.now += 0.9           # less than the silence below, each time
        if len(told) == 5:
            may_end.set()

    round_: Round[str, str] = fanout.round()
    round_.start("a", call)
    with told_to(tell), losses_told_to(lambda: losses.append(True)):
        assert value_of(round_, 1.0) == "done"
    assert set(told) == {threading.get_ident()} and losses
    monkeypatch.undo()


def test_a_bug_is_no_trouble(fanout):
    def call(name: str) -> str:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError):
        fanout.all("a", call)


def test_threads_are_used_again(fanout):
    threads = set()
    for number in range(50):
        round_: Round[int, None] = fanout.round()
        round_.start(number, lambda: threads.add(threading.current_thread()))
        assert round_.next(LONG_S) is not None
    assert len(threads) <= 2       # it says that it is done a moment before it is idle


def test_threads_are_bounded():
    fanout, servers = Fanout(threads=2), Servers(silent="ab")
    round_: Round[str, str] = fanout.round()
    for name in "abc":
        round_.start(name, partial(servers.call, name))
    assert round_.next(0.01) is None and "c" not in servers.asked
    servers.go_on.set()
    assert {value_of(round_) for _ in range(3)} == {"A", "B", "C"}
    fanout.close()


def test_what_has_not_begun_when_its_owner_leaves_is_dropped():
    fanout, servers = Fanout(threads=1), Servers(silent="a")
    round_: Round[str, str] = fanout.round()
    for name in "ab":
        round_.start(name, partial(servers.call, name))
    while not servers.asked:
        time.sleep(0.001)
    round_.abandon()
    assert not round_.pending
    servers.go_on.set()
    fanout.close()
    assert servers.asked == ["a"]
