"""What a key must hold is known, and an answer that is older is never given; what another machine does is believed in the end."""
from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import trio

from s3cfs.backends.consistency import bounds
from s3cfs.backends.consistency.conditions import Kind
from s3cfs.backends.consistency.young import Young
from s3cfs.backends.layer import Call, Lane
from s3cfs.errors import Corrupt, Denied, Exists, NotFound, StoreError, Temporary
from tests.backends.consistency.kit import Inline, Moves, StaleBackend, World, mounted, play

KEY = "other/key"


def late(stale_s: float, **how: Any) -> StaleBackend:
    """Each answer shows the world of `stale_s` ago."""
    return StaleBackend(random.Random(1), stale_s=stale_s, exact=True, **how)


def kinds(world: World) -> set[Kind]:
    return {one.kind for one in world.evidence}


@pytest.mark.parametrize("delay_s", [0.0, 20.0])
def test_an_old_answer_is_asked_for_again_until_it_is_new(delay_s: float) -> None:
    async def test(clock: Moves) -> None:
        async with mounted(late(50.0), clock, lock_delay=delay_s) as world:
            remote = world.remote
            for body in (b"first", b"second!", b"third!!"):                        # the last two of the same size
                await remote.put(KEY, body)
                assert await remote.get(KEY) == body
                await remote.put(KEY, body[::-1])
                assert await remote.get(KEY, 1, 3) == body[::-1][1:4], "of one that was overwritten all is read"
                assert (await remote.stat(KEY)).size == len(body)
                assert [(info.key, info.size) for info in await remote.list("other/")] == [(KEY, len(body))]
            await remote.delete(KEY)
            for ask in (remote.get, remote.stat):
                with pytest.raises(NotFound):
                    await ask(KEY)
            await remote.put("other/deep/key", b"one")
            assert await remote.folders("other/") == ["deep"]
            assert kinds(world) == {Kind.STALE, Kind.GHOST} and all(one.age_s is not None and one.age_s < 50.0 for one in world.evidence)
            assert world.lock.status()["put_right"] <= 2

    play(test)


def test_a_listing_that_is_old_again_and_again_is_put_right() -> None:
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, lock_delay=0.0) as world:
            for key in ("other/gone", "other/here"):
                await world.remote.put(key, b"old")
            await trio.sleep(100.0)
            await world.remote.put("other/here", b"newer")
            await world.remote.put("other/new/one", b"new")
            await world.remote.delete("other/gone")
            backend.stale_s = 50.0
            assert {info.key: info.size for info in await world.remote.list("other/")} == {"other/here": 5, "other/new/one": 3}
            assert await world.remote.folders("other/") == ["new"]
            assert world.lock.status()["put_right"] == 2 and len([call for call in backend.calls if call[0] == "list"]) == 2 * 3
            assert kinds(world) == {Kind.STALE, Kind.GHOST}

    play(test)


def test_no_old_version_is_shown_by_a_listing_beside_a_write() -> None:
    """Of a key that changes while it runs it may show what was there before and what comes, and nothing older."""
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, lock_delay=0.0) as world:
            for body in (b"1", b"22", b"333"):
                await world.remote.put(KEY, body)
                await trio.sleep(10.0)
            world.line.hang_s = lambda: 5.0
            backend.stale_s = 20.0
            sizes: list[int] = []

            async def look() -> None:
                sizes.append((await world.remote.list("other/"))[0].size)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await trio.sleep(1.0)
                nursery.start_soon(world.remote.put, KEY, b"4444")
            assert sizes == [3] or sizes == [4]
            assert kinds(world) == {Kind.STALE}

    play(test)


def test_of_a_key_that_changes_while_it_runs_a_listing_may_show_what_was_there() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(late(0.0), clock, lock_delay=0.0) as world:
            await world.remote.put(KEY, b"333")
            await trio.sleep(1.0)
            sizes: list[int] = []

            async def look() -> None:
                sizes.append((await world.remote.list("other/"))[0].size)

            async with trio.open_nursery() as nursery:
                world.line.linger_s = lambda: 10.0
                nursery.start_soon(look)
                await trio.sleep(1.0)
                world.line.linger_s = lambda: 0.0
                await world.remote.put(KEY, b"4444")
                assert not sizes
            assert sizes == [3] and not world.evidence
            assert (await world.remote.list("other/"))[0].size == 4

    play(test)


def test_of_what_was_created_by_a_put_that_found_nothing_a_part_is_enough() -> None:
    """So packs are not read as a whole: nothing older was ever there."""
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, lock_delay=0.0) as world:
            await world.remote.put("pack/aa/1", bytes(1000), only_if_absent=True)
            assert len(await world.remote.get("pack/aa/1", 100, 200)) == 200
            backend.get = partial(_first, 50, backend)                             # type: ignore[method-assign]
            with pytest.raises(Corrupt):
                await world.remote.get("pack/aa/1", 100, 200)
            assert kinds(world) == {Kind.CORRUPT}

    play(test)


def test_of_what_was_created_where_something_was_deleted_all_is_read() -> None:
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, lock_delay=0.0) as world:
            await world.remote.put(KEY, b"older bytes", only_if_absent=True)
            await trio.sleep(100.0)
            await world.remote.delete(KEY)
            await world.remote.put(KEY, b"newer bytes", only_if_absent=True)
            backend.stale_s = 50.0
            assert await world.remote.get(KEY, 0, 5) == b"newer" and kinds(world) == {Kind.STALE}

    play(test)


def _first(count: int, backend: StaleBackend, key: str, offset: int = 0, size: int | None = None) -> bytes:
    assert (offset, size) == (100, 200)
    return StaleBackend.get(backend, key, offset, count)


@pytest.mark.parametrize("what", ["deleted", "overwritten", "put again"])
def test_another_machine_is_believed_in_the_end(what: str) -> None:
    """Each call ends within its promise, and after `lock_memory` the store is right."""
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, lock_delay=5.0, lock_memory=600.0) as world:
            remote = world.remote
            await remote.put(KEY, b"ours")
            if what == "put again":
                await remote.delete(KEY)
            backend.history[KEY].append((world.now, None if what == "deleted" else b"theirs"))
            refused, began = 0, world.now
            while True:
                asked = world.now
                try:
                    answer: bytes | None = await remote.get(KEY)
                except NotFound:
                    answer = None
                except Temporary:
                    refused += 1
                    assert world.now - asked <= 130.0
                    continue
                break
            assert answer == (None if what == "deleted" else b"theirs")
            assert refused >= 4 and 590.0 < world.now - began < 730.0
            assert Kind.LOST in kinds(world) if what == "deleted" else kinds(world) <= {Kind.STALE, Kind.GHOST}

    play(test)


def test_what_others_may_delete_at_any_time_may_be_gone() -> None:
    """A claim is tidied away by the machine that took over; whoever lists them after each record must not wait for it."""
    async def test(clock: Moves) -> None:
        backend, key = late(0.0), "claim/main/1-a"
        async with mounted(backend, clock, lock_delay=0.0) as world:
            await world.remote.put(key, b"ours")
            backend.history[key].append((world.now, None))
            assert await world.lock.list("claim/", Call(Lane.READ, 0.0)) == []
            for ask in (world.lock.stat(key, Call(Lane.READ, 0.0)), world.lock.get(key, 0, None, Call(Lane.READ, 0.0))):
                with pytest.raises(NotFound):
                    await ask
            backend.history[key].append((world.now, b"of another size"))
            with pytest.raises(Temporary):
                await world.lock.stat(key, Call(Lane.READ, 0.0))
            assert kinds(world) == {Kind.STALE} and len(world.evidence) == 1

    play(test)


def test_a_put_that_is_refused_for_what_was_deleted_is_repeated() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(late(50.0, blind=True), clock, lock_delay=5.0) as world:
            await world.remote.put(KEY, b"one")
            await trio.sleep(100.0)
            await world.remote.delete(KEY)
            await world.remote.put(KEY, b"two", only_if_absent=True)
            assert await world.remote.get(KEY) == b"two" and Kind.GHOST in kinds(world)

    play(test)


def test_of_a_deletion_that_was_refused_in_the_middle_some_may_be_gone() -> None:
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, lock_delay=0.0) as world:
            keys = ["other/1", "other/2"]
            for key in keys:
                await world.remote.put(key, b"one")
            await trio.sleep(10.0)

            def refuse(keys: Sequence[str]) -> None:
                backend.delete(keys[0])
                raise Denied("delete", keys[1], "not this one")

            kept, backend.delete_many = backend.delete_many, refuse                # type: ignore[method-assign]
            backend.delete = lambda key: kept([key])                               # type: ignore[method-assign]
            with pytest.raises(Denied):
                await world.remote.delete_many(keys)
            with pytest.raises(NotFound):
                await world.remote.get(keys[0])
            assert await world.remote.get(keys[1]) == b"one" and not world.evidence

    play(test)


def test_what_was_seen_of_a_put_without_an_answer_stays() -> None:
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, lock_delay=0.0) as world:
            await world.remote.put(KEY, b"one")
            await trio.sleep(100.0)
            backend.breaks = "after"
            with pytest.raises(StoreError):
                await world.remote.put(KEY, b"two", only_if_absent=False)
            backend.breaks = ""
            await trio.sleep(10.0)
            backend.stale_s = 200.0
            assert await world.remote.get(KEY) == b"one", "for all that its caller knows it did not happen"
            backend.stale_s = 0.0
            assert await world.remote.get(KEY) == b"two"
            backend.stale_s = 200.0
            assert not world.evidence
            assert await world.remote.get(KEY) == b"two" and Kind.STALE in kinds(world)

    play(test)


def test_what_was_seen_to_be_gone_stays_gone() -> None:
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, lock_delay=0.0) as world:
            for ask in (world.remote.get, world.remote.stat):
                await world.remote.put(KEY, b"one")
                await trio.sleep(100.0)
                backend.breaks = "after"
                with pytest.raises(StoreError):
                    await world.remote.delete(KEY)
                backend.breaks = ""
                with pytest.raises(NotFound):
                    await ask(KEY)
                backend.stale_s = world.now - next(when for when, data in backend.history[KEY][::-1] if data) - 50.0
                world.evidence.clear()
                with pytest.raises(NotFound):
                    await ask(KEY)
                assert kinds(world) == {Kind.GHOST}, "nobody knows who deleted it, but that it was"
                backend.stale_s = 0.0

    play(test)


def test_large_bodies_are_hashed_beside_the_loop_and_only_where_something_older_may_be_there() -> None:
    hops: list[str] = []

    class Counted(Inline):
        async def run(self, function: Any, *args: Any) -> Any:
            hops.append(function.__name__)
            return function(*args)

    async def test(clock: Moves) -> None:
        async with mounted(late(0.0), clock, lock_delay=0.0, threads=Counted()) as world:
            large = bytes(bounds.SMALL_BODY + 1)
            await world.remote.put("other/small", bytes(10))
            await world.remote.put("pack/first", large, only_if_absent=True)
            assert await world.remote.get("pack/first") == large and not hops
            await world.remote.put(KEY, large)
            assert await world.remote.get(KEY) == large
            await world.remote.delete("pack/first")
            await world.remote.put("pack/first", large, only_if_absent=True)
            assert await world.remote.get("pack/first") == large

    play(test)
    assert hops == ["_digest"] * 4


def test_a_small_object_is_read_during_its_delay_without_a_request() -> None:
    """By whom else than by those who look after the store; not when it is being changed, and not for longer than the delay."""
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, young=True) as world:
            remote = world.remote
            await remote.put(KEY, b"body")
            assert await remote.get(KEY) == b"body" and await remote.get(KEY, 1, 2) == b"od" and (await remote.stat(KEY)).size == 4
            assert world.now == 0.0 and backend.calls == [("put", KEY)]
            await remote.put("other/large", bytes(bounds.SMALL_BODY + 1))
            with pytest.raises(Exists):
                await remote.put(KEY, b"another", only_if_absent=True)
            assert await remote.get(KEY) == b"body" and backend.calls[-1] == ("get", KEY), "a write was begun: the store is asked"
            with pytest.raises(ValueError, match="negative"):
                await world.lock.get("other/large", -1, None, Call(Lane.READ, 0.0))
            assert len(await remote.get("other/large")) == bounds.SMALL_BODY + 1 and world.lock.status()["held_back"] == 1
            for number in range(100):
                await remote.put(f"other/{number}", bytes(bounds.SMALL_BODY))
            young = world.lock._young
            longer, shorter = Young(), world.now + 1.0
            longer.keep("first", b"1", shorter + 10.0)
            longer.keep("second", b"2", shorter)
            assert longer.of("second", shorter) is None and longer.of("first", shorter) == b"1"
            assert young._size == bounds.YOUNG_BODIES == sum(len(data) for _, data in young._bodies.values())
            assert await remote.get("other/99") == bytes(bounds.SMALL_BODY)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(world.lock.get, "other/98", 0, None, Call(Lane.QUIET, 0.0)))
                await trio.sleep(1.0)
                assert world.lock.status()["waiting"] == 1
            await trio.sleep(30.0)
            assert young.of("other/98", world.now) is None and young._size == 0, "their delays are over"

    play(test)


def test_what_was_not_answered_is_not_given_out_of_memory() -> None:
    async def test(clock: Moves) -> None:
        backend = late(0.0)
        async with mounted(backend, clock, young=True) as world:
            await world.remote.put(KEY, b"one")
            backend.breaks = "before"
            with pytest.raises(Temporary):
                await world.remote.put(KEY, b"two")
            backend.breaks = ""
            assert await world.remote.get(KEY) == b"one"

    play(test)
