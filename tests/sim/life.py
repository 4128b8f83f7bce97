"""One node at work on one machine, and its clients: what it is told, what befalls it, how it ends."""
from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import trio

from s3cfs.errors import DataError, NoSpace, S3cfsError, StoreError

from .actions import Busy
from .check import Finding, judge
from .crash import Crash, Incarnation
from .faults import NEVER, DiskFaults
from .history import History
from .machines import Machine
from .model import Model, Nodes
from .nature import Families, Nature
from .resources import BOUNDS, Watch
from .runtime import Outcome
from .scan import scan
from .store import Bucket, SimStore, StoreFaults

SCANS_MAX = 30                   # of a tree, on a line that fails again and again


def leaves(error: BaseException) -> list[BaseException]:
    """What a group of errors is made of."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


class Life:
    """`client.Site` for its clients. `main` is what it does: mount, look, work, leave or be killed."""

    def __init__(self, history: History, machine: Machine, incarnation: Incarnation, doors: Any, store: SimStore, bucket: Bucket,
                 families: Families, rng: random.Random, *, alone: bool = True) -> None:
        self.history, self.machine, self.incarnation, self.doors, self.store = history, machine, incarnation, doors, store
        self.line = store.faults                   # while it works: it leaves on a good one
        self.rng, self.bucket, self.events = rng, bucket, history.events
        self.nature = Nature(families, random.Random(rng.getrandbits(64)), incarnation, doors.clock, store.faults, alone)
        self.node: Any = None
        self.clients: list[Busy] = []
        self.rival = False                         # another machine tries to take office, or has done so
        self.outcome: Outcome[Any] = Outcome()
        self.again: Iterable[tuple[float, int]] = ()     # what it does after having been idle for so long (seconds, steps)
        self.had_faults = self.sync_failed = False
        self.watch: Watch | None = None
        self.coming = DiskFaults()                 # the disk's troubles, from when it is mounted on

    # ------------------------------------------------------------ the site

    def counts(self) -> list[int]:
        return self.history.counts()

    def acknowledge(self, remote: bool, floors: list[int], what: str) -> None:
        self.history.acknowledge(remote, floors, len(self.bucket.history), what, trio.current_time())

    def alive(self) -> None:
        self.incarnation.alive()

    def die(self) -> None:
        self.incarnation.kill("killed by a client")
        self.incarnation.alive()

    @property
    def clock_turned_back(self) -> bool:
        return self.nature.turned_back

    @property
    def deposed(self) -> bool:
        return self.rival and self.node is not None and bool(self.node.ended) and not self.node.failed

    @property
    def fired(self) -> bool:
        return self.had_faults or self.machine.drive.faults.fired > 0

    @property
    def cramped(self) -> bool:
        """The disk is small, or the line slow: who writes may have to wait for room."""
        return self.machine.drive.faults.capacity_bytes < NEVER or self.store.faults.is_slow(self.bucket)

    def strained(self, since_s: float) -> bool:
        """The store could not take or give what was asked of it in good time."""
        return self.nature.was_away(since_s - 200.0 - self.store.faults.hang_s) or self.line.is_slow(self.bucket)

    def excuses(self, error: Exception, since_s: float) -> bool:
        if not isinstance(error, S3cfsError):
            return False                           # an error that says nothing to a user
        if not self.store.faults.healthy and isinstance(error, NoSpace | (DataError if self.node.sync_is_remote else NoSpace)):
            return True                            # on a bad line the store may not take in its time what must be there
        if self.store.faults.stuck and isinstance(error, DataError):
            return True                            # a call hung for longer than anybody waits
        return self.fired or self.deposed or ((self.strained(since_s) or self.cramped) and isinstance(error, DataError | NoSpace))

    def judge_time(self, operation: str, what: str, began_s: float) -> None:
        """I12; and an fsync that waits for the store says so when that has been silent for two minutes."""
        if not self.nature.families.resources or self.nature.slept_last >= began_s or self.fired:
            return
        took_s = trio.current_time() - began_s
        remote = operation == "flush_all" or (operation in ("fsync", "fsyncdir") and self.node.sync_is_remote)
        if remote and operation != "flush_all" and took_s > BOUNDS.remote_sync_s:
            raise Finding(f"R: {what} took {took_s:.0f} s")
        if took_s > BOUNDS.operation_s and self._fair_since() <= began_s and not self.cramped:
            raise Finding(f"R: {what} took {took_s:.1f} s, and nothing was in its way")

        if self.node.dirty_bytes > self.node.pool_bytes + BOUNDS.pool_slack_bytes:
            raise Finding(f"R: {self.node.dirty_bytes} dirty bytes in memory, with a pool of {self.node.pool_bytes}")

    @contextlib.contextmanager
    def calm(self) -> Iterator[None]:
        troubles = self.machine.drive.faults, self.store.faults          # several may look at once
        for each in troubles:
            each.calm += 1
        try:
            yield
        finally:
            for each in troubles:
                each.calm -= 1

    # ------------------------------------------------------------ what it does

    async def main(self, mount: Callable[[], Any], count: int, *, kill: bool, verify: Callable[[Life], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.nature.run)
            async with mount() as self.node:
                self.nature.mounted()
                if self.coming.any:
                    self.machine.drive.faults = self.coming
                self.incarnation.working()
                await verify(self)
                async with trio.open_nursery() as watching:
                    if self.nature.families.resources:
                        self.watch = Watch(self.node, self.doors.disk, self.store, self._fair_since, self._operations)
                        watching.start_soon(self.watch.run)
                    await self.work(count)
                    for pause_s, more in self.again:
                        await trio.sleep(pause_s)
                        self.alive()
                        await self.work(more)
                    if self.watch is not None and self.rng.random() < 0.1:
                        await self.watch.idle()
                    watching.cancel_scope.cancel()
                if kill:
                    self.incarnation.kill("killed at the end")
                    raise Crash
                good = StoreFaults(rng=self.store.faults.rng)
                good.away = self.store.faults.away
                self.store.faults = self.nature.faults = good
                if self.rng.random() < 0.5:
                    self.machine.drive.faults.troubles, self.machine.drive.faults.fsync_eio = [], 0.0
            nursery.cancel_scope.cancel()

    def _fair_since(self) -> float:
        """Now, when there is or just was trouble."""
        slow = self.fired or not self.store.faults.healthy or self.incarnation.frozen_until > trio.current_time()
        return math.inf if slow else self.nature.fair_since

    def _operations(self) -> int:
        return self.events.count // 2

    async def work(self, count: int) -> None:
        history = self.history
        if not self.clients:
            self.clients = [Busy(self.node, log, Model(log.root, log.moments[-1].nodes, history.spent),
                                 random.Random(self.rng.getrandbits(64)), self, index=index) for index, log in enumerate(history.logs)]
        async with trio.open_nursery() as nursery:
            for client in self.clients:
                nursery.start_soon(client.run, max(0, count // len(self.clients)))

    async def look(self, where: str, root: int, floors: list[int]) -> tuple[Nodes, Any]:
        """I1, I3, I10: the state is one that may be."""
        with self.calm():
            tree = await self._scan(root)
            verdict = judge(tree, self.history.logs, floors, where=where)
            problems = [] if self.node.ended else await self.node.audit()
            if not problems and not self.node.ended and not self.clients and (left := await self.node.orphans()):
                problems = [f"{left} inodes without a name were left by the crash"]
        if problems:
            raise Finding(f"I10, {where}: " + "; ".join(problems[:5]))
        return tree, verdict

    async def _scan(self, root: int) -> Nodes:
        """Once more when the machine was stopped, or the store away, while it was looked at: a read may fail then. On a line where one
        transfer takes as long as a reader waits, and some fail, more than once."""
        tries = 0
        while True:
            tries += 1
            began_s = trio.current_time()
            try:
                return await scan(self.node.vfs, root)
            except DataError:
                hopeless = not self.store.faults.healthy and self.store.faults.is_slow(self.bucket) and tries < SCANS_MAX
                if not self.nature.was_away(began_s) and not hopeless:
                    raise

    # ------------------------------------------------------------ how it ended

    def excuses_end(self, error: BaseException, *, landed: bool) -> bool:
        """Whether a mount may end with this error, or not come to be."""
        found = leaves(error)
        if not all(isinstance(leaf, S3cfsError | OSError) for leaf in found):
            return False                           # of these the command line makes one clear line
        if self.fired or self.rival and (self.node is None or self.deposed):
            return True
        if self.node is not None:
            return False
        bad = not self.store.faults.healthy or self.strained(self.outcome.ended_s)
        return bad and all(isinstance(leaf, StoreError) for leaf in found) or landed
