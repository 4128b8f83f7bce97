"""What `s3cfs stat` says of all chunks: exact while they are few, counted beside the loop when they are many."""
from __future__ import annotations

from dataclasses import replace

from s3cfs.app.status import status
from s3cfs.errors import CacheUnusable
from s3cfs.limits import DEFAULTS
from tests.history.kit import Life, Site, content, write_file
from tests.loopmeter import SqlMeter


async def files(node, count: int, tag: bytes = b"f") -> None:
    for number in range(count):
        await write_file(node, tag + b"%d" % number, content(number + len(tag) * 1000))


def test_few_are_counted_at_every_call() -> None:
    async def main(life: Life) -> None:
        async with life.node() as node:
            await files(node, 3)
            await node.commits.durable()
            first, age_s = await node.figures.get()
            assert first == node.meta.totals() and first.chunks >= 3 and age_s == 0
            await files(node, 2, b"more")
            await node.files.stage_all()                        # in the open transaction, and counted
            second, age_s = await node.figures.get()
            assert second is not None and second.chunks >= first.chunks + 2 and age_s == 0

    Site().live(main)


def test_many_are_counted_in_a_thread_and_remembered() -> None:
    async def main(life: Life) -> None:
        async with life.node() as node:
            await files(node, 30)
            await node.flush()
            exact = node.meta.totals()
            with SqlMeter(node.meta) as sql:
                found = await status(node, url="", mountpoint="", started=0.0)
                assert sql.scanned == 0 and sql.most_steps < 200, sql.worst
            data = found["data"]
            assert (data["chunks"], data["unique_bytes"], data["stored_bytes"]) == (exact.chunks, exact.chunk_bytes, exact.sealed_bytes)
            assert (data["packs"], data["pack_bytes"]) == (exact.packs, exact.pack_bytes) and data["as_of_s"] >= 0
            node.figures._took_s = 100.0                        # as if it had been expensive
            await life.doors.clock.sleep(60)
            await files(node, 5, b"later")
            await node.flush()
            kept = (await status(node, url="", mountpoint="", started=0.0))
            assert kept["data"]["chunks"] == exact.chunks and kept["data"]["as_of_s"] >= 60
            assert kept["files"]["inodes"] == node.meta.counters.inodes > 35       # counters are exact at every call
            await life.doors.clock.sleep(3600)
            again, age_s = await node.figures.get()
            assert again is not None and again.chunks == exact.chunks + 5 and age_s < 10

    Site(limits=replace(DEFAULTS, count_rows=5)).live(main)


def test_what_cannot_be_counted_is_null_and_the_rest_is_told() -> None:
    async def main(life: Life) -> None:
        async with life.node() as node:
            await files(node, 10)
            await node.commits.durable()

            def broken() -> None:
                raise CacheUnusable("the disk")
            node.meta.beside.totals = broken  # type: ignore[assignment, method-assign]
            found = await status(node, url="", mountpoint="", started=0.0)
            assert found["data"]["chunks"] is None and found["data"]["as_of_s"] is None and found["files"]["inodes"] == 11

    Site(limits=replace(DEFAULTS, count_rows=5)).live(main)
