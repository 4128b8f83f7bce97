"""A store whose answers are old: what the simulated one shows when, and a whole filesystem on it."""
from __future__ import annotations

import pytest
import trio

from s3cfs.app.node import NodeOptions
from s3cfs.errors import AlreadyMounted, Exists, NotFound, Temporary
from tests.history.kit import Life, Site, content, read_all, write_file

from .store import StoreFaults


def test_what_it_shows() -> None:
    """Puts, overwriting, deletion, each seen `stale_s` later by everybody; a create-only put sees what is."""
    site = Site()

    async def main(life: Life) -> None:
        store, wait = life.store, trio.sleep
        store.assume_create_only(True)
        store.put("log/a", b"old")
        with pytest.raises(NotFound):
            store.get("log/a")
        assert not list(store.list("log/")) and not list(store.folders(""))
        with pytest.raises(Exists):
            store.put("log/a", b"other", only_if_absent=True)
        await wait(30)
        store.put("probe/a", b"old")
        await wait(10)
        store.put("probe/a", b"newer")
        assert (store.get("log/a"), store.stat("log/a").size, list(store.folders(""))) == (b"old", 3, ["log"])
        await wait(20)
        assert store.get("probe/a") == b"old" and store.stat("probe/a").size == 3
        await wait(10)
        assert store.get("probe/a") == b"newer"
        store.delete("probe/a")
        assert store.get("probe/a") == b"newer" and [info.key for info in store.list("probe/")] == ["probe/a"]
        store.faults.stale_s = 0.0
        with pytest.raises(NotFound):
            store.stat("probe/a")
        assert not list(store.list("probe/")) and store.capabilities.linearizable is False

    site.live(main, faults=StoreFaults(stale_s=30.0))


@pytest.mark.parametrize("create_only", [True, False])
def test_a_filesystem_on_it(create_only: bool) -> None:
    """Written, read with an empty cache, mounted again with local state at once, and without it when the store has settled."""
    site = Site()
    site.bucket.create_only = create_only
    options = NodeOptions(sole_writer=not create_only, cache_bytes=0)
    files = {str(number).encode(): content(number) for number in range(6)}

    async def write(life: Life) -> None:
        async with life.node(options) as node:
            for name, data in list(files.items())[life.number - 1::2]:
                await write_file(node, name, data)
                await node.flush()
                await node.drop_cache()
            assert set(await read_all(node)) <= set(files)

    async def look(life: Life) -> dict[bytes, bytes]:
        async with life.node(options) as node:
            return await read_all(node)

    site.live(write, faults=StoreFaults(stale_s=20.0))
    site.live(write, faults=StoreFaults(stale_s=20.0))
    assert site.live(look, faults=StoreFaults(stale_s=20.0)) == files
    site.now_s += 20
    assert site.live(look, "elsewhere", faults=StoreFaults(stale_s=20.0)) == files


def test_another_machine_before_it_has_settled() -> None:
    """It reads a log that ends too early, and learns from the create-only put of its SEAL that it goes on: it waits for the rest."""
    site = Site()
    files = {str(number).encode(): content(number) for number in range(6)}

    async def write(life: Life) -> None:
        async with life.node() as node:
            for name, data in files.items():
                await write_file(node, name, data)
                await node.flush()
                await trio.sleep(3)

    async def look(life: Life) -> dict[bytes, bytes]:
        async with life.node() as node:
            assert trio.current_time() > 15
            return await read_all(node)

    site.live(write, faults=StoreFaults(stale_s=12.0))
    assert site.live(look, "elsewhere", faults=StoreFaults(stale_s=12.0)) == files
    with pytest.raises(Temporary, match="does not show"):
        site.live(look, "third", faults=StoreFaults(stale_s=1000.0))
    site.now_s += 1000
    assert site.live(look, "third", faults=StoreFaults(stale_s=12.0)) == files


def test_two_that_see_no_log() -> None:
    """A filesystem is so new that the store shows nothing of its first mount to the second: one is in office, and nothing is lost."""
    site = Site()

    async def write(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, life.incarnation.name.encode(), b"x")
            await node.flush()

    site.live(write, "alpha", faults=StoreFaults(stale_s=60.0))
    with pytest.raises(AlreadyMounted, match="took this filesystem over"):
        site.live(write, "beta", faults=StoreFaults(stale_s=60.0))
    site.now_s += 60
    site.live(write, "beta", faults=StoreFaults(stale_s=60.0))
    site.now_s += 60

    async def look(life: Life) -> dict[bytes, bytes]:
        async with life.node() as node:
            return await read_all(node)

    for machine in ("alpha", "beta"):
        assert site.live(look, machine, faults=StoreFaults(stale_s=60.0)) == {b"alpha": b"x", b"beta": b"x"}
        site.now_s += 60
