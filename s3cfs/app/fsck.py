"""fsck: the checks of `s3cfs.check` over a filesystem that nobody here has mounted, and their repairs.

Looking takes no office and writes nothing to the store. Rows come from the local state, under its lock, or else from the store alone,
into a temporary folder that is encrypted like any local state and goes afterwards. Repairs are made by a node that took office as any
writer does, and are ordinary commits; a check that finds nothing to mend never gets there.
"""
from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from s3cfs import check
from s3cfs.backends.base import Backend
from s3cfs.check import Context, DropLocalState, Line, Outcome, Problem, Repair, Severity, Workshop
from s3cfs.check.retreat import described
from s3cfs.config import FsckOptions, Settings
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import Damaged, Diverged, NoFilesystem, ObjectMissing, RolledBack, S3cfsError
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.history.checkpoints import Checkpoints
from s3cfs.history.localtip import LocalTip
from s3cfs.history.retreat import Retreat, find_retreat
from s3cfs.meta import Meta
from s3cfs.remote import Remote

from .host import process_alive, this_host
from .local import folder_name, locked, open_folder
from .node import Node, NodeOptions, open_node
from .opening import DATABASE, load_meta
from .store import first_look, open_store, unlock
from .superblocks import read_superblock

CORRECTED, UNCORRECTED, OPERATIONAL = 1, 4, 8          # of fsck(8)
KEEP_ALL = 1 << 60                                     # a cache opened for repairs evicts nothing

Report = Callable[[Line], None]
OnProgress = Callable[[Mapping[str, Any]], None]
_BROKEN = (Damaged, ObjectMissing, Diverged, RolledBack)


@dataclass(frozen=True, slots=True)
class FsckResult:
    counts: Mapping[str, int]
    exit_code: int


def fsck(settings: Settings, options: FsckOptions, report: Callable[[Any], None], progress: OnProgress) -> FsckResult:
    """Check a filesystem; each problem goes to `report` as a check.Line. Raises what keeps it from looking at all."""
    unlocked = first_look(settings, partial(_unlocked, settings, report))
    if unlocked is None:
        return FsckResult({"problems": 1}, UNCORRECTED | OPERATIONAL)
    found, keyring = unlocked
    with contextlib.ExitStack() as stack:
        disk: SystemDisk | None = None
        if options.cachedir is not None:
            name = folder_name(found, settings.url)
            if os.path.exists(os.path.join(options.cachedir, name, DATABASE)):
                disk = open_folder(options.cachedir, name)
                stack.enter_context(locked(disk, "checking", lambda text: progress({"done": 0, "total": None, "unit": "", "text": text})))
        return trio.run(check_filesystem, lambda: open_store(settings), found, keyring, disk, options, report, progress)


async def _unlocked(settings: Settings, report: Callable[[Any], None], remote: Remote) -> tuple[Superblock, KeyRing] | None:
    """The keys; None, and it was reported, when there are none to be had any more."""
    await remote.check()
    try:
        found = await read_superblock(remote)
        return found, unlock(found, settings)
    except (Damaged, NoFilesystem) as error:
        if isinstance(error, NoFilesystem) and not (await remote.folders("log/") or await remote.folders("pack/")):
            raise
        text = str(error) if isinstance(error, Damaged) else "every superblock is missing, and with it the keys: nothing here can be read"
        report(Line("superblocks", Severity.ERROR, text, "super/", None, False))
        return None


async def check_filesystem(open_backend: Callable[[], Backend], superblock: Superblock, keyring: KeyRing, local: SystemDisk | None,
                           options: FsckOptions, report: Report, progress: OnProgress) -> FsckResult:
    """`local`: the local state to use, locked by the caller. Every backend that is opened is closed."""
    with tempfile.TemporaryDirectory(prefix="s3cfs-fsck-", ignore_cleanup_errors=True) as scratch:
        return await _Fsck(open_backend, superblock, keyring, local, options, report, progress, scratch).run()


class _Fsck:
    def __init__(self, open_backend: Callable[[], Backend], superblock: Superblock, keyring: KeyRing, local: SystemDisk | None,
                 options: FsckOptions, report: Report, progress: OnProgress, scratch: str) -> None:
        self._open_backend, self._superblock, self._keyring, self._local = open_backend, superblock, keyring, local
        self._options, self._report, self._on_progress, self._scratch = options, report, progress, scratch
        self._clock, self._random, self._threads = SystemClock(), SystemRandomness(), TrioThreads()
        self._folders = 0
        self._retreat: Retreat | None = None           # the newest records cannot be read: everything is of the state before them
        self._contradicted = False                     # the local state says something else than the store: nothing is repaired
        self.problems: list[Problem] = []
        self.notes = 0
        self.corrected: set[int] = set()               # indexes of problems

    def _doors(self, disk: SystemDisk | None = None) -> Doors:
        if disk is None:
            self._folders += 1
            disk = SystemDisk(os.path.join(self._scratch, str(self._folders)))
        return Doors(self._clock, self._random, self._threads, disk)

    def _tell(self, what: str, done: int, total: int | None, unit: str) -> None:
        self._on_progress({"done": done, "total": total, "unit": unit, "text": what})

    def _tell_of_node(self, what: str, done: int, total: int) -> None:
        self._tell(what, done, total or None, "steps")

    def _found(self, problem: Problem) -> None:
        self._report(Line.of(problem))
        if problem.severity is Severity.ERROR:
            self.problems.append(problem)
        else:
            self.notes += 1

    # ---------------------------------------------------------------- looking

    async def run(self) -> FsckResult:
        rows_doors: Doors | None = None
        async with Remote(self._open_backend(), self._doors(self._local)).running() as remote:
            meta, rows_doors, unreadable = await self._open_rows(remote)

            async def rebuild() -> Meta:
                return (await load_meta(self._doors(), remote, self._keyring, self._tell_of_node))[0]

            ctx = Context(self._doors(), remote, self._keyring, self._superblock.n, meta, self._local, self._options.full, self._tell,
                          rebuild, unreadable)
            try:
                async with aclosing(check.run(ctx)) as found:
                    async for problem in found:
                        self._found(problem)
            finally:
                if meta is not None:
                    with contextlib.suppress(S3cfsError):
                        meta.close()
        code = OPERATIONAL if meta is None else 0
        if self._options.repair and self._contradicted:
            self._report(Line("repair", Severity.NOTE, "nothing was repaired: first decide about the local state", None, None, False))
        elif self._options.repair and self._options.automatic and self._retreat is not None and self._retreat.given_up:
            text = "nothing was repaired: going back gives something up; s3cfs fsck --repair does it"
            self._report(Line("repair", Severity.NOTE, text, None, None, False))
        elif self._options.repair and rows_doors is not None and any(problem.repair for problem in self.problems):
            code |= await self._mend(rows_doors)
        if self.corrected:
            code |= CORRECTED
        if len(self.corrected) < len(self.problems):
            code |= UNCORRECTED
        return FsckResult({**ctx.counts, "problems": len(self.problems), "corrected": len(self.corrected), "notes": self.notes}, code)

    async def _open_rows(self, remote: Remote) -> tuple[Meta | None, Doors | None, S3cfsError | None]:
        """The rows at the newest commit, where they lie, and why there are none."""
        trouble: S3cfsError | None = None
        if self._local is not None:
            doors = self._doors(self._local)
            try:
                return (await load_meta(doors, remote, self._keyring, self._tell_of_node))[0], doors, None
            except _BROKEN as error:
                trouble = error
        doors = self._doors()
        try:
            meta = (await load_meta(doors, remote, self._keyring, self._tell_of_node))[0]
        except _BROKEN as error:
            back = await self._go_back(remote) if isinstance(error, (Damaged, ObjectMissing)) else None
            if back is not None:
                return *back, None
            return None, None, error
        if trouble is not None:
            self._contradicted, self._local = True, None
            self._found(Problem("local state", f"the local state cannot be used: {trouble}. The store alone is checked. Moving the folder "
                                "away makes the next mount start from the store, without what had not reached it", object=DATABASE))
        return meta, doors, None

    async def _go_back(self, remote: Remote) -> tuple[Meta, Doors] | None:
        """The rows of the newest whole state, and the problem that nothing newer can be read; None when that is not the trouble."""
        folders = [self._doors(self._local)] if self._local is not None else []
        for doors in (*folders, self._doors()):
            mine = doors.disk is self._local
            try:
                local: LocalTip | None = None
                if mine:
                    meta = Meta.open(doors, DATABASE, self._keyring.database_key())
                    local = LocalTip.load(meta)
                    meta.close()
                retreat = await find_retreat(doors, remote, self._keyring, local)
                if retreat is None or (retreat.given_up and not retreat.base.n):
                    return None                        # not the trouble; or nothing at all is whole
                meta = (await load_meta(doors, remote, self._keyring, self._tell_of_node, retreat))[0]
            except _BROKEN as error:
                if mine:
                    self._contradicted, self._local = True, None
                    self._found(Problem("local state", f"the local state cannot be used: {error}", object=DATABASE))
                continue
            self._retreat = retreat
            for problem in described(retreat):
                self._found(problem)
            return meta, doors
        return None

    # ---------------------------------------------------------------- mending

    async def _mend(self, doors: Doors) -> int:
        """Take office and run the repairs, each once. Further exit codes."""
        wanted = {problem.repair for problem in self.problems if problem.repair is not None}
        repairs = sorted(wanted, key=lambda one: (one.order, repr(one)))
        if any(isinstance(repair, DropLocalState) for repair in repairs):
            for suffix in ("", "-wal", "-shm"):
                doors.disk.unlink(DATABASE + suffix)
        options = NodeOptions(sole_writer=self._options.sole_writer, packing=False, cache_bytes=KEEP_ALL, host=this_host(),
                              process_alive=process_alive, give_up=self._options.full, retreat=self._retreat)
        try:
            async with open_node(doors, self._open_backend(), self._keyring, self._superblock, options, self._tell_of_node) as node:
                await node.sweeper.finish()            # a repair may then rely on each extent being some file's
                shop = self._workshop(node)
                for number, repair in enumerate(repairs):
                    self._tell("repairing", number, len(repairs), "repairs")
                    self._settle(repair, await _try(repair, shop))
        except BaseException as raised:
            error = _reason(raised)
            if error is None:
                raise
            self._report(Line("repair", Severity.ERROR, f"the repair could not be made: {error}", None, None, False))
            return OPERATIONAL
        return 0

    def _settle(self, repair: Repair, outcome: Outcome) -> None:
        for number, problem in enumerate(self.problems):
            saved = outcome.lost is not None and problem.chunk and problem.chunk not in outcome.lost
            if problem.repair == repair and (outcome.mended or saved):
                self.corrected.add(number)
        severity = Severity.CORRECTED if outcome.mended else Severity.NOTE
        self._report(Line("repair", severity, outcome.text if outcome.mended else f"not corrected: {outcome.text}", None, None, False))

    def _workshop(self, node: Node) -> Workshop:
        writer, stager = node.writer, node.stager
        assert writer is not None and stager is not None
        checkpointed: list[int] = []

        async def checkpoint() -> int:
            if not checkpointed:
                await node.flush()
                made = Checkpoints(node.doors, node.meta, node.remote, node.keyring, writer.epoch, node.commits.health)
                tip = writer.tip
                await made.write(node.meta.snapshot(), tip)
                if not made.written:
                    raise Damaged("it could not be written")
                checkpointed.append(tip.n)
            return checkpointed[0]

        async def reload() -> None:
            (await load_meta(self._doors(), node.remote, self._keyring, self._tell_of_node))[0].close()

        codec = ChunkCodec(self._keyring, writer.epoch, None)
        return Workshop(node.doors, node.remote, node.meta, node.journal, node.cache, codec, writer.epoch, stager.apply_lock,
                        node.commits.check_writable, node.flush, checkpoint, reload)


async def _try(repair: Repair, shop: Workshop) -> Outcome:
    try:
        return await repair.mend(shop)
    except S3cfsError as error:
        return Outcome(False, str(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _reason(raised: BaseException) -> S3cfsError | None:
    """What to tell of an error that ended the repair; None when it is a matter for the caller."""
    leaves = list(_leaves(raised))
    if not all(isinstance(leaf, S3cfsError | trio.Cancelled) for leaf in leaves):
        return None
    return next((leaf for leaf in leaves if isinstance(leaf, S3cfsError)), None)
