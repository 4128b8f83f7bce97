"""The checker in virtual time, on a store that hides, loses, changes and keeps what it should not."""
from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs.errors import NotFound
from s3cfs.remote import Remote
from tests.consistency.kit import AWAY, DAY_S, World

PACK, RECORD, CLAIM = "pack/aa/1-aa", "log/main/0/1-aa/0/0/1", "claim/main/1-aa"


def test_what_is_as_it_should_be_is_looked_at_at_growing_intervals_and_then_there_is_rest(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"x" * 100)
        await remote.delete(CLAIM)
        await trio.sleep(DAY_S)
        looks = [(round(when), operation, key) for when, operation, key in world.store.calls[2:]]
        assert looks == [(2, "stat", PACK), (2, "stat", CLAIM), (15, "list", "pack/aa/"), (15, "list", "claim/main/"),
                         (120, "stat", PACK), (120, "stat", CLAIM), (1800, "list", "pack/aa/"), (1800, "list", "claim/main/")]
        assert world.seen() == {"well": 8} and world.status["watched"] == 0
        await trio.sleep(100 * DAY_S)
        assert len(world.store.calls) == 10, "an idle mount makes no request"

    world.run(test)


def test_one_listing_serves_many_keys_and_a_large_folder_is_not_listed_for_a_few(tmp_path: Path) -> None:
    world = World(tmp_path, checks_per_minute=1000)
    for number in range(2500):
        world.store.objects[f"pack/bb/{number}"] = b""

    async def test(remote: Remote) -> None:
        for number in range(50):
            await remote.put(f"pack/aa/{number}", b"x")
        await trio.sleep(20)
        assert world.requests(10.0) == ["list pack/aa/"]
        await remote.list("pack/bb/")                      # somebody did: now it is known how many there are
        began = trio.current_time()
        for number in range(2):
            await remote.put(f"pack/bb/new{number}", b"x")
        await trio.sleep(16)
        assert not [request for request in world.requests(began + 1) if request.startswith("list")]
        assert world.status["listings"] == 1
        began = trio.current_time()
        await remote.put("pack/cc/1", b"x")                # as large as the largest beside it, as far as anybody knows
        await trio.sleep(16)
        assert "list pack/cc/" not in world.requests(began)

    world.run(test)


def test_the_content_of_a_sample_is_read_within_the_days_bytes(tmp_path: Path) -> None:
    world = World(tmp_path, sample=1.0, check_bytes_per_day=250, check_delays=(2.0,))

    async def test(remote: Remote) -> None:
        for number in range(3):
            await remote.put(f"pack/aa/{number}", bytes(100))
        await trio.sleep(10)
        assert sorted(world.requests(2.0)) == ["get pack/aa/0", "get pack/aa/1", "stat pack/aa/2"]
        assert world.status["spent"] == {"requests": 3, "bytes": 200, "bytes_today": 200}
        await trio.sleep(DAY_S + 3600)
        await remote.put("pack/aa/3", bytes(100))
        await trio.sleep(10)
        assert world.requests()[-1] == "get pack/aa/3" and world.status["spent"]["bytes_today"] == 100

    world.run(test)


def test_a_day_has_so_many_bytes_over_a_remount_too(tmp_path: Path) -> None:
    world = World(tmp_path, sample=1.0, check_bytes_per_day=150, check_delays=(2.0,))

    async def test(remote: Remote) -> None:
        await remote.put(f"pack/aa/{trio.current_time():.0f}", bytes(100))
        await trio.sleep(10)

    world.run(test)
    world.mock = world.clock._mock = type(world.mock)(autojump_threshold=0)
    world.run(test)
    assert [request.partition(" ")[0] for request in world.requests()] == ["put", "get", "put", "stat"]


@pytest.mark.parametrize("create_only", [True, False])
def test_what_the_store_lost_comes_back_from_the_local_copy(tmp_path: Path, create_only: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Not before it had its time; then once, the same bytes, create-only where that is possible; and it is looked at again."""
    world = World(tmp_path, nature={"create_only": create_only})
    large, puts = bytes(200_000), list[tuple[str, bool]]()

    class Packs:
        async def of(self, key: str) -> bytes | None:
            return large if key == PACK else None

    put = world.store.put

    def noted(key: str, data: Any, only_if_absent: bool = False) -> None:
        puts.append((key, only_if_absent))
        put(key, data, only_if_absent)

    world.store.put = noted  # type: ignore[method-assign]

    async def test(remote: Remote) -> None:
        remote.originals.add("pack", Packs().of)
        await remote.put(PACK, large)
        await remote.put(RECORD, b"a record")              # has no source: what was put is at hand for a while
        world.store.objects.clear()
        await trio.sleep(170)
        assert not world.store.objects, "a missing object may only be late"
        await trio.sleep(DAY_S)
        assert world.store.objects == {PACK: large, RECORD: b"a record"}
        assert puts[2:] == [(PACK, create_only), (RECORD, create_only)]
        assert world.status["repaired"] == 2 and world.seen()["lost"] == 2 and "degraded" not in world.status
        assert [entry["key"] for entry in world.entries("repair")] == [PACK, RECORD]
        assert f"{PACK}: it is not in the store: put again from the local copy" in caplog.text
        assert world.status["watched"] == 0

    world.run(test)


def test_what_only_showed_late_is_not_put_again(tmp_path: Path) -> None:
    """Old answers for three minutes: evidence, no loss."""
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await remote.put(RECORD, b"a record")
        world.store.hide[RECORD] = 170.0
        await trio.sleep(DAY_S)
        assert [request for request in world.requests() if request.startswith("put")] == [f"put {RECORD}"]
        assert world.seen()["stale"] == 7 and "lost" not in world.seen() and world.status["unrepaired"] == 0
        assert [round(evidence.age_s or 0) for evidence in world.told if evidence.kind == "stale"] == [2, 4, 8, 16, 32, 64, 128]

    world.run(test)


def test_it_is_there_after_all(tmp_path: Path) -> None:
    """Hidden for longer than is plausible: a create-only put finds out, and touches nothing."""
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await remote.put(RECORD, b"a record")
        world.store.hide[RECORD] = 700.0
        await trio.sleep(DAY_S)
        assert world.status["done"]["there"] >= 1 and world.status["repaired"] == 0
        assert "degraded" not in world.status and world.store.objects == {RECORD: b"a record"}

    world.run(test)


def test_a_loss_that_cannot_be_mended_is_loud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path)
    key = "checkpoint/main/0/0/1/aa-0"

    async def test(remote: Remote) -> None:
        await remote.put(key, bytes(100_000))
        del world.store.objects[key]
        await trio.sleep(DAY_S)
        text = f"{key}: it is not in the store: no local copy is left"
        assert [record.levelno for record in caplog.records if text in record.message] == [logging.ERROR]
        assert world.status["degraded"] == f"1 object is lost or damaged there; {text}" and world.status["unrepaired"] == 1
        assert world.entries("find")[0]["key"] == key
        count = len(world.store.calls)
        await trio.sleep(DAY_S)
        assert len(world.store.calls) == count, "it is not looked for for ever"
        world.store.objects[key] = bytes(100_000)          # somebody brings it back, and somebody reads it
        await remote.get(key)
        assert "degraded" not in world.status and world.entries("found")

    world.run(test)


def test_claims_and_probes_go_by_others_hands(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await remote.put(CLAIM, b"a claim")
        del world.store.objects[CLAIM]
        await trio.sleep(DAY_S)
        assert world.requests() == [f"put {CLAIM}", f"stat {CLAIM}"] and not world.store.objects and not world.told

    world.run(test)


def test_other_bytes_are_overwritten_only_by_what_a_source_vouches_for(tmp_path: Path) -> None:
    world = World(tmp_path, sample=1.0)

    async def original(key: str) -> bytes:
        return b"the true bytes"

    async def test(remote: Remote) -> None:
        remote.originals.add("pack", original)
        for key in (PACK, RECORD):
            await remote.put(key, b"the true bytes")
            world.store.objects[key] = b"the tRue bytes"
        await trio.sleep(DAY_S)
        assert world.store.objects == {PACK: b"the true bytes", RECORD: b"the tRue bytes"}, "a record may be another writer's"
        assert world.seen()["corrupt"] == 2 and world.status["repaired"] == 1 and world.status["unrepaired"] == 1
        assert RECORD in world.status["degraded"] and "other bytes" in world.status["degraded"]

    world.run(test)


def test_a_store_that_does_not_let_itself_be_overwritten_is_reported(tmp_path: Path) -> None:
    world = World(tmp_path, sample=1.0)

    async def original(key: str) -> bytes:
        return b"the true bytes"

    async def test(remote: Remote) -> None:
        remote.originals.add("pack", original)
        await remote.put(PACK, b"the true bytes")
        world.store.objects[PACK] = b"half"
        inner = world.store.inner
        world.store.put = lambda key, data, only_if_absent=False: inner.put(key, data, True)  # type: ignore[method-assign, assignment]
        await trio.sleep(DAY_S)
        assert world.store.objects == {PACK: b"half"} and "refuses" in world.status["degraded"]

    world.run(test)


def test_a_delete_that_does_not_take_is_made_once_more(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await remote.put("piece/aa/1", b"x")
        await remote.put("piece/aa/2", b"x")
        world.store.deaf |= {"piece/aa/1", "piece/aa/2"}
        await remote.delete_many(["piece/aa/1", "piece/aa/2"])
        await trio.sleep(60)
        assert world.seen()["ghost"] >= 2 and world.status["done"]["deleted_again"] == 0
        world.store.deaf.discard("piece/aa/1")
        await trio.sleep(DAY_S)
        assert set(world.store.objects) == {"piece/aa/2"} and world.status["done"]["deleted_again"] == 2
        assert [entry["key"] for entry in world.entries("find")] == ["piece/aa/2"] and "degraded" not in world.status

    world.run(test)


def test_what_no_listing_shows_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"x" * 70_000)
        world.store.hide_in_lists[PACK] = 1e9
        await trio.sleep(DAY_S)
        assert world.status["done"]["unlisted"] == 2 and world.entries("find")[0]["why"].startswith("it is there, and was in no listing")
        assert world.status["repaired"] == 0 and "lost" not in world.seen()

    world.run(test)


# ---------------------------------------------------------------- suspicion

def test_suspicious_answers_to_others_are_followed_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, check_delays=(1000.0,))

    async def test(remote: Remote) -> None:
        for number in range(5):
            await remote.put(f"pack/aa/{number}", b"x")
        await trio.sleep(100)
        began = trio.current_time()
        world.store.hide["pack/aa/1"] = 150.0
        with pytest.raises(NotFound):
            await remote.get("pack/aa/1")
        await trio.sleep(1)
        assert world.requests(began) == ["get pack/aa/1", "stat pack/aa/1"]
        assert [(evidence.kind, round(evidence.age_s or 0)) for evidence in world.told] == [("stale", 100), ("stale", 100)]
        with pytest.raises(NotFound):
            await remote.get("pack/aa/1")
        await trio.sleep(1)
        assert len(world.requests(began)) == 3, "not again and again"
        await remote.delete("pack/aa/2")
        await trio.sleep(1)
        world.store.objects["pack/aa/2"] = b"x"            # it reappears
        began = trio.current_time()
        assert len(await remote.list("pack/aa/")) == 4     # without the hidden one
        await trio.sleep(1)
        assert f"{world.told[-1].kind} {world.told[-1].key}" == "ghost pack/aa/2" and world.requests(began)[1:] == ["stat pack/aa/2"]

    world.run(test)


def test_a_pack_that_nobody_put_lately_and_a_reader_misses_is_brought_back_if_it_is_at_hand(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def original(key: str) -> bytes | None:
        return b"the true bytes" if key == PACK else None

    async def test(remote: Remote) -> None:
        remote.originals.add("pack", original)
        for key in (PACK, "pack/bb/1-bb", "log/main/0/1-aa/0/0/7"):
            with pytest.raises(NotFound):
                await remote.get(key)
        with pytest.raises(NotFound):
            await remote.stat("pack/cc/1-cc")              # whoever asks for a size does not say that it is there
        await trio.sleep(DAY_S)
        assert world.store.objects == {PACK: b"the true bytes"}
        assert "degraded" not in world.status, "of what is at hand nowhere its reader has told"
        assert {request.split()[1] for request in world.requests(1.0)} == {PACK, "pack/aa/", "pack/bb/1-bb"}

    world.run(test)


def test_when_a_storm_is_over_what_was_written_in_it_is_looked_at(tmp_path: Path) -> None:
    world = World(tmp_path, check_delays=(1000.0,))

    async def test(remote: Remote) -> None:
        await remote.put(PACK, b"x")
        await trio.sleep(5)

        async def read() -> None:
            await remote.get(PACK)

        world.store.away = AWAY
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.sleep(30)
            world.store.away = None
        began = trio.current_time()
        await trio.sleep(400)
        assert world.seen()["failed"] >= 5 and world.requests(began).count(f"stat {PACK}") == 1

    world.run(test)
