"""Two machines at one bucket at the same time: one in office, the other asks politely, or takes over.

What must hold: of two that work at once only one's changes come into the history; whatever either was told is in the store (`remote`)
is in it; the taker recovers a state of the first one's history that holds that; the deposed one reads on, and never again
says that something is safe in the store unless it is.
"""
from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from s3cfs.errors import AlreadyMounted, S3cfsError
from s3cfs.history import office

from .check import ClientLog, Finding, covers, recovered
from .crash import Plan
from .faults import DiskFaults
from .history import Ack, History
from .life import Life, leaves
from .runtime import Actor, live_together

if TYPE_CHECKING:
    from .driver import Teller


LATE_S = 25.0         # a deposed writer that is busy notices it so long after its next record was due, at the latest


@dataclass
class Takeover:
    """What the second machine came to."""

    taken_s: float = math.inf             # virtual time at which its mount was there
    began_s: float = math.inf             # ... at which that mount began
    history: History | None = None        # the first one's, as it goes on here
    cut: list[int] = field(default_factory=list)
    instead: History | None = None        # with what the second one had left behind itself: the first one had sent nothing
    refused: int = 0
    way: office.Takeover = office.Takeover.NO
    first_was_idle: bool = False          # it had signed off
    settled: bool = False                 # it is in office, or will not be


class Duo:
    def __init__(self, teller: Teller, number: int) -> None:
        self.teller, self.rng = teller, random.Random(teller.rng.getrandbits(64))
        self.first_machine, self.second_machine = teller.machine, teller.other
        self.history = teller.history
        self.name = f"life {number}"
        self.first = teller.new_life(f"{self.name}a", self.first_machine, self.history, alone=False)
        self.second = teller.new_life(f"{self.name}b", self.second_machine, self.history, alone=False)
        if self.rng.random() < 0.8:
            self.first.again = self._bouts()
        if self.rng.random() < 0.5:
            self.first.incarnation.plan = Plan()
        self.second.nature.turned_back = True      # its clock is not the first one's
        self.known = trio.Event()             # the first one's state has been judged, or it never will be
        self.takeover = Takeover()

    # ------------------------------------------------------------ the two

    def _bouts(self) -> Iterator[tuple[float, int]]:
        """What the first one does: it works now and then until the other one is in office or has given up, and goes on."""
        rng = self.rng
        for _ in range(8):
            if not self.takeover.settled:
                yield math.exp(rng.uniform(0.0, 5.0)), rng.randint(2, 25)
        for _ in range(rng.randint(1, 3)):
            yield math.exp(rng.uniform(-1.0, 4.5)), rng.randint(3, 20)

    async def _first(self, count: int, kill: bool) -> None:
        teller, life = self.teller, self.first
        who = self.first_machine.process(life.incarnation)

        async def verify(life: Life) -> None:
            if self.history.unverified:
                await teller.verify(life, f"recovered in {self.name}a")
            self.known.set()

        try:
            await life.main(lambda: teller.assembly.mount(life.doors, life.store, teller.settings, who), count, kill=kill, verify=verify)
        finally:
            self.known.set()

    async def _second_or_not(self, count: int, kill: bool) -> None:
        try:
            await self._second(count, kill)
        finally:
            self.takeover.settled = True

    async def _second(self, count: int, kill: bool) -> None:
        life, rng = self.second, self.rng
        await self.known.wait()
        if self.history.unverified:
            return
        await trio.sleep(math.exp(rng.uniform(-1.0, 4.8)))
        for _ in range(rng.randint(1, 4)):
            self.takeover.way = rng.choices([office.Takeover.NO, office.Takeover.IDLE, office.Takeover.YES], weights=[5, 2, 3])[0]
            self.takeover.began_s = trio.current_time()
            try:
                await self._mount_second(count, kill)
                return
            except* AlreadyMounted:
                if life.node is not None:
                    raise
                self.takeover.refused += 1
            await trio.sleep(math.exp(rng.uniform(0.0, 5.0)))

    async def _mount_second(self, count: int, kill: bool) -> None:
        teller, life, takeover = self.teller, self.second, self.takeover
        self.first.rival = True
        who = self.second_machine.process(life.incarnation, takeover.way)

        async def verify(life: Life) -> None:
            takeover.settled = True
            takeover.taken_s, takeover.first_was_idle = trio.current_time(), self.first.node is not None and self.first.node.signed_off
            self._may_take()
            await self._look(life)
            self.second_machine.branch = None

        await life.main(lambda: teller.assembly.mount(life.doors, life.store, teller.settings, who), count, kill=kill, verify=verify)

    async def _look(self, life: Life) -> None:
        teller, takeover, where = self.teller, self.takeover, f"taken over in {self.name}b"
        tree, verdict = await teller.look(life, where, self.history.floors_of(remote=True), teller.unjudged)
        history = life.history
        if history is not self.history:
            takeover.instead = history
        teller.story.checks += 1
        teller.story.say(f"  {where}: at {verdict.cut} (of {history.counts()})")
        takeover.cut = verdict.cut
        takeover.history = life.history = history.fork(tree, verdict, trio.current_time())

    def _may_take(self) -> None:
        """A polite taker is never let in beside a writer that lives and is not silent."""
        first, takeover = self.first, self.takeover
        if takeover.way is office.Takeover.YES or (takeover.way is office.Takeover.IDLE and takeover.first_was_idle):
            return
        if first.incarnation.dead or first.node is None or self._first_actor.done or first.node.ended:
            return
        if first.nature.was_away(takeover.began_s - 100.0) or not first.line.healthy or first.line.is_slow(first.bucket):
            return
        if self.teller.families.office and first.node is not None:
            raise Finding(f"I13: {self.second_machine.name} was let in beside a writer that lives (asked at {takeover.began_s:.1f} s)")

    # ------------------------------------------------------------ playing it, and the account

    def play(self) -> None:
        teller, rng, story = self.teller, self.rng, self.teller.story
        before, changes = self.history.events.count, len(teller.bucket.history)
        counts = rng.randint(5, 80), rng.randint(5, 40)
        kills = rng.random() < 0.5, rng.random() < 0.5
        story.say(f"{self.name}, two at once: {self.first_machine.name} dies at {self.first.incarnation.plan}, {self.first.store.faults}; "
                  f"{self.second_machine.name} dies at {self.second.incarnation.plan}, {self.second.store.faults}")
        self._first_actor = Actor(self.first.incarnation, lambda: self._first(counts[0], kills[0]))
        self._second_actor = Actor(self.second.incarnation, lambda: self._second_or_not(counts[1], kills[1]))
        self.first.outcome, self.second.outcome = self._first_actor.outcome, self._second_actor.outcome
        try:
            live_together([self._first_actor, self._second_actor], seed=rng.getrandbits(64), start_s=teller.now_s)
        finally:
            story.operations += (self.history.events.count - before) // 2
            teller.close_life(self.first)
            teller.close_life(self.second)
        teller.now_s = max(self.first.outcome.ended_s, self.second.outcome.ended_s) + rng.choice([0.1, 5.0, 100.0])
        for life in (self.first, self.second):          # what is wrong in either is told before what follows from it
            if life.outcome.error is not None and not all(isinstance(leaf, S3cfsError | OSError) for leaf in leaves(life.outcome.error)):
                raise life.outcome.error
        self._account(changes)

    def _account(self, changes: int) -> None:
        teller, takeover = self.teller, self.takeover
        forked = takeover.history
        teller.story.say(f"  takeover: {takeover.way}, refused {takeover.refused} times, "
                         f"{'took over' if forked else 'not in office'}")
        teller.account(self.first, landed=True)
        if forked is None:
            if not isinstance(self.second.outcome.error, type(None)):
                teller.account(self.second, landed=True)
            for machine in teller.machines:
                machine.drive.faults = DiskFaults()
            if self.second.node is not None:                  # in office, and dead before it was looked at: it began nothing
                self.first_machine.stale = True
            teller.may_have_put(self.second_machine)          # but what it had left behind may have gone into the log
            self.second_machine.stale = self.second_machine.unsent = True      # it may have begun to tidy up: orphans, say
            teller.check_bucket()
            teller.aftermath(self.first, changes)
            return
        self._one_history(forked)
        teller.leave_behind(self.first_machine, self.history)
        self.first_machine.unsent = True
        self.second_machine.stale = False
        teller.history, teller.machine = forked, self.second_machine
        teller.account(self.second, landed=True)
        for machine in teller.machines:
            machine.drive.faults = DiskFaults()
        teller.check_bucket()
        if self.rng.random() < 0.5:
            self.first_machine.power_cut(self.rng)
        teller.aftermath(self.second, len(teller.bucket.history))

    def _one_history(self, forked: History) -> None:
        """What the first one said is in the store is in the second one's history, whenever it said so."""
        if self.takeover.instead is not None:
            if not self.takeover.instead.may_go_on_instead_of(self.history):
                raise Finding(f"F1: {self.second_machine.name} went on with its own, though {self.first_machine.name} had said "
                              "that changes are in the store")
            return
        self._no_late_promise()
        for ack in self.history.acks:
            if not ack.remote:
                continue
            for log, cut, floor in self._missing(ack):
                raise Finding(
                    f"F1: {self.first_machine.name} said at {ack.at_s:.1f} s by {ack.what} that operation {floor} "
                    f"({log.moments[floor].what}) of folder {log.root} is in the store; {self.second_machine.name} took over at {cut} "
                    f"({self.takeover.taken_s:.1f} s)")

    def _missing(self, ack: Ack) -> list[tuple[ClientLog, int, int]]:
        """What was promised and not found by the second one: log, where that fitted, what was promised."""
        forked = self.takeover.history
        assert forked is not None
        return [(log, cut, floor)
                for log, other, cut, floor in zip(self.history.logs, forked.logs, self.takeover.cut, ack.floors, strict=True)
                if not covers(recovered(other, cut), log, cut, floor)]

    def _no_late_promise(self) -> None:
        """A writer that had signed off asks before it says that something is safe; one that had not hears of it by its next record."""
        first, takeover = self.first, self.takeover
        if not first.line.healthy or first.strained(takeover.taken_s) or first.node is None:
            return
        until_s = takeover.taken_s + (3.0 if takeover.first_was_idle else first.node.promises_s + LATE_S)
        for ack in self.history.acks:
            if ack.at_s > until_s and self._missing(ack):
                raise Finding(
                    f"I13: {self.first_machine.name} said by {ack.what} at {ack.at_s:.1f} s that changes are safe, though "
                    f"{self.second_machine.name} was in office at {takeover.taken_s:.1f} s, and nothing of them is in the history")


def play(teller: Teller, number: int) -> None:
    teller.story.lives += 2
    teller.story.duos += 1
    teller.story.last_trace = []
    Duo(teller, number).play()


