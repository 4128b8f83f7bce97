"""The lock's modes and settings, changed while it is at work; in virtual time."""
from __future__ import annotations

from functools import partial

import pytest
import trio

from s3cfs.backends.consistency.bounds import Mode
from s3cfs.backends.consistency.conditions import Kind
from s3cfs.errors import ConfigError, NotFound
from tests.backends.consistency.kit import Moves, mounted, play
from tests.backends.consistency.test_lock import KEY, seconds, store


def test_modes(caplog: pytest.LogCaptureFixture) -> None:
    """`warn` goes on and says so, `off` says nothing; who waits is let go."""
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_jitter=0.0) as world:
            remote, lock = world.remote, world.lock
            await remote.put(KEY, b"one")
            await remote.put("other/two", b"two")
            await trio.sleep(30.0)
            await remote.put(KEY, b"one")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(remote.get, KEY)
                nursery.start_soon(remote.list, "")
                await trio.sleep(1.0)
                lock.change("lock-mode", "warn")
                assert not caplog.records
            assert world.now == 31.0, "both went on"
            await remote.get(KEY)
            await remote.list("")
            world.line.hang_s = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(remote.get, "other/two")
                await trio.sleep(1.0)
                nursery.start_soon(remote.put, "other/two", b"two")
                await trio.sleep(1.0)
                nursery.start_soon(remote.stat, "other/two")
            said = [record.getMessage() for record in caplog.records]
            assert len(said) == 3 and lock.status()["clashes"] == 4, "of one key one line, now and then"
            assert said[0].startswith("consistency: get of other/key by ") and "in the delay after put by " in said[0]
            assert "list of " in said[1] and "get by " in said[2] and "has been under way for 1.0 s; it goes on" in said[2]
            caplog.clear()
            lock.change("lock-mode", "off")
            await remote.get("other/two")
            assert not caplog.records and lock.status()["clashes"] == 4
            lock.change("lock-mode", "block")
            took = await seconds(world, partial(remote.get, "other/two"))
            assert round(took) == 9 + 10, "the rest of the delay of the put, and the answer"

    play(test)


@pytest.mark.parametrize("mode", ["warn", "off"])
def test_which_of_two_writes_at_once_came_last_is_not_known(mode: str) -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_delay=0.0) as world:
            world.lock.change("lock-mode", mode)
            before, after = iter([10.0, 2.0]), iter([0.0, 20.0])
            world.line.hang_s, world.line.linger_s = lambda: next(before, 0.0), lambda: next(after, 0.0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.remote.put, KEY, b"came last")
                await trio.sleep(1.0)
                nursery.start_soon(world.remote.put, KEY, b"ended last")
            world.lock.change("lock-mode", "block")
            assert await world.remote.get(KEY) == b"came last" and {one.kind for one in world.evidence} <= {Kind.CLASH}
            await world.remote.put(KEY, b"now it is")
            world.store.stale_s = 5.0
            assert await world.remote.get(KEY) == b"now it is" and Kind.STALE in {one.kind for one in world.evidence}

    play(test)


def test_an_answer_with_a_write_beside_it_is_not_judged() -> None:
    """In `warn`: what it shows may have been true when it was asked for."""
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_delay=0.0, lock_mode=Mode.WARN) as world:
            await world.remote.put(KEY, b"one")
            seen: list[bytes] = []

            async def look() -> None:
                seen.append(await world.remote.get(KEY))

            async with trio.open_nursery() as nursery:
                world.line.linger_s = lambda: 10.0
                nursery.start_soon(look)
                await trio.sleep(1.0)
                world.line.linger_s = lambda: 0.0
                await world.remote.put(KEY, b"two")
            assert seen == [b"one"] and {one.kind for one in world.evidence} == {Kind.CLASH}

    play(test)


def test_settings_are_shown_and_taken_over_at_once() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, lock_jitter=0.0) as world:
            layer = world.remote.stack
            assert layer.settings("consistency")["consistency"]["lock-delay"] == "20" and "grow-factor" not in layer.settings("consistency")
            await world.remote.put(KEY, b"one")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.remote.get, KEY)
                nursery.start_soon(world.remote.list, "")
                await trio.sleep(1.0)
                layer.change("consistency", {"lock-delay": "3"})
            assert world.now == 4.0, "what is in a delay profits"
            with pytest.raises(ConfigError, match="between 0 and"):
                layer.change("consistency", {"lock-memory": "-1"})
            with pytest.raises(ConfigError):
                layer.change("consistency", {"grow-factor": "3"})
            assert world.lock.status()["delay_s"] == 3.0

    play(test)


def test_a_delay_that_is_cut_short_leaves_nothing_of_its_own() -> None:
    async def test(clock: Moves) -> None:
        async with mounted(store(), clock, young=True) as world:
            await world.remote.put(KEY, b"one")
            world.lock.change("lock-delay", "0")
            await world.remote.delete(KEY)
            with pytest.raises(NotFound):
                await world.remote.get(KEY)
            assert world.now == 0.0

    play(test)
