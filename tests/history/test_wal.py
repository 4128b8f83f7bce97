"""SQLite's own log beside a running mount: a thread copies it, the loop never does, and it begins anew."""
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.doors import Doors, SystemClock, SystemRandomness, TrioThreads
from s3cfs.history.options import Options
from s3cfs.limits import DEFAULTS
from s3cfs.meta import Transaction
from s3cfs.meta.wal import Wal
from s3cfs.vfs.types import ROOT_CALLER
from tests.slowdisk import SlowDisk, SlowVfs

from .kit import KEYRING, SUPERBLOCK

LIMITS = replace(DEFAULTS, wal_copy_pages=30, wal_restart_pages=150, wal_rest_pages=60, wal_anyhow_pages=600, transaction_max_bytes=30_000)
ROUNDS, FILES = 30, 60


def node_on(vfs: SlowVfs, path: Path) -> Doors:
    return Doors(SystemClock(), SystemRandomness(), TrioThreads(), SlowDisk(str(path), vfs), LIMITS)


async def make_files(node: Node, tag: bytes) -> list[int]:
    made = [(await node.vfs.create(1, b"%s-%d" % (tag, number), 0o644, ROOT_CALLER)).ino for number in range(FILES)]
    for ino in made:
        await node.vfs.write(ino, 0, b"%d" % ino * 20)
        node.vfs.remember(ino)
        await node.vfs.release(ino)
    return made


@pytest.mark.parametrize("case", ["quick disk", "slow disk", "forgotten inodes"])
def test_the_loop_copies_nothing_and_the_log_stays_short(tmp_path: Path, case: str) -> None:
    """`forgotten inodes`: rows change that pass no gate, at every moment: inodes without a name go when the kernel forgets them."""
    vfs = SlowVfs(f"wal-{tmp_path.name}", sync_s=0.03 if case == "slow disk" else 0.0)
    pages: list[int] = []

    async def unlinked(node: Node) -> None:
        number = 0
        while True:
            made = await node.vfs.mknod(1, b"x-%d" % number, 0o100644, 0, ROOT_CALLER)
            node.vfs.remember(made.ino)
            await node.vfs.unlink(1, b"x-%d" % number)
            await trio.lowlevel.checkpoint()
            await node.vfs.forget(made.ino, 1)
            number += 1
            await trio.sleep(0.001)

    async def main() -> None:
        async with open_node(node_on(vfs, tmp_path / "state"), MemoryBackend(), KEYRING, SUPERBLOCK, NodeOptions()) as node:
            async with trio.open_nursery() as nursery:
                if case == "forgotten inodes":
                    nursery.start_soon(unlinked, node)
                vfs.clear()
                begun = node.meta._engine.wal._begun
                while len(pages) < ROUNDS or node.meta._engine.wal._begun < begun + 2:
                    await make_files(node, b"%d" % len(pages))
                    await node.vfs.fsyncdir(1)
                    pages.append(node.meta._engine.wal.pages)
                nursery.cancel_scope.cancel()
            begun = node.meta._engine.wal._begun - begun
            assert vfs.writes_on_loop == 0
            assert vfs.syncs_on_loop == begun                    # SQLite's own, of the new log's first page
            assert vfs.writes_in_thread > 100

    trio.run(main)
    assert max(pages) < 2 * LIMITS.wal_anyhow_pages, pages


def test_what_makes_the_log_begin_anew_is_a_whole_transaction(tmp_path: Path) -> None:
    """With all that a transaction owes: the content of files that are closed, or renamed over others (invariant I2)."""
    vfs = SlowVfs(f"whole-{tmp_path.name}")
    limits = replace(LIMITS, wal_copy_pages=1, wal_restart_pages=20)
    doors = replace(node_on(vfs, tmp_path / "state"), limits=limits)

    async def main() -> None:
        options = NodeOptions(commits=Options(transaction_interval_s=1000, commit_interval_s=1000))
        async with open_node(doors, MemoryBackend(), KEYRING, SUPERBLOCK, options) as node:
            wal, real, owed = node.meta._engine.wal, node.meta.commit, list[int]()

            def commit() -> Transaction | None:
                owed.extend(state.ino for state in node.files._states.values() if state.due_next)
                return real()

            node.meta.commit = commit  # type: ignore[method-assign]
            while not wal.is_long:
                await make_files(node, b"%d" % wal.pages)
                await node.commits.durable()
            begun = wal._begun
            await node.vfs.create(1, b"tmp", 0o644, ROOT_CALLER)
            made = await node.vfs.lookup(1, b"tmp")
            assert made is not None
            await node.vfs.write(made.ino, 0, bytes(5000))
            await node.vfs.rename(1, b"tmp", 1, b"20-1", 0)
            node.commits.local._much_log.pulse()
            while wal._begun == begun:
                await trio.sleep(0.001)
                if not node.commits.local.lock.locked():
                    await node.vfs.setxattr(1, b"user.n", os.urandom(4))
                    await node.vfs.fsyncdir(1)
            assert owed == []

    trio.run(main)


def test_a_transaction_without_rows_asks_nothing_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open file that stays dirty has one end every second."""
    syncs, real = [0], Wal.sync

    def counted(self: Wal) -> None:
        syncs[0] += 1
        real(self)

    monkeypatch.setattr(Wal, "sync", counted)

    async def main() -> None:
        options = NodeOptions(commits=Options(transaction_interval_s=1000, commit_interval_s=1000))
        async with open_node(node_on(SlowVfs(f"rows-{tmp_path.name}"), tmp_path / "state"), MemoryBackend(), KEYRING, SUPERBLOCK,
                             options) as node:
            async with node.commits.local.lock:
                await node.commits.local.close()
                before = syncs[0]
                for _ in range(5):
                    await node.commits.local.close()
                assert syncs[0] == before
                node.meta.local_set("note", b"1")                 # a local row alone is a reason, too
                await node.commits.local.close()
                assert syncs[0] == before + 1
            await node.vfs.mkdir(1, b"x", 0o755, ROOT_CALLER)
            await node.commits.durable()
            assert syncs[0] == before + 2

    trio.run(main)
