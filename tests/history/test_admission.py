"""Who waits for room, who is told that there is none, and who goes whatever happens."""
from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from s3cfs.app.node import Node, NodeOptions
from s3cfs.errors import Denied, Deposed, NoSpace, ReadOnly, Temporary
from s3cfs.history.admission import Kind
from s3cfs.history.health import State
from s3cfs.limits import MIB, Limits
from s3cfs.vfs.types import ROOT_CALLER, SetAttr
from tests.sim.faults import NEVER

from .kit import Life, Site, content, new_machine, read_all, state, write_file

RESERVE = Limits(disk_reserve_bytes=4 * MIB)


async def prepared(node: Node) -> int:
    """Some files to remove and to change, all in the store; the inode of one that is kept open for writing."""
    for name in (b"gone", b"short", b"mode", b"old", b"read"):
        await write_file(node, name, content(1, 20_000))
    await node.vfs.mkdir(1, b"dir", 0o755, ROOT_CALLER)
    ino = (await node.vfs.create(1, b"pages", 0o644, ROOT_CALLER)).ino
    await node.vfs.write(ino, 0, content(2, 5000))
    await node.flush()
    await node.vfs.setxattr(ino, b"user.gone", b"1")
    return int(ino)


async def ino_of(node: Node, name: bytes) -> int:
    found = await node.vfs.lookup(1, name)
    assert found is not None
    return found.ino


async def removes_and_reads(node: Node) -> None:
    """What always works, and at once."""
    with trio.fail_after(2):
        await node.vfs.unlink(1, b"gone")
        await node.vfs.rmdir(1, b"dir")
        await node.vfs.setattr(await ino_of(node, b"short"), SetAttr(size=100), ROOT_CALLER)
        await node.vfs.setattr(await ino_of(node, b"mode"), SetAttr(mode=0o600, uid=7, mtime_ns=5), ROOT_CALLER)
        await node.vfs.rename(1, b"old", 1, b"new")
        await node.vfs.removexattr(await ino_of(node, b"pages"), b"user.gone")
        assert await node.vfs.read(await ino_of(node, b"read"), 0, 30_000) == content(1, 20_000)


def growing(node: Node, ino: int) -> list[Callable[[], Awaitable[object]]]:
    vfs = node.vfs
    return [lambda: vfs.create(1, b"x", 0o644, ROOT_CALLER), lambda: vfs.mkdir(1, b"x", 0o755, ROOT_CALLER),
            lambda: vfs.mknod(1, b"x", 0o010644, 0, ROOT_CALLER), lambda: vfs.symlink(1, b"x", b"t", ROOT_CALLER),
            lambda: vfs.link(ino, 1, b"x"), lambda: vfs.setxattr(ino, b"user.x", b"1"), lambda: vfs.open(ino, 1),
            lambda: vfs.open(ino, 2), lambda: vfs.open(ino, 0o1001), lambda: vfs.setattr(ino, SetAttr(size=1 << 30), ROOT_CALLER),
            lambda: vfs.write(ino, 0, b"of a gateway", ROOT_CALLER)]


async def tells_and_waits(life: Life, node: Node, ino: int, relieve: Callable[[], None], why: str) -> None:
    """Full, and nothing moves: growth is refused with the reason, at once after the first time; pages wait, and are kept."""
    clock, began = life.doors.clock, life.doors.clock.monotonic()
    arrived: list[float] = []

    async def page(number: int) -> None:
        assert await node.vfs.write(ino, 5000 + number * 1000, content(10 + number, 1000)) == 1000
        arrived.append(clock.monotonic())

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(page, number)
        await clock.sleep(1)
        await removes_and_reads(node)
        assert node.vfs.would_wait(Kind.PAGES) and node.vfs.would_wait(Kind.GROW) and not node.vfs.would_wait(Kind.SHRINK)
        for number, grow in enumerate(growing(node, ino)):
            with pytest.raises(NoSpace, match=why), trio.fail_after(35 if number == 0 else 1):
                await grow()
        assert state(node) is State.WAITING and why in node.commits.health.message
        assert clock.monotonic() - began > 25
        await clock.sleep(1000)
        assert not arrived, "pages were taken though there is no room, or refused"
        await removes_and_reads_again(node)
        relieve()
    assert len(arrived) == 5
    await node.flush()
    assert state(node) is State.OK
    for grow in growing(node, ino)[:1]:
        await grow()


async def removes_and_reads_again(node: Node) -> None:
    await node.vfs.unlink(1, b"new")
    await node.vfs.unlink(1, b"mode")


def expected() -> dict[bytes, bytes]:
    pages = content(2, 5000) + b"".join(content(10 + number, 1000) for number in range(5))
    return {b"short": content(1, 20_000)[:100], b"read": content(1, 20_000), b"pages": pages, b"x": b""}


def test_a_full_journal_beside_a_silent_store() -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(NodeOptions(kernel_times=True), journal_max_bytes=400_000) as node:
            ino = await prepared(node)
            life.away()
            number = 0
            while not node.vfs.would_wait(Kind.GROW):
                await write_file(node, b"fill", content(number, 60_000)) if not number else await node.vfs.write(
                    await ino_of(node, b"fill"), number * 60_000, content(number, 60_000))
                number += 1
                await node.vfs.fsync(await ino_of(node, b"fill"))
            await tells_and_waits(life, node, ino, lambda: life.away(False), "the queue of changes for the store is full")

    site.live(main)
    found = new_machine(site)
    assert {name: data for name, data in found.items() if name != b"fill"} == expected()


def test_a_local_disk_that_is_full_to_its_reserve() -> None:
    site = Site(limits=RESERVE)

    async def main(life: Life) -> None:
        faults = site.drive().faults
        async with life.node(NodeOptions(kernel_times=True)) as node:
            ino = await prepared(node)
            faults.capacity_bytes = site.drive().used_bytes() + 2 * MIB
            await life.doors.clock.sleep(1)

            def relieve() -> None:
                faults.capacity_bytes = NEVER

            await tells_and_waits(life, node, ino, relieve, "the local disk is full")

    site.live(main)
    assert new_machine(site) == expected()


def test_the_last_of_the_disk_is_the_databases() -> None:
    """Below a quarter of the reserve nothing goes any more: the transaction that is open must be able to end."""
    site = Site(limits=RESERVE)

    async def main(life: Life) -> None:
        faults = site.drive().faults
        async with life.node() as node:
            await prepared(node)
            faults.capacity_bytes = site.drive().used_bytes() + MIB // 2
            await life.doors.clock.sleep(1)
            with pytest.raises(NoSpace, match="full to the last"):
                await node.vfs.unlink(1, b"gone")
            assert len(await read_all(node)) == 6 and node.commits.health.writable
            faults.capacity_bytes = NEVER
            await life.doors.clock.sleep(1)
            await node.vfs.unlink(1, b"gone")

    site.live(main)
    assert len(new_machine(site)) == 5


@pytest.mark.parametrize(("upload_s", "fails_first"), [(100, False), (5, True)])
def test_who_is_told_waits_for_a_store_that_is_slow_and_not_silent(upload_s: float, fails_first: bool) -> None:
    """Nobody gets ENOSPC, however long a pack takes; then the store refuses them, and somebody does."""
    site = Site(limits=Limits(ride_max_bytes=0, pack_target_bytes=50_000, uploads_at_once=3))

    async def main(life: Life) -> None:
        async with life.node(journal_max_bytes=300_000, writer_wait_s=30.0) as node:
            real = node.remote.put
            turn, tried = trio.Lock(), set[str]()

            async def slow(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("pack/"):
                    async with turn:
                        await life.doors.clock.sleep(upload_s)
                    if fails_first and key not in tried:
                        tried.add(key)
                        raise Temporary("put", key, "503")
                await real(key, data, only_if_absent)

            node.remote.put = slow  # type: ignore[method-assign, assignment]
            for number in range(20):
                await write_file(node, b"%d" % number, content(number, 60_000))
                await node.commits.durable()

            async def refusing(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("pack/"):
                    raise Denied("put", key, "quota exceeded")
                await real(key, data, only_if_absent)

            node.remote.put = refusing  # type: ignore[method-assign, assignment]
            began, written = life.doors.clock.monotonic(), 20
            with pytest.raises(NoSpace):
                while True:
                    await write_file(node, b"%d" % written, content(written, 60_000))
                    await node.commits.durable()
                    written += 1
            assert 30 <= life.doors.clock.monotonic() - began < 900
            node.remote.put = real  # type: ignore[method-assign]
            await node.flush()
            names.update(await read_all(node))

    names: dict[bytes, bytes] = {}
    site.live(main)
    assert new_machine(site) == names and len(names) >= 20


@pytest.mark.parametrize("kind", list(Kind))
def test_the_end_of_writing_ends_every_wait(kind: Kind) -> None:
    site = Site(limits=RESERVE)

    async def main(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            site.drive().faults.capacity_bytes = site.drive().used_bytes() + MIB // 2
            await life.doors.clock.sleep(1)
            outcome: list[type[Exception]] = []

            async def wait() -> None:
                try:
                    await node.commits.room(kind)
                except (ReadOnly, NoSpace) as error:
                    outcome.append(type(error))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await life.doors.clock.sleep(5)
                site.drive().faults.capacity_bytes = NEVER if kind is not Kind.SHRINK else site.drive().faults.capacity_bytes
                node.commits.health.fail(Deposed("another machine took over"))
                site.drive().faults.capacity_bytes = NEVER
            assert outcome == ([NoSpace] if kind is Kind.SHRINK else [ReadOnly]) or outcome == []

    site.live(main)


def test_room_that_comes_while_a_transaction_closes() -> None:
    """Who waited for room begins after it, not in the middle: a rename in it would be committed without its content."""
    site = Site(limits=RESERVE)

    async def main(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            site.drive().faults.capacity_bytes = site.drive().used_bytes() + MIB
            await life.doors.clock.sleep(1)
            entered = trio.Event()

            async def wait() -> None:
                await node.commits.room(Kind.PAGES)
                entered.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await life.doors.clock.sleep(5)
                with node.commits.admission.closed():
                    site.drive().faults.capacity_bytes = NEVER
                    await life.doors.clock.sleep(5)
                    assert not entered.is_set()

    site.live(main)
