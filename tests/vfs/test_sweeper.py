"""Large removals go in steps in the background, are finished by a later process, and make way for those who write."""
from __future__ import annotations

import os
from typing import Any

from s3cfs.app.node import Node, NodeOptions
from s3cfs.limits import Limits
from tests.history.kit import Life, Site, content, read_all, write_file

OPTIONS = NodeOptions(level=None)
SIZE = 1 << 20                            # some 60 extents
SMALL = Limits(sweep_rows=4)


async def large_file(node: Node, name: bytes = b"large") -> int:
    ino = await write_file(node, name, content(1, SIZE))
    await node.flush()
    return ino


def audit(node: Node) -> list[Any]:
    node.meta.commit()
    return list(node.meta.audit.problems())


def test_a_removed_file_goes_in_many_transactions() -> None:
    site = Site(limits=SMALL)

    async def main(life: Life) -> None:
        async with life.node(OPTIONS) as node:
            await large_file(node)
            await node.vfs.unlink(1, b"large")
            await node.vfs.forget_all()
            assert node.meta.has_trash and node.meta.counters.used_bytes == 0
            await life.doors.clock.sleep(20)
            assert not node.meta.has_trash and audit(node) == []

    site.live(main)
    assert site.live(whole_elsewhere, "elsewhere") == []


async def whole_elsewhere(life: Life) -> list[bytes]:
    async with life.node(OPTIONS) as node:
        assert audit(node) == [] and not node.meta.has_trash
        return [name for name, _ in await node.meta.children(1, 0, 100)]


def test_a_crash_in_the_middle_is_taken_up_by_the_next_mount() -> None:
    site = Site(limits=Limits(sweep_rows=1))          # so that it takes longer than what is done beside it

    async def main(life: Life) -> None:
        async with life.node(OPTIONS) as node:
            ino = await large_file(node)
            await node.vfs.open(ino, os.O_RDWR | os.O_TRUNC)
            await node.vfs.release(ino)
            await node.commits.durable()
            await write_file(node, b"other", b"o" * 5000)
            await node.commits.durable()
            inode = await node.vfs.lookup(1, b"large")
            assert inode is not None and inode.size == 0 and await read_all(node) == {b"large": b"", b"other": b"o" * 5000}
            await node.vfs.forget_all()
            assert node.meta.has_trash
            life.incarnation.kill()

    async def again(life: Life) -> None:
        async with life.node(OPTIONS) as node:
            assert node.meta.has_trash
            await life.doors.clock.sleep(20)
            assert not node.meta.has_trash and audit(node) == [] and await read_all(node) == {b"large": b"", b"other": b"o" * 5000}

    site.live(main)
    site.live(again)


def test_an_unmount_does_not_wait_and_leaves_nothing_unsent() -> None:
    """What is left of it is swept by whoever mounts next, here or elsewhere."""
    site = Site(limits=Limits(sweep_rows=1))          # so that it is not over before the mount is

    async def main(life: Life) -> None:
        async with life.node(OPTIONS) as node:
            await large_file(node)
            await node.vfs.unlink(1, b"large")
            await node.vfs.forget_all()

    async def look(life: Life) -> bool:
        async with life.node(OPTIONS) as node:
            assert not node.meta.outbox()[0] and audit(node) == []
            return node.meta.has_trash

    site.live(main)
    assert site.live(look)
    assert site.live(look, "elsewhere") is not None
    site.live(look)


def test_it_holds_back_while_the_store_is_away() -> None:
    """Nobody who writes waits because of it."""
    site = Site(limits=Limits(sweep_rows=4, outbox_max_bytes=8000))

    async def main(life: Life) -> None:
        async with life.node(OPTIONS) as node:
            await large_file(node)
            life.away()
            await node.vfs.unlink(1, b"large")
            await node.vfs.forget_all()
            await life.doors.clock.sleep(60)
            assert node.meta.has_trash and 1000 < node.meta.outbox()[1] < 4000
            life.away(False)
            await life.doors.clock.sleep(60)
            assert not node.meta.has_trash

    site.live(main)
