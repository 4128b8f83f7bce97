"""A pack that the local disk damages before it is in the store: writing goes on, and every record names only what is there."""
from __future__ import annotations

import pytest

from s3cfs.app.node import Node, NodeOptions
from s3cfs.errors import DataError
from s3cfs.history.health import State
from s3cfs.history.office import Takeover
from s3cfs.ids import pack_key
from s3cfs.limits import DEFAULTS, Limits
from tests.sim.disk import FileNode

from .kit import Life, Site, content, state, write_file

SIZE = 3000


def packs_in_journal(site: Site) -> list[FileNode]:
    return [entry for path, entry in sorted(site.drive().names.items())
            if path.startswith("journal/") and path.endswith(".pack") and isinstance(entry, FileNode)]


def flip(site: Site, at: int) -> None:
    node = packs_in_journal(site)[0]
    node.data[at] ^= 1
    node.durable[at] ^= 1


async def fill_without_store(life: Life, node: Node) -> None:
    life.away()
    for number in range(6):
        await write_file(node, b"file%d" % number, content(number, SIZE))
    await node.commits.durable()


async def read(node: Node, name: bytes) -> bytes | None:
    inode = await node.vfs.lookup(1, name)
    assert inode is not None
    try:
        return bytes(await node.vfs.read(inode.ino, 0, inode.size))
    except DataError:
        return None


async def nothing_is_named_that_is_not_there(site: Site, node: Node) -> None:
    """But packs of which nothing is left that a file uses and could be read."""
    lost = node.meta.bad_chunks()
    for pack in await node.meta.packs():
        alive = [chunk for chunk in await node.meta.chunks_of(pack.id) if chunk.id not in lost]
        assert pack.name is not None and (pack_key(pack.name) in site.bucket.objects or not alive)


def test_a_flipped_bit_costs_one_chunk_and_writing_goes_on() -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES), commit_interval_s=0.5) as node:
            await fill_without_store(life, node)
            await life.doors.clock.sleep(5)                  # the pack is closed, and waits for the store
            flip(site, 4000)
            life.away(False)
            await node.flush()
            assert state(node) is State.OK and node.damage.count == 1
            await write_file(node, b"later", content(7, SIZE))
            await node.flush()
            await life.doors.clock.sleep(5)
            assert packs_in_journal(site) == [] and node.journal.bytes_total == 0 and not node.meta.unsent()

    site.live(main)

    async def look(life: Life) -> None:
        async with life.node(NodeOptions(read_only=True)) as node:
            found = [await read(node, b"file%d" % number) for number in range(6)]
            assert [number for number in range(6) if found[number] is None] == [1]
            assert all(found[number] in (None, content(number, SIZE)) for number in range(6))
            assert await read(node, b"later") == content(7, SIZE)
            assert not list(node.meta.audit.problems())
            await nothing_is_named_that_is_not_there(site, node)

    site.live(look, "another")


@pytest.mark.parametrize("how", ["flip", "gone", "short"])
def test_the_next_process_finds_the_damage(how: str) -> None:
    """Killed with a closed pack in the journal, which is then damaged: mounting writable works, and so does what is whole."""
    site = Site()

    async def first(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES), commit_interval_s=0.5) as node:
            await fill_without_store(life, node)
            await life.doors.clock.sleep(5)
            life.incarnation.kill()

    site.live(first)
    if how == "flip":
        flip(site, 4000)
    else:
        drive = site.drive()
        [path] = [path for path in drive.names if path.startswith("journal/") and path.endswith(".pack")]
        if how == "gone":
            drive.names.pop(path)
            drive.durable.pop(path)
        else:
            node = drive.names[path]
            assert isinstance(node, FileNode)
            del node.data[10_000:]

    async def second(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            await node.flush()
            assert state(node) is State.OK and node.damage.count >= 1
            await write_file(node, b"later", content(7, SIZE))
            await node.flush()

    site.live(second)

    async def look(life: Life) -> None:
        async with life.node(NodeOptions(read_only=True)) as node:
            found = [await read(node, b"file%d" % number) for number in range(6)]
            whole = [number for number in range(6) if found[number] == content(number, SIZE)]
            assert whole == {"flip": [0, 2, 3, 4, 5], "gone": [], "short": [0, 1, 2]}[how]
            assert [number for number in range(6) if found[number] is None] == [n for n in range(6) if n not in whole]
            assert await read(node, b"later") == content(7, SIZE)
            await nothing_is_named_that_is_not_there(site, node)

    site.live(look, "another")


@pytest.mark.parametrize("record_max_bytes", [DEFAULTS.record_max_bytes, 2000], ids=["one record", "several"])
def test_no_record_is_put_that_names_the_damaged_pack(record_max_bytes: int) -> None:
    """I4: between any two requests another machine finds all that is not lost."""
    site = Site(limits=Limits(ride_max_bytes=0, record_max_bytes=record_max_bytes))

    async def main(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES), commit_interval_s=0.5) as node:
            await fill_without_store(life, node)
            await life.doors.clock.sleep(5)
            await write_file(node, b"second", content(8, SIZE))          # more transactions behind the cut
            await node.commits.durable()
            flip(site, 4000)
            life.away(False)
            await node.flush()

    site.live(main)
    changes = list(site.bucket.history)
    for cut in range(1, len(changes) + 1):
        if not changes[cut - 1].key.startswith("log/"):
            continue
        bucket = site.bucket.copy()
        bucket.objects.clear()
        for change in changes[:cut]:
            if change.data is None:
                bucket.objects.pop(change.key, None)
            else:
                bucket.objects[change.key] = change.data
        seen = Site(bucket)

        async def look(life: Life, seen: Site = seen) -> None:
            async with life.node(NodeOptions(read_only=True)) as node:
                await nothing_is_named_that_is_not_there(seen, node)

        seen.live(look, "another")
