"""Transactions and commits of one mount: what is promised, in which order, and what happens when somebody gives up waiting."""
from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from s3cfs import ids
from s3cfs.app.node import Node
from s3cfs.blocks.journal import Journal
from s3cfs.errors import CacheUnusable, DataError, ReadOnly, S3cfsError
from s3cfs.formats.record import Kind
from s3cfs.history.health import State
from s3cfs.limits import Limits
from tests.sim.disk import FileNode
from tests.sim.doors import SimDrive

from .kit import Life, Site, content, every, new_machine, read_all, state, write_file

# ---------------------------------------------------------------- C1

def names_only_synced(node: Node, drive: SimDrive) -> None:
    """INVARIANT C1, looked at with every COMMIT: chunks of packs in the journal are on the platter."""
    real = node.meta.commit

    def commit() -> Any:
        for pack, offset, size in node.meta._engine.all("SELECT pack, off, clen FROM chunk"):
            path = f"journal/{pack}.pack"
            if path in drive.names:
                file = drive.durable.get(path)
                assert isinstance(file, FileNode), f"C1: {path} is committed and its name is not durable"
                seen = drive.names[path]
                assert isinstance(seen, FileNode)
                assert file is seen and bytes(file.durable[offset:offset + size]) == bytes(seen.data[offset:offset + size]) != b"", \
                    f"C1: {path} {offset}+{size} is committed before it is synced"
        return real()

    node.meta.commit = commit  # type: ignore[method-assign]


async def busy(life: Life, site: Site) -> None:
    async with life.node(commit_interval_s=2.0) as node:
        names_only_synced(node, site.drive())

        async def client(number: int) -> None:
            for at in range(8):
                await write_file(node, b"%d-%d" % (number, at), content(number * 10 + at, 20_000))
                if at % 3 == number % 3:
                    await node.commits.durable()
                if at % 5 == number:
                    await node.flush()
                await life.doors.clock.sleep(0.3 * number)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(client, number)


@pytest.mark.parametrize("seed", range(4))
def test_rows_name_only_synced_bytes(seed: int) -> None:
    site = Site(limits=Limits(pack_target_bytes=64 << 10))
    site.live(lambda life: busy(life, site), seed=seed)
    assert len(new_machine(site)) == 32


def test_a_journal_that_does_not_sync_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Journal) -> None:
        return None

    monkeypatch.setattr(Journal, "sync", nothing)
    site = Site()
    with pytest.raises((AssertionError, S3cfsError), match="C1"):
        site.live(lambda life: busy(life, site))


# ---------------------------------------------------------------- C2

def test_every_moment_of_the_store_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each single put a new machine finds a state in which everything can be read, and never less than before."""
    site = Site(limits=Limits(pack_target_bytes=64 << 10, checkpoint_record_bytes=every(3)))
    site.live(lambda life: busy(life, site))
    whole, before = site.bucket, 0
    for moment in range(1, len(whole.history) + 1):
        if whole.history[moment - 1].key.startswith("log/"):
            site.bucket = whole.at(moment)
            files = new_machine(site)
            assert all(data == content(int(name.split(b"-")[0]) * 10 + int(name.split(b"-")[1]), 20_000)
                       for name, data in files.items() if data), moment
            assert len(files) >= before
            before = len(files)
    assert before == 32


# ---------------------------------------------------------------- tickets

def test_many_flushes_at_once() -> None:
    """Each covers what was written before it; together they make few commits."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            async def client(number: int) -> None:
                await write_file(node, b"%d" % number, content(number))
                await node.flush()
                acknowledged.append((number, len(site.bucket.history)))

            acknowledged: list[tuple[int, int]] = []
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(client, number)
            commits = [entry for entry in await life.history() if entry.kind is Kind.COMMIT]
            assert len(commits) < 15
            kept.extend(acknowledged)

    kept: list[tuple[int, int]] = []
    site.live(main)
    whole = site.bucket
    for number, moment in kept[::4]:
        site.bucket = whole.at(moment)
        assert new_machine(site)[b"%d" % number] == content(number), "a flush ended before its file was in the store"


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_client_that_gives_up_its_flush(after_s: float, seed: int) -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, b"a", content(1))
            with trio.move_on_after(after_s):
                await node.flush()
            await write_file(node, b"b", content(2))
            await node.flush()
            assert node.writer is not None and node.writer.epoch and state(node) is State.OK
            assert node.meta.outbox()[0] == 0

    site.live(main, seed=seed)
    assert new_machine(site) == {b"a": content(1), b"b": content(2)}


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.01, 0.05, 0.2])
def test_a_client_that_gives_up_its_fsync(after_s: float) -> None:
    """The others' succeed, and are kept through the death of the machine."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, b"a", content(1))
            async with trio.open_nursery() as nursery:
                async def gives_up() -> None:
                    with trio.move_on_after(after_s):
                        await node.commits.durable()

                nursery.start_soon(gives_up)
                await node.commits.durable()
            life.incarnation.kill()

    site.live(main)
    site.drive().power_cut(random.Random(1))

    async def again(life: Life) -> None:
        async with life.node() as node:
            assert await read_all(node) == {b"a": content(1)}

    site.live(again)


def test_a_flush_takes_as_many_records_as_it_needs() -> None:
    site = Site(limits=Limits(checkpoint_record_bytes=every(2), record_max_bytes=1, ride_max_bytes=0))

    async def main(life: Life) -> None:
        async with life.node(commit_interval_s=100.0) as node:
            await life.doors.clock.sleep(1)
            life.away()
            for number in range(6):
                await write_file(node, b"%d" % number, content(number))
                await node.commits.durable()
            assert node.meta.outbox()[0] >= 6
            life.away(False)
            await node.flush()
            assert node.meta.outbox()[0] == 0 and node.commits.lag_s() == 0
            life.incarnation.kill()

    site.live(main)
    assert new_machine(site) == {b"%d" % number: content(number) for number in range(6)}
    for key in [key for key in site.bucket.objects if key.startswith("log/") and not key.startswith("log/main/0-")]:
        if int(key.rpartition("/")[2]) <= max((ids.parse_checkpoint_key(k)[0] for k in site.bucket.objects if "manifest-" in k), default=0):
            site.bucket.delete(key)
    assert new_machine(site) == {b"%d" % number: content(number) for number in range(6)}, "a checkpoint is not its commit"


# ---------------------------------------------------------------- the local disk

def test_a_failed_fsync_is_told_to_everybody() -> None:
    """One fsync waits behind another's transaction, which fails: neither may say that it is done."""
    site = Site()
    answers: list[str] = []

    async def main(life: Life) -> None:
        async with life.ending() as node:
            await write_file(node, b"kept", content(1))
            await node.flush()
            await write_file(node, b"a", content(2))

            async def fsync() -> None:
                try:
                    await node.commits.durable()
                except S3cfsError as error:
                    answers.append(type(error).__name__)
                else:
                    answers.append("done")

            site.drive().faults.fsync_eio = 1.0
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(fsync)
            assert "done" not in answers, answers
            assert node.commits.health.state is State.FAILED
            with pytest.raises(S3cfsError):
                await node.commits.durable()
            with pytest.raises(S3cfsError):
                await node.flush()
            with pytest.raises(ReadOnly):
                node.commits.check_writable()
            assert (await read_all(node))[b"kept"] == content(1), "reading does not go on"
            site.drive().faults.fsync_eio = 0.0

    site.live(main)
    assert len(answers) == 5
    assert new_machine(site) == {b"kept": content(1)}


def test_no_room_for_the_bytes_of_a_record() -> None:
    """F2 cannot be kept: writing ends with a reason, the mount goes on reading."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.ending() as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            real = life.doors.disk.open

            def full(path: str, *, create: bool = False) -> Any:
                if "segment" in path:
                    raise OSError(28, "No space left on device")
                return real(path, create=create)

            life.doors.disk.open = full  # type: ignore[method-assign]
            await write_file(node, b"b", content(2))
            with pytest.raises(S3cfsError, match="No space"):
                await node.flush()
            life.doors.disk.open = real  # type: ignore[method-assign]
            assert node.commits.health.state is State.FAILED
            assert await read_all(node) == {b"a": content(1), b"b": content(2)}

    site.live(main)
    assert new_machine(site) == {b"a": content(1)}

    async def again(life: Life) -> None:
        async with life.node() as node:
            assert await read_all(node) == {b"a": content(1), b"b": content(2)}

    site.live(again)
    assert new_machine(site) == {b"a": content(1), b"b": content(2)}


def test_a_pack_that_the_disk_changed_is_not_put() -> None:
    """What is whole in it is saved (test_salvage.py); here nothing is."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            await life.doors.clock.sleep(1)
            life.away()
            await write_file(node, b"a", content(1))
            with trio.move_on_after(10):
                await node.flush()
            for name, entry in site.drive().names.items():
                if name.endswith(".pack") and isinstance(entry, FileNode):
                    entry.data[100] ^= 1
            life.away(False)
            await node.flush()
            assert node.commits.health.state is State.OK and node.damage.count == 1

    site.live(main)
    assert not any(key.startswith("pack/") for key in site.bucket.objects)
    with pytest.raises(DataError, match="missing"):
        new_machine(site)


def test_a_mount_that_writes_no_more_does_not_say_that_it_lives() -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.ending() as node:
            await write_file(node, b"a", content(1))
            node.commits.health.fail(CacheUnusable("the disk is gone"))
            await life.doors.clock.sleep(1)
            calls = len(life.backend.calls)
            await life.doors.clock.sleep(1000)
            assert len(life.backend.calls) == calls

    site.live(main)
    assert new_machine(site) == {}


def test_the_bytes_of_a_record_that_cannot_be_removed_are_no_error() -> None:
    """They are in the store, and a durable transaction says so: the next one tries again."""
    site = Site()

    async def main(life: Life) -> None:
        disk = life.doors.disk
        real, left = disk.unlink, 3

        def unlink(path: str, *how: str) -> None:
            nonlocal left
            if path.startswith("journal/segment-") and left:
                left -= 1
                raise OSError(5, "input/output error")
            real(path, *how)

        disk.unlink = unlink  # type: ignore[method-assign]
        async with life.node() as node:
            for number in range(6):
                await write_file(node, b"%d" % number, content(number))
                await node.flush()
                await node.commits.durable()
            assert not left and state(node) is State.OK
        assert not [name for name in disk.listdir("journal") if name.startswith("segment-")]

    site.live(main)
