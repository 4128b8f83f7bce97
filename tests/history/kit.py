"""Machines for the tests of commits, replica and checkpoints: simulated disk and store, virtual time, the real everything else."""
from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.recorder import Call, RecorderBackend
from s3cfs.doors import Doors, SystemRandomness
from s3cfs.errors import S3cfsError
from s3cfs.formats import record, superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import Record
from s3cfs.history.commits import Options
from s3cfs.history.health import State
from s3cfs.history.localtip import LocalTip
from s3cfs.history.log import Host, find_tip
from s3cfs.history.office import Takeover
from s3cfs.limits import DEFAULTS, Limits
from s3cfs.remote import Remote
from s3cfs.vfs.types import ROOT_CALLER
from tests.sim.doors import Bucket, Incarnation, Plan, SimDrive, SimStore, StoreFaults, detach, make_doors
from tests.sim.runtime import live

T = TypeVar("T")
SUPERBLOCK, _keys, _ = superblock.create("test", SystemRandomness(), True, 4096, 16384, 65536, None, now_ns=0)
KEYRING = KeyRing(SUPERBLOCK.fs_id, None, SystemRandomness())
BOOT = "boot"
OBJECTS = replace(DEFAULTS, ride_max_bytes=0)              # each pack is an object; test_riders.py has the others


@dataclass
class Life:
    """One process on one machine, seen from inside."""

    doors: Doors
    store: SimStore
    backend: RecorderBackend
    incarnation: Incarnation
    number: int

    @property
    def remote(self) -> Remote:
        return Remote(self.backend, self.doors)

    def node(self, options: NodeOptions | None = None, **commits: Any) -> contextlib.AbstractAsyncContextManager[Node]:
        options = options or NodeOptions()
        if commits:
            options = replace(options, commits=Options(**commits))
        if not options.host.boot_id:
            options = replace(options, host=Host(BOOT, "ns", self.number, self.number), process_alive=lambda host: False)
        return self._node(options)

    @contextlib.asynccontextmanager
    async def ending(self, options: NodeOptions | None = None, **commits: Any) -> AsyncIterator[Node]:
        """`node` for one whose writing ends before its block does: it must say so at the end."""
        done = False
        try:
            async with self.node(options, **commits) as node:
                yield node
                done = True
        except S3cfsError:
            if not done:
                raise
        else:
            raise AssertionError("the mount ended as if all were well")

    @contextlib.asynccontextmanager
    async def _node(self, options: NodeOptions) -> AsyncIterator[Node]:
        try:
            async with open_node(self.doors, self.backend, KEYRING, SUPERBLOCK, options) as node:
                yield node
        except BaseExceptionGroup as group:
            raise first(group) from None

    async def history(self) -> list[Record]:
        """Of the store, oldest first."""
        found = []
        tip = await find_tip(self.remote, KEYRING.sealer("record", 0))
        key, n = tip.key, tip.n
        while key:
            found.append(record.decode(self.store.bucket.objects[key], n, KEYRING.sealer("record", 0)))
            key, n = str(found[-1].info["prev_key"]), n - 1
        return found[::-1]

    def away(self, yes: bool = True) -> None:
        self.store.faults.away = yes

    def calls(self) -> list[tuple[str, str]]:
        """(operation, kind of object) since the last time."""
        return [(call.operation, call.kind) for call in self.backend.take()]

    def taken(self) -> list[Call]:
        return self.backend.take()


def every(records: int) -> int:
    """`checkpoint_record_bytes` with which a checkpoint is due after so many."""
    return DEFAULTS.checkpoint_min_log_bytes // records + 1


def first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@dataclass
class Site:
    """A store and the machines that use it, each with a drive."""

    bucket: Bucket = field(default_factory=Bucket)
    drives: dict[str, SimDrive] = field(default_factory=dict)
    lives: int = 0
    now_s: float = 1.0
    limits: Limits = OBJECTS

    def drive(self, machine: str = "here") -> SimDrive:
        return self.drives.setdefault(machine, SimDrive())

    def live(self, main: Callable[[Life], Awaitable[T]], machine: str = "here", *, plan: Plan | None = None,
             faults: StoreFaults | None = None, seed: int = 1) -> T | None:
        """What `main` returns; None when the plan killed it. Its errors are raised."""
        self.lives += 1
        incarnation = Incarnation(machine, plan)
        doors = make_doors(incarnation, self.drive(machine), seed * 1000 + self.lives, self.limits)
        store = SimStore(incarnation, self.bucket, faults)
        life = Life(doors, store, RecorderBackend(store), incarnation, self.lives)
        try:
            outcome = live(incarnation, lambda: main(life), seed=seed, start_s=self.now_s)
        finally:
            detach(doors.disk)  # type: ignore[arg-type]
        self.now_s = max(self.now_s, outcome.ended_s) + 1
        if outcome.error is not None:
            raise first(outcome.error)
        assert not self.bucket.violations, self.bucket.violations
        return outcome.value


async def write_file(node: Node, name: bytes, data: bytes, parent: int = 1) -> int:
    """As the kernel does it: create, write, flush, release."""
    made = await node.vfs.create(parent, name, 0o644, ROOT_CALLER)
    if data:
        await node.vfs.write(made.ino, 0, data)
    await node.vfs.flush(made.ino)
    await node.vfs.release(made.ino)
    return int(made.ino)


async def read_all(node: Node) -> dict[bytes, bytes]:
    """Names and contents of the root."""
    found = {}
    handle = await node.vfs.opendir(1)
    cookie = 0
    while rows := await node.vfs.readdir(handle, cookie, 100):
        for name, inode, cookie in rows:  # noqa: B007
            if inode.mode & 0o170000 == 0o100000:
                found[name] = bytes(await node.vfs.read(inode.ino, 0, inode.size + 1))
    await node.vfs.releasedir(handle)
    return found


async def fingerprint(node: Node) -> bytes:
    """Of the state of the last transaction."""
    await node.commits.durable()
    return node.meta.fingerprint()


def content(number: int, size: int = 3000) -> bytes:
    """Nothing to be saved by compressing it."""
    return random.Random(number).randbytes(size)


# ---------------------------------------------------------------- a filesystem of a few files, one commit each

async def fill(life: Life, names: str = "abcde", size: int = 3000) -> None:
    async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
        for name in names:
            await write_file(node, name.encode(), content(ord(name), size))
            await node.flush()


def filled(names: str = "abcde") -> dict[bytes, bytes]:
    return {name.encode(): content(ord(name)) for name in names}


async def look(life: Life) -> tuple[dict[bytes, bytes], bytes, int]:
    """Files, fingerprint and commit, read without being the writer."""
    async with life.node(NodeOptions(read_only=True)) as node:
        assert not list(node.meta.audit.problems())
        assert node.meta.outbox()[0] == 0
        return await read_all(node), node.meta.fingerprint(), LocalTip.load(node.meta).n


async def unsent(life: Life) -> None:
    """Changes in the outbox, the store away, the process killed in the middle of the record's put."""
    async with life.node(NodeOptions(takeover=Takeover.YES)) as node:
        await write_file(node, b"mine", content(7))
        await node.commits.durable()
        life.away()
        await life.doors.clock.sleep(60)
        life.incarnation.kill()


def new_machine(site: Site) -> dict[bytes, bytes]:
    found = site.live(look, f"machine {site.lives}")
    assert found is not None
    return found[0]


def state(node: Node) -> State:
    return node.commits.health.state
