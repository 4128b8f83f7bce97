"""A whole filesystem above the lock, in virtual time: tiers, claims, takeovers and packs go their way as without it."""
from __future__ import annotations

import pytest
import trio

from s3cfs.app.node import NodeOptions
from s3cfs.backends.consistency.bounds import Bounds
from s3cfs.backends.consistency.conditions import Conditions
from s3cfs.backends.consistency.guard import Guarded
from s3cfs.backends.consistency.lock import Lock
from s3cfs.history.office import Takeover, Tier
from tests.history.kit import Life, Site, content, read_all, write_file
from tests.sim.store import StoreFaults

FILES = {str(number).encode(): content(number) for number in range(8)}


def locked(life: Life, **bounds: float) -> Lock:
    """Its backend from now on; the lock is the one of the next mount."""
    guarded = Guarded(life.backend, Conditions(Bounds(**bounds), locks=True), lock=True, checker=False)     # type: ignore[arg-type]
    lock, = guarded.layers()
    assert isinstance(lock, Lock)
    guarded.layers = lambda: (lock,)                                                                        # type: ignore[method-assign]
    life.backend = guarded                                                                                  # type: ignore[assignment]
    return lock


@pytest.mark.parametrize("tier", [Tier.T1, Tier.T2])
@pytest.mark.parametrize("delay_s", [0.0, 20.0])
def test_machines_that_follow_one_another(tier: Tier, delay_s: float) -> None:
    """The store keeps its promises: the lock finds nothing, and holds up nobody for longer than its delay."""
    site = Site()
    site.bucket.create_only = tier is Tier.T1
    took: list[float] = []

    async def turn(life: Life, takeover: Takeover, leave: bool) -> dict[bytes, bytes]:
        lock, began = locked(life, lock_delay=delay_s), trio.current_time()
        async with life.node(NodeOptions(takeover=takeover, cache_bytes=0)) as node:
            assert node.writer is not None and node.writer.tier is tier
            took.append(trio.current_time() - began)
            for name, data in list(FILES.items())[2 * (life.number - 1):2 * life.number]:
                await write_file(node, name, data)
                await node.flush()
            found = await read_all(node)
            told = lock.status()
            assert not any(told[name] for name in ("stale", "ghosts", "lost", "corrupt", "clashes", "put_right")), told
            if not leave:
                life.incarnation.kill("killed")
                await trio.sleep(1.0)
        return found

    site.live(lambda life: turn(life, Takeover.NO, True))
    assert site.live(lambda life: turn(life, Takeover.NO, True), "elsewhere") == dict(list(FILES.items())[:4])
    site.live(lambda life: turn(life, Takeover.NO, False), "elsewhere")
    site.now_s += 60.0
    assert site.live(lambda life: turn(life, Takeover.YES, True), "third") == FILES
    assert max(took[:3]) <= 10.0 + 1.5 * delay_s * (2 if tier is Tier.T1 else 3)


@pytest.mark.parametrize("create_only", [True, False])
def test_on_a_store_that_shows_what_was_there_before(create_only: bool) -> None:
    site = Site()
    site.bucket.create_only = create_only
    options = NodeOptions(sole_writer=not create_only, cache_bytes=0)

    async def write(life: Life) -> None:
        lock = locked(life, lock_delay=5.0, lock_delay_least=5.0)
        async with life.node(options) as node:
            for name, data in list(FILES.items())[life.number - 1::2]:
                await write_file(node, name, data)
                await node.flush()
                await node.drop_cache()
            assert set(await read_all(node)) <= set(FILES)
            assert lock.status()["corrupt"] == 0

    async def look(life: Life) -> dict[bytes, bytes]:
        locked(life, lock_delay=5.0)
        async with life.node(options) as node:
            return await read_all(node)

    for _ in range(2):
        site.live(write, faults=StoreFaults(stale_s=20.0))
    assert site.live(look, faults=StoreFaults(stale_s=20.0)) == FILES
    site.now_s += 20
    assert site.live(look, "elsewhere", faults=StoreFaults(stale_s=20.0)) == FILES
