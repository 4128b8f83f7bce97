"""A whole filesystem on a store that loses and halves what it is given: later another machine finds everything, from the store alone."""
from __future__ import annotations

import random

import pytest
import trio

from s3cfs.app.node import NodeOptions
from s3cfs.backends.consistency.bounds import Bounds
from s3cfs.backends.consistency.conditions import Conditions
from s3cfs.backends.consistency.guard import Guarded
from s3cfs.backends.recorder import RecorderBackend
from s3cfs.history.office import Takeover
from tests.history.kit import Life, Site, content, new_machine, write_file


@pytest.mark.parametrize(("create_only", "lock"), [(True, True), (False, False)])
def test_a_store_that_loses_packs_and_records(create_only: bool, lock: bool) -> None:
    site, rng = Site(), random.Random(7)
    site.bucket.create_only = create_only
    files = {str(number).encode(): content(number, 30_000) for number in range(8)}
    spoilt: list[str] = []

    async def spoil() -> None:
        """A third of what comes, some seconds after it came."""
        objects, known = site.bucket.objects, set(site.bucket.objects)
        while True:
            await trio.sleep(3)
            for key in sorted(objects.keys() - known):
                known.add(key)
                if key.startswith(("pack/", "log/")) and rng.random() < 0.34:
                    spoilt.append(key)
                    if key.startswith("pack/") and rng.random() < 0.5:
                        objects[key] = objects[key][:100]
                    else:
                        del objects[key]

    async def main(life: Life) -> None:
        conditions = Conditions(Bounds(check_sample=1.0, checks_per_minute=600), locks=lock)
        life.backend = RecorderBackend(Guarded(life.store, conditions, lock=lock, checker=True))
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spoil)
                for name, data in files.items():
                    await write_file(node, name, data)
                    await node.flush()
                    await trio.sleep(rng.uniform(0, 20))
                await trio.sleep(20)
                nursery.cancel_scope.cancel()
            await trio.sleep(4000)
            status = node.remote.stack.status()["checker"]
            assert len(spoilt) > 3 and status["repaired"] >= len(spoilt) and status["watched"] == 0, status
            assert "degraded" not in status and not node.damage.count
            life.taken()
            await trio.sleep(10_000)
            assert not life.taken(), "it has come to rest"

    site.live(main)
    assert new_machine(site) == files
