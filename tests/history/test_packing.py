"""What rode in records is packed together later, by ordinary changes."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from s3cfs.app.node import Node, NodeOptions
from s3cfs.blocks.journal import JournalPack
from s3cfs.errors import S3cfsError
from s3cfs.history.office import Takeover
from s3cfs.limits import DEFAULTS
from tests.sim.doors import Bucket

from .kit import Life, Site, content, new_machine, read_all, write_file
from .seal import seal_now
from .test_riders import keys, riders

MANY = replace(DEFAULTS, ride_max_bytes=8000, ride_packs=8)


async def trickle(node: Node, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        await write_file(node, b"%d" % number, content(number))
        await node.flush()


def by_hand(node: Node) -> None:
    """From here on packing does nothing by itself."""
    assert node.packing is not None
    node.packing.due = lambda *, quiet: False  # type: ignore[method-assign]


def made(count: int) -> dict[bytes, bytes]:
    return {b"%d" % number: content(number) for number in range(count)}


async def settled(life: Life, node: Node) -> None:
    await life.doors.clock.sleep(12)
    await node.flush()


def test_an_unmount_in_the_middle_of_it_leaves_nothing_unsaid() -> None:
    """What it moved after the last flush would be in no commit: with another machine's commits that is Diverged."""
    site = Site(limits=MANY)

    async def main(life: Life) -> None:
        async with life.node() as node:
            real, begun = node.journal._begin, trio.Event()

            async def slow(pack_id: int) -> JournalPack:
                if node.meta.riding_totals()[0] == 8:
                    begun.set()
                    with trio.CancelScope(shield=True):            # as it is while the disk takes its time
                        await life.doors.clock.sleep(5)
                return await real(pack_id)

            node.journal._begin = slow  # type: ignore[method-assign]
            await trickle(node, 8)
            await begun.wait()

    async def again(life: Life) -> None:
        async with life.node() as node:
            assert node.meta.outbox()[0] == 0 and node.meta.unsent() == [] and node.journal.pending() == []
            assert node.packing is not None

    site.live(main)
    site.live(again)
    site.live(lambda life: trickle_on(life, 8), "other")
    site.live(again)
    assert new_machine(site) == made(9)


async def trickle_on(life: Life, first: int) -> None:
    async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
        await trickle(node, 1, first)


@pytest.mark.parametrize("create_only", [True, False], ids=["T1", "T2"])
def test_many_become_one_object(create_only: bool) -> None:
    site = Site(limits=MANY, bucket=Bucket(create_only=create_only))

    async def main(life: Life) -> None:
        async with life.node() as node:
            await trickle(node, 8)
            old = [place for row in (await node.meta.packs()) for place in await node.meta.chunks_of(row.id)]
            await settled(life, node)
            assert node.packing is not None and node.packing.packed == 8
            assert node.meta.riding() == [] and len(await node.meta.packs()) == 1
            assert not list(node.meta.audit.problems())
            node.blocks.drop_decoded()
            node.blocks._packs.clear()
            for chunk in old:                                        # a reader that held the places of before
                assert await node.blocks.chunk(chunk) in made(8).values()
            assert not node.damage.count
            await node.drop_cache()
            assert await read_all(node) == made(8) and node.blocks.stats.fetches == 1

    site.live(main)
    assert len(keys(site, "pack/")) == 1 and len(riders(site)) == 8
    assert new_machine(site) == made(8)


def test_what_is_small_together_rides_once_more_and_that_ends() -> None:
    site = Site(limits=replace(MANY, ride_max_bytes=32 << 10))

    async def main(life: Life) -> None:
        async with life.node() as node:
            for number in range(20):
                await trickle(node, 1, number)
                await settled(life, node)
                seen.append(node.meta.riding_totals()[0])
            packed.append(node.packing.packed)  # type: ignore[union-attr]

    seen: list[int] = []
    packed: list[int] = []
    site.live(main)
    assert max(seen) <= 8 and packed[0] <= 40
    assert new_machine(site) == made(20)


def test_what_no_fewer_packs_come_of_is_packed_once() -> None:
    """Each chunk is a pack, small enough to ride: packing them anew gains nothing, and nobody does it again and again (seed 802848)."""
    site = Site(limits=replace(MANY, ride_max_bytes=64 << 10, pack_target_bytes=2000))

    async def main(life: Life) -> None:
        async with life.node() as node:
            assert node.packing is not None
            for known in (0, 8):
                await trickle(node, 8, known)
                await life.doors.clock.sleep(100)
                packed, commits = node.packing.packed, node.commits.commits
                assert packed == known + 8, "what was packed before stays"
                await life.doors.clock.sleep(1000)
                assert (node.packing.packed, node.commits.commits) == (packed, commits)
            assert node.meta.riding_totals()[0] == 16
            assert not list(node.meta.audit.problems())

    site.live(main)
    assert new_machine(site) == made(16)


def test_in_quiet_time_some_are_enough() -> None:
    site = Site(limits=replace(MANY, ride_packs=32))

    async def main(life: Life) -> None:
        async with life.node() as node:
            await trickle(node, 4)
            await life.doors.clock.sleep(4)
            assert node.meta.riding_totals()[0] == 4
            await life.doors.clock.sleep(60)
            assert node.meta.riding_totals()[0] <= 1
            life.calls()
            await life.doors.clock.sleep(3600)
            assert not life.calls()                                  # and then nothing, for ever

    site.live(main)
    assert new_machine(site) == made(4)


def test_one_alone_stays() -> None:
    site = Site(limits=replace(MANY, ride_packs=2))

    async def main(life: Life) -> None:
        async with life.node() as node:
            await trickle(node, 1)
            await life.doors.clock.sleep(60)
            life.calls()
            await life.doors.clock.sleep(3600)
            assert not life.calls() and node.meta.riding_totals()[0] == 1

    site.live(main)


@pytest.mark.parametrize("after", ["rows", "transaction"])
def test_a_death_leaves_the_old_places_or_the_new(after: str) -> None:
    site = Site(limits=MANY)

    async def main(life: Life) -> None:
        async with life.node() as node:
            await trickle(node, 7)
            by_hand(node)
            assert await node.packing.step() == 7  # type: ignore[union-attr]
            if after == "transaction":
                await node.commits.durable()
            life.incarnation.kill()

    assert site.live(main) is None
    assert new_machine(site) == made(7)

    async def again(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            assert node.meta.riding_totals()[0] == (7 if after == "rows" else 0)
            assert await read_all(node) == made(7)
            await settled(life, node)
            await settled(life, node)
            assert node.meta.riding_totals()[0] == 0

    site.live(again)
    assert new_machine(site) == made(7)


def test_one_that_is_rotten_stays_and_the_others_go() -> None:
    site = Site(limits=MANY)

    async def main(life: Life) -> None:
        async with life.node() as node:
            await trickle(node, 8)
            key, rider, base = riders(site)[3]
            data = bytearray(site.bucket.objects[key])
            data[base + 300] ^= 1
            site.bucket.objects[key] = bytes(data)
            await node.drop_cache()
            await settled(life, node)
            await settled(life, node)
            assert [place.pack for place in node.meta.riding()] == [rider.pack]
            assert node.packing.packed == 7 and not node.damage.count  # type: ignore[union-attr]

    site.live(main)


def test_the_store_is_away_while_it_is_read() -> None:
    site = Site(limits=MANY)

    async def main(life: Life) -> None:
        async with life.node() as node:
            await trickle(node, 8)
            await node.drop_cache()
            life.away()
            await life.doors.clock.sleep(600)
            assert node.packing.packed == 0  # type: ignore[union-attr]
            life.away(False)
            await life.doors.clock.sleep(300)
            await node.flush()
            assert node.packing.packed == 8 and not node.damage.count  # type: ignore[union-attr]

    site.live(main)
    assert new_machine(site) == made(8)


def test_who_may_not_write_packs_nothing() -> None:
    site = Site(limits=MANY)

    async def main(life: Life) -> None:
        async with life.node() as node:
            await trickle(node, 7)
            seal_now(site.bucket)
            await write_file(node, b"late", content(9))
            await life.doors.clock.sleep(6)
            node.packing._doors = replace(life.doors, limits=replace(MANY, ride_packs=2))  # type: ignore[union-attr]
            await life.doors.clock.sleep(200)
            assert node.packing.packed == 0 and node.meta.riding_totals()[0] == 7  # type: ignore[union-attr]

    with pytest.raises(S3cfsError, match="took this filesystem over"):
        site.live(main)
    assert not keys(site, "pack/")

    async def reader(life: Life) -> None:
        async with life.node(NodeOptions(read_only=True)) as node:
            assert node.packing is None and await read_all(node) == made(7)

    site.live(reader, "reader")


def test_every_moment_of_the_store_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """While packs are moved from records to objects, with checkpoints in between."""
    site = Site(limits=replace(MANY, ride_packs=3, checkpoint_min_log_bytes=2000, checkpoint_log_ratio=0.0))

    async def main(life: Life) -> None:
        async with life.node() as node:
            for number in range(12):
                await trickle(node, 1, number)
                await life.doors.clock.sleep(3)

    site.live(main)
    whole, before = site.bucket, 0
    assert keys(site, "pack/") and keys(site, "checkpoint/")
    for moment in range(1, len(whole.history) + 1):
        if whole.history[moment - 1].key.startswith(("log/", "checkpoint/")):
            site.bucket = whole.at(moment)
            files: dict[bytes, Any] = new_machine(site)
            assert files == made(len(files)) and len(files) >= before, moment
            before = len(files)
    assert before == 12



def test_what_no_file_uses_is_forgotten_and_may_come_back() -> None:
    """A state that is written anew again and again: one chunk of it is left. A content of before is stored once more."""
    site = Site(limits=MANY)

    async def main(life: Life) -> None:
        async with life.node() as node:
            ino = await write_file(node, b"a", content(0))

            async def over(number: int) -> None:
                await node.vfs.open(ino, 2)
                await node.vfs.write(ino, 0, content(number))
                await node.vfs.release(ino)

            for number in range(1, 8):
                await over(number)
                await node.flush()
            read_at = (await node.meta.chunks_of(node.meta.riding()[1].pack))[0]
            by_hand(node)
            stager, step = node.stager, node.packing.step  # type: ignore[union-attr]
            assert stager is not None
            real = stager._look_up

            async def slow(pieces: Any) -> Any:
                found = await real(pieces)
                assert await step() == 7                                  # between its look and its reference
                return found

            await over(3)
            stager._look_up = slow  # type: ignore[method-assign]
            await node.commits.durable()
            stager._look_up = real  # type: ignore[method-assign]
            assert not list(node.meta.audit.problems())
            rows = [row for pack in await node.meta.packs() for row in await node.meta.chunks_of(pack.id)]
            assert len(rows) == 2 and sum(row.refs for row in rows) == 1
            node.blocks.drop_decoded()
            assert await node.blocks.chunk(read_at) in map(content, range(8)) and not node.damage.count       # by who looked before
            await node.flush()
            assert await read_all(node) == {b"a": content(3)}

    site.live(main)
    assert new_machine(site) == {b"a": content(3)}
