"""Packs on their way to the store: refused, on a slow line, and after this is not the writer any more."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from s3cfs.app.node import NodeOptions
from s3cfs.errors import Denied, Deposed, Exists, Temporary
from s3cfs.history.health import State
from s3cfs.history.logbook import Logbook
from s3cfs.history.office import Takeover
from s3cfs.limits import Limits
from tests.sim.doors import Bucket
from tests.sim.threads import pause

from .kit import Life, Site, content, new_machine, state, write_file
from .seal import seal_now


def test_a_pack_that_the_store_refuses_is_not_done() -> None:
    """Refused for good or for now: no record names it, the flush waits, and it is put when the store changes its mind."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            real = life.store.put
            refusing = [True]

            def put(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("pack/") and refusing[0]:
                    raise Denied("put", key, "403")
                real(key, data, only_if_absent)

            life.store.put = put  # type: ignore[method-assign, assignment]
            await write_file(node, b"a", content(1))
            with trio.move_on_after(300):
                await node.flush()
                raise AssertionError("a flush whose pack was refused")
            assert all(not entry.changeset for entry in await life.history()), "a record names a pack that is not in the store"
            assert state(node) is State.AWAY and "does not take packs" in node.commits.health.message
            refusing[0] = False
            await node.flush()
            assert state(node) is State.OK

    site.live(main)
    assert new_machine(site) == {b"a": content(1)}


def test_a_very_slow_line_is_not_shared_for_ever() -> None:
    """Three packs at once take longer than any call may, one alone does not: they go one by one."""
    site = Site(limits=Limits(ride_max_bytes=0, pack_target_bytes=50_000))

    async def main(life: Life) -> None:
        async with life.node() as node:
            clock, real = life.doors.clock, node.remote.put
            at_once = 0

            async def slow(key: str, data: bytes, only_if_absent: bool = False) -> None:
                nonlocal at_once
                if key.startswith("pack/"):
                    at_once += 1
                    try:
                        with trio.move_on_after(20):
                            left = 18.0
                            while left > 0:
                                await clock.sleep(0.5)
                                left -= 0.5 / at_once
                            await real(key, data, only_if_absent)
                            return
                        raise Temporary("put", key, "time-out")
                    finally:
                        at_once -= 1
                await real(key, data, only_if_absent)

            node.remote.put = slow  # type: ignore[method-assign, assignment]
            for number in range(9):
                await write_file(node, b"%d" % number, content(number, 60_000))
                await node.commits.durable()
            with trio.fail_after(350):                      # nine of eighteen seconds, and what the first failures cost
                await node.flush()

    site.live(main)
    assert len(new_machine(site)) == 9


def test_a_deposed_writer_uploads_nothing_more() -> None:
    site = Site(limits=Limits(ride_max_bytes=0, pack_target_bytes=50_000))

    async def main(life: Life) -> None:
        async with life.ending() as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            life.away()
            for number in range(10):
                await write_file(node, b"%d" % number, content(number, 60_000))
                await node.commits.durable()
            seal_now(site.bucket)
            node.commits.health.fail(Deposed("as when an append found that SEAL"))
            await life.doors.clock.sleep(3)                 # what was on its way this moment
            life.away(False)
            life.calls()
            await life.doors.clock.sleep(300)
            assert life.calls() == [] and node.commits.uploads.newest, "packs go up though this is not the writer any more"

    site.live(main)


@pytest.mark.parametrize(("memory", "loaded", "sent"), [(1 << 20, 4, 3), (200_000, 3, 3), (1000, 1, 1)])
def test_one_more_is_loaded_than_is_sent_as_far_as_memory_goes(memory: int, loaded: int, sent: int) -> None:
    """Nine packs of some 60,000 bytes, three at once, to a store that takes its time: how many are in memory, and how many on their way."""
    site = Site(limits=Limits(ride_max_bytes=0, pack_target_bytes=50_000, uploads_at_once=3))

    async def main(life: Life) -> None:
        async with life.node() as node:
            node.commits.uploads._doors = replace(node.doors, limits=replace(node.doors.limits, upload_memory_bytes=memory))
            real, load = life.store.put, node.journal.load
            loads, puts, opened = [0], [0], [False]

            def slow(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("pack/"):
                    puts[0] += 1
                    while not opened[0]:
                        pause(1.0)
                real(key, data, only_if_absent)

            async def counted(pack_id: int) -> bytes:
                loads[0] += 1
                return await load(pack_id)

            life.store.put = slow  # type: ignore[method-assign, assignment]
            node.journal.load = counted  # type: ignore[method-assign]
            for number in range(9):
                await write_file(node, b"%d" % number, content(number, 60_000))
                await node.commits.durable()
            await life.doors.clock.sleep(60)
            assert (loads[0], puts[0]) == (loaded, sent)
            opened[0] = True
            await node.flush()
            assert loads[0] == puts[0] == 9, "each once"

    site.live(main)
    assert len(new_machine(site)) == 9


@pytest.mark.parametrize("there", ["half", "all", "nothing any more"])
def test_what_came_of_a_put_that_broke_off_is_not_taken_for_the_pack(there: str) -> None:
    """Some servers keep half a body whose sender died, under a name that a create-only put then finds taken."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            real, broken = life.store.put, list[str]()

            def put(key: str, data: bytes, only_if_absent: bool = False) -> None:
                if key.startswith("pack/") and not broken:
                    broken.append(key)
                    if there == "nothing any more":
                        raise Exists("put", key, "and deleted by somebody who thought it useless")
                    site.bucket.objects[key] = bytes(data)[:len(data) // (2 if there == "half" else 1)]
                    raise Temporary("put", key, "the connection broke")
                real(key, data, only_if_absent)

            life.store.put = put  # type: ignore[method-assign, assignment]
            await write_file(node, b"a", content(1))
            await node.flush()
            puts = [call for call in life.taken() if call.operation == "put" and call.key == broken[0]]
            assert len(puts) == {"half": 3, "all": 2, "nothing any more": 2}[there]

    site.live(main)
    assert new_machine(site) == {b"a": content(1)}


@pytest.mark.parametrize("there", ["all", "half", "nothing"])
@pytest.mark.parametrize("create_only", [True, False], ids=["T1", "T2"])
def test_what_an_earlier_process_put_is_not_put_over_itself(create_only: bool, there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record may name it already; and it is not sent once more for nothing."""
    site = Site(bucket=Bucket(create_only=create_only))

    async def main(life: Life) -> None:
        def note(logbook: Logbook, tip: Any, upto: int, riders: Any) -> None:
            if upto:
                life.incarnation.kill()

        with monkeypatch.context() as patch:
            patch.setattr(Logbook, "_note", note)
            async with life.node() as node:
                await write_file(node, b"a", content(1))
                await node.flush()

    assert site.live(main) is None
    pack, = (key for key in site.bucket.objects if key.startswith("pack/"))
    assert new_machine(site) == {b"a": content(1)}, "a record names it"
    whole = site.bucket.objects[pack]
    if there != "all":
        del site.bucket.objects[pack]
    if there == "half":
        site.bucket.objects[pack] = whole[:len(whole) // 2]

    async def again(life: Life) -> list[str]:
        async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
            await node.flush()
            await life.doors.clock.sleep(60)
            assert not node.meta.unsent() and not node.meta.outbox()[0]
            return [call.operation for call in life.taken() if call.key == pack]

    asked = site.live(again)
    assert asked is not None and asked.count("put") == {"all": int(create_only), "half": 2 if create_only else 1, "nothing": 1}[there]
    assert site.bucket.objects[pack] == whole and new_machine(site) == {b"a": content(1)}
