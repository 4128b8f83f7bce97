"""What the driver needs of a system under test, and s3cfs itself in that shape."""
from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from s3cfs import ids
from s3cfs.app.node import NodeOptions, open_node
from s3cfs.backends.base import Backend
from s3cfs.backends.retry import RetryBackend
from s3cfs.doors import Doors
from s3cfs.formats import superblock
from s3cfs.formats.superblock import Argon2Params
from s3cfs.history.commits import Options as CommitOptions
from s3cfs.history.office import Host

from .doors import SimClock

KIB = 1 << 10


class SimNode(Protocol):
    """A mounted filesystem without a kernel."""

    vfs: Any                       # the operations of s3cfs.vfs.core.Vfs
    sync_is_remote: bool           # fsync returns when it is in the store

    async def flush(self) -> None:
        """Everything done before is in the store."""

    async def audit(self) -> list[str]:
        """What is wrong inside, for a filesystem at rest."""


class Assembly(Protocol):
    """How to make and to mount one. Passed to the driver, so that wrong ones can be tried, too."""

    root: int

    def settings(self, rng: random.Random) -> contextlib.AbstractContextManager[Any]:
        """Bounds and options of a whole run, drawn from the seed; undone at its end."""

    async def mkfs(self, doors: Doors, backend: Backend) -> None: ...

    def mount(self, doors: Doors, backend: Backend, settings: Any) -> AbstractAsyncContextManager[SimNode]:
        """From the local state if there is one, else from the store alone. Leaving without an error unmounts cleanly."""


#: so small that packs, segments, checkpoints, the pool and the cache all overflow within a few operations
SMALL = {
    "PACK_TARGET_BYTES": (16 * KIB, 64 * KIB, 1024 * KIB),
    "STAGE_RUN_BYTES": (100 * KIB, 256 * KIB),        # must be more than a chunk
    "SPOOL_PIECE_BYTES": (4 * KIB,),
    "OUTBOX_SEGMENT_MAX_BYTES": (1 * KIB, 64 * KIB),
    "CHECKPOINT_MIN_LOG_BYTES": (2 * KIB, 1024 * KIB),
    "CHECKPOINT_MAX_SEGMENTS": (4, 500),
    "CHECKPOINT_PART_BYTES": (2 * KIB, 64 * KIB),
    "CHUNK_AVG_BYTES": (16 * KIB,),
    "CHUNK_MIN_BYTES": (4 * KIB,),
    "CHUNK_MAX_BYTES": (64 * KIB,),
    "OVERLAY_RUN_MAX_BYTES": (1 * KIB, 8 * KIB),
    "FETCH_ALIGN_BYTES": (4 * KIB,),
    "NEIGHBOURHOOD_BYTES": (8 * KIB, 64 * KIB),
}


@contextlib.contextmanager
def small_limits(rng: random.Random) -> Iterator[None]:
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("s3cfs.") and module is not None]
    kept = [(module, name, getattr(module, name)) for name in SMALL for module in modules if hasattr(module, name)]
    try:
        chosen = {name: rng.choice(values) for name, values in SMALL.items()}
        for module, name, _ in kept:
            setattr(module, name, chosen[name])
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


class _Node:
    def __init__(self, node: Any) -> None:
        self._node = node
        self.vfs = node.vfs
        self.sync_is_remote = bool(node.options.commits.sync_remote)

    async def flush(self) -> None:
        await self._node.flush()

    async def audit(self) -> list[str]:
        await self._node.commits.durable()
        return [f"{problem.check}: {problem.text}" for problem in self._node.meta.audit.problems()]


class S3cfs:
    """The real thing, from `app.node` down."""

    root = ids.ROOT_INO

    @contextlib.contextmanager
    def settings(self, rng: random.Random) -> Iterator[NodeOptions]:
        with small_limits(rng):
            yield NodeOptions(
                level=rng.choice([None, 1]), cache_bytes=rng.choice([16 * KIB, 1024 * KIB]),
                decoded_bytes=rng.choice([16 * KIB, 1024 * KIB]),
                pool_bytes=rng.choice([256 * KIB, 4096 * KIB]), host=Host(name="simulated"),
                commits=CommitOptions(sync_remote=rng.random() < 0.2, commit_interval_s=rng.choice([0.5, 5.0, 60.0])))

    async def mkfs(self, doors: Doors, backend: Backend) -> None:
        made, _, _ = superblock.create(
            "sim", doors.random, False, 4 * KIB, 16 * KIB, 64 * KIB, "pass", now_ns=doors.clock.time_ns(), argon2=Argon2Params(32, 1, 1))
        backend.put(ids.super_key(made.n), superblock.encode(made))

    @contextlib.asynccontextmanager
    async def mount(self, doors: Doors, backend: Backend, settings: NodeOptions) -> AsyncIterator[SimNode]:
        assert isinstance(doors.clock, SimClock)
        patient = RetryBackend(backend, clock=doors.clock.monotonic, sleep=doors.clock.block, uniform=doors.random.uniform)
        found = superblock.decode(await doors.threads.run(patient.get, ids.super_key(1)))
        keyring = superblock.unlock(found, passphrase="pass", random=doors.random)
        async with open_node(doors, patient, keyring, found, settings) as node:
            yield _Node(node)
