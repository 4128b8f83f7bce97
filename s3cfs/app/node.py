"""A filesystem in operation, without a kernel: all floors from the store up to `vfs`, wired.

`open_node` opens the local state (or makes it from the store), brings it up to the newest commit, takes office as the writer,
adopts what an earlier process left in the journal, and yields a Node whose `vfs` is ready. Leaving the block flushes and signs off.
The FUSE mount, fsck, the gateways and the simulator all start here; they differ in doors and options only.

INVARIANT P3: a final RELEASE is a mount's last word: who changes something by himself has ended before the last flush.
"""
from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import trio

from s3cfs import ids, limits
from s3cfs.backends.base import Backend
from s3cfs.blocks.blockstore import BlockStore
from s3cfs.blocks.cache import PackCache
from s3cfs.blocks.damage import Damage
from s3cfs.blocks.journal import Journal
from s3cfs.blocks.originals import LocalPacks
from s3cfs.blocks.recovery import recover
from s3cfs.blocks.salvage import Salvage
from s3cfs.doors import Doors
from s3cfs.errors import CacheUnusable, FsError, ObjectMissing, RolledBack, S3cfsError, SystemFailure
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.formats.chunker import Chunker
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import record_hash
from s3cfs.formats.superblock import Superblock
from s3cfs.history.commits import Commits
from s3cfs.history.commits import Options as CommitOptions
from s3cfs.history.health import State
from s3cfs.history.log import Host, Tip, find_record
from s3cfs.history.office import Takeover, Writer
from s3cfs.history.packing import Packing
from s3cfs.history.presence import promised_s
from s3cfs.history.replica import StartOver
from s3cfs.history.restore import Progress
from s3cfs.history.retreat import Retreat
from s3cfs.meta import Meta
from s3cfs.remote import Remote
from s3cfs.vfs.core import Vfs
from s3cfs.vfs.cutting import Cutter
from s3cfs.vfs.files import Files
from s3cfs.vfs.spool import Spool
from s3cfs.vfs.stage import Stager
from s3cfs.vfs.sweeper import Sweeper

from .figures import Figures
from .opening import WRITER, load_meta
from .tier import choose_tier

log = logging.getLogger(__name__)

SWITCH_S = 0.001                   # the event loop waits for so long for each thread that computes (Python has 5 ms; four of them: 20)
SAVE_CACHE_TABLE_S = 60.0
FLUSHES = 3                        # more, before a mount that has something to say signs off all the same


def _nobody(host: Host) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class NodeOptions:
    read_only: bool = False
    sole_writer: bool = False                  # the owner's word, for stores of neither tier
    takeover: Takeover = Takeover.NO           # whom this mount throws out
    place: str = "the local state of this machine"   # for messages: where what is unsent lies
    level: int | None = 3                      # of zstd; None: chunks are stored as they are
    cache_bytes: int = limits.DEFAULTS.cache_bytes
    decoded_bytes: int = limits.DEFAULTS.decoded_cache_bytes
    pool_bytes: int = limits.DEFAULTS.dirty_pool_bytes
    kernel_times: bool = False
    packing: bool = True                       # what rides in records is packed together now and then
    give_up: bool = False                      # unsent packs that cannot be read are lost (a repair's decision), not the end of writing
    min_commit: int = 0                        # --expect-commit: the store must be at least there,
    expect_hash: str = ""                      # ... and that record have a hash that begins so
    commits: CommitOptions = field(default_factory=CommitOptions)
    retreat: Retreat | None = None             # of a repair: go on from there
    owner: tuple[int, int] = (0, 0)            # uid and gid of a new filesystem's root
    host: Host = field(default_factory=Host)
    process_alive: Callable[[Host], bool] = _nobody


@dataclass(slots=True)
class Node:
    """What runs. `status` (app/status.py) reads its figures."""

    doors: Doors
    superblock: Superblock
    keyring: KeyRing
    remote: Remote
    meta: Meta
    writer: Writer | None
    journal: Journal
    cache: PackCache
    codec: ChunkCodec
    blocks: BlockStore
    damage: Damage
    files: Files
    stager: Stager | None
    spool: Spool
    commits: Commits
    vfs: Vfs
    sweeper: Sweeper
    packing: Packing | None
    figures: Figures
    tip: Tip
    options: NodeOptions
    left_bytes: int = -1                       # what was not in the store at the end; -1 while it runs
    left_changes: bool = False

    def lag_bytes(self) -> int:
        """Bytes not yet in the store, also after the end."""
        return self.commits.lag_bytes() if self.left_bytes < 0 else self.left_bytes

    def moved_bytes(self) -> int:
        """Of file data through memory since the start, about: staged, sent, fetched, read."""
        stats, staged = self.blocks.stats, self.stager.new_chunk_bytes + self.stager.dedup_bytes if self.stager else 0
        reads = (stats.hits + stats.local + stats.misses) * self.doors.limits.fetch_align_bytes
        return staged + reads + sum(self.remote.bytes_up.values()) + sum(self.remote.bytes_down.values())

    async def flush(self) -> None:
        """Everything written before this call is in the store."""
        await self.commits.flush()

    async def drop_cache(self) -> None:
        """Forget what is also in the store."""
        self.blocks.drop_decoded()
        await self.cache.drop_all()


async def _check_expected(remote: Remote, keyring: KeyRing, tip: Tip, options: NodeOptions) -> None:
    """Without local state nothing here knows what the store should hold; its owner may. RolledBack."""
    n = options.min_commit
    if tip.n < n:
        raise RolledBack(f"the store ends at commit {tip.n}, not {n} or later as expected: it was rolled back or is another copy")
    if options.expect_hash:
        key = await find_record(remote, keyring.sealer("record", 0), tip, n)
        if not key or not record_hash(await remote.get(key)).hex().startswith(options.expect_hash):
            raise RolledBack(f"commit {n} of the store is not the expected one, or its record is gone: another history")


@contextlib.asynccontextmanager
async def open_node(doors: Doors, backend: Backend, keyring: KeyRing, superblock: Superblock, options: NodeOptions,
                    progress: Progress = lambda what, done, total: None) -> AsyncIterator[Node]:
    """A running filesystem; see the module's text. S3cfsError when it cannot be opened; nothing is lost then."""
    sys.setswitchinterval(SWITCH_S)
    doors.disk.makedirs("journal")
    async with Remote(backend, doors).running() as remote:
        if options.sole_writer and remote.capabilities.linearizable is None:
            remote.backend.assume_linearizable(False)      # nobody has tried: what it does not show yet may be there
        doors = replace(doors, limits=limits.fitted(doors.limits, remote.capabilities, superblock.chunk_max))
        async with _opened(doors, remote, keyring, superblock, options, progress) as node:
            yield node
    _raise_what_ended(node)


@contextlib.asynccontextmanager
async def _opened(doors: Doors, remote: Remote, keyring: KeyRing, superblock: Superblock, options: NodeOptions,
                  progress: Progress) -> AsyncIterator[Node]:
    retreat = options.retreat
    meta, replica, tip = await load_meta(doors, remote, keyring, progress, retreat)
    try:
        await _check_expected(remote, keyring, tip, options)
        writer: Writer | None = None
        epoch = tip.epoch
        if options.read_only and meta.last_outbox_id():
            raise CacheUnusable("the local state holds changes that are not in the store yet: mount it writable first, "
                                "or give a read-only mount another cache folder")
        if not options.read_only:
            known = replace(tip, key=retreat.top) if retreat is not None else tip           # an object that is there
            tier = await choose_tier(doors, remote, known, options.sole_writer)
            former = meta.local_get(WRITER)
            writer = Writer(doors, remote, tier, lambda number: keyring.sealer("record", number), options.host, options.process_alive,
                            every_s=promised_s(options.commits.commit_interval_s, doors.limits.heartbeat_s),
                            former=former.decode() if former else "", kept_in=options.place,
                            newest=retreat.newest(remote) if retreat is not None else replica.find_tip)
            tip = await writer.claim(tip, takeover=options.takeover, on_wait=lambda text: progress(text, 0, 0))
            meta.local_set(WRITER, writer.nonce.encode())       # durable with the rows of the claim: catch_up commits
            for key, data in writer.own.items():
                replica.reader.know(key, data)
            try:
                await replica.catch_up(tip, in_office=True)
            except StartOver as again:
                raise again.cause or ObjectMissing("the log changed just now, while this machine took over; mount again") from None
            epoch = writer.epoch
        cache = PackCache(doors, options.cache_bytes)
        await doors.threads.run(cache.load)
        meta.warmth.start()
        node = _assemble(doors, remote, keyring, superblock, meta, writer, tip, epoch, cache, options)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.blocks.run)
            if writer is not None:
                await recover(doors, meta, node.journal, remote, node.codec, node.damage, give_up=options.give_up)
                node.commits.adopt(node.journal.pending())
                await node.commits.take_over()
            await nursery.start(node.commits.run)
            nursery.start_soon(_save_cache_table, node)
            nursery.start_soon(node.damage.run)
            nursery.start_soon(node.figures.run)
            try:
                async with trio.open_nursery() as changers:        # P3: who changes something by himself
                    if writer is not None:
                        changers.start_soon(node.files.run)
                        changers.start_soon(node.sweeper.run)
                        if node.packing is not None:
                            changers.start_soon(node.packing.run)
                        await node.vfs.recover_orphans()
                    node.commits.hurry()
                    if writer is not None:
                        await _date_the_root(node)
                    yield node
                    changers.cancel_scope.cancel()
                await _leave(node)
            finally:
                nursery.cancel_scope.cancel()
    finally:
        with contextlib.suppress(S3cfsError):
            meta.close()


def _raise_what_ended(node: Node) -> None:
    """A mount whose writing ended by itself does not end as if all were well; one that was deposed with nothing unsent lost nothing."""
    health = node.commits.health
    if node.writer is None or health.writable or (health.state is State.DEPOSED and not node.left_changes and not node.left_bytes):
        return
    error = health.error()
    raise SystemFailure(str(error)) if isinstance(error, FsError) else error


async def _leave(node: Node) -> None:
    """Everything into the store, then sign off. A mount that was deposed or failed keeps what it has and leaves."""
    try:
        if node.writer is not None and node.commits.health.writable:
            await node.commits.flush()
            for _ in range(FLUSHES):               # what a reader met meanwhile, say: whoever signs off has nothing left to say
                if node.commits.busy:
                    await node.commits.flush()
            await node.commits.sign_off()
    finally:
        node.left_bytes, node.left_changes = node.commits.lag_bytes(), node.commits.lag_s() > 0
        await node.cache.close()
        with contextlib.suppress(S3cfsError):      # a journal that failed said so before
            await node.journal.close()
        node.spool.close()


def _assemble(doors: Doors, remote: Remote, keyring: KeyRing, superblock: Superblock, meta: Meta, writer: Writer | None, tip: Tip,
              epoch: int, cache: PackCache, options: NodeOptions) -> Node:
    codec = ChunkCodec(keyring, epoch, options.level)
    journal = Journal(doors, keyring.sealer("index", epoch), epoch, short_sync_s=options.commits.short_sync_s)
    damage = Damage(doors, meta)
    remote.originals.add("pack", LocalPacks(doors, journal, cache).of)
    blocks = BlockStore(doors, remote, journal, cache, codec, meta.pack, chunk_of=meta.chunk, finds=damage,
                        decoded_bytes=options.decoded_bytes)
    spool = Spool(doors.disk, keyring, doors.limits.spool_max_bytes)
    files = Files(doors, meta, blocks, spool, kernel_times=options.kernel_times, pool_bytes=options.pool_bytes,
                  stage_open_s=min(doors.limits.stage_open_file_s, (options.commits.max_lag_s or 1e9) / 3))
    chunker = Chunker(superblock.chunk_min, superblock.chunk_avg, superblock.chunk_max, keyring.chunker_seed())
    stager = Stager(doors, meta, journal, blocks, codec, Cutter(keyring, chunker, spool, doors.limits),
                    epoch=epoch, on_change=files.relieved)
    async def make_room() -> None:
        await cache.trim(max(0, cache.used_bytes - 4 * doors.limits.disk_reserve_bytes))

    salvage = Salvage(doors, meta, journal, remote, codec, damage, stager.apply_lock, epoch, give_up=options.give_up)
    commits = Commits(doors, meta, journal, blocks, remote, keyring, writer, files, stager.apply_lock, options.commits, make_room, salvage)
    salvage.use(commits.durable_here)
    files.use(stager, commits.durable, commits.check_writable)
    damage.use(commits.check_writable)
    sweeper = Sweeper(doors, meta, commits, lambda: commits.backlog.bytes)
    packing = (Packing(doors, meta, journal, cache, blocks, remote, codec, commits, stager.apply_lock, epoch)
               if writer is not None and options.packing else None)
    vfs = Vfs(meta, files, commits, doors.clock, read_only=options.read_only, writeback=options.kernel_times)
    return Node(doors, superblock, keyring, remote, meta, writer, journal, cache, codec, blocks, damage, files, stager, spool, commits,
                vfs, sweeper, packing, Figures(doors, meta), tip, options)


async def _date_the_root(node: Node) -> None:
    """Once for a new filesystem: its root is as old as its superblock, and belongs to whoever mounts it first for good.

    A first mount may have failed after it took office, so the number of records says nothing; a root that nobody changed has no ctime.
    """
    root = await node.vfs.getattr(ids.ROOT_INO)
    if root.ctime_ns or root.uid or root.gid:
        return
    node.commits.check_writable()
    made_ns = node.superblock.created_ns
    await node.meta.update_inode(ids.ROOT_INO, atime_ns=made_ns, mtime_ns=made_ns, ctime_ns=made_ns,
                                 uid=node.options.owner[0], gid=node.options.owner[1])


async def _save_cache_table(node: Node) -> None:
    while True:
        await node.doors.clock.sleep(SAVE_CACHE_TABLE_S)
        await node.cache.save()
