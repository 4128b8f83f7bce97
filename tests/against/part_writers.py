"""Two machines on one store: who is thrown out learns of it, and what anybody was told is in the store stays there."""
from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs.app.node import Node
from s3cfs.errors import AlreadyMounted, ReadOnly, S3cfsError, SystemFailure
from s3cfs.history.log import Host
from s3cfs.history.office import Takeover
from tests.against.headless import Filesystem, Tree, write
from tests.places import Place


def machine(name: str) -> dict[str, Any]:
    """Options of a mount on a machine of its own."""
    return {"host": Host(f"boot of {name}", "its own", 1, 1, name), "process_alive": lambda host: True, "takeover": Takeover.YES}


async def thrown_out(work: Callable[[], Awaitable[None]]) -> bool:
    """Whether the filesystem ended, or did not begin, because another writer took over. Its other errors are raised."""
    try:
        await work()
    except (S3cfsError, ExceptionGroup) as error:
        if not _deposed(error):
            raise
        return True
    return False


def _deposed(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_deposed(one) for one in error.exceptions)
    return isinstance(error, AlreadyMounted) or (isinstance(error, (ReadOnly, SystemFailure)) and "took this filesystem over" in str(error))


@pytest.fixture(autouse=True)
def _two_may_write(place: Place) -> None:
    if place.sole:
        pytest.skip("one machine writes to a store of neither tier: its owner vouches for that")


def test_a_deposed_writer(place: Place, tmp_path: Path) -> None:
    fs = Filesystem.make(place, tmp_path / "mkfs")
    told: Tree = {}

    async def acknowledged(node: Node, name: str) -> None:
        data = random.Random(name).randbytes(50_000)
        await write(node, name, data)
        await node.flush()
        told[name] = data

    async def main() -> None:
        in_office, taken_over = trio.Event(), trio.Event()

        async def first() -> None:
            async with fs.node(tmp_path / "alpha", **machine("alpha")) as node:
                await acknowledged(node, "one of alpha")
                in_office.set()
                await taken_over.wait()
                with pytest.raises(S3cfsError, match="took this filesystem over"):
                    await acknowledged(node, "two of alpha")

        async def second() -> None:
            await in_office.wait()
            async with fs.node(tmp_path / "beta", **machine("beta")) as node:
                await acknowledged(node, "one of beta")
                taken_over.set()
                await acknowledged(node, "two of beta")

        async def is_told() -> None:
            assert await thrown_out(first), "alpha ended as if all were well"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(is_told)
            nursery.start_soon(second)
    trio.run(main)
    assert sorted(told) == ["one of alpha", "one of beta", "two of beta"]
    assert fs.look(tmp_path / "look", read_only=True) == told
    assert fs.fsck() == []


def test_two_writers_that_throw_each_other_out(place: Place, tmp_path: Path) -> None:
    """Each takes over from the other, again and again: all that was acknowledged is there, and nothing that never began."""
    fs = Filesystem.make(place, tmp_path / "mkfs")
    assert fs.look(tmp_path / "first") == {}, "what the store can do is found out once, and alone"
    told: Tree = {}
    begun: Tree = {}
    mounts = dict.fromkeys(("alpha", "beta"), 0)

    async def writer(name: str, dice: random.Random) -> None:
        async def life() -> None:
            mounts[name] += 1
            folder = tmp_path / f"{name} {mounts[name]}"
            async with fs.node(folder, **machine(f"{name} {mounts[name]}")) as node:
                for number in range(dice.randint(1, 4)):
                    file, data = f"{name} {mounts[name]} {number}", dice.randbytes(dice.choice((10, 3000, 70_000)))
                    begun[file] = data
                    await write(node, file, data)
                    await node.flush()
                    told[file] = data
        while mounts[name] < 2 * place.rounds:
            await thrown_out(life)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in mounts:
                nursery.start_soon(writer, name, random.Random(f"{place.seed} {name}"))
    trio.run(main)
    found = fs.look(tmp_path / "look", read_only=True)
    assert {name: found.get(name) for name in told} == told, f"lost: {sorted(told.keys() - found.keys())}"
    assert {name: begun[name] for name in found.keys() - told.keys()} == {name: found[name] for name in found.keys() - told.keys()}
    assert fs.fsck() == []
    print(f"{mounts} attempts to mount, {len(told)} files acknowledged, {len(found) - len(told)} more in the store")
