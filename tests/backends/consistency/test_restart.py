"""What is in a delay and what keys must hold outlives the mount, however it ends, whatever its clocks do meanwhile."""
from __future__ import annotations

import errno
import random
import shutil
from functools import partial
from pathlib import Path

import pytest
import trio

from s3cfs.backends.consistency import bounds
from s3cfs.backends.consistency.conditions import Kind
from s3cfs.doors import SystemFile
from s3cfs.errors import NotFound, Temporary
from tests.backends.consistency.kit import Moves, StaleBackend, mounted, play
from tests.backends.consistency.test_lock import seconds

KEY = "other/key"
STATE = "layers/consistency"


def late(stale_s: float = 0.0) -> StaleBackend:
    return StaleBackend(random.Random(1), stale_s=stale_s, exact=True)


def killed(folder: Path, into: Path) -> str:
    """What a process that dies now leaves behind."""
    shutil.copytree(folder, into)
    return str(into)


@pytest.mark.parametrize("how", ["unmounted", "killed", "killed while it put"])
def test_delays_and_contents_outlive_the_mount(tmp_path: Path, how: str) -> None:
    async def test(clock: Moves) -> None:
        backend = late()
        state = tmp_path / "one"
        left = str(state)
        async with mounted(backend, clock, folder=str(state), lock_jitter=0.0) as world:
            await world.remote.put("other/old", b"older")
            await trio.sleep(100.0)
            await world.remote.put("other/old", b"old")
            await world.remote.delete("other/gone")
            if how == "killed while it put":
                world.line.hang_s = lambda: 1.0
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(world.remote.put, KEY, b"one")
                    await trio.sleep(0.5)
                    left = killed(state, tmp_path / "two")
            else:
                await world.remote.put(KEY, b"one")
                if how == "killed":
                    left = killed(state, tmp_path / "two")
        backend.stale_s = 60.0
        async with mounted(backend, clock, folder=left, lock_jitter=0.0) as world:
            assert world.lock.status()["restored"] == 4 and world.lock.status()["delayed"] == 3
            took = await seconds(world, partial(world.remote.get, KEY))
            if how == "killed while it put":
                assert took >= 20.0, "nobody knows how it ended: the delay from now on"
            else:
                assert took >= 60.0, "it is not shown before"
            assert await world.remote.get("other/old", 1) == b"ld"
            assert {one.kind for one in world.evidence} >= ({Kind.STALE} if how != "killed while it put" else set())
            with pytest.raises(NotFound):
                await world.remote.get("other/gone")

    play(test)


@pytest.mark.parametrize(("wall_s", "boot_s", "least", "most"), [
    (0.0, 0.0, 14.9, 15.1),                # nothing: 5 s of 20 are over
    (-86_400.0, 0.0, 14.9, 15.1),          # set back by a day: what is stored is no further away than it was
    (86_400.0, 0.0, 14.9, 15.1),           # set ahead, and no other boot: the other clock knows
    (0.0, -1e6, 14.9, 15.1),               # another boot
    (-86_400.0, -1e6, 19.9, 20.1),         # another boot and set back: all of it again, and no more
    (86_400.0, -1e6, 0.0, 0.0)])           # nobody can know that
def test_clocks_that_jump(tmp_path: Path, wall_s: float, boot_s: float, least: float, most: float) -> None:
    async def test(clock: Moves) -> None:
        backend = late()
        clock.boot_s = 2e6
        async with mounted(backend, clock, folder=str(tmp_path), lock_jitter=0.0) as world:
            await world.remote.put(KEY, b"one")
            await trio.sleep(5.0)
        clock.wall_s += wall_s
        clock.boot_s += boot_s
        async with mounted(backend, clock, folder=str(tmp_path), lock_jitter=0.0, lock_delay_most=30.0) as world:
            assert least <= await seconds(world, partial(world.remote.get, KEY)) <= most

    play(test)


def test_no_delay_is_longer_than_its_bound_of_now(tmp_path: Path) -> None:
    async def test(clock: Moves) -> None:
        async with mounted(late(), clock, folder=str(tmp_path), lock_jitter=0.0, lock_delay=90.0) as world:
            await world.remote.put(KEY, b"one")
        async with mounted(late(), clock, folder=str(tmp_path), lock_jitter=0.0, lock_delay=1.0, lock_delay_most=10.0) as world:
            began = world.now
            with pytest.raises(Temporary):
                await world.remote.get(KEY)
            assert 10.0 <= world.now - began <= 140.0

    play(test)


def test_torn_and_rotten_lines_are_passed_over(tmp_path: Path) -> None:
    async def test(clock: Moves) -> None:
        backend = late()
        async with mounted(backend, clock, folder=str(tmp_path), lock_delay=0.0) as world:
            for number in range(4):
                await world.remote.put(f"other/{number}", b"one")
                await trio.sleep(1.0)
        file = tmp_path / STATE / "1.log"
        lines = file.read_bytes().splitlines(keepends=True)
        assert len(lines) == 8
        lines[2] = lines[2][:20] + b"?" + lines[2][21:]
        file.write_bytes(b"".join(lines)[:-30] + b"\xff\x00")
        (tmp_path / STATE / "strange").write_text("hello")
        async with mounted(backend, clock, folder=str(tmp_path), lock_delay=0.0) as world:
            assert world.lock.status()["restored"] == 3 == world.lock.status()["known"]
            await world.remote.put("other/4", b"one")
        async with mounted(backend, clock, folder=str(tmp_path), lock_delay=0.0) as world:
            assert world.lock.status()["known"] == 4

    play(test)


def test_what_is_written_down_is_bounded_and_what_is_under_way_stays_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SEGMENT_KEYS", 20)
    monkeypatch.setattr(bounds, "SEGMENTS", 3)

    async def test(clock: Moves) -> None:
        backend = late()
        async with mounted(backend, clock, folder=str(tmp_path / "one"), lock_delay=0.0) as world:
            async with trio.open_nursery() as nursery:
                world.line.hang_s = lambda: 10.0
                nursery.start_soon(world.remote.put, KEY, b"under way for long")
                await trio.sleep(1.0)
                world.line.hang_s = lambda: 0.0
                for number in range(60):
                    await world.remote.delete_many([f"other/{number}/{n}" for n in range(5)])
                    await trio.sleep(0.1)
                left = killed(tmp_path / "one", tmp_path / "two")
                async with mounted(backend, clock, folder=left, lock_delay=0.0) as second:
                    assert second.lock.truth._known[KEY].perhaps, "it was begun in a file that is gone"
                    assert len(second.lock.truth) < 70
            files = sorted(int(path.stem) for path in (tmp_path / "one" / STATE).iterdir())
            assert len(files) == 3 and files[0] > 10
            await trio.sleep(2000.0)
            await world.remote.delete("other/last")
            await trio.sleep(1.0)
            assert len(list((tmp_path / "one" / STATE).iterdir())) <= 2, "old ones go"

    play(test)


def test_a_disk_that_is_full_for_a_while_keeps_what_it_has(tmp_path: Path) -> None:
    async def test(clock: Moves) -> None:
        backend = late()
        async with mounted(backend, clock, folder=str(tmp_path), lock_delay=0.0) as world:
            await world.remote.put("other/before", b"one")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(SystemFile, "pwrite", full)
                for number in range(2 * bounds.SEGMENTS):
                    await world.remote.put(f"other/{number}", b"one")
            await world.remote.put("other/after", b"one")
        assert len(list((tmp_path / STATE).iterdir())) == 2
        async with mounted(backend, clock, folder=str(tmp_path), lock_delay=0.0) as world:
            assert set(world.lock.truth._known) == {"other/before", "other/after"}

    def full(self: SystemFile, data: bytes, offset: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    play(test)


def test_a_disk_that_takes_nothing_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(clock: Moves) -> None:
        async with mounted(late(), clock, folder=str(tmp_path), lock_delay=1.0) as world:
            shutil.rmtree(tmp_path / STATE)
            for number in range(3):
                await world.remote.put(f"other/{number}", b"one")
                await world.remote.get(f"other/{number}")
            assert world.lock.status()["not_kept"] >= 3
        assert len(caplog.records) == 1

    play(test)
