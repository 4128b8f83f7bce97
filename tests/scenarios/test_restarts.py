"""Scenarios in which this machine, not only the store, has its troubles: what the lock knows outlives them."""
from __future__ import annotations

import pytest
import trio

from s3cfs.errors import NotFound
from tests.scenarios.kit import World
from tests.scenarios.test_objects import KEY, NEW, OLD, SETTLED_S, STALE_S, keys

DAY_S = 86_400.0


def test_15_a_restart_within_the_delay(world: World) -> None:
    """The next process knows what the key must hold, and waits as long as the last one would have."""
    async def write() -> None:
        async with world.remote() as remote:
            await remote.put(KEY, OLD)
            await world.pass_by(SETTLED_S)
            await remote.put(KEY, NEW)

    async def read() -> None:
        began = world.clock.monotonic()
        async with world.remote() as remote:
            assert await remote.get(KEY) == NEW and world.clock.monotonic() - began > 10
            assert await keys(remote) == {KEY}

    world.run(write)
    world.gateway.stale(STALE_S)
    world.run(read)


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S, 365 * DAY_S])
def test_16_the_clock_jumps(world: World, jump_s: float) -> None:
    """While a key is held back, and between two mounts: a delay neither ends at once nor lasts for a day."""
    async def jump() -> None:
        async with world.remote() as remote:
            await remote.put(KEY, OLD)
            await world.pass_by(SETTLED_S)
            world.gateway.stale(STALE_S)
            await remote.put(KEY, NEW)
            world.clock.wall_s += jump_s
            assert await remote.get(KEY) == NEW
            await remote.delete(KEY)
            world.clock.wall_s -= 2 * jump_s

    async def read() -> None:
        began = world.clock.monotonic()
        async with world.remote() as remote:
            with pytest.raises(NotFound):
                await remote.get(KEY)
            assert world.clock.monotonic() - began < 200

    world.run(jump)
    world.run(read)


def test_17_the_process_dies_in_a_put(world: World) -> None:
    """It may be under way still, in the gateway: the next process waits before it believes what it reads."""
    async def die() -> None:
        async with world.remote() as remote:
            await remote.put(KEY, OLD)
            await world.pass_by(SETTLED_S)
            world.gateway.late(15.0, only="put", count=1)
            with trio.move_on_after(4.0):
                await remote.put(KEY, NEW)

    async def read() -> None:
        async with world.remote() as remote:
            assert await remote.get(KEY) == NEW

    world.run(die)
    world.run(read)


def test_18_the_gateway_restarts(world: World) -> None:
    async def main() -> None:
        async with world.remote() as remote, trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, world.gateway.restart, 10.0)
            for number in range(6):
                nursery.start_soon(remote.put, f"pack/cc/{number}", NEW)
        async with world.remote() as remote:
            assert len(await keys(remote)) == 6
    world.run(main)


def test_19_idle_connections_die_silently(world: World) -> None:
    """Each costs its timeout once, and never an answer: what comes after an error has a connection of its own."""
    async def main() -> None:
        async with world.remote() as remote:
            await remote.put(KEY, NEW)
            await world.pass_by(SETTLED_S)
            assert world.gateway.kill_idle() >= 1
            assert await remote.get(KEY) == NEW
    world.run(main)


def test_20_listings_in_encrypted_order_while_objects_come(world: World) -> None:
    """Page by page by token: what was there before is there, whatever comes meanwhile."""
    world.gateway.page_keys = 10

    async def main() -> None:
        async with world.remote() as remote:
            before = {f"pack/dd/{number}" for number in range(60)}
            async with trio.open_nursery() as nursery:
                for key in before:
                    nursery.start_soon(remote.put, key, b"x")
            await world.pass_by(SETTLED_S)
            found: set[str] = set()

            async def look() -> None:
                found.update(await keys(remote, "pack/dd/"))

            world.gateway.slow(0.5, only="list")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                for number in range(60, 80):
                    nursery.start_soon(remote.put, f"pack/dd/{number}", b"x")
            assert before <= found
    world.run(main)
