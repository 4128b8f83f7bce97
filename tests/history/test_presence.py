"""A living writer is never taken for a dead one, and asks after it was idle."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.errors import AlreadyMounted, DataError, Deposed
from s3cfs.formats.record import Kind
from s3cfs.history.health import State
from s3cfs.history.log import Host
from s3cfs.limits import DEFAULTS, Limits
from tests.sim.doors import Incarnation, SimDrive, SimStore, detach, make_doors

from .kit import KEYRING, SUPERBLOCK, Life, Site, content, new_machine, state, write_file
from .seal import seal_now


def silences(life: Life) -> Callable[[], list[float]]:
    """Seconds between the records that came to the store from now on, the time since the last one included."""
    clock, moments, real = life.doors.clock, [life.doors.clock.monotonic()], life.store.put

    def put(key: str, data: bytes, only_if_absent: bool = False) -> None:
        real(key, data, only_if_absent)
        if key.startswith("log/"):
            moments.append(clock.monotonic())

    life.store.put = put  # type: ignore[method-assign, assignment]

    def found() -> list[float]:
        times = [*moments, clock.monotonic()]
        return [after - before for before, after in zip(times, times[1:], strict=False)]

    return found


@pytest.mark.parametrize(("upload_s", "pause_s"), [(5.0, 0.5), (8.0, 0.1), (60.0, 3.0)])
def test_a_writer_that_uploads_steadily_is_heard(upload_s: float, pause_s: float) -> None:
    """At 50 Mbit/s no pack takes ten seconds, and there are always some: the log was silent for minutes."""
    site = Site(limits=Limits(pack_target_bytes=64 << 10))

    async def main(life: Life) -> None:
        async with life.node() as node:
            line, real = trio.CapacityLimiter(3), node.remote.put

            async def slow(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("pack/"):
                    async with line:
                        await life.doors.clock.sleep(upload_s)
                await real(key, data, only_if_absent)

            node.remote.put = slow  # type: ignore[method-assign, assignment]
            heard = silences(life)
            for number in range(50):
                await write_file(node, b"%d" % number, content(number, 70_000))
                await life.doors.clock.sleep(pause_s)
            await node.flush()
            assert max(heard()) < 16, heard()

    site.live(main)
    assert len(new_machine(site)) == 50


@pytest.mark.parametrize("slow", ["the journal's fsync", "the WAL's fsync", "staging", "merging"])
def test_a_slow_local_disk_does_not_silence_a_writer(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            clock = life.doors.clock
            await write_file(node, b"first", content(0))
            await node.flush()

            def delayed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
                async def wait(*arguments: Any) -> Any:
                    await clock.sleep(seconds)
                    return await function(*arguments)
                return wait

            if slow == "the journal's fsync":
                node.journal.sync = delayed(node.journal.sync, 70)  # type: ignore[method-assign]
            elif slow == "the WAL's fsync":
                node.commits.local._syncs.run = delayed(node.commits.local._syncs.run, 70)  # type: ignore[method-assign]
            elif slow == "staging":
                node.files.stage_ready = delayed(node.files.stage_ready, 70)  # type: ignore[method-assign]
            else:
                pipeline = node.commits.writing.pipeline  # type: ignore[union-attr]
                pipeline._wait_for_packs = delayed(pipeline._wait_for_packs, 100)  # type: ignore[method-assign]
            heard = silences(life)
            await write_file(node, b"a", content(1))
            await clock.sleep(95)
            assert max(heard()) < 25, heard()
            life.incarnation.kill()

    site.live(main)


def test_no_living_writer_is_silent_for_as_long_as_takers_wait() -> None:
    """Whatever the rhythm of changes is: idle ones sign off before others have waited long enough, busy ones are heard."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            heard = silences(life)
            last = LastKind(life)
            for pause_s in (1, 5, 9, 11, 14, 15, 16, 17, 20, 24, 29, 31, 45):
                await write_file(node, b"%d" % pause_s, content(pause_s))
                await life.doors.clock.sleep(pause_s)
                quiet = heard()[-1]
                assert quiet < DEFAULTS.takeover_silence_s - 5 or await last.kind() is Kind.RELEASE, (pause_s, quiet)
            assert all(gap < 25 or released for gap, released in zip(heard(), await last.before(), strict=False)), heard()

    site.live(main)


class LastKind:
    def __init__(self, life: Life) -> None:
        self.life, self.first = life, 0

    async def kind(self) -> Kind:
        return (await self.life.history())[-1].kind

    async def before(self) -> list[bool]:
        """Of each gap, whether a RELEASE began it; the first began with the CLAIM after the SEAL."""
        return [entry.kind is Kind.RELEASE for entry in (await self.life.history())[1:]]


def test_another_machine_does_not_take_a_busy_writer_for_dead() -> None:
    """It tries again and again, and is refused each time; the writer ends its work and is not deposed."""
    site = Site(limits=Limits(pack_target_bytes=64 << 10))
    refusals: list[str] = []

    async def main(life: Life) -> None:
        async def other() -> None:
            incarnation = Incarnation("b")
            doors = make_doors(incarnation, SimDrive(), 7)
            options = NodeOptions(host=Host("boot-b", "ns", 1, 1), process_alive=lambda host: False)
            try:
                while True:
                    await life.doors.clock.sleep(7)
                    try:
                        async with open_node(doors, SimStore(incarnation, site.bucket), KEYRING, SUPERBLOCK, options):
                            raise AssertionError("it took over from a writer that lives")
                    except AlreadyMounted as error:
                        refusals.append(str(error))
            finally:
                detach(doors.disk)  # type: ignore[arg-type]

        async with life.node() as node:
            line, real = trio.CapacityLimiter(3), node.remote.put

            async def slow(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("pack/"):
                    async with line:
                        await life.doors.clock.sleep(5)
                await real(key, data, only_if_absent)

            node.remote.put = slow  # type: ignore[method-assign, assignment]
            await write_file(node, b"first", content(0))
            await node.flush()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other)
                for number in range(60):
                    await node.vfs.fsync(await write_file(node, b"%d" % number, content(number, 70_000)))
                    await life.doors.clock.sleep(0.5)
                await node.flush()
                nursery.cancel_scope.cancel()
            assert state(node) is State.OK

    site.live(main)
    assert len(refusals) > 3
    assert len(new_machine(site)) == 61


# ---------------------------------------------------------------- P2

async def idle(life: Life, node: Node) -> None:
    await write_file(node, b"a", content(1))
    await node.flush()
    await life.doors.clock.sleep(100)
    assert (await life.history())[-1].kind is Kind.RELEASE


def test_the_first_fsync_after_an_idle_time_asks() -> None:
    """Another machine took office meanwhile: nothing is acknowledged any more."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.ending() as node:
            await idle(life, node)
            seal_now(site.bucket)
            ino = await write_file(node, b"b", content(2))
            with pytest.raises(DataError):
                await node.vfs.fsync(ino)
            assert state(node) is State.DEPOSED
            assert (await life.history())[-1].kind is Kind.SEAL

    site.live(main)


def test_an_fsync_beside_the_loss_of_office(monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns of it after the local disk has done its part: that is no reason to acknowledge."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.ending() as node:
            real = node.commits.local.durable

            async def and_then_somebody_takes_office() -> None:
                await real()
                node.commits.health.fail(Deposed("another machine took over"))

            monkeypatch.setattr(node.commits.local, "durable", and_then_somebody_takes_office)
            with pytest.raises(DataError):
                await node.vfs.fsync(await write_file(node, b"b", content(2)))

    site.live(main)


def test_a_large_record_is_announced() -> None:
    """While it goes up nothing else is appended; whoever waits for silence knows from the record before for how long."""
    site = Site(limits=Limits(slow_line_bytes_s=1000))

    async def main(life: Life) -> None:
        async with life.node(commit_interval_s=9.0) as node:
            await write_file(node, b"small", content(1))
            await node.flush()
            assert not any("every" in entry.info for entry in await life.history())
            for number in range(200):
                await write_file(node, b"%d" % number, content(number, 600))
            await node.flush()
            *_, announced, large = await life.history()
            assert len(large.changeset) > 20_000 and not announced.changeset
            assert announced.info["every"] == len(large.changeset) / 1000 and "every" not in large.info

    site.live(main)


def test_it_asks_once_for_all() -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(commit_interval_s=1000.0) as node:
            await idle(life, node)
            life.calls()
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(node.vfs.fsync, await write_file(node, b"f%d" % number, content(number)))
            assert [call for call in life.calls() if call[1] == "log"] == [("put", "log")]
            assert (await life.history())[-1].kind is Kind.COMMIT
            life.calls()
            await node.vfs.fsync(await write_file(node, b"more", content(9)))
            assert life.calls() == [], "asked once, it is the writer that others see"
            await node.vfs.fsyncdir(1)
            assert life.calls() == []

    site.live(main)


def test_nothing_new_asks_nothing() -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            await idle(life, node)
            life.calls()
            await node.vfs.fsyncdir(1)
            assert life.calls() == []

    site.live(main)


def test_on_a_silent_store_the_local_word_counts() -> None:
    """After the time-out the fsync returns, the state says so; the next does not wait again; what comes then is noticed."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            clock = life.doors.clock
            await idle(life, node)
            life.away()
            began = clock.monotonic()
            await node.vfs.fsync(await write_file(node, b"b", content(2)))
            assert 20 <= clock.monotonic() - began < 24
            assert state(node) is State.AWAY
            began = clock.monotonic()
            await node.vfs.fsync(await write_file(node, b"c", content(3)))
            assert clock.monotonic() - began < 5
            life.away(False)
            await node.flush()
            assert state(node) is State.OK

    site.live(main)
    assert len(new_machine(site)) == 3


def test_a_change_beside_the_release() -> None:
    """The RELEASE is on its way when a change comes: its fsync waits for an answer that is newer than it."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(commit_interval_s=1000.0) as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            clock, real = life.doors.clock, node.remote.put
            on_its_way = trio.Event()

            async def slow(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("log/") and not on_its_way.is_set():
                    on_its_way.set()
                    await clock.sleep(5)
                await real(key, data, only_if_absent)

            node.remote.put = slow  # type: ignore[method-assign, assignment]
            await on_its_way.wait()
            await node.vfs.fsync(await write_file(node, b"b", content(2)))
            kinds = [entry.kind for entry in await life.history()]
            assert kinds[-2:] == [Kind.RELEASE, Kind.COMMIT]
            life.incarnation.kill()

    site.live(main)
