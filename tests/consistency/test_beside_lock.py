"""Lock and checker together: what the one holds back or refuses to pass on is to the other what it is without it."""
from __future__ import annotations

from pathlib import Path

import pytest
import trio

from s3cfs.remote import Remote
from tests.consistency.kit import DAY_S, World

PACK, RECORD = "pack/aa/1-aa", "log/main/0/1-aa/0/0/1"
TRUE = b"the true bytes"


async def original(key: str) -> bytes:
    return TRUE


@pytest.mark.parametrize("create_only", [True, False])
def test_what_was_lost_comes_back_and_the_delay_follows(tmp_path: Path, create_only: bool) -> None:
    world = World(tmp_path, lock=True, nature={"create_only": create_only})

    async def test(remote: Remote) -> None:
        remote.originals.add("pack", original)
        for key in (PACK, RECORD):
            await remote.put(key, TRUE, only_if_absent=create_only)
        world.store.objects.clear()
        await trio.sleep(170)
        assert not world.store.objects and world.conditions.delay_s == 90.0
        await trio.sleep(DAY_S)
        assert world.store.objects == {PACK: TRUE, RECORD: TRUE}
        assert world.status["repaired"] == 2 and world.status["watched"] == 0 and "degraded" not in world.status
        assert world.entries("delay")[0]["from"] == 20.0 and world.entries("delay")[0]["evidence"] == "stale"

    world.run(test)


@pytest.mark.parametrize("create_only", [True, False])
@pytest.mark.parametrize("other", [b"the tRue bytes", b"half"])
def test_other_bytes(tmp_path: Path, create_only: bool, other: bytes) -> None:
    """A record's are never overwritten, whatever the lock calls them."""
    world = World(tmp_path, lock=True, sample=1.0, nature={"create_only": create_only})

    async def test(remote: Remote) -> None:
        remote.originals.add("pack", original)
        for key in (PACK, RECORD):
            await remote.put(key, TRUE, only_if_absent=create_only)
            world.store.objects[key] = other
        await trio.sleep(300)
        assert world.store.objects == {PACK: TRUE, RECORD: other}, "while the lock still knows what must be there"
        await trio.sleep(DAY_S)
        assert world.store.objects == {PACK: TRUE, RECORD: other}
        assert world.status["repaired"] == 1 == world.status["unrepaired"] and world.status["watched"] == 0

    world.run(test)


def test_a_delete_that_does_not_take(tmp_path: Path) -> None:
    world = World(tmp_path, lock=True)

    async def test(remote: Remote) -> None:
        await remote.put("piece/aa/1", b"x")
        world.store.deaf.add("piece/aa/1")
        await remote.delete("piece/aa/1")
        await trio.sleep(120)
        assert world.seen()["ghost"] >= 2
        world.store.deaf.clear()
        await trio.sleep(DAY_S)
        assert not world.store.objects and world.status["done"]["deleted_again"] == 1 and world.status["watched"] == 0

    world.run(test)


def test_late_listings_are_followed_by_looks_at_their_keys(tmp_path: Path) -> None:
    world = World(tmp_path, lock=True)

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"x")
        world.store.hide_in_lists[PACK] = 200.0
        await trio.sleep(40)
        began = trio.current_time()
        assert [info.key for info in await remote.list("pack/aa/")] == [PACK], "the lock puts it right"
        await trio.sleep(60)
        assert f"stat {PACK}" in world.requests(began) and world.seen()["stale"] >= 1
        await trio.sleep(DAY_S)
        assert world.status["repaired"] == 0 == world.status["unrepaired"] and world.status["watched"] == 0

    world.run(test)


def test_nobody_waits_for_a_look(tmp_path: Path) -> None:
    """Who overwrites and reads the keys that are being looked at is as quick as without the checker."""
    took: dict[bool, float] = {}
    for looking in (True, False):
        world = World(tmp_path / str(looking), lock=True, sample=1.0, check_delays=(0.5, 32.0, 33.0, 34.0) if looking else ())

        async def test(remote: Remote) -> float:
            waited_s = 0.0
            for number in range(30):
                began = trio.current_time()
                await remote.put("aa/1", b"x" * 1000)
                await remote.put("aa/2", b"x" * 1000)
                if number % 2:
                    await remote.get("aa/1")
                waited_s += trio.current_time() - began
                await trio.sleep(20 + number)
            assert (world.status["looks"] > 30) is looking  # noqa: B023
            return waited_s

        took[looking] = world.run(test)
    assert took[True] <= took[False] + 0.1


def test_quiet_days_bring_the_delay_down_and_a_bad_hour_up_again(tmp_path: Path) -> None:
    world = World(tmp_path, lock=True, check_delays=(2.0, 30.0))

    async def test(remote: Remote) -> None:
        number = 0

        async def write(hours: float, late_s: float) -> None:
            nonlocal number
            end = trio.current_time() + hours * 3600
            while trio.current_time() < end:
                number += 1
                key = f"pack/{number % 9}/{number}"
                await remote.put(key, b"x", only_if_absent=True)
                world.store.hide[key] = trio.current_time() + late_s
                await trio.sleep(300)

        await write(8, 0.0)
        assert world.conditions.delay_s == 0.0
        await write(1, 40.0)
        assert 30.0 <= world.conditions.delay_s <= 90.0
        await write(12, 0.0)
        assert world.conditions.delay_s == 0.0
        assert len(world.store.objects) == number and world.status["repaired"] == 0 and "lost" not in world.seen()

    world.run(test)


@pytest.mark.parametrize(("create_only", "lock", "gets"), [(True, True, 4), (False, False, 4), (False, True, 0)])
def test_large_content_is_read_in_parts_where_a_part_costs_a_part(tmp_path: Path, create_only: bool, lock: bool, gets: int,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what may have had other content before the lock reads all, whatever part is asked for."""
    monkeypatch.setattr("s3cfs.backends.consistency.looks.RANGE_BYTES", 30)
    world = World(tmp_path, lock=lock, sample=1.0, nature={"create_only": create_only}, check_delays=(2.0,))

    async def test(remote: Remote) -> None:
        await remote.put(PACK, bytes(100), only_if_absent=create_only)
        await trio.sleep(DAY_S)
        assert world.requests().count(f"get {PACK}") == gets and world.status["spent"]["bytes"] == (100 if gets else 0)
        assert world.seen() == {"well": 1}

    world.run(test)
