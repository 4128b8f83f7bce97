"""What the driver needs of a system under test, and s3cfs itself in that shape."""
from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from s3cfs import ids
from s3cfs.app.node import NodeOptions, open_node
from s3cfs.backends.base import Backend
from s3cfs.backends.consistency.bounds import Bounds, Mode
from s3cfs.backends.consistency.conditions import Conditions
from s3cfs.backends.consistency.guard import Guarded
from s3cfs.doors import Doors
from s3cfs.formats import record, superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import Kind, Record
from s3cfs.formats.superblock import Argon2Params
from s3cfs.history.commits import Options as CommitOptions
from s3cfs.history.health import State
from s3cfs.history.office import Tier
from s3cfs.limits import Limits
from s3cfs.remote import Remote

from .doors import SimRandomness
from .machines import Who
from .resources import weights
from .store import SimStore

KIB = 1 << 10
NOBODY = Who()
CHECKED = 0.4                      # so many stories are with the checker
LOCKED = 0.3                       # and the consistency lock


class SimNode(Protocol):
    """A mounted filesystem without a kernel."""

    vfs: Any                       # the operations of s3cfs.vfs.core.Vfs
    sync_is_remote: bool           # fsync returns when it is in the store

    @property
    def ended(self) -> str:
        """Why writing has ended, or empty."""

    @property
    def failed(self) -> bool:
        """... because of this machine's own trouble."""

    @property
    def busy(self) -> bool:
        """It has something to say in the log."""

    @property
    def signed_off(self) -> bool:
        """Its newest record is a RELEASE."""

    @property
    def promises_s(self) -> float:
        """It is not silent for longer while it is busy."""

    @property
    def open_since(self) -> float | None:
        """Monotonic time of the oldest change that is in no local transaction."""

    @property
    def dirty_bytes(self) -> int:
        """Dirty file data in memory."""

    @property
    def pool_bytes(self) -> int: ...

    @property
    def looks_left(self) -> int:
        """Objects that the checker has yet to look at."""

    async def orphans(self) -> int:
        """How many inodes without a name are kept, since somebody has them open."""

    def weights(self) -> dict[str, int]:
        """Sizes of its tables; see `resources.weights`."""

    async def flush(self) -> None:
        """Everything done before is in the store."""

    async def audit(self) -> list[str]:
        """What is wrong inside, for a filesystem at rest."""


class Assembly(Protocol):
    """How to make and to mount one. Passed to the driver, so that wrong ones can be tried, too."""

    root: int

    def settings(self, rng: random.Random) -> Any:
        """Bounds and options of a whole run, drawn from the seed."""

    async def mkfs(self, doors: Doors, backend: Backend, age: random.Random | None = None) -> None:
        """`age`: the log is to begin with a high number, drawn from it."""

    def mount(self, doors: Doors, backend: Backend, settings: Any, who: Who = NOBODY) -> AbstractAsyncContextManager[SimNode]:
        """From the local state if there is one, else from the store alone. Leaving without an error unmounts cleanly."""


#: so small that packs, segments, checkpoints, the pool and the cache all overflow within a few operations
SMALL: dict[str, tuple[Any, ...]] = {
    "disk_reserve_bytes": (0, 50 * KIB),
    "ride_max_bytes": (0, 4 * KIB, 32 * KIB, 32 * KIB),
    "ride_packs": (2, 5, 256),
    "ride_total_bytes": (8 * KIB, 2048 * KIB),
    "tail_max_bytes": (1 * KIB, 24 * KIB),
    "pack_target_bytes": (16 * KIB, 64 * KIB, 1024 * KIB),
    "stage_run_bytes": (100 * KIB, 100 * KIB, 256 * KIB),        # must be more than a chunk
    "spool_max_bytes": (32 * KIB, 1024 * KIB),
    "checkpoint_min_log_bytes": (2 * KIB, 1024 * KIB),
    "checkpoint_record_bytes": (256 * KIB, 4 * KIB),
    "checkpoint_part_bytes": (2 * KIB, 64 * KIB),
    "chunk_avg_bytes": (16 * KIB,),
    "chunk_min_bytes": (4 * KIB,),
    "chunk_max_bytes": (64 * KIB,),
    "overlay_run_max_bytes": (1 * KIB, 8 * KIB),
    "fetch_align_bytes": (4 * KIB,),
    "neighbourhood_bytes": (8 * KIB, 64 * KIB),
    "sweep_rows": (1, 3, 1024),
    "inline_max_bytes": (0, 512),
    "pack_entries": (3, 65_536),
    "stage_slice_bytes": (256 * KIB, 16 * 1024 * KIB),
    "stage_open_file_s": (2.0, 30.0),
    "ready_bytes": (20 * KIB, 8192 * KIB),
    "ready_files": (2, 128),
    "transaction_max_bytes": (4 * KIB, 1024 * KIB),
    "transaction_max_rows": (40, 4000),
    "record_max_bytes": (8 * KIB, 16 * 1024 * KIB),
    "outbox_max_bytes": (64 * KIB, 128 * 1024 * KIB),
    "uploads_at_once": (1, 3),
    "downloads_at_once": (1, 8),
    "fetch_max_bytes": (16 * KIB, 8192 * KIB),
    "readahead_max_bytes": (16 * KIB, 1024 * KIB),
    "heartbeat_s": (4.0, 10.0),
    "store_timeout_s": (5.0, 20.0),
    "store_deadline_s": (60.0, 120.0),
    "writer_wait_s": (5.0, 30.0),
    "fresh_file_grace_s": (0.0, 0.2),
    "wal_copy_pages": (8, 1024),
    "wal_restart_pages": (32, 8192),
    "wal_rest_pages": (4, 2048),
    "wal_anyhow_pages": (128, 65_536),
    "slow_query_s": (0.0, 0.002),
}


@dataclass(frozen=True)
class Settings:
    """Bounds and options of a whole run."""

    limits: Limits
    options: NodeOptions
    bounds: Bounds = Bounds()                  # of lock and checker, where they are on
    locked: bool = False
    checked: bool = False


class _Node:
    def __init__(self, node: Any, held_s: float) -> None:
        """`held_s`: for so long the lock may hold back the listing of claims that follows each record of tier T2."""
        self._node, self._held_s = node, held_s
        self.vfs = node.vfs
        self.sync_is_remote = bool(node.options.commits.sync_remote)

    @property
    def ended(self) -> str:
        health = self._node.commits.health
        return "" if health.writable else health.message or str(health.state)

    @property
    def failed(self) -> bool:
        return self._node.commits.health.state is State.FAILED

    @property
    def busy(self) -> bool:
        return not self._node.meta.failed and bool(self._node.commits.busy)

    @property
    def signed_off(self) -> bool:
        writing = self._node.commits.writing
        return writing is not None and writing.logbook.signed_off

    @property
    def promises_s(self) -> float:
        return max(float(self._node.doors.limits.heartbeat_s), float(self._node.options.commits.commit_interval_s)) + self._held_s

    @property
    def open_since(self) -> float | None:
        since = self._node.commits.local.dirty_since
        return None if since is None else float(since)

    @property
    def dirty_bytes(self) -> int:
        return int(self._node.files._pool.account.ram_bytes)

    @property
    def pool_bytes(self) -> int:
        return int(self._node.options.pool_bytes)

    @property
    def looks_left(self) -> int:
        return int(self._node.remote.stack.status().get("checker", {}).get("watched", 0))

    async def orphans(self) -> int:
        return len(await self._node.meta.orphans())

    def weights(self) -> dict[str, int]:
        return weights(self._node)

    async def flush(self) -> None:
        await self._node.flush()

    async def audit(self) -> list[str]:
        if not self._node.options.read_only:
            await self._node.sweeper.finish()          # a step in the middle of what follows would show rows of the next transaction
        await self._node.commits.durable_here()
        return [f"{problem.check}: {problem.text}" for problem in self._node.meta.audit.problems()]


class S3cfs:
    """The real thing, from `app.node` down."""

    root = ids.ROOT_INO

    def settings(self, rng: random.Random) -> Settings:
        bounds, locked, checked = _guards(rng)
        small = {name: rng.choice(values) for name, values in SMALL.items()}             # a wrong name is an error
        return Settings(
            Limits(**small, snapshot_wal_pages=small["wal_rest_pages"]),
            NodeOptions(
                level=rng.choice([None, 1]), cache_bytes=rng.choice([16 * KIB, 1024 * KIB]),
                decoded_bytes=rng.choice([16 * KIB, 1024 * KIB]),
                pool_bytes=rng.choice([48 * KIB, 256 * KIB, 4096 * KIB]),
                commits=CommitOptions(sync_remote=rng.random() < 0.2, commit_interval_s=rng.choice([0.5, 5.0, 60.0]),
                                      transaction_interval_s=rng.choice([0.1, 1.0, 1.0]), short_sync_s=rng.choice([0.0, 0.0005]),
                                      release_after_idle_s=rng.choice([5.0, 15.0]),
                                      journal_max_bytes=rng.choice([600 * KIB, 1 << 33]), max_lag_s=rng.choice([None, None, None, 20.0]))),
            bounds, locked, checked)

    async def mkfs(self, doors: Doors, backend: Backend, age: random.Random | None = None) -> None:
        made, _, _ = superblock.create(
            "sim", doors.random, False, 4 * KIB, 16 * KIB, 64 * KIB, "pass", now_ns=doors.clock.time_ns(), argon2=Argon2Params(32, 1, 1))
        backend.put(ids.super_key(made.n), superblock.encode(made))
        if age is not None:
            keys = superblock.unlock(made, passphrase="pass", random=SimRandomness(age.getrandbits(32)))       # doors.random: as without
            _grow_old(backend, keys, age)

    @contextlib.asynccontextmanager
    async def mount(self, doors: Doors, backend: Backend, settings: Settings, who: Who = NOBODY) -> AsyncIterator[SimNode]:
        doors = replace(doors, limits=settings.limits)
        found = superblock.decode(await Remote(backend, doors).get(ids.super_key(1)))
        if settings.locked or settings.checked:
            backend = Guarded(backend, Conditions(settings.bounds, locks=settings.locked), lock=settings.locked, checker=settings.checked)
        keyring = superblock.unlock(found, passphrase="pass", random=doors.random)
        options = replace(settings.options, host=who.host, process_alive=who.process_alive, takeover=who.takeover)
        async with open_node(doors, backend, keyring, found, options) as node:
            yield _Node(node, settings.bounds.lock_delay_most * (1 + settings.bounds.lock_jitter) if settings.locked else 0.0)
            _no_false_finds(node)


def _no_false_finds(node: Any) -> None:
    """The simulated store loses nothing that it has acknowledged, and shows nothing that was deleted."""
    told = node.remote.stack.status().get("checker", {})
    if told.get("degraded") or any(told.get("seen", {}).get(kind) for kind in ("stale", "ghost", "lost", "corrupt")):
        raise AssertionError(f"the checker found what is not so: {told}")


def _guards(rng: random.Random) -> tuple[Bounds, bool, bool]:
    """Drawn beside `rng`: without lock and checker the stories are what they were."""
    odd, more = random.Random(f"checker of {rng.getstate()}"), random.Random(f"lock of {rng.getstate()}")
    checked, locked = odd.random() < CHECKED, more.random() < LOCKED
    made = Bounds(check_delays=odd.choice([(1.0, 4.0, 16.0), (0.5,), (2.0, 15.0, 60.0)]), check_sample=odd.choice([0.0, 0.3, 1.0]),
                  checks_per_minute=odd.choice([6, 60, 600]), check_bytes_per_day=odd.choice([0, 100 * KIB, 1 << 30]),
                  lock_delay_most=odd.choice([20.0, 90.0]))
    if locked:
        made = replace(made, checks_per_minute=600, lock_delay=more.choice([0.0, 0.5, 3.0, 15.0]), lock_jitter=more.choice([0.0, 1.0]),
                       lock_memory=more.choice([5.0, 60.0, 600.0]), lock_mode=more.choice([Mode.BLOCK, Mode.BLOCK, Mode.BLOCK, Mode.WARN]))
    return made, locked, checked


def _grow_old(backend: Backend, keyring: KeyRing, rng: random.Random) -> None:
    """The log begins with a record of a high number, near the border of a range or of the folders of epochs."""
    n, epoch = rng.choice([990, 999, 1000, 999_990, 999_999, 7_000_995]), rng.choice([1, 997, 999, 1000, 12_998])
    kind = backend.bucket.create_only if isinstance(backend, SimStore) else True
    made = Record(Kind.RELEASE, n, epoch, "0" * 16, ids.ZERO_HASH, 0,
                  {"tier": str(Tier.T1 if kind else Tier.T2), "final": True, "prev_key": "", "run": [n, ""], "skips": n - 1})
    backend.put(ids.log_key(epoch, made.writer, n), record.encode(made, keyring.sealer("record", epoch)))
