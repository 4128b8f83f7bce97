"""A mount and its store: deposed, away, full, and the exact requests of everyday life."""
from __future__ import annotations

import pytest
import trio

from s3cfs.backends.base import Body
from s3cfs.errors import Deposed, NoSpace, ReadOnly, S3cfsError
from s3cfs.formats.record import Kind
from s3cfs.history.admission import Kind as Change
from s3cfs.history.health import State
from s3cfs.limits import Limits
from s3cfs.vfs.types import ROOT_CALLER
from tests.sim.threads import pause

from .kit import Life, Site, content, fill, filled, fingerprint, new_machine, read_all, state, write_file
from .seal import seal_now

# ---------------------------------------------------------------- deposed

def test_deposed_while_in_use() -> None:
    """Flush says so, nothing more is written, reading goes on, what was unsent is kept, the successor has all that was acknowledged."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.ending() as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            seal_now(site.bucket)
            await write_file(node, b"b", content(2))
            with pytest.raises(Deposed):
                await node.flush()
            assert node.commits.health.state is State.DEPOSED
            with pytest.raises(ReadOnly):
                await node.vfs.create(1, b"c", 0o644, ROOT_CALLER)
            assert await read_all(node) == {b"a": content(1), b"b": content(2)}
            life.calls()
            await life.doors.clock.sleep(1000)
            assert life.calls() == []

    site.live(main)
    assert new_machine(site) == {b"a": content(1)}


def test_signing_off_after_another_took_over_with_nothing_unsent() -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            seal_now(site.bucket)

    site.live(main)
    assert new_machine(site) == {b"a": content(1)}


# ---------------------------------------------------------------- the store is away

def test_away_waits_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(journal_max_bytes=200_000, writer_wait_s=30.0) as node:
            clock = life.doors.clock
            await write_file(node, b"first", content(0))
            await node.flush()
            life.away()
            written = 0
            lags = []
            while node.commits.has_room():
                await write_file(node, b"%d" % written, content(written, 30_000))
                written += 1
                await clock.sleep(2)
                lags.append(node.commits.lag_s())
                assert written < 20
            assert written >= 4
            assert lags == sorted(lags) and lags[-1] > 6, "the lag does not grow"
            assert state(node) is State.AWAY and node.commits.health.message
            began = clock.monotonic()
            with pytest.raises(NoSpace):
                await node.commits.room()
            assert 29 <= clock.monotonic() - began < 33
            assert state(node) is State.WAITING
            assert (await read_all(node))[b"first"] == content(0)

            with pytest.raises(NoSpace):
                await node.commits.room()
            assert clock.monotonic() - began < 35, "who can be told is told at once when nothing moves any more"

            async def writer() -> None:
                await node.commits.room(Change.PAGES)
                waited.append(clock.monotonic() - began)

            waited: list[float] = []
            began = clock.monotonic()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer)
                await clock.sleep(10)
                assert not waited
                life.away(False)
            assert 10 < waited[0] < 30
            await node.flush()
            assert state(node) is State.OK and node.commits.health.message == ""
            assert node.commits.lag_s() == 0 and node.commits.lag_bytes() == 0
            assert node.writer is not None and node.writer.away_since is None
            names.update(await read_all(node))

    names: dict[bytes, bytes] = {}
    site.live(main)
    assert new_machine(site) == names and len(names) >= 5


def test_nobody_waiting_any_more_the_state_is_right_all_the_same() -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(journal_max_bytes=100_000, writer_wait_s=3.0) as node:
            await life.doors.clock.sleep(1)
            life.away()
            number = 0
            while node.commits.has_room():
                await write_file(node, b"%d" % number, content(number, 30_000))
                await node.commits.durable()
                number += 1
            with pytest.raises(NoSpace):
                await node.commits.room()
            assert state(node) is State.WAITING
            life.away(False)
            await life.doors.clock.sleep(120)
            assert state(node) is State.OK

    site.live(main)


def test_the_bound_on_the_lag() -> None:
    """Under --max-lag no change is accepted while an older one is unsent for longer; the commit interval gives way to it."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(max_lag_s=8.0, commit_interval_s=100.0, writer_wait_s=1000.0) as node:
            clock = life.doors.clock
            for number in range(30):
                await node.commits.room()
                await write_file(node, b"%d" % number, content(number))
                await clock.sleep(1)
                assert node.commits.lag_s() <= 8.0
            life.away()
            await write_file(node, b"last", content(99))
            while node.commits.has_room():
                await clock.sleep(0.5)
            assert 8.0 < node.commits.lag_s() < 9.0
            life.away(False)
            await node.commits.room()
            assert node.commits.lag_s() <= 8.0

    site.live(main)


def test_a_full_queue_does_not_wait_for_the_commit_interval() -> None:
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(journal_max_bytes=200_000, commit_interval_s=10_000.0, writer_wait_s=30.0) as node:
            for number in range(30):
                await node.commits.room()
                await write_file(node, b"%d" % number, content(number, 30_000))
                await node.commits.durable()

    site.live(main)
    assert len(new_machine(site)) == 30


# ---------------------------------------------------------------- exact requests

PUT_PACK, PUT_LOG = ("put", "pack"), ("put", "log")


def test_the_requests_of_a_mount() -> None:
    """None when nothing changes, one when names change, two when there is content; RELEASE soon after and then silence."""
    site = Site()
    site.live(fill)

    async def main(life: Life) -> None:
        async with life.node() as node:
            clock = life.doors.clock
            life.calls()
            await node.flush()
            assert life.calls() == [], "an unchanged flush"
            await read_all(node)
            await clock.sleep(10)
            life.calls()
            await write_file(node, b"one", content(1))
            await clock.sleep(10)
            assert life.calls() == [PUT_PACK, PUT_LOG], "a file"
            await node.vfs.mkdir(1, b"dir", 0o755, ROOT_CALLER)
            await clock.sleep(10)
            assert life.calls() == [PUT_LOG], "a directory"
            await write_file(node, b"small", b"inline")
            await node.flush()
            assert life.calls() == [PUT_LOG], "a file that fits its row"
            await node.flush()
            assert life.calls() == [], "an unchanged flush"
            with pytest.raises(S3cfsError):
                await node.vfs.create(1, b"one", 0o644, ROOT_CALLER)
            await clock.sleep(10)
            assert life.calls() == [], "an operation that failed"
            await clock.sleep(100)
            assert life.calls() == [PUT_LOG], "RELEASE"
            assert (await life.history())[-1].kind is Kind.RELEASE
            life.calls()
            await clock.sleep(15_000)
            assert life.calls() == [], "idle"
            await write_file(node, b"two", content(2))
            await clock.sleep(10)
            assert life.calls() in ([PUT_LOG, PUT_PACK, PUT_LOG], [PUT_PACK, PUT_LOG, PUT_LOG], [PUT_PACK, PUT_LOG]), "after a RELEASE"
            await clock.sleep(100)
            assert life.calls() == [PUT_LOG]
            life.calls()
        assert [call for call in life.calls() if call[0] != "list"] == [PUT_LOG], "the final RELEASE"

    site.live(main)
    files = new_machine(site)
    assert files == filled() | {b"one": content(1), b"small": b"inline", b"two": content(2)}


def test_a_mount_that_changes_nothing_releases_once() -> None:
    site = Site()
    site.live(fill)

    async def main(life: Life) -> None:
        async with life.node() as node:
            life.calls()
            await life.doors.clock.sleep(10_000)
            assert life.calls() == [PUT_LOG]
            assert await fingerprint(node)
            assert life.calls() == []

    site.live(main)


def test_a_busy_upload_says_that_it_lives() -> None:
    """While packs take long the log shows it every ten seconds, so nobody takes over; and a writer that commits seldom says so."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node(commit_interval_s=1.0) as node:
            clock = life.doors.clock
            real = life.store.put

            def slow(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("pack/") and clock.monotonic() < until:
                    life.away()
                try:
                    real(key, data, only_if_absent)
                finally:
                    life.away(False)

            until = clock.monotonic() + 200
            life.store.put = slow  # type: ignore[method-assign, assignment]
            life.calls()
            await write_file(node, b"a", content(1))
            for _ in range(5):
                await clock.sleep(30)
                assert ("put", "log") in life.calls(), "30 s without a word"

    site.live(main)
    assert new_machine(site) == {b"a": content(1)}

    async def seldom(life: Life) -> None:
        async with life.node(commit_interval_s=300.0):
            assert (await life.history())[-1].info["every"] == 300.0

    site.live(seldom)


def test_a_record_whose_put_was_given_up_and_came_late_is_ones_own() -> None:
    """Its thread hangs past the deadline and then carries it out, while the next attempt is on its way: that one finds the key taken."""
    site = Site(limits=Limits(store_deadline_s=10.0))

    async def main(life: Life) -> None:
        real, takes_s, came = life.store.put, [12.0, 5.0], []

        def late(key: str, data: Body, only_if_absent: bool = False) -> None:
            if key.startswith("log/") and takes_s:
                pause(takes_s.pop(0))
                came.append(key)
            real(key, data, only_if_absent)

        async with life.node() as node:
            await write_file(node, b"before", content(1))
            await node.flush()
            life.store.put = late  # type: ignore[method-assign]
            began = life.doors.clock.monotonic()
            await write_file(node, b"late", content(2))
            await node.flush()
            assert 12 < life.doors.clock.monotonic() - began < 40 and not takes_s
            assert len(came) == 2 and came[0] == came[1] and state(node) is State.OK
            await write_file(node, b"after", content(3))
            await node.flush()
        records = await life.history()
        assert [one.n for one in records] == list(range(1, len(records) + 1))

    site.live(main)
    assert new_machine(site) == {b"before": content(1), b"late": content(2), b"after": content(3)}
