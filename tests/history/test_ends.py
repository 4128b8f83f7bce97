"""How a mount begins and ends: who owns the root, and that a mount whose writing ended does not end as if all were well."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from s3cfs.app.node import NodeOptions
from s3cfs.app.status import status
from s3cfs.errors import AlreadyMounted, S3cfsError
from s3cfs.formats.record import Kind
from s3cfs.history.health import State
from s3cfs.history.log import Host
from s3cfs.history.office import Takeover
from s3cfs.limits import Limits
from s3cfs.vfs.types import ROOT_CALLER
from tests.backends.suite import some_bytes

from .kit import SUPERBLOCK, Life, Site, content, new_machine, state, write_file
from .seal import seal_now

OWNED = NodeOptions(owner=(1000, 1001))


class Refused(S3cfsError):
    pass


def test_a_first_mount_that_fails_does_not_own_the_root_for_ever() -> None:
    """It took office and then the kernel refused: the next one is the first to really mount."""
    site = Site()

    async def failing(life: Life) -> None:
        async with life.node(OWNED):
            raise Refused("fusermount3: option allow_other only allowed if ...")

    async def second(life: Life) -> tuple[int, int, int]:
        async with life.node(OWNED) as node:
            root = await node.vfs.getattr(1)
            return root.uid, root.gid, root.mtime_ns

    with pytest.raises(Refused):
        site.live(failing)
    assert site.live(second) == (1000, 1001, SUPERBLOCK.created_ns or 0)


def test_the_root_stays_whose_it_became() -> None:
    site = Site()

    async def mount(life: Life, owner: tuple[int, int]) -> tuple[int, int]:
        async with life.node(NodeOptions(owner=owner)) as node:
            root = await node.vfs.getattr(1)
            return root.uid, root.gid

    assert site.live(lambda life: mount(life, (1000, 1001))) == (1000, 1001)
    assert site.live(lambda life: mount(life, (0, 0))) == (1000, 1001)


def test_a_mount_that_failed_ends_with_its_error() -> None:
    site = Site()

    async def fails(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            await write_file(node, b"b", content(2))
            site.drive().faults.fsync_eio = 1.0
            await life.doors.clock.sleep(5)
            site.drive().faults.fsync_eio = 0.0
            assert state(node) is State.FAILED

    with pytest.raises(S3cfsError) as caught:
        site.live(fails)
    assert caught.value.exit_code != 0 and str(caught.value)
    assert new_machine(site) == {b"a": content(1)}


@pytest.mark.parametrize("unsent", [True, False])
def test_a_mount_that_was_deposed_says_so_when_something_is_unsent(unsent: bool) -> None:
    site = Site()

    async def deposed(life: Life) -> None:
        async with life.node(replace(OWNED, place="/cache/it")) as node:
            await write_file(node, b"a", content(1))
            await node.flush()
            seal_now(site.bucket)
            if unsent:
                await write_file(node, b"b", content(2))
            await life.doors.clock.sleep(100)
            assert state(node) is State.DEPOSED

    if not unsent:
        site.live(deposed)
        return
    with pytest.raises(AlreadyMounted, match=r"took this filesystem over at .*stay in /cache/it"):
        site.live(deposed)


def test_a_node_that_nobody_can_ask_may_be_followed_when_it_was_idle() -> None:
    """The machine is gone; its last word was that it had nothing to say. Whoever has its local state, or says so, follows."""
    site = Site()

    async def idle(life: Life) -> None:
        async with life.node(NodeOptions(host=Host("before it booted again", "ns", life.number, 1, "here"))) as node:
            await write_file(node, b"%d" % life.number, content(1))
            await node.flush()
            await life.doors.clock.sleep(100)
            life.incarnation.kill()

    async def mount(life: Life, takeover: Takeover = Takeover.NO) -> float:
        began = life.doors.clock.monotonic()
        async with life.node(NodeOptions(takeover=takeover, host=Host(life.incarnation.name, "ns", life.number, 1, "another"))):
            return life.doors.clock.monotonic() - began

    site.live(idle)
    history = len(site.bucket.history)
    with pytest.raises(AlreadyMounted, match="idle since"):
        site.live(mount, "there")
    assert len(site.bucket.history) == history, "it wrote something though it was refused"
    took = site.live(mount, "here")
    assert took is not None and took < 10, "its own former writer was waited for"
    site.live(idle, "here")
    took = site.live(lambda life: mount(life, Takeover.IDLE), "there")
    assert took is not None and took < 10


def test_who_took_over_says_from_whom() -> None:
    """In `stat` as on the terminal; not after an unmount, when nobody was thrown out."""
    site = Site()

    async def mount(life: Life, end: bool) -> list[str]:
        options = NodeOptions(takeover=Takeover.YES, host=Host(life.incarnation.name, "ns", life.number, 1, life.incarnation.name),
                              process_alive=lambda host: True)
        async with life.node(options) as node:
            await write_file(node, life.incarnation.name.encode(), content(1))
            await node.flush()
            said: list[str] = (await status(node, url="", mountpoint="", started=0.0))["warnings"]
            if not end:
                life.incarnation.kill()
                await life.doors.clock.sleep(1)
            return said

    site.live(lambda life: mount(life, True), "first")
    assert [text for text in site.live(lambda life: mount(life, True), "second") or [] if "took" in text] == []
    site.live(lambda life: mount(life, False), "third")
    (told,) = [text for text in site.live(lambda life: mount(life, True), "fourth") or [] if "took" in text]
    assert told.startswith("took this filesystem over from third")


def test_what_comes_while_an_unmount_flushes_is_in_the_store_too() -> None:
    """A damaged chunk that a reader met, say: whoever signs off has nothing left to say."""
    site = Site()

    async def main(life: Life) -> None:
        async with life.node() as node:
            real, late = node.commits.flush, [b"first", b"second"]

            async def flush() -> None:
                await real()
                if late:
                    await node.vfs.setxattr(1, b"user." + late.pop(), b"x")

            await write_file(node, b"a", content(1))
            node.commits.flush = flush  # type: ignore[method-assign, assignment]

    async def again(life: Life) -> list[bytes]:
        async with life.node() as node:
            assert node.meta.outbox()[0] == 0
            return sorted(await node.vfs.listxattr(1))

    site.live(main)
    assert site.live(again, "another machine") == [b"user.first", b"user.second"]


def test_content_that_is_being_staged_while_its_file_goes_is_nothing_to_say_after_the_last_word() -> None:
    """Chunks without a file, in no commit: this machine's next mount, after another's, would find that it had diverged (seed 859154)."""
    site = Site(limits=Limits(stage_open_file_s=1.0))

    async def main(life: Life) -> None:
        async with life.node() as node:
            stager, begun = node.stager, trio.Event()
            assert stager is not None and node.writer is not None
            ino = (await node.vfs.create(1, b"a", 0o644, ROOT_CALLER)).ino
            await node.vfs.write(ino, 0, content(1))
            await node.flush()                             # from here on transactions leave an open file to the pool
            look_up, release = stager._look_up, node.writer.append

            async def slow_look_up(pieces: Any) -> Any:
                begun.set()
                with trio.CancelScope(shield=True):                # as it is while a thread computes
                    await life.doors.clock.sleep(5)
                return await look_up(pieces)

            async def slow_release(kind: Kind, *arguments: Any, **others: Any) -> Any:
                if kind is Kind.RELEASE:
                    await life.doors.clock.sleep(10)
                return await release(kind, *arguments, **others)

            stager._look_up, node.writer.append = slow_look_up, slow_release  # type: ignore[method-assign]
            await node.vfs.write(ino, 0, some_bytes(200_000))
            await begun.wait()
            await node.vfs.unlink(1, b"a")
            await node.vfs.release(ino)
            await node.vfs.forget(ino, 1)

    async def again(life: Life) -> None:
        async with life.node() as node:
            assert node.meta.outbox()[0] == 0

    site.live(main)
    site.live(again)
