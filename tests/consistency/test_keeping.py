"""What outlives a mount: decisions, the delay, a day's bytes; and what a disk or a clock may do to that."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
import trio.testing

from s3cfs.backends.consistency.bounds import Bounds
from s3cfs.backends.consistency.conditions import Evidence, Kind
from s3cfs.backends.consistency.decisions import FILE_BYTES, KEPT, Decisions
from s3cfs.doors import SystemDisk
from s3cfs.remote import Remote
from tests.consistency.kit import InLine, World

STATE = Path("local/layers/checker")


def again(world: World, hours: float) -> None:
    """So long later, on a new clock: another process."""
    world.clock.wall_s += world.mock.current_time() + hours * 3600
    world.mock = world.clock._mock = trio.testing.MockClock(autojump_threshold=0)


async def grow(remote: Remote) -> None:
    remote.stack.layers[-1].conditions.tell(Evidence(Kind.STALE, "get", "pack/aa/1", 33.3))  # type: ignore[attr-defined]
    await trio.sleep(1)


async def nothing(remote: Remote) -> None:
    await trio.sleep(1)


def test_the_delay_and_its_reasons_outlive_the_mount(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(grow)
    assert world.conditions.delay_s == 40.0
    first = world.entries("delay")
    assert [[entry[name] for name in ("from", "to", "kind", "age_s", "evidence")] for entry in first] == [[20, 40, "pack", 33.3, "stale"]]
    again(world, 2)
    world.run(nothing)
    assert world.conditions.delay_s == 40.0
    entries = world.entries("delay")
    assert entries[0] == first[0] and entries[1]["to"] == 40.0 and "120 min ago" in entries[1]["why"]
    assert 7200 <= entries[1]["time"] - entries[0]["time"] <= 7202


def test_a_delay_of_long_ago_is_not_taken_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(grow)
    again(world, 25)
    world.run(nothing)
    assert world.conditions.delay_s == 20.0 and len(world.entries("delay")) == 1, "its reasons are shown still"
    again(world, -48)
    world.run(nothing)
    again(world, -24)
    world.run(nothing)
    assert world.conditions.delay_s == 20.0, "nor one of days to come"


def test_what_its_owner_wants_now_counts(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(grow)
    again(world, 1)
    world.bounds = Bounds(lock_delay=5.0)
    world.run(nothing)
    assert world.conditions.delay_s == 5.0
    again(world, 1)
    world.run(grow)
    assert world.conditions.delay_s == 33.3
    again(world, 1)
    world.bounds = Bounds(lock_delay=5.0, lock_delay_most=25.0)
    world.run(nothing)
    assert world.conditions.delay_s == 25.0, "and its bounds"


def test_changes_by_hand_are_noted(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        remote.stack.change("checker", {"lock-delay": "7", "shrink-after": "60"})
        await trio.sleep(1)

    world.run(test)
    assert [(entry["setting"], entry["from"], entry["to"]) for entry in world.entries("setting")] == [
        ("lock-delay", "20", "7"), ("shrink-after", "3600", "60")]
    assert world.conditions.delay_s == 7.0


def test_garbage_and_a_disk_that_refuses_are_no_trouble(tmp_path: Path, monkeypatch: Any) -> None:
    world = World(tmp_path)
    world.run(grow)
    (tmp_path / STATE / "state").write_text('{"delay_s": [], "lock_delay": "x"}')
    with (tmp_path / STATE / "decisions").open("a") as file:
        file.write('{"time": 1, "what": "torn')
    again(world, 1)
    world.run(grow)
    again(world, 1)
    world.run(nothing)
    assert [entry["to"] for entry in world.entries("delay")] == [40.0, 40.0, 40.0], "the line after a torn one is whole"
    monkeypatch.setattr(SystemDisk, "open", lambda *args, **how: (_ for _ in ()).throw(OSError(28, "full")))
    again(world, 1)
    world.run(grow)
    assert world.conditions.delay_s == 40.0 and len(world.entries("delay")) == 1


def test_the_files_are_bounded(tmp_path: Path) -> None:
    disk, log = SystemDisk(str(tmp_path)), Decisions()
    disk.makedirs("d")
    log.load(disk, "d")
    for number in range(3000):
        log.add({"time": number, "why": "x" * 50})
        if number % 10 == 0:
            log.save(log.take_unsaved(), {})
    log.save(log.take_unsaved(), {"delay_s": 3})
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "d").iterdir()}
    assert set(sizes) == {"decisions", "decisions.old", "state"} and all(size <= FILE_BYTES for size in sizes.values())
    other = Decisions()
    earlier, state = other.load(disk, "d")
    other.came_before(earlier)
    assert state == {"delay_s": 3} and [entry["time"] for entry in other.entries] == list(range(3000 - KEPT, 3000))
    assert json.loads((tmp_path / "d" / "decisions").read_text().splitlines()[-1])["time"] == 2999


def test_a_delay_that_grew_while_the_old_one_was_read_is_not_lowered(tmp_path: Path) -> None:
    """The first requests do not wait for the local disk."""
    world = World(tmp_path)
    world.run(grow)
    assert world.conditions.delay_s == 40.0
    again(world, 1)
    run = InLine.run

    async def late(self: InLine, function: Any, *args: Any) -> Any:
        await trio.sleep(5)
        return await run(self, function, *args)

    world.doors = replace(world.doors, threads=type("Late", (InLine,), {"run": late})())

    async def worse(remote: Remote) -> None:
        world.conditions.tell(Evidence(Kind.STALE, "get", "pack/aa/1", 66.0))
        await trio.sleep(10)

    world.run(worse)
    assert world.conditions.delay_s == 66.0


def test_what_the_disk_refused_is_kept_when_it_takes_things_again(tmp_path: Path, monkeypatch: Any) -> None:
    world = World(tmp_path)

    async def test(remote: Remote) -> None:
        await trio.sleep(1)
        with monkeypatch.context() as patched:
            patched.setattr(SystemDisk, "open", lambda *args, **how: (_ for _ in ()).throw(OSError(28, "full")))
            await grow(remote)
        world.checker.change("shrink-after", "60")
        await trio.sleep(1)

    world.run(test)
    lines = (tmp_path / STATE / "decisions").read_text().splitlines()
    assert [json.loads(line)["what"] for line in lines] == ["delay", "setting"]
