"""What the consistency lock does, rule by rule; in virtual time."""
from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

from s3cfs.backends.consistency import bounds
from s3cfs.backends.consistency.conditions import Kind
from s3cfs.backends.layer import Call, Lane
from s3cfs.backends.progress import Progress
from s3cfs.errors import NotFound, StoreError, Temporary
from s3cfs.remote import patience
from tests.backends.consistency.kit import Moves, StaleBackend, World, mounted, play

KEY = "other/key"


def store(**how: Any) -> StaleBackend:
    return StaleBackend(random.Random(1), **how)


async def seconds(world: World, ask: Callable[[], Awaitable[object]]) -> float:
    """What it took; absence is an answer."""
    began = world.now
    try:
        await ask()
    except NotFound:
        pass
    return world.now - began


async def at_once(world: World, **asked: Callable[[], Awaitable[object]]) -> dict[str, int]:
    took: dict[str, int] = {}

    async def one(name: str, ask: Callable[[], Awaitable[object]]) -> None:
        took[name] = round(await seconds(world, ask))

    async with trio.open_nursery() as nursery:
        for name, ask in asked.items():
            nursery.start_soon(one, name, ask)
    return took


def test_nobody_has_a_key_during_its_delay_and_other_keys_never_wait() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_jitter=0.0) as world:
            remote = world.remote
            await remote.put(KEY, b"one")
            took = await at_once(
                world, get=partial(remote.get, KEY), stat=partial(remote.stat, KEY), list=partial(remote.list, "other/"),
                folders=partial(remote.folders, ""), put_elsewhere=partial(remote.put, "other/key2", b"two"),
                list_elsewhere=partial(remote.list, "another/"), delete_elsewhere=partial(remote.delete_many, ["a", "b"]))
            assert took == {"get": 20, "stat": 20, "list": 20, "folders": 20,
                            "put_elsewhere": 0, "list_elsewhere": 0, "delete_elsewhere": 0}
            assert await at_once(world, delete=partial(remote.delete_many, ["c", "other/key2"])) == {"delete": 0}, "its delay is over"
            assert world.lock.status()["held_back"] == 4 and not world.evidence

    play(test)


@pytest.mark.parametrize("how", ["before", "after", "deleted", "exists"])
def test_the_delay_follows_failed_writes_and_deletes_too(how: str) -> None:
    """But not a put that was refused because the key is taken: nothing was written."""
    async def test(clock: Moves) -> None:
        backend = store()
        async with mounted(backend, clock, lock_jitter=0.0) as world:
            if how == "exists":
                backend.history[KEY] = [(-100.0, b"other")]
            else:
                backend.breaks = how
            with pytest.raises(StoreError):
                await world.remote.put(KEY, b"one", only_if_absent=True)
                await world.remote.delete(KEY)
                raise Temporary("delete", KEY)
            backend.breaks = ""
            assert round(await seconds(world, partial(world.remote.get, KEY))) == (0 if how == "exists" else 20)

    play(test)


def test_a_stream_of_readers_does_not_starve_a_writer() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_delay=0.0) as world:
            await world.remote.put(KEY, b"one")
            world.line.longest_s = 1.0

            async def reads() -> None:
                while True:
                    await world.remote.get(KEY)

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(reads)
                    await trio.sleep(0.1)
                assert await seconds(world, partial(world.remote.put, KEY, b"two")) < 5.0
                nursery.cancel_scope.cancel()

    play(test)


def test_deletes_of_many_keys_do_not_block_one_another_for_ever() -> None:
    """In every order, with callers that leave at any moment."""
    async def test(clock: Moves) -> None:
        rng = random.Random(3)
        async with mounted(store(), clock, longest_s=2.0, lock_delay=3.0) as world:
            keys = [f"other/{n}" for n in range(8)]

            async def deletes() -> None:
                for _ in range(8):
                    with trio.move_on_after(rng.choice([0.5, 10.0, 1e9])):
                        await world.remote.delete_many(rng.sample(keys, 5))

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(deletes)
            await world.line.idle()
            assert await seconds(world, partial(world.remote.delete_many, keys[:5])) < 20.0

    play(test)


def test_a_put_that_was_given_up_keeps_its_key_until_it_has_ended() -> None:
    """And its repetition comes after it: what the store holds in the end is what was put last."""
    async def test(clock: Moves) -> None:
        backend = store()
        async with mounted(backend, clock, lock_jitter=0.0) as world:
            world.line.hang_s = lambda: 500.0
            with pytest.raises(Temporary):
                await world.remote.put(KEY, b"first")
            assert round(world.now) == 120 and world.lock.status()["given_up"] == 1
            world.line.hang_s = lambda: 0.0
            with pytest.raises(Temporary):
                await world.remote.get(KEY)
            assert round(world.now) == 240, "Q1: it waits for a store that is silent"
            with trio.move_on_after(1.0):
                await world.remote.put(KEY, b"never sent")
            await trio.sleep(200.0)
            await world.remote.put(KEY, b"second")
            assert round(world.now) == 520, "when the first one had ended, and its delay"
            assert [data for _, data in backend.history[KEY]] == [b"first", b"second"]
            assert await world.remote.get(KEY) == b"second"
            clashes = [one for one in world.evidence if one.kind is Kind.CLASH]
            assert [(one.operation, round(one.age_s or 0)) for one in clashes] == [("get", 120), ("put", 240), ("put", 441)]
            assert "who has left" in clashes[0].text and KEY in clashes[0].text

    play(test)


def test_what_is_held_back_does_not_use_up_its_promise() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_jitter=0.0, lock_delay=1000.0, lock_delay_most=1000.0) as world:
            await world.remote.put(KEY, b"one")
            assert await seconds(world, partial(world.remote.get, KEY)) == 1000.0
            await world.remote.put(KEY, b"two")
            assert await seconds(world, partial(world.remote.list, "")) == 1000.0

    play(test)


def test_who_waits_for_a_write_that_goes_on_waits_with_it() -> None:
    """Bytes that flow are no silence, of whoever waits for them."""
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_delay=0.0) as world:
            turns, progress = world.lock.turns, Progress(clock.monotonic)
            ticket = await turns.take("put", (KEY,), True, Call(Lane.BULK, 0.0, progress))

            async def upload() -> None:
                for _ in range(10):
                    await trio.sleep(50.0)
                    progress.moved()
                turns.give_back(ticket)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(upload)
                took = await at_once(world, get=partial(world.remote.get, KEY), list=partial(world.remote.list, ""))
            assert took == {"get": 500, "list": 500}

    play(test)


def test_a_listing_waits_for_what_was_there_when_it_was_asked_for_and_holds_nobody_up() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_jitter=0.0) as world:
            remote = world.remote
            written = 0

            async def log() -> None:
                nonlocal written
                while True:
                    assert await seconds(world, partial(remote.put, f"log/{written}", b"record")) < 0.1, "writes never wait for listings"
                    written += 1
                    await trio.sleep(1.0)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(log)
                await trio.sleep(10.5)
                began, there = world.now, written
                world.line.hang_s = lambda: 0.0
                found = await remote.list("log/")
                assert 19.0 <= world.now - began <= 20.5, "not for what began later"
                assert there <= len(found) <= written
                nursery.cancel_scope.cancel()

    play(test)


@pytest.mark.parametrize("hangs_s", [0.0, 50.0])
def test_a_listing_that_is_repeated_waits_for_nothing_that_began_since(hangs_s: float) -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock) as world:
            world.store.fails = 2.0                                     # each call
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(patience, "FIRST_BACKOFF_S", 1000.0)      # so that there is time in between

                async def repeated() -> None:
                    assert await seconds(world, partial(world.remote.list, "other/")) < 19.0

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(repeated)
                    await trio.sleep(0.001)
                    world.store.fails, world.line.hang_s = 0.0, lambda: hangs_s
                    with trio.move_on_after(1.0):
                        await world.remote.put(KEY, b"one")
                    world.line.hang_s = lambda: 0.0

    play(test)


def test_a_listing_waits_for_a_write_that_is_under_way_and_its_delay() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_jitter=0.0) as world:
            world.line.hang_s = lambda: 30.0
            with trio.move_on_after(5.0):
                await world.remote.put(KEY, b"one")
            world.line.hang_s = lambda: 0.0
            assert await seconds(world, partial(world.remote.list, "other/")) == 25.0 + 20.0
            assert [info.key for info in await world.remote.list("")] == [KEY]

    play(test)


def test_what_was_never_sent_has_no_delay() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_jitter=0.0) as world:
            world.line.hang_s = lambda: 50.0
            async with trio.open_nursery() as nursery:
                for number in range(world.remote.slots(Lane.URGENT)):
                    nursery.start_soon(world.remote.put, f"other/{number}", b"one")
                await trio.sleep(1.0)
                with trio.move_on_after(1.0):
                    await world.remote.put(KEY, b"one")
                world.line.hang_s = lambda: 0.0
                assert await seconds(world, partial(world.remote.get, KEY)) == 0.0
            assert KEY not in world.store.history

    play(test)


def test_a_quiet_reader_that_waits_is_passed_by_writers() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_delay=0.0) as world:
            turns, order = world.lock.turns, list[str]()
            first = await turns.take("put", (KEY,), True, Call(Lane.BULK, 0.0))

            async def one(name: str, write: bool, lane: Lane) -> None:
                ticket = await turns.take(name, (KEY,), write, Call(lane, 0.0))
                order.append(name)
                await trio.sleep(1.0)
                turns.give_back(ticket)

            async with trio.open_nursery() as nursery:
                for name, write, lane in (("look", False, Lane.QUIET), ("put", True, Lane.BULK), ("get", False, Lane.READ)):
                    nursery.start_soon(one, name, write, lane)
                    await trio.sleep(0.1)
                turns.give_back(first)
            assert order == ["put", "look", "get"] or order == ["put", "get", "look"]

    play(test)


def test_what_is_kept_in_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock) as world:
            lock = world.lock
            for number in range(60):
                await world.remote.delete_many([f"other/{number}/{n}" for n in range(5)])
            status = lock.status()
            assert status["delayed"] == 100 and status["delays_cut_short"] == 200 and status["known"] == 50
            assert len(lock.turns.grants._keys) == 100 >= len(lock.turns.grants._delays)
            await trio.sleep(1000.0)
            await world.remote.delete("other/last")
            await trio.sleep(1.0)
            assert lock.status()["known"] == 1 and len(lock.turns.grants._keys) == 1

    monkeypatch.setattr(bounds, "DELAYS_KEPT", 100)
    monkeypatch.setattr(bounds, "KEYS_KNOWN", 50)
    play(test)
