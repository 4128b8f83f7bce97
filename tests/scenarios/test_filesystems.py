"""A filesystem lives through each scenario: written, read from the store with an empty cache, changed, mounted again at once, and from the
store alone on another machine when the store has settled; then all of it is as it was written, and a full check finds nothing."""
from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import pytest
import trio

from s3cfs.app.node import Node
from s3cfs.vfs.types import ROOT_CALLER
from tests.against import headless
from tests.gateway import Gateway
from tests.scenarios.kit import World

ROOT = 1
STALE_S, SETTLED_S = 20.0, 60.0
FILES = {"inline": b"a few bytes", "small": bytes(range(256)) * 20,
         "chunks": b"".join(number.to_bytes(4, "big") * 500 for number in range(120))}



SCENARIOS: dict[str, Callable[[Gateway], object]] = {
    "1 reads show what was": lambda gateway: gateway.stale(STALE_S, only=("get", "head")),
    "5 listings show what was": lambda gateway: gateway.stale(STALE_S, only="list"),
    "4 all answers show what was, some of them": lambda gateway: gateway.stale(STALE_S, share=0.5),
    "8 deletes do not take": lambda gateway: gateway.deletes_stay(),
    "9 what is deleted returns": lambda gateway: gateway.deletes_return(30.0),
    "10 puts arrive late": lambda gateway: gateway.late(15.0, only="put", share=0.3, count=3),
    "11 answers of puts are lost": lambda gateway: (gateway.stale(STALE_S), gateway.lose_answers(only="put", share=0.3, count=6)),
    "12 answers of deletions are lost": lambda gateway: gateway.lose_answers(only=("delete", "other")),
    "13 429 at peak": lambda gateway: gateway.throttle(2.0, share=0.6, for_s=60.0),
    "14 5xx at peak": lambda gateway: gateway.errors(503, share=0.5, for_s=60.0),
    "18 connections are reset": lambda gateway: gateway.reset(share=0.3, count=12),
    "19 idle connections die": lambda gateway: gateway.idle_dies_after(40.0),
    "21 answers break off": lambda gateway: gateway.cut(share=0.4, count=10),
    "22 slow at peak": lambda gateway: gateway.slow(5.0, share=0.3),
    "23 all of it": lambda gateway: (
        gateway.stale(STALE_S, share=0.7), gateway.throttle(1.0, share=0.1), gateway.lose_answers(only="put", share=0.1),
        gateway.cut(share=0.1), gateway.deletes_stay(share=0.5), gateway.reset(share=0.05)),
}


async def many_at_once(world: World, node: Node, tree: headless.Tree) -> None:
    """Readers of everything while it is written: from the store, since nothing stays in the cache."""
    while True:
        for name in list(tree):
            found = await node.vfs.lookup(ROOT, name.encode())
            if found is not None:
                await node.vfs.read(found.ino, 0, 1 << 20)
        await node.drop_cache()
        await world.pass_by(5.0)


async def clocks_jump(world: World, node: Node, tree: headless.Tree) -> None:
    for days in itertools.cycle((1, -2, 366, -365)):
        world.clock.wall_s += days * 86_400.0
        await world.pass_by(15.0)


async def gateway_restarts(world: World, node: Node, tree: headless.Tree) -> None:
    while True:
        await trio.to_thread.run_sync(world.gateway.restart, 5.0)
        await world.pass_by(30.0)


Beside = Callable[[World, Node, headless.Tree], Awaitable[None]]
BESIDE: dict[str, Beside] = {
    "14 many readers beside a writer": many_at_once,
    "16 the clock jumps": clocks_jump,
    "18 the gateway restarts": gateway_restarts,
}


async def replaced(node: Node, name: str, data: bytes) -> None:
    await node.vfs.unlink(ROOT, name.encode())
    await headless.write(node, name, data)


async def nothing(world: World, node: Node, tree: headless.Tree) -> None:
    pass


async def live(world: World, fs: headless.Filesystem, beside: Beside = nothing) -> headless.Tree:
    """What is there at the end; each step is in the store before the next."""
    tree = dict(FILES)
    async with world.node(fs) as node, trio.open_nursery() as nursery:
        nursery.start_soon(beside, world, node, FILES)
        for name, data in tree.items():
            await headless.write(node, name, data)
            await node.flush()
            await node.drop_cache()
        assert await headless.read(node) == tree
        tree["small"] = tree["small"][::-1]
        await replaced(node, "small", tree["small"])
        await node.vfs.rename(ROOT, b"inline", ROOT, b"elsewhere")
        tree["elsewhere"] = tree.pop("inline")
        await node.flush()
        await node.drop_cache()
        assert await headless.read(node) == tree
        nursery.cancel_scope.cancel()
    async with world.node(fs) as node:
        assert await headless.read(node) == tree
        made = await node.vfs.mkdir(ROOT, b"folder", 0o755, ROOT_CALLER)
        await node.vfs.rmdir(ROOT, b"folder")
        assert made.ino > ROOT
    return tree


async def compare(world: World, fs: headless.Filesystem, tree: headless.Tree) -> None:
    async with world.node(fs, "elsewhere", read_only=True) as node:
        assert await headless.read(node) == tree


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_filesystem_lives_through(world: World, name: str) -> None:
    fs = world.make()
    SCENARIOS[name](world.gateway)
    judged(world, fs, world.run(lambda: live(world, fs)))


@pytest.mark.parametrize("name", BESIDE)
def test_a_filesystem_lives_beside(world: World, name: str) -> None:
    """What happens while it works; and all answers show what was."""
    fs = world.make()
    world.gateway.stale(STALE_S)
    judged(world, fs, world.run(lambda: live(world, fs, BESIDE[name])))


def test_a_filesystem_whose_process_dies_in_a_put(world: World) -> None:
    """17. What was in the store is there, what came later is there or is made again; the gateway carries the last puts out when the next
    process is at work already."""
    fs, tree = world.make(), dict(FILES)

    async def die() -> None:
        with trio.CancelScope() as scope:
            async with world.node(fs) as node:
                await headless.write(node, "small", tree["small"])
                await node.flush()
                world.gateway.late(15.0, only="put")
                await headless.write(node, "chunks", tree["chunks"])
                await node.commits.durable()
                await world.pass_by(8.0)               # its puts are under way
                scope.cancel()

    async def go_on() -> None:
        async with world.node(fs) as node:
            assert await headless.read(node) == {name: tree[name] for name in ("small", "chunks")}
            await headless.write(node, "inline", tree["inline"])

    world.run(die)
    world.gateway.clear()
    world.gateway.stale(STALE_S)
    world.run(go_on)
    judged(world, fs, tree)


def judged(world: World, fs: headless.Filesystem, tree: headless.Tree) -> None:
    world.gateway.clear()
    world.run(lambda: world.pass_by(SETTLED_S))
    world.run(lambda: compare(world, fs, tree))
    assert fs.fsck() == []
