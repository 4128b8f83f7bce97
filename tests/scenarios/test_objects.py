"""The scenarios of docs/consistency.md, object by object: keys that are overwritten and deleted, as s3cfs's own never are, over a
gateway that answers with what is old. Each answer is what was written last, or there is none. The numbers are the page's; seconds are
fast ones (kit.py)."""
from __future__ import annotations

import pytest
import trio

from s3cfs.errors import NotFound, StoreError
from s3cfs.remote import Remote
from tests.scenarios.kit import World

KEY, OTHER = "pack/aa/1", "pack/aa/2"
OLD, NEW = b"as it was" * 100, b"as it is now" * 90
STALE_S, SETTLED_S = 20.0, 50.0


async def overwritten(world: World, remote: Remote) -> None:
    await remote.put(KEY, OLD)
    await world.pass_by(SETTLED_S)
    await remote.put(KEY, NEW)


async def deleted(world: World, remote: Remote) -> None:
    await remote.put(KEY, OLD)
    await world.pass_by(SETTLED_S)
    await remote.delete(KEY)


async def keys(remote: Remote, prefix: str = "pack/") -> set[str]:
    return {info.key for info in await remote.list(prefix)}


def test_1_overwrite_then_read(world: World) -> None:
    async def main() -> None:
        async with world.remote() as remote:
            world.gateway.stale(STALE_S, only="get")
            await overwritten(world, remote)
            assert await remote.get(KEY) == NEW
    world.run(main)


def test_2_overwrite_then_stat(world: World) -> None:
    async def main() -> None:
        async with world.remote() as remote:
            world.gateway.stale(STALE_S, only="head")
            await overwritten(world, remote)
            assert (await remote.stat(KEY)).size == len(NEW)
    world.run(main)


def test_3_overwrite_then_read_a_range(world: World) -> None:
    """The delay is too short for this gateway: what comes is known to be wrong, though a part of it says nothing."""
    async def main() -> None:
        world.options["lock-delay"] = "2"
        async with world.remote() as remote:
            world.gateway.stale(STALE_S, only="get")
            await overwritten(world, remote)
            assert await remote.get(KEY, 10, 7) == NEW[10:17]
    world.run(main)


def test_4_put_then_read(world: World) -> None:
    """A new key: 404 for a while."""
    async def main() -> None:
        world.options["lock-delay"] = "2"
        async with world.remote() as remote:
            world.gateway.stale(STALE_S, only=("get", "head"))
            await remote.put(KEY, NEW)
            assert await remote.get(KEY) == NEW and (await remote.stat(KEY)).size == len(NEW)
            with pytest.raises(NotFound):
                await remote.get(OTHER)
    world.run(main)


def test_5_put_then_list(world: World) -> None:
    async def main() -> None:
        world.options["lock-delay"] = "2"
        async with world.remote() as remote:
            world.gateway.stale(STALE_S, only="list")
            await remote.put(KEY, NEW)
            assert await keys(remote) == {KEY} and await remote.folders("pack/") == ["aa"]
    world.run(main)


def test_6_delete_then_read(world: World) -> None:
    async def main() -> None:
        async with world.remote() as remote:
            world.gateway.stale(STALE_S)
            await deleted(world, remote)
            for ask in (remote.get, remote.stat):
                with pytest.raises(NotFound):
                    await ask(KEY)
    world.run(main)


def test_7_delete_then_list(world: World) -> None:
    async def main() -> None:
        world.options["lock-delay"] = "2"
        async with world.remote() as remote:
            world.gateway.stale(STALE_S, only="list")
            await deleted(world, remote)
            assert await keys(remote) == set()
    world.run(main)


def test_8_a_delete_that_does_not_take(world: World) -> None:
    """It is never read again, and it is told."""
    async def main() -> None:
        async with world.remote() as remote:
            await remote.put(KEY, OLD)
            await world.pass_by(SETTLED_S)
            world.gateway.deletes_stay(count=1)
            await remote.delete(KEY)
            with pytest.raises(StoreError):
                await remote.get(KEY)
            assert await keys(remote) == set()
            assert remote.snapshot()["layers"]["consistency"]["ghosts"]
    world.run(main)


def test_9_a_deleted_object_returns(world: World) -> None:
    async def main() -> None:
        async with world.remote() as remote:
            await remote.put(KEY, OLD)
            await world.pass_by(SETTLED_S)
            world.gateway.deletes_return(SETTLED_S, count=1)
            await remote.delete(KEY)
            with pytest.raises(NotFound):
                await remote.get(KEY)
            await world.pass_by(2 * SETTLED_S)
            with pytest.raises(StoreError):
                await remote.get(KEY)
    world.run(main)


def test_10_a_zombie_put(world: World) -> None:
    """The gateway says 500... and carries the put out later, when the next one has been acknowledged, were there no lock."""
    async def main() -> None:
        async with world.remote() as remote:
            await remote.put(KEY, b"first")
            await world.pass_by(SETTLED_S)
            zombie = world.gateway.late(15.0, only="put", count=1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(remote.put, KEY, OLD)
                while not zombie.fired:
                    await world.pass_by(0.5)
                nursery.cancel_scope.cancel()
            await remote.put(KEY, NEW)
            await world.pass_by(SETTLED_S)
            assert await remote.get(KEY) == NEW
    world.run(main)


def test_11_answers_of_puts_are_lost(world: World) -> None:
    """Carried out, and nobody hears of it: the next attempt, and the look at a create-only put, wait for their turn."""
    async def main() -> None:
        async with world.remote() as remote:
            world.gateway.stale(STALE_S)
            world.gateway.lose_answers(only="put", count=2)
            await remote.put(KEY, NEW)
            assert await remote.get(KEY) == NEW
    world.run(main)


def test_12_answers_of_deletions_are_lost(world: World) -> None:
    async def main() -> None:
        async with world.remote() as remote:
            await remote.put(KEY, OLD)
            await world.pass_by(SETTLED_S)
            world.gateway.stale(STALE_S)
            world.gateway.lose_answers(only=("delete", "other"), count=1)
            await remote.delete(KEY)
            with pytest.raises(NotFound):
                await remote.get(KEY)
    world.run(main)


def test_13_a_storm_of_429(world: World) -> None:
    """With Retry-After: all goes through, nobody asks sooner, and the delay grows."""
    async def main() -> None:
        async with world.remote() as remote:
            storm = world.gateway.throttle(1.0, for_s=40.0)
            before = remote.snapshot()["layers"]["consistency"]["delay_s"]
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(remote.put, f"pack/bb/{number}", NEW)
            assert len(await keys(remote, "pack/bb/")) == 8 <= storm.fired < 200
            assert remote.snapshot()["layers"]["consistency"]["delay_s"] > before
    world.run(main)


def test_14_many_readers_or_one_writer(world: World) -> None:
    """On the gateway's side no read of the key overlaps with a put of it, reads overlap with reads, and other keys wait for nobody."""
    async def main() -> None:
        world.options["lock-delay"] = "0"
        world.gateway.slow(4.0, only=("get", "put"))
        async with world.remote() as remote:
            await remote.put(KEY, OLD)
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(remote.get, KEY)
                    if number == 2:
                        nursery.start_soon(remote.put, KEY, NEW)
                nursery.start_soon(remote.put, OTHER, NEW)
            assert await remote.get(KEY) == NEW
        began = {note.at: note for note in world.gateway.notes if note.operation in ("get", "put")}
        puts = [note.at for note in began.values() if note.operation == "put" and note.path.endswith("/1")]
        reads = [note.at for note in began.values() if note.operation == "get"]
        assert len(puts) == 2 and all(abs(put - read) >= 3.9 for put in puts for read in reads), "they overlap"
        assert any(abs(one - other) < 2 for one in reads for other in reads if one != other), "readers wait for readers"
    world.run(main)
