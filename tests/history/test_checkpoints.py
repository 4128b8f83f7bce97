"""Checkpoints: when they are written, that each is exactly its commit, and that a half-written one does not exist."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from s3cfs import ids
from s3cfs.errors import Temporary
from s3cfs.history.checkpoints import FOLDER, Checkpoints
from s3cfs.history.localtip import LocalTip
from s3cfs.limits import Limits
from tests.sim.doors import Plan

from .kit import Life, Site, content, every, fill, filled, look, read_all, write_file

OFTEN = Limits(ride_max_bytes=0, checkpoint_record_bytes=every(4), checkpoint_part_bytes=400)


def manifests(site: Site) -> dict[int, str]:
    return {ids.parse_checkpoint_key(key)[0]: key for key in site.bucket.objects if "/manifest-" in key}


def only(site: Site, machine: str, keep: str, upto: int) -> tuple[dict[bytes, bytes], bytes]:
    """What a new machine finds with the log alone, or with the checkpoint of that commit alone."""
    bucket = site.bucket.copy()
    for key in list(bucket.objects):
        if key.startswith("log/"):
            n = ids.parse_log_key(key)[3]
            if n > upto or (keep == "checkpoint" and n < upto):
                bucket.delete(key)
        elif key.startswith("checkpoint/") and (keep == "log" or ids.parse_checkpoint_key(key)[0] != upto):
            bucket.delete(key)
    found = Site(bucket).live(look, machine)
    assert found is not None and found[2] == upto
    return found[0], found[1]


def each_is_its_commit(site: Site, at_least: int = 1) -> None:
    assert len(manifests(site)) >= at_least
    for commit in manifests(site):
        assert only(site, "a", "checkpoint", commit) == only(site, "b", "log", commit), f"checkpoint {commit} is not commit {commit}"


def test_none_is_written_while_the_log_is_short() -> None:
    site = Site()
    site.live(fill)
    assert not manifests(site)


def test_due_by_bytes() -> None:
    site = Site(limits=Limits(ride_max_bytes=0, checkpoint_min_log_bytes=3000, checkpoint_record_bytes=0, checkpoint_log_ratio=0.0))

    async def main(life: Life) -> None:
        await fill(life, "abcdefghijkl")

    site.live(main)
    sizes = [len(data) for key, data in site.bucket.objects.items() if key.startswith("log/")]
    assert 1 <= len(manifests(site)) <= sum(sizes) // 3000
    each_is_its_commit(site)


def test_due_by_records_also_over_several_mounts() -> None:
    site = Site(limits=OFTEN)
    for names in ("abc", "d", "ef", "ghijkl"):
        async def main(life: Life, names: str = names) -> None:
            await fill(life, names)
        site.live(main)
    assert len(manifests(site)) >= 3
    each_is_its_commit(site)
    assert (site.live(look, "new") or ({},))[0] == filled("abcdefghijkl")


def test_while_others_write() -> None:
    """Changes and commits that come while the parts go up are not in the checkpoint, and do not wait for it."""
    between = written = 0
    for seed in range(6):
        site = Site(limits=replace(OFTEN, checkpoint_record_bytes=every(2)))
        site.live(_writers, seed=seed)
        each_is_its_commit(site, 0)
        written += len(manifests(site))
        keys = [change.key for change in site.bucket.history]
        for commit, manifest in manifests(site).items():
            after = keys[:keys.index(manifest)]
            between += any(key.startswith("log/") and int(key.rpartition("/")[2]) > commit for key in after)
    assert written >= 5
    assert between >= 2, "no commit was made while a checkpoint was written"


async def _writers(life: Life) -> None:
    async with life.node(commit_interval_s=0.3, transaction_interval_s=0.1) as node:
        async def client(number: int) -> None:
            for at in range(15):
                await write_file(node, b"%d-%d" % (number, at), content(at, 900))
                await node.vfs.setxattr(1, b"user.at", b"%d" % at, 0)
                await life.doors.clock.sleep(0.2 + 0.05 * number)
                if at % 4 == 1:
                    await node.vfs.unlink(1, b"%d-%d" % (number, at))

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(client, number)


def test_commits_do_not_wait_for_a_checkpoint() -> None:
    """Its parts take an hour; flushes take what they take, and records go on."""
    site = Site(limits=OFTEN)

    async def main(life: Life) -> None:
        async with life.node() as node:
            clock = life.doors.clock
            real, started = node.remote.put, trio.Event()

            async def slow(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("checkpoint/"):
                    started.set()
                    await clock.sleep(1200)
                await real(key, data, only_if_absent)

            node.remote.put = slow  # type: ignore[method-assign, assignment]
            for number in range(30):
                began = clock.monotonic()
                await write_file(node, b"%d" % number, content(number))
                await node.flush()
                assert clock.monotonic() - began < 30
                await clock.sleep(5)
            assert started.is_set()
            left = clock.monotonic()
        assert clock.monotonic() - left < 20_000, "it is waited for at the end"

    site.live(main)
    assert len(manifests(site)) >= 1
    each_is_its_commit(site)


def test_what_came_meanwhile_counts_for_the_next() -> None:
    site = Site(limits=OFTEN)

    async def main(life: Life) -> None:
        async with life.node() as node:
            real = node.remote.put

            async def busy(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if "manifest-" in key and not node.commits.health.state == "x":
                    node.remote.put = real  # type: ignore[method-assign]
                    for name in (b"p", b"q"):
                        await write_file(node, name, content(1))
                        await node.flush()
                await real(key, data, only_if_absent)

            node.remote.put = busy  # type: ignore[method-assign, assignment]
            for name in "abc":
                await write_file(node, name.encode(), content(ord(name)))
                await node.flush()
            await life.doors.clock.sleep(5)
            local = LocalTip.load(node.meta)
            commit = max(manifests(site))
            assert local.checkpoint_commit == commit and local.log_records == local.n - commit == 2
            log = {ids.parse_log_key(key)[3]: len(data) for key, data in site.bucket.objects.items() if key.startswith("log/")}
            assert local.log_bytes == sum(size for n, size in log.items() if n > commit)

    site.live(main)


@pytest.mark.parametrize("failing", range(1, 6))
def test_a_put_that_fails(failing: int) -> None:
    """The checkpoint is given up without its manifest, the mount goes on, a later commit has one."""
    site = Site(limits=OFTEN)

    async def main(life: Life) -> None:
        async with life.node() as node:
            real, number = life.store.put, 0

            def put(key: str, data: bytes, only_if_absent: bool = False) -> None:
                nonlocal number
                if key.startswith("checkpoint/"):
                    number += 1
                    if number == failing:
                        raise Temporary("put", key, "no")
                real(key, data, only_if_absent)

            life.store.put = put  # type: ignore[method-assign, assignment]
            for name in "abcdefgh":
                await write_file(node, name.encode(), content(ord(name)))
                await node.flush()
                await life.doors.clock.sleep(3)
            await life.doors.clock.sleep(20)
            assert number > failing and node.commits.health.writable

    site.live(main)
    each_is_its_commit(site)
    assert (site.live(look, "new") or ({},))[0] == filled("abcdefgh")


def test_a_death_between_the_parts() -> None:
    """Whatever of a checkpoint is in the store without its manifest is not used; the same machine goes on, another starts."""
    site = Site(limits=OFTEN)

    async def main(life: Life) -> None:
        await fill(life, "abcdefghijkl")

    async def more(life: Life) -> None:
        await fill(life, "wxyz")

    site.live(main)
    whole, tried = site.bucket, 0
    for moment in range(1, len(whole.history) + 1):
        if whole.history[moment - 1].key.startswith("checkpoint/"):
            tried += 1
            site.bucket = whole.at(moment)
            found = site.live(look, f"machine {moment}")
            assert found is not None
            names = "".join(sorted(name.decode() for name in found[0]))
            assert found[0] == filled(names) and "abcdefghijkl".startswith(names)
    assert tried > 5
    for where in range(25, 60, 2):
        killed = Site(limits=OFTEN)
        killed.live(main, plan=Plan("store", where))
        killed.live(more)
        each_is_its_commit(killed)
        found = killed.live(look, "new")
        assert found is not None and found[0].items() >= filled("wxyz").items()


def test_one_whose_commit_fails_holds_nothing() -> None:
    """The snapshot is closed, or the WAL would grow for ever."""
    from .seal import seal_now
    site = Site(limits=OFTEN)

    async def main(life: Life) -> None:
        async with life.ending() as node:
            for name in "ab":
                await write_file(node, name.encode(), content(ord(name)))
                await node.flush()
            closed: list[bool] = []
            real = node.meta.snapshot

            def snapshot():
                made = real()
                close = made.close
                made.close = lambda: (closed.append(True), close())[1]  # type: ignore[method-assign, func-returns-value]
                closed.clear()
                return made

            node.meta.snapshot = snapshot  # type: ignore[method-assign]
            seal_now(site.bucket)
            await write_file(node, b"d", content(1))
            before = dict(site.bucket.objects)
            with pytest.raises(Exception, match="took this filesystem over"):
                await node.flush()
            assert closed, "no checkpoint was due"
            assert {key for key in site.bucket.objects if key not in before and not key.startswith("pack/")} == set()
            assert len(await read_all(node)) == 3

    site.live(main)


def test_parts_wait_on_the_disk_while_the_line_is_slow() -> None:
    """The snapshot, which SQLite's log grows behind, ends before the first part has gone up; and nothing of them stays."""
    site = Site(limits=replace(OFTEN, checkpoint_record_bytes=0))

    async def main(life: Life) -> None:
        async with life.node() as node:
            for number in range(40):
                await write_file(node, b"file %d" % number, b"")
            await node.flush()
            made = Checkpoints(node.doors, node.meta, node.remote, node.keyring, 1, node.commits.health)
            real, open_at, parts = node.remote.put, [], []
            snapshot = node.meta.snapshot()
            assert node.writer is not None

            async def put(key: str, data: Any, only_if_absent: bool = False) -> None:
                if key.startswith("checkpoint/"):
                    open_at.append(bool(node.meta._engine.snapshots))
                    parts.append(node.doors.disk.listdir(FOLDER))
                await life.doors.clock.sleep(5)
                await real(key, data, only_if_absent)

            node.remote.put = put  # type: ignore[method-assign]
            await made.write(snapshot, node.writer.tip)
            node.remote.put = real  # type: ignore[method-assign]
            assert made.written and len(parts) > 2
            assert not any(open_at) and len(parts[0]) == len(parts) - 2 and not node.doors.disk.listdir(FOLDER)

    site.live(main)
    assert (site.live(look, "new") or ({},))[0].keys() == {b"file %d" % number for number in range(40)}


@pytest.mark.parametrize("what", ["no room", "an error", "rot"])
def test_the_disk_of_the_parts_is_no_condition(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room they go up at once; what was damaged while it waited is no checkpoint."""
    site = Site(limits=OFTEN)

    async def main(life: Life) -> None:
        disk = life.doors.disk
        if what == "no room":
            monkeypatch.setattr(disk, "free_bytes", lambda: 2 * OFTEN.disk_reserve_bytes)
        else:
            real = disk.open

            def opened(path: str, *, create: bool = False) -> Any:
                if path.startswith(FOLDER) and create == (what == "an error"):
                    if what == "an error":
                        raise OSError(5, "I/O error")
                    file = real(path)
                    file.pwrite(b"rot", 40)
                    return file
                return real(path, create=create)
            monkeypatch.setattr(disk, "open", opened)
        await fill(life, "abcdefghijkl")

    site.live(main)
    found = manifests(site)
    assert bool(found) == (what != "rot")
    if found:
        each_is_its_commit(site)
    assert (site.live(look, "new") or ({},))[0] == filled("abcdefghijkl")


@pytest.mark.parametrize("grows", [True, False])
def test_a_snapshot_does_not_hold_the_log_through_an_outage(grows: bool) -> None:
    """An outage begins while the commit of a checkpoint is on its way, and writing goes on: SQLite's log must be able to begin anew."""
    limits = replace(OFTEN, snapshot_wal_pages=100 if grows else 100_000, wal_copy_pages=10, wal_restart_pages=40, wal_rest_pages=20)
    site = Site(limits=limits)

    async def main(life: Life) -> None:
        async with life.node(commit_interval_s=1.0) as node:
            for name in "ab":
                await write_file(node, name.encode(), content(ord(name)))
                await node.flush()
            assert not node.meta._engine.snapshots
            life.away()
            for number in range(300):
                await write_file(node, b"d-%d" % number, content(number, 100))
                await node.commits.durable()
                await life.doors.clock.sleep(0.2)
            assert bool(node.meta._engine.snapshots) is not grows
            if grows:
                assert node.meta.wal_pages < 200, "it began anew"
            life.away(False)
            await node.flush()
            await node.flush()

    site.live(main)
    assert manifests(site), "and the checkpoint is made after it"
    each_is_its_commit(site)
