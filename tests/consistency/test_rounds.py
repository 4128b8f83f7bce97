"""Rounds beside a lock, in a flood and in an outage; what takes a second look, and what is nobody's find."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs.backends.base import ObjectInfo
from s3cfs.backends.consistency.conditions import Evidence, Kind, Stale
from s3cfs.backends.consistency.suspicion import Storm
from s3cfs.remote import Remote
from tests.consistency.kit import AWAY, DAY_S, World

PACK, RECORD, CLAIM = "pack/aa/1-aa", "log/main/0/1-aa/0/0/1", "claim/main/1-aa"


def test_looks_come_when_the_protective_delay_is_over(tmp_path: Path) -> None:
    """With the lock's layer left out: nothing waits there that the checker could see."""
    world = World(tmp_path)
    world.bounds = type(world.bounds)(check_sample=0.0, check_delays=(2.0, 35.0))

    async def test(remote: Remote) -> None:
        world.conditions.locks = True
        await remote.put(PACK, b"x")
        await trio.sleep(20)
        assert world.requests(1.0) == []
        await remote.put("pack/aa/2", b"x")                # at 20 s: its folder is not listed before 50 s
        await trio.sleep(20)
        assert [(round(when), operation, key) for when, operation, key in world.store.calls[2:]] == [(30, "stat", PACK), (35, "stat", PACK)]
        await trio.sleep(DAY_S)
        assert world.requests(41.0) == ["stat pack/aa/2", "list pack/aa/"]

    world.run(test)


def test_a_listing_that_the_lock_calls_old_is_no_answer_for_its_keys(tmp_path: Path) -> None:
    world = World(tmp_path, check_delays=(2.0, 15.0))

    def old(prefix: str) -> Iterator[ObjectInfo]:
        world.store._called("list", prefix)
        raise Stale("list", prefix, "it is old")

    world.store.list = old  # type: ignore[method-assign]

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"x")
        await trio.sleep(DAY_S)
        assert world.requests() == [f"put {PACK}", f"stat {PACK}", "list pack/aa/", f"stat {PACK}"]

    world.run(test)


def test_what_the_lock_calls_old_is_evidence_once(tmp_path: Path) -> None:
    world = World(tmp_path, check_delays=(2.0,))

    def old(key: str) -> ObjectInfo:
        if trio.current_time() < 20:
            raise Stale("stat", key, "it is old")
        return ObjectInfo(key, 1)

    world.store.stat = old  # type: ignore[method-assign]

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"x")
        await trio.sleep(2.5)
        await remote.put(PACK + "2", b"x")
        await trio.sleep(3)
        assert world.status["looks"] == 3, "at 2, 4 and 4.5 s: the store has answered, and need not be spared"
        await trio.sleep(DAY_S)
        assert world.seen() == {"well": 2}, "whoever raised it has told"
        assert world.status["done"]["unanswered"] == 0 and world.status["watched"] == 0

    world.run(test)


def test_a_listing_of_many_keys_costs_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3cfs.backends.consistency.looks.PAGE", 100)
    world = World(tmp_path, check_delays=(2.0, 15.0), checks_per_minute=1000)

    async def test(remote: Remote) -> None:
        for number in range(250):
            await remote.put(f"pack/aa/{number}", b"")
        await trio.sleep(5)
        before = world.status["spent"]["requests"]
        await trio.sleep(20)
        assert world.status["listings"] == 1 and world.status["spent"]["requests"] - before == 3

    world.run(test)


def test_kinds_take_turns_and_what_is_suspicious_goes_first(tmp_path: Path) -> None:
    world = World(tmp_path, check_delays=(2.0,), checks_per_minute=10, lock_delay_most=30.0)

    async def test(remote: Remote) -> None:
        for number in range(8):
            await remote.put(f"pack/aa/{number}", b"x")
            await remote.put(f"log/{number}", b"x")
        world.store.hide["log/0"] = 35.0
        await trio.sleep(3)
        first = [request.split()[1].partition("/")[0] for request in world.requests(1.0)]
        assert first.count("pack") == first.count("log") == 5
        for number in range(8, 16):
            await remote.put(f"pack/aa/{number}", b"x")    # all of them are due before the next minute begins
        await trio.sleep(60)
        assert world.requests(61.0)[0] == "stat log/0", "it was missing"

    world.run(test)


def test_a_look_without_an_answer_is_given_up(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"x")
        world.store.away = AWAY
        await trio.sleep(30 * DAY_S)
        assert len(world.store.calls) == 1 + 4 * 5 and world.status["watched"] == 0
        assert world.seen() == {"failed": 20} and world.status["done"]["unanswered"] == 20

    world.run(test)


def test_other_bytes_once_are_no_find(tmp_path: Path) -> None:
    """A transfer may be wrong."""
    world = World(tmp_path, sample=1.0)
    get, gets = world.store.get, list[str]()

    def flipped(key: str, offset: int = 0, size: int | None = None) -> bytes:
        gets.append(key)
        return b"y" if len(gets) == 1 else get(key, offset, size)

    world.store.get = flipped  # type: ignore[method-assign]

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"x")
        await trio.sleep(DAY_S)
        assert len(gets) == 2 and world.seen() == {"well": 4} and not world.checker.decisions()

    world.run(test)


def test_a_key_that_was_overwritten_may_show_its_older_bytes_for_a_while(tmp_path: Path) -> None:
    """s3cfs writes each key once; a lock's tests, and other users of these layers, do not."""
    world = World(tmp_path, sample=1.0)
    get = world.store.get

    def old(key: str, offset: int = 0, size: int | None = None) -> bytes:
        return b"one" if trio.current_time() < 100 else get(key, offset, size)

    world.store.get = old  # type: ignore[method-assign]

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"one")
        await remote.put(PACK, b"two")
        await trio.sleep(DAY_S)
        assert set(world.seen()) == {"stale", "well"} and world.status["repaired"] == 0 == world.status["unrepaired"]

    world.run(test)


def test_an_object_that_is_lost_again_and_again_is_not_put_again_for_ever(tmp_path: Path) -> None:
    world = World(tmp_path)
    put = world.store.put

    def lost(key: str, data: Any, only_if_absent: bool = False) -> None:
        put(key, data, only_if_absent)
        world.store.objects.clear()

    world.store.put = lost  # type: ignore[method-assign]

    async def test(remote: Remote) -> None:
        await remote.put(RECORD, b"x")
        await trio.sleep(30 * DAY_S)
        assert world.requests().count(f"put {RECORD}") == 4 and world.status["unrepaired"] == 1 and world.status["watched"] == 0

    world.run(test)


@pytest.mark.parametrize("sample", [0.0, 1.0])
def test_an_original_that_is_not_what_was_put_is_none(tmp_path: Path, sample: float) -> None:
    world = World(tmp_path, sample=sample)
    put = {"pack/aa/1": bytes(100_000), **({"pack/aa/2": bytes(100_000)} if sample else {})}

    async def wrong(key: str) -> bytes:
        return bytes(99_999) if key.endswith("1") else bytes(99_999) + b"\1"

    async def test(remote: Remote) -> None:
        remote.originals.add("pack", wrong)
        for key, data in put.items():
            await remote.put(key, data)
        world.store.objects.clear()
        await trio.sleep(DAY_S)
        assert not world.store.objects and world.status["unrepaired"] == len(put)

    world.run(test)


def test_a_listing_says_nothing_of_what_was_put_while_it_was_made(tmp_path: Path) -> None:
    world = World(tmp_path, check_delays=(1000.0,))

    async def test(remote: Remote) -> None:
        lines = remote.stack.lines
        listed = lines.list

        async def slow(prefix: str, call: Any) -> list[ObjectInfo]:
            found = await listed(prefix, call)
            await trio.sleep(10)
            return found

        lines.list = slow  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remote.list, "pack/aa/")
            await trio.sleep(5)
            await remote.put(PACK, b"x")
        assert not world.told
        del world.store.objects[PACK]
        await remote.list("pack/aa/")
        assert [evidence.key for evidence in world.told] == [PACK]

    world.run(test)


def test_claims_that_others_took_away_are_missed_in_no_listing(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await remote.put(CLAIM, b"x")
        await trio.sleep(1)
        del world.store.objects[CLAIM]
        await remote.list("claim/main/")
        assert not world.told
        world.conditions.tell(Evidence(Kind.STALE, "list", CLAIM, 30.0))           # a lock cannot know
        assert not world.seen() and world.conditions.delay_s == 20.0
        world.conditions.tell(Evidence(Kind.GHOST, "list", CLAIM, 30.0))
        assert world.seen() == {"ghost": 1} and world.conditions.delay_s == 40.0

    world.run(test)


@pytest.mark.parametrize(("failures", "over"), [([0, 1, 2, 3, 4], True), ([0, 1, 2, 3], False), ([0, 20, 40, 60, 80], False)])
def test_a_storm_is_many_failures_within_a_minute(failures: list[float], over: bool) -> None:
    storm = Storm()
    for when in failures:
        storm.failed(when)
    assert storm.over() is over and storm.over() is False
    if over:
        storm.failed(5.0)
        assert storm.over() is False, "one more is none"


def test_what_was_found_is_left_alone_when_somebody_was_faster(tmp_path: Path) -> None:
    """While a repair, or a second delete, waits for the budget, the object is deleted, or put."""
    world = World(tmp_path, check_delays=(2.0,), checks_per_minute=1, lock_delay_most=1.0, lock_delay=0.0)

    async def asked(count: int) -> None:
        while len(world.requests()) < count:  # noqa: ASYNC110
            await trio.sleep(1)

    async def test(remote: Remote) -> None:
        await remote.put(RECORD, b"x")
        del world.store.objects[RECORD]
        await asked(4)                                     # three looks, a minute each: the repair is next
        await trio.sleep(30)
        await remote.delete(RECORD)                        # it is about to be put again
        await trio.sleep(DAY_S)
        assert not world.store.objects and world.requests().count(f"put {RECORD}") == 1
        world.store.deaf.add("piece/aa/1")
        await remote.put("piece/aa/1", b"x")
        await remote.delete("piece/aa/1")
        world.store.deaf.clear()
        await asked(len(world.requests()) + 2)
        assert world.requests()[-1] == "stat piece/aa/1"
        await trio.sleep(30)
        await remote.put("piece/aa/1", b"new")
        await trio.sleep(DAY_S)
        assert world.store.objects == {"piece/aa/1": b"new"} and world.requests().count("delete piece/aa/1") == 1

    world.run(test)
