"""Small packs ride in the records of their commits: one put each, and whatever dies, a row names only what is there."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from s3cfs import ids
from s3cfs.app.node import Node, NodeOptions
from s3cfs.errors import AlreadyMounted, S3cfsError
from s3cfs.formats import checkpoint, record
from s3cfs.history.logbook import Logbook
from s3cfs.history.office import Takeover
from s3cfs.limits import DEFAULTS, Limits
from s3cfs.vfs.types import ROOT_CALLER
from tests.sim.doors import Bucket

from .kit import KEYRING, Life, Site, content, every, fill, filled, look, new_machine, read_all, unsent, write_file
from .seal import seal_now
from .test_salvage import flip, packs_in_journal, read

RIDE = replace(DEFAULTS, ride_max_bytes=8000)
OFTEN = Limits(ride_max_bytes=8000, checkpoint_min_log_bytes=2000, checkpoint_log_ratio=0.0, checkpoint_record_bytes=every(3))


def keys(site: Site, prefix: str) -> list[str]:
    return [change.key for change in site.bucket.history if change.key.startswith(prefix)]


def riders(site: Site) -> list[tuple[str, record.Rider, int]]:
    found = []
    for key in keys(site, "log/"):
        made = record.decode(site.bucket.objects[key], ids.parse_log_key(key)[3], KEYRING.sealer("record", 0))
        found += [(key, rider, base) for rider, base in made.bases()]
    return found


@pytest.mark.parametrize("create_only", [True, False], ids=["T1", "T2"])
def test_a_small_commit_is_one_put(create_only: bool) -> None:
    site = Site(limits=RIDE, bucket=Bucket(create_only=create_only))

    async def main(life: Life) -> None:
        async with life.node() as node:
            for number in range(5):
                await write_file(node, b"%d" % number, content(number))
                life.calls()
                await node.flush()
                assert life.calls() == [("put", "log")] + ([] if create_only else [("list", "claim")])
            assert node.meta.riding_totals()[0] == 5 and not node.meta.unsent() and node.journal.bytes_total == 0
            assert node.cache.used_bytes == node.meta.riding_totals()[1]

    site.live(main)
    assert not keys(site, "pack/") and len(riders(site)) == 5
    for key, rider, base in riders(site):
        assert ids.pack_key(rider.name).endswith(ids.pack_name(1, record.object_hash(site.bucket.objects[key][base:base + rider.size])))
    site.live(lambda life: nothing_but_reads(life, 5), "another")


async def nothing_but_reads(life: Life, count: int) -> None:
    async with life.node(NodeOptions(read_only=True)) as node:
        assert await read_all(node) == {b"%d" % number: content(number) for number in range(count)}
        assert not node.damage.count and node.blocks.stats.fetches == count


@pytest.mark.parametrize("create_only", [True, False], ids=["T1", "T2"])
def test_an_fsync_that_waits_for_the_store_waits_for_one_put(create_only: bool) -> None:
    site = Site(limits=RIDE, bucket=Bucket(create_only=create_only))

    async def main(life: Life) -> None:
        async with life.node(sync_remote=True) as node:
            for number in range(3):
                made = await node.vfs.create(1, b"%d" % number, 0o644, ROOT_CALLER)
                await node.vfs.write(made.ino, 0, content(number))
                life.calls()
                await node.vfs.fsync(made.ino)
                assert life.calls() == [("put", "log")] + ([] if create_only else [("list", "claim")])
                await node.vfs.release(made.ino)
            life.incarnation.kill()

    assert site.live(main) is None
    assert new_machine(site) == {b"%d" % number: content(number) for number in range(3)}


def test_what_is_more_together_is_put() -> None:
    site = Site(limits=RIDE)

    async def main(life: Life) -> None:
        async with life.node() as node:
            for size in (7000, 9000):
                await write_file(node, b"%d" % size, content(size, size))
                await node.flush()

    site.live(main)
    assert len(riders(site)) == 1 and len(keys(site, "pack/")) == 1
    assert new_machine(site) == {b"%d" % size: content(size, size) for size in (7000, 9000)}


def test_packs_of_one_record_ride_together_or_not_at_all() -> None:
    for count, together in ((2, True), (4, False)):
        site = Site(limits=replace(RIDE, pack_target_bytes=1000))            # a pack of each file

        async def main(life: Life, count: int = count) -> None:
            async with life.node() as node:
                for number in range(count):
                    await write_file(node, b"%d" % number, content(number, 2500))
                await node.flush()

        site.live(main)
        assert (len(riders(site)), len(keys(site, "pack/"))) == ((count, 0) if together else (0, count))
        assert len(new_machine(site)) == count


def test_every_moment_of_the_store_is_whole() -> None:
    """With checkpoints, which say where things ride: after each put a new machine reads everything that is there."""
    site = Site(limits=OFTEN)

    async def main(life: Life) -> None:
        async with life.node() as node:
            for number in range(12):
                await write_file(node, b"%d" % number, content(number, 1000 + 900 * (number % 4)))
                await node.flush()

    site.live(main)
    manifests = [checkpoint.decode_manifest(site.bucket.objects[key], KEYRING.sealer("checkpoint", 0))
                 for key in keys(site, "checkpoint/") if "manifest" in key]
    assert len(manifests) >= 2 and len(manifests[-1].riding) >= 5
    whole, before = site.bucket, 0
    for moment in range(1, len(whole.history) + 1):
        if whole.history[moment - 1].key.startswith(("log/", "checkpoint/")):
            site.bucket = whole.at(moment)
            files = new_machine(site)
            assert files == {b"%d" % number: content(number, 1000 + 900 * (number % 4)) for number in range(len(files))}, moment
            assert len(files) >= before
            before = len(files)
    assert before == 12


@pytest.mark.parametrize("moment", ["before the note", "after the note"])
def test_a_record_whose_answer_was_lost_is_known_with_its_riders(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(limits=RIDE)
    real = Logbook._note

    async def main(life: Life) -> None:
        def note(self: Logbook, tip: Any, upto: int, riders: Any) -> None:
            if moment == "after the note":
                real(self, tip, upto, riders)
            if upto:
                life.incarnation.kill()

        monkeypatch.setattr(Logbook, "_note", note)
        async with life.node() as node:
            await write_file(node, b"a", content(1))
            await node.flush()

    assert site.live(main) is None and len(riders(site)) == 1
    monkeypatch.setattr(Logbook, "_note", real)

    async def again(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            assert node.meta.riding_totals()[0] == 1
            await node.flush()
            await life.doors.clock.sleep(20)
            assert not node.meta.unsent() and not packs_in_journal(site) and not node.meta.outbox()[0]
            assert await read_all(node) == {b"a": content(1)} and not node.blocks.stats.fetches      # its file is in the cache

    site.live(again)
    assert not keys(site, "pack/")
    assert new_machine(site) == {b"a": content(1)}


def test_a_record_that_never_arrived_leaves_its_packs_to_the_next() -> None:
    site = Site(limits=RIDE)
    site.live(fill)
    site.live(unsent)
    site.live(lambda life: fill(life, "f"))
    assert new_machine(site) == {**filled("abcdef"), b"mine": content(7)}


def test_one_that_the_disk_damaged_is_salvaged() -> None:
    """It rides nowhere; what is whole of it goes into another."""
    site = Site(limits=replace(RIDE, ride_max_bytes=30_000))

    async def main(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES), commit_interval_s=3600) as node:
            for number in range(6):
                await write_file(node, b"file%d" % number, content(number))
            await node.commits.durable()
            real = node.commits.writing.pipeline._wait_for_packs  # type: ignore[union-attr]

            async def rotten(upto: int) -> Any:
                if not node.damage.count:
                    flip(site, 4000)
                return await real(upto)

            node.commits.writing.pipeline._wait_for_packs = rotten  # type: ignore[union-attr, method-assign]
            await node.flush()
            assert node.damage.count == 1 and not packs_in_journal(site) and not node.meta.unsent()

    site.live(main)
    assert len(riders(site)) == 1

    async def look(life: Life) -> None:
        async with life.node(NodeOptions(read_only=True)) as node:
            assert [number for number in range(6) if await read(node, b"file%d" % number) is None] == [1]

    site.live(look, "another")


def test_who_is_deposed_keeps_what_should_have_ridden() -> None:
    site = Site(limits=RIDE)

    async def main(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            seal_now(site.bucket)
            await write_file(node, b"c", content(3))
            with pytest.raises(S3cfsError, match="took this filesystem over"):
                await node.flush()
            assert node.meta.riding_totals()[0] == 1 and node.meta.unsent() and len(riders(site)) == 1
            assert await read_all(node) == {b"a": content(1), b"c": content(3)}

    with pytest.raises(AlreadyMounted, match="took this filesystem over"):
        site.live(main)
    assert new_machine(site) == {b"a": content(1)}


def test_a_rotten_rider_costs_its_chunks_and_not_the_log() -> None:
    site = Site(limits=RIDE)
    site.live(fill)
    key, _, base = riders(site)[1]
    data = bytearray(site.bucket.objects[key])
    data[base + 100] ^= 1
    site.bucket.objects[key] = bytes(data)

    async def main(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            assert [name for name in b"abcde" if await read(node, bytes([name])) is None] == [ord("b")]
            assert node.damage.count == 1

    site.live(main, "another")


def test_a_replica_knows_where_they_lie_and_forgets_those_that_went() -> None:
    site = Site(limits=RIDE)
    site.live(fill)

    async def follow(life: Life) -> None:
        async with life.node(NodeOptions(read_only=True)) as node:
            there.append(node.meta.riding())

    async def drop(life: Life) -> None:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            await move_first(node)
            await node.flush()
            there.append(node.meta.riding())

    there: list[Any] = []
    site.live(follow, "reader")
    assert len(there[0]) == 5
    site.live(drop)
    site.live(follow, "reader")
    assert there[1] == there[2] and there[0][0] not in there[1]
    assert new_machine(site) == filled()


async def move_first(node: Node) -> None:
    """As packing does it."""
    pack = await node.meta.pack(node.meta.riding()[0].pack)
    assert node.stager is not None
    node.commits.check_writable()
    rows = await node.meta.chunks_of(pack.id)
    async with node.stager.apply_lock:
        sealed = [node.cache.read(pack.name, row.off, row.clen) for row in rows]  # type: ignore[arg-type]
        places = await node.journal.append(lambda: node.meta.new_pack(9), [(row.hash, data, row.len)  # type: ignore[misc]
                                                                          for row, data in zip(rows, sealed, strict=True)])
        for row, (to, offset) in zip(rows, places, strict=True):
            await node.meta.move_chunk(row.id, to, offset)
        await node.meta.drop_pack(pack.id)


def test_nothing_rides_where_the_bound_is_nought() -> None:
    site = Site(limits=replace(RIDE, ride_max_bytes=0))
    site.live(fill)
    assert not riders(site) and len(keys(site, "pack/")) == 5
    assert (site.live(look, "another") or [None])[0] == filled()


def test_many_at_once_ride_in_few_records() -> None:
    site = Site(limits=replace(RIDE, ride_max_bytes=32 << 10))

    async def main(life: Life) -> None:
        async with life.node() as node:
            async def client(number: int) -> None:
                await write_file(node, b"%d" % number, content(number))
                await node.flush()

            async with trio.open_nursery() as nursery:
                for number in range(9):
                    nursery.start_soon(client, number)

    site.live(main)
    assert not keys(site, "pack/") and len(new_machine(site)) == 9 and len(riders(site)) < 9
