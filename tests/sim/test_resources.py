"""A longer life: whatever was done, at rest the tables of a node are as large as before; and the watch sees what runs away."""
from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
import trio

from s3cfs.backends.consistency import bounds
from s3cfs.blocks import blockstore

from .actions import Busy
from .assembly import S3cfs
from .check import ClientLog, Finding, Moment, below
from .crash import Incarnation, Plan
from .disk import SimDrive
from .doors import Bucket, SimStore, detach, make_doors
from .driver import Anywhere
from .model import Model
from .resources import BOUNDS, Watch, weights
from .runtime import live
from .scan import scan
from .store import StoreFaults

ROUNDS, STEPS = 8, 100
#: bounded by bytes, not by entries: a cache may fill up
CACHES = ("PackCache.", "ReadStats.", "BlockStore._decoded", "Decoded.")


async def _empty(client: Busy, ino: int) -> None:
    for name, child in sorted(client.model.nodes[ino].entries.items()):
        if client.model.nodes[child].is_dir:
            await _empty(client, child)
            await client.do("rmdir", ino, name)
        else:
            await client.do("unlink", ino, name)


async def _round(client: Busy) -> None:
    for _ in range(STEPS):
        await client.step()
    for ino in sorted(client.model.opens):
        while client.model.opens.get(ino):
            await client.do("release", ino)
    await _empty(client, client.model.root)
    await client.do("flush_all")


def _long_life(seed: int, sessions: Callable[[], int]) -> list[dict[str, int]]:
    """What the tables held at the end of each round."""
    assembly, incarnation, drive = S3cfs(), Incarnation("long", Plan()), SimDrive()
    settings = assembly.settings(random.Random(seed))
    doors = make_doors(incarnation, drive, seed)
    store = SimStore(incarnation, Bucket())
    found: list[dict[str, int]] = []

    async def main() -> None:
        await assembly.mkfs(doors, store)
        async with assembly.mount(doors, store, settings) as node:
            tree = await scan(node.vfs, assembly.root)
            log = ClientLog(assembly.root, [Moment(below(tree, assembly.root), "the beginning", 0, 0, 0.0)])
            client = Busy(node, log, Model(assembly.root, tree), random.Random(seed), Anywhere())
            for _ in range(ROUNDS):
                await _round(client)
                await doors.clock.sleep(30.0)
                await node.flush()                       # what rode may just be on its way into a pack
                found.append({**node.weights(), "recording sessions": 10 * sessions()})

    try:
        outcome = live(incarnation, main, seed=seed)
    finally:
        detach(doors.disk)  # type: ignore[arg-type]
    if outcome.error is not None:
        raise outcome.error
    return found


def test_a_long_life_does_not_grow(monkeypatch):
    counts: Counter[str] = Counter()
    plain = apsw.Session

    class Counted(plain):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            counts["opened"] += 1

        def close(self) -> None:
            counts["closed"] += 1
            super().close()

    monkeypatch.setattr(apsw, "Session", Counted)
    monkeypatch.setattr(blockstore, "NAMES_MAX", 40)         # their bounds are constants, and beyond what these rounds make
    monkeypatch.setattr(bounds, "KEYS_KNOWN", 40)
    for seed in (1, 2):
        found = _long_life(seed, lambda: counts["opened"] - counts["closed"])
        grown = {name: [each.get(name, 0) for each in found] for name in found[-1] if not name.startswith(CACHES)
                 and found[-1][name] > 1.5 * max(each.get(name, 0) for each in found[:ROUNDS // 2]) + 16}
        assert not grown, f"twice as large as after half the rounds: {grown}"


def test_weights_sees_through_objects():
    class Inner:
        def __init__(self) -> None:
            self.table = dict.fromkeys(range(100), b"x")

    class Outer:
        __slots__ = ("inner",)

        def __init__(self) -> None:
            self.inner = [Inner()]

    Inner.__module__ = Outer.__module__ = "s3cfs.made_up"
    assert weights(Outer())["Inner.table"] == 100


def _watched(**changes: Any) -> Watch:
    node = SimpleNamespace(ended="", busy=True, open_since=None, promises_s=10.0, **changes)
    disk, store = SimpleNamespace(fsyncs=0), SimpleNamespace(calls=[], last_log_s=0.0, faults=StoreFaults())
    return Watch(node, disk, store, lambda: 0.0, lambda: 0)


@pytest.mark.parametrize("what", ["silence", "transaction", "fsyncs", "requests"])
def test_the_watch_finds(what):
    async def main() -> None:
        watch = _watched()
        watch.look()
        await trio.sleep(5.0)
        watch.look()
        match what:
            case "silence":
                await trio.sleep(watch._node.promises_s + BOUNDS.silence_slack_s)
            case "transaction":
                watch._node.open_since = 1.0
                await trio.sleep(BOUNDS.open_transaction_s)
            case "fsyncs":
                watch._disk.fsyncs = 10_000
            case "requests":
                watch._store.calls = [("get", "x")] * 10_000
        with pytest.raises(Finding):
            watch.look()

    outcome = live(Incarnation("watch"), main, seed=1)
    if outcome.error is not None:
        raise outcome.error
