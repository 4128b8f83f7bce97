"""Memory for dirty data is shared fairly."""
from __future__ import annotations

import trio

from s3cfs.app.node import NodeOptions
from s3cfs.limits import Limits
from s3cfs.vfs.types import ROOT_CALLER
from tests.history.kit import Life, Site, content

KIB = 1 << 10


def test_a_small_file_gets_room_beside_streams() -> None:
    """Who waits for room is served in turn: the writers of a stream do not take all that comes."""
    site = Site(limits=Limits(stage_run_bytes=128 * KIB, stage_slice_bytes=128 * KIB, spool_max_bytes=0))

    async def main(life: Life) -> None:
        async with life.node(NodeOptions(pool_bytes=256 * KIB)) as node:
            streamed = 0
            data = content(1, 32 * KIB)
            big = (await node.vfs.create(1, b"big", 0o644, ROOT_CALLER)).ino
            small = (await node.vfs.create(1, b"small", 0o644, ROOT_CALLER)).ino

            async def stream() -> None:
                nonlocal streamed
                while True:
                    at, streamed = streamed, streamed + 1
                    await node.vfs.write(big, at * len(data), data)

            async with trio.open_nursery() as nursery:
                for _ in range(32):                         # as many requests as the kernel has on the way
                    nursery.start_soon(stream)
                for number in range(5):
                    await life.doors.clock.sleep(1)
                    before = streamed
                    await node.vfs.write(small, number * 100, bytes(100))
                    assert streamed - before <= 2 * 32, f"{streamed - before} writes of a stream went before it"
                nursery.cancel_scope.cancel()

    site.live(main)
