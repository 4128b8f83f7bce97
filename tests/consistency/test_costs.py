"""What looks cost: requests in a minute, in an outage, for a store that asks to be spared; and what they keep in memory."""
from __future__ import annotations

from pathlib import Path

import pytest
import trio

from s3cfs.errors import Throttled
from s3cfs.remote import Remote
from tests.consistency.kit import AWAY, DAY_S, World

PACK = "pack/aa/1-aa"


def test_so_many_requests_a_minute_and_the_rest_is_dropped_fairly(tmp_path: Path) -> None:
    world = World(tmp_path, checks_per_minute=30)

    async def test(remote: Remote) -> None:
        for number in range(600):
            await remote.put(f"pack/{number % 9}/{number}", b"x")
            if number % 15 == 0:
                await remote.put(f"log/{number}", b"x")
        await trio.sleep(DAY_S)
        looks = [(when, key) for when, operation, key in world.store.calls if operation != "put"]
        assert max(sum(begin <= when < begin + 60 for when, _ in looks) for begin, _ in looks) <= 30
        assert world.status["watched"] == 0 and world.status["dropped"] > 1500
        records = {key for _, key in looks if key.startswith("log/")}
        assert len(records) > 20, "a flood of one kind leaves the other its turns"
        assert len(looks) < 300, "nothing is looked at late for having been due"
        before = len(world.store.calls)
        world.checker.change("checks-per-minute", "0")
        await remote.put(PACK, b"x")
        await trio.sleep(DAY_S)
        assert len(world.store.calls) == before + 1, "0 is none"
        world.checker.change("checks-per-minute", "30")
        await trio.sleep(DAY_S)
        assert len(world.store.calls) > before + 1

    world.run(test)


def test_no_storm_of_looks_when_the_store_was_away(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        for number in range(500):
            await remote.put(f"pack/aa/{number}", b"x")
        world.store.away = AWAY
        await trio.sleep(6 * 3600)
        failed = len(world.store.calls) - 500
        assert failed < 6 * 3600 / 300 + 20, "pauses that grow"
        world.store.away = None
        await trio.sleep(DAY_S)
        after = [when for when, _, _ in world.store.calls[500 + failed:]]
        assert len(after) < 200 and all(sum(begin <= when < begin + 60 for when in after) <= 60 for begin in after)
        assert world.status["watched"] == 0 and "lost" not in world.seen()

    world.run(test)


def test_a_store_that_asks_to_be_spared_is_spared(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"x")
        world.store.away = Throttled("stat", PACK, "slow down", 600.0)
        await trio.sleep(300)
        assert world.requests(1.0) == [f"stat {PACK}"] and world.seen() == {"busy": 1}
        world.store.away = None
        await trio.sleep(DAY_S)
        assert world.requests(1.0)[1:] == [f"stat {PACK}", "list pack/aa/", f"stat {PACK}", "list pack/aa/"]

    world.run(test)


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3cfs.backends.consistency.watch.KEYS_MAX", 100)
    monkeypatch.setattr("s3cfs.backends.consistency.watch.BODIES_BYTES", 1000)
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        for number in range(1000):
            await remote.put(f"pack/aa/{number}", bytes(50))
        watch = world.checker._watch
        assert len(watch) == 100 and watch.bodies_bytes <= 1000 and len(watch._heap) < 400 and len(watch._folders["pack/aa/"]) == 100
        await remote.delete_many([f"pack/aa/{number}" for number in range(1000)])
        assert watch.bodies_bytes == 0 and len(watch._heap) < 400
        await trio.sleep(DAY_S)
        assert not watch._heap and not watch._folders and not watch._lines

    world.run(test)


def test_a_small_budget_makes_no_long_queue(tmp_path: Path) -> None:
    """What is due and cannot be asked for within half a minute is not asked for later (seed 5037 of the simulator)."""
    world = World(tmp_path, checks_per_minute=6, check_delays=(2.0, 15.0, 60.0))

    async def test(remote: Remote) -> None:
        for number in range(60):
            for kind in ("pack/aa/", "log/main/", "checkpoint/main/"):
                await remote.put(f"{kind}{number}", b"x")
        await trio.sleep(60 + 180)
        assert world.status["watched"] == 0 and world.status["spent"]["requests"] >= 12

    world.run(test)
