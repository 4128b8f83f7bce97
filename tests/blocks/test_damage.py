"""Damage that a read meets: no machine deduplicates against it, its files are named, and what is whole again is forgiven."""
from __future__ import annotations

import logging

import pytest

from s3cfs.app.node import Node, NodeOptions
from s3cfs.errors import DataError
from s3cfs.history.office import Takeover
from tests.history.kit import Life, Site, content, write_file

SIZE = 30_000                      # more than one chunk


async def read(node: Node, name: bytes) -> bytes:
    inode = await node.vfs.lookup(1, name)
    assert inode is not None
    return bytes(await node.vfs.read(inode.ino, 0, inode.size))


async def fill(life: Life) -> None:
    async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
        await write_file(node, b"lost", content(1, SIZE))
        await node.flush()
        await write_file(node, b"kept", content(2, SIZE))
        await node.flush()


def lose_first_pack(site: Site) -> dict[str, bytes]:
    """What the store forgets; to be given back."""
    records = [change for change in site.bucket.history if change.key.startswith("pack/") and change.data is not None]
    first = records[0].key
    return {first: site.bucket.objects.pop(first)}


def test_a_chunk_known_to_be_lost_is_no_target_for_another_machine(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.live(fill)
    lose_first_pack(site)

    async def meet(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            await node.drop_cache()
            assert node.damage.count == 0 and node.damage.summary() is None
            with pytest.raises(DataError, match="missing"):
                await read(node, b"lost")
            assert await read(node, b"kept") == content(2, SIZE)
            assert node.damage.count >= 1 and node.damage.met == node.damage.count
            await life.doors.clock.sleep(2.0)
            find = node.damage.last[-1]
            assert (find.path, find.what) == ("/lost", "missing") and 0 <= find.start < find.end <= SIZE
            assert "/lost" in str(node.damage.summary())
            await node.flush()

    with caplog.at_level(logging.ERROR):
        site.live(meet)
    named = [record.message for record in caplog.records if "missing: /lost bytes" in record.message]
    assert named and all("pack 1-" in text for text in named)
    assert not any("/kept" in record.message for record in caplog.records)

    async def restore(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            assert node.damage.count >= 1 and node.damage.met == 0
            await write_file(node, b"restored", content(1, SIZE))
            await node.flush()
            await life.doors.clock.sleep(2.0)
            assert node.damage.last[-1].path == "/lost"

    site.live(restore, "another")

    async def look(life: Life) -> None:
        async with life.node(NodeOptions(read_only=True)) as node:
            assert not list(node.meta.audit.problems())
            assert await read(node, b"restored") == content(1, SIZE)
            before = node.meta.bad_chunks()
            with pytest.raises(DataError):
                await read(node, b"lost")
            assert node.meta.bad_chunks() == before and node.meta.outbox()[0] == 0 and not node.meta.dirty

    site.live(look, "a third")


def test_what_a_mount_that_may_not_write_meets_stays_in_its_memory() -> None:
    site = Site()
    site.live(fill)
    lose_first_pack(site)

    async def look(life: Life) -> None:
        async with life.node(NodeOptions(read_only=True)) as node:
            for _ in range(2):
                with pytest.raises(DataError):
                    await read(node, b"lost")
            assert node.damage.count == node.damage.met >= 1
            assert node.meta.bad_chunks() == frozenset() and not node.meta.dirty

    site.live(look, "another")


def test_a_chunk_that_is_found_whole_again_is_a_target_again() -> None:
    site = Site()
    site.live(fill)
    lost = lose_first_pack(site)

    async def meet(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            await node.drop_cache()
            with pytest.raises(DataError):
                await read(node, b"lost")
            await life.doors.clock.sleep(2.0)

    site.live(meet)

    async def mend(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            marked = node.damage.count
            assert marked >= 1
            await life.doors.clock.sleep(2.0)
            site.bucket.objects.update(lost)                             # as after a backup was played back
            assert await read(node, b"lost") == content(1, SIZE)
            assert node.damage.count == 0 and node.damage.summary() is None and not node.damage.last
            await node.flush()

    site.live(mend, "another")

    async def look(life: Life) -> None:
        async with life.node(NodeOptions(read_only=True)) as node:
            assert node.meta.bad_chunks() == frozenset()

    site.live(look, "a third")


def test_damage_that_no_file_uses_any_more_is_no_damage() -> None:
    """Whoever removed or replaced what was damaged has done what there is to do."""
    site = Site()
    site.live(fill)
    lose_first_pack(site)

    async def main(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            await node.drop_cache()
            with pytest.raises(DataError):
                await read(node, b"lost")
            assert node.damage.count >= 1
            await node.vfs.unlink(1, b"lost")
            await node.flush()
            await life.doors.clock.sleep(60)
            assert node.damage.count == 0 and node.damage.summary() is None and node.meta.bad_chunks()

    site.live(main)
