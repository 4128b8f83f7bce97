"""One seed, one story: a filesystem is made, lives, dies anywhere, is recovered and judged, and lives on.

A story has a few lives. In each, clients work until the plan kills the process (or it unmounts, or is killed at the end). Then it
is decided what else is lost: nothing more (the process died), what was not synced (the machine died), or the whole disk (the
machine is gone); or another machine goes on. The next life recovers from what is left, and must be in a state that is allowed.
Beside that, copies of the store as it was at two moments of the life are mounted on empty machines: each must be a complete state,
too (I4). In a third of the stories two machines are at it at once (`duo`).
"""
from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from s3cfs.errors import AlreadyMounted, Diverged

from . import duo
from .assembly import Assembly
from .check import ClientLog, Finding, Moment, Verdict, below
from .client import Client
from .crash import Crash, Incarnation, Plan
from .disk import SimDrive
from .doors import detach, make_doors
from .faults import DiskFaults
from .history import Events, History
from .life import Life, leaves
from .machines import Machine, Who
from .model import Model, Nodes
from .nature import Families
from .runtime import Outcome, live
from .scan import scan
from .store import Bucket, SimStore, StoreFaults

T = TypeVar("T")

LAG_LOCAL_S = 20.0            # what ended longer ago than this survives the death of process or machine (I5; 1 s plus slow disks)
LAG_REMOTE_S = 200.0          # ... and the loss of the machine, if the store answered all the time
LIVES_MAX = 3


@dataclass
class Story:
    """Everything about one seed; `text` is what a person reads after a failure."""

    seed: int
    assembly: Assembly
    plans: list[Plan] | None = None                # instead of those drawn
    families: Families = Families()
    lines: list[str] = field(default_factory=list)
    lives: int = 0
    crashes: int = 0
    checks: int = 0
    operations: int = 0
    duos: int = 0
    faults: int = 0
    finding: BaseException | None = None
    last_trace: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    @property
    def text(self) -> str:
        tail = [*self.last_trace[-25:], *self.lines]
        reasons = [str(leaf) for leaf in leaves(self.finding)] if self.finding else []
        return "\n".join([f"seed {self.seed}: {type(self.finding).__name__ if self.finding else 'well'}", *tail, *reasons])


class Teller:
    """Plays one story."""

    def __init__(self, story: Story) -> None:
        self.story, self.assembly, self.families = story, story.assembly, story.families
        self.rng = random.Random(story.seed)
        self.bucket = Bucket.draw(self.rng, story.seed)
        self.machines = [Machine.draw(name, self.rng) for name in ("alpha", "beta")]
        self.two = self.rng.random() < self.families.two
        self.machine = self.machines[0]
        self.now_s = 1.0
        self.history = History(Events(), {}, [])
        self.settings: Any = None
        self.drawn = 0
        self.doubtful = False                      # an fsync failed, and the machine went on
        self.unjudged: History | None = None       # what the other machine had left behind, and may have put without being looked at since
        self.newest_ns = 0                         # the latest moment that any clock has shown

    def tell(self) -> None:
        self.settings = self.assembly.settings(self.rng)
        self._make()
        lives = self.rng.randint(1, LIVES_MAX)
        together = self.rng.randrange(lives) if self.two else -1
        number = 0
        while number < lives:
            if number == together:
                duo.play(self, number)
            else:
                self._life(number)
            number += 1
            if self.doubtful and number == lives < LIVES_MAX + 2:
                lives += 2                         # what a failed fsync left in memory is lost one life later
        self._last_judgement()

    @property
    def other(self) -> Machine:
        return self.machines[1] if self.machine is self.machines[0] else self.machines[0]

    # ------------------------------------------------------------ lives

    def begin(self, name: str, plan: Plan, drive: SimDrive, bucket: Bucket, faults: StoreFaults) -> tuple[Incarnation, Any, SimStore]:
        incarnation = Incarnation(name, plan)
        return incarnation, make_doors(incarnation, drive, self.rng.getrandbits(64)), SimStore(incarnation, bucket, faults)

    def ended(self, incarnation: Incarnation, doors: Any) -> None:
        detach(doors.disk)
        self.story.last_trace += [f"    {incarnation.name}: {number} {kind} {what}" for number, kind, what in list(incarnation.trace)[-25:]]

    def _run(self, name: str, drive: SimDrive, bucket: Bucket, faults: StoreFaults,
             main: Callable[[Incarnation, Any, SimStore], Awaitable[T]]) -> Outcome[T]:
        """A life without trouble of its own."""
        incarnation, doors, store = self.begin(name, Plan(), drive, bucket, faults)
        incarnation.untroubled = True
        self.story.last_trace = []
        try:
            outcome = live(incarnation, lambda: main(incarnation, doors, store), seed=self.rng.getrandbits(64), start_s=self.now_s)
        finally:
            self.ended(incarnation, doors)
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def _make(self) -> None:
        async def main(incarnation: Incarnation, doors: Any, store: SimStore) -> None:
            doors.clock.wall_offset_ns = self.machine.wall_offset_ns
            age = random.Random(f"age {self.story.seed}")
            await self.assembly.mkfs(doors, store, age if self.families.age and age.random() < 0.5 else None)
            async with self.assembly.mount(doors, store, self.settings, self.machine.process(incarnation)) as node:
                top = await scan(node.vfs, self.assembly.root)
                roots = [self.assembly.root]
                if self.rng.random() < 0.4:
                    helper = _lone_client(node, self.assembly.root, top)
                    for index in range(self.rng.randint(2, 3)):
                        await helper.do("mkdir", self.assembly.root, b"client%d" % index, 0o755)
                    roots = sorted(helper.model.nodes[self.assembly.root].entries.values())
                self.history = History(Events(), await scan(node.vfs, self.assembly.root), roots)

        outcome = self._run("make", self.machine.drive, self.bucket, StoreFaults(rng=random.Random(1)), main)
        self.now_s = outcome.ended_s + 1.0
        self.newest_ns = self.machine.wall_ns(self.now_s)
        self.check_bucket()

    def plan(self) -> Plan:
        plans = self.story.plans
        plan = Plan.draw(self.rng) if self.rng.random() < 0.8 else Plan()
        if plans is not None:
            plan = plans[self.drawn] if self.drawn < len(plans) else Plan()
        self.drawn += 1
        return plan

    def new_life(self, name: str, machine: Machine, history: History, *, alone: bool = True) -> Life:
        """Drawn, and not begun."""
        incarnation, doors, store = self.begin(name, self.plan(), machine.drive, self.bucket, StoreFaults.draw(self.rng))
        doors.clock.wall_offset_ns = machine.wall_offset_ns
        life = Life(history, machine, incarnation, doors, store, self.bucket, self.families, random.Random(self.rng.getrandbits(64)),
                    alone=alone)
        life.nature.turned_back = machine.wall_ns(self.now_s) < self.newest_ns
        if self.families.disk and not self.doubtful and self.rng.random() < 0.35:
            faults = DiskFaults.draw(self.rng, machine.drive.used_bytes())
            if self.rng.random() < 0.3:
                machine.drive.faults = faults
            else:
                life.coming = faults
            self.story.say(f"  {name} on {machine.name}: {faults}")
        return life

    def close_life(self, life: Life) -> None:
        """Its account: `machine` is as its process left it."""
        story, outcome, faults = self.story, life.outcome, life.machine.drive.faults
        life.machine.wall_offset_ns = life.doors.clock.wall_offset_ns
        self.newest_ns = max(self.newest_ns, life.machine.wall_ns(outcome.ended_s), life.nature.latest_ns)
        self.ended(life.incarnation, life.doors)
        story.faults += faults.fired
        life.had_faults, life.sync_failed = life.fired, faults.sync_failed
        for line in life.nature.told:
            story.say(f"  {life.incarnation.name}: {line}")
        for ack in life.history.acks[-2:]:
            story.say(f"  acknowledged at {ack.at_s:.1f} s: {'remote' if ack.remote else 'local'} {ack.what}, {list(ack.floors)}")
        for log in life.history.logs:
            story.say(f"  folder {log.root}: {len(log.moments) - 1} operations, running {log.running and log.running[0]}")
        how = f"died at {outcome.where}" if outcome.crashed else f"ended: {outcome.error!r:.200}" if outcome.error else "unmounted"
        story.say(f"  {life.incarnation.name} {how} (virtual {outcome.ended_s:.1f} s, {faults.fired} faults)")
        story.crashes += outcome.crashed

    def _life(self, number: int) -> None:
        story, history, machine = self.story, self.history, self.machine
        story.lives += 1
        count, kill, flights = self.rng.randint(5, 80), self.rng.random() < 0.5, len(self.bucket.flights)
        idle_s = LAG_REMOTE_S + 60.0 if number and self.rng.random() < 0.25 else 0.0
        first = len(self.bucket.history)
        story.last_trace = []
        life = self.new_life(f"life {number}", machine, history)
        if idle_s:                                     # nobody does anything: what an earlier life left goes on its way all the same
            count, kill, life.again, life.incarnation.plan = 0, True, [(idle_s, 0)], Plan()
        story.say(f"life {number}: dies at {life.incarnation.plan}, {count} steps for {len(history.logs)} clients on {machine.name}, "
                  f"{self.bucket}, {life.store.faults}")

        async def verify(life: Life) -> None:
            if life.history.unverified:
                await self.verify(life, f"recovered in life {number}")

        before = history.events.count
        who = machine.process(life.incarnation)
        try:
            life.outcome = live(
                life.incarnation, lambda: life.main(lambda: self.assembly.mount(life.doors, life.store, self.settings, who), count,
                                                    kill=kill, verify=verify),
                seed=self.rng.getrandbits(64), start_s=self.now_s)
        finally:
            story.operations += (history.events.count - before) // 2
            self.close_life(life)
        self.now_s = life.outcome.ended_s + self.rng.choice([0.1, 5.0, 100.0])
        self.account(life, landed=len(self.bucket.flights) < flights)
        machine.drive.faults = DiskFaults()
        self.check_bucket()
        self.aftermath(life, first)

    def account(self, life: Life, *, landed: bool = False) -> None:
        """Whether it may have ended so; a clean end is an acknowledgement.

        `landed`: a dead writer's last put arrived while this one listened for signs of life: it is right not to mount."""
        outcome, machine, history = life.outcome, life.machine, life.history
        if outcome.error is not None:
            foreign = machine.stale and machine.unsent and all(isinstance(leaf, Diverged) for leaf in leaves(outcome.error))
            busy = landed and all(isinstance(leaf, AlreadyMounted) for leaf in leaves(outcome.error))
            if not foreign and not life.excuses_end(outcome.error, landed=busy):
                raise outcome.error
            if foreign:
                self.story.say("  what it had not sent is in no history; its owner removes the folder")
                machine.lose_disk()
                history.floors = list(map(min, history.floors, history.floors_of(remote=True)))
        elif not outcome.crashed:
            if life.node.ended and not self.families.endings:
                outcome.crashed = True
                return
            if life.node.failed:
                raise Finding(f"I3: the mount ended without an error, though writing had ended: {life.node.ended}")
            counts = history.counts()
            if not life.deposed:
                history.unmounted()
                counts = history.counts()
            history.acknowledge(True, counts, len(self.bucket.history), "unmount", outcome.ended_s)
        if life.node is not None:
            machine.unsent, machine.stale = outcome.crashed or outcome.error is not None, False

    # ------------------------------------------------------------ after a life

    def aftermath(self, life: Life, first: int) -> None:
        """What else is lost, and where it goes on. `first`: changes of the bucket before."""
        rng, history, machine, outcome = self.rng, self.history, self.machine, life.outcome
        before = list(history.floors) if history.unverified else None
        events, weights = ["process", "machine", "gone", "elsewhere"], [3, 6, 2, 3 if self.two else 0]
        event = rng.choices(events, weights=weights)[0]
        if life.sync_failed and rng.random() < 0.6:
            event = "process"
        elif self.doubtful and rng.random() < 0.6:
            event = "machine"
        self.doubtful = life.sync_failed and event == "process"
        if rng.random() < 0.7:
            self.check_remote(rng.randint(first, len(self.bucket.history)))
            self.check_remote(len(self.bucket.history), self._lagging(life) if before is None else None)
        remote = event in ("gone", "elsewhere")
        history.floors = history.floors_of(remote=remote)
        if before is None and remote:
            history.floors = self._lagging(life)
        elif before is None and outcome.crashed and not life.fired and not life.deposed:
            history.raise_by_lag(history.floors, outcome.ended_s - LAG_LOCAL_S, life.nature.fair_since)
        if before is not None:                     # this life did not get as far as to recover
            history.floors = list(map(min, before, history.floors))
        history.unverified = True
        style = machine.power_cut(rng) if event == "machine" or (event == "elsewhere" and rng.random() < 0.5) else ""
        if event == "gone":
            machine.lose_disk(sent=True)
        elif event == "elsewhere":
            if before is not None:
                self.may_have_put(machine)
            self.leave_behind(machine, history)
            self.history, self.machine = history.copy(), self.other
        self.story.say({"process": "  the process dies", "machine": f"  the machine dies, of what was not synced survives: {style}",
                        "gone": "  the machine is gone", "elsewhere": f"  {self.machine.name} goes on {style}"}[event])

    def _lagging(self, life: Life) -> list[int]:
        """What must be in the store by now: what was acknowledged as that, and what is old enough (I5)."""
        floors = life.history.floors_of(remote=True)
        if life.outcome.crashed and not life.fired and not life.deposed and life.line.healthy and not life.strained(0.0):
            life.history.raise_by_lag(floors, life.outcome.ended_s - LAG_REMOTE_S, life.nature.fair_since)
        return floors

    def leave_behind(self, machine: Machine, history: History) -> None:
        """Another machine takes office. Should that one leave no change of its own in the store, what was left here goes on."""
        if machine.branch is None:                     # else it did not get as far as to look: what was left before is here still
            machine.branch = history.left_with(history.floors_of(remote=False))
        machine.stale = True

    def may_have_put(self, machine: Machine) -> None:
        """It was there, and nobody saw whether what it had left behind went into the log."""
        if machine.branch is not None:
            self.unjudged = machine.branch.left_with(machine.branch.floors_of(remote=True))

    async def look(self, life: Life, where: str, floors: list[int], unjudged: History | None = None) -> tuple[Nodes, Verdict]:
        """Judged by the life's history, else by what its machine (or the other, `unjudged`) had left behind, where that may go on instead:
        by `life.history` then."""
        chosen = life.history
        try:
            return await life.look(where, self.assembly.root, floors)
        except Finding:
            for branch in (life.machine.branch, unjudged):
                if branch is not None and branch.may_go_on_instead_of(chosen):
                    life.history = branch
                    with contextlib.suppress(Finding):
                        return await life.look(f"{where}, with what had been left behind", self.assembly.root, branch.floors)
            life.history = chosen
            raise

    async def verify(self, life: Life, where: str) -> None:
        """I1, I3, I10: the state is one that may be. From here on it is the beginning of the history."""
        tree, verdict = await self.look(life, where, life.history.floors, self.unjudged)
        life.machine.branch = self.unjudged = None
        history = self.history = life.history
        self.story.checks += 1
        self.story.say(f"  {where}: at {verdict.cut} (of {history.counts()}, at least {history.floors})")
        history.go_on(tree, verdict, self.now_s)

    def check_remote(self, moment: int, floors: list[int] | None = None) -> None:
        """I4: the store as it was then is a complete state, holding what was acknowledged as remote until then (or `floors`)."""
        chosen = self.history
        where = f"from the store alone, after {moment} of its {len(self.bucket.history)} changes"
        floors = floors or chosen.floors_of(remote=True, moment=moment)
        bucket, reader, left = self.bucket.at(moment), Machine("reader"), self.machine.branch
        if left is not None:                           # the last life did not get as far as to say whose changes these are
            reader.branch = left.left_with(left.floors_of(remote=True, moment=moment))
        unjudged = self.unjudged and self.unjudged.left_with(self.unjudged.floors_of(remote=True, moment=moment))

        async def main(incarnation: Incarnation, doors: Any, store: SimStore) -> None:
            life = Life(chosen, reader, incarnation, doors, store, bucket, self.families, random.Random(0))
            async with self.assembly.mount(doors, store, self.settings, Who()) as life.node:
                _, verdict = await self.look(life, where, floors, unjudged)
                self.story.say(f"  {where}: at {verdict.cut} (at least {floors})")
                incarnation.kill("seen enough")
                raise Crash

        self._run("reader", SimDrive(), bucket, StoreFaults(rng=random.Random(self.rng.getrandbits(64))), main)
        self.story.checks += 1

    def _last_judgement(self) -> None:
        """Recover once more without any trouble, judge, and unmount; then the store alone must hold exactly that."""
        while self.bucket.flights:
            self.bucket.land(0)
        machine, history = self.machine, self.history

        async def main(incarnation: Incarnation, doors: Any, store: SimStore) -> None:
            life = Life(history, machine, incarnation, doors, store, self.bucket, self.families, random.Random(0))
            async with self.assembly.mount(doors, store, self.settings, machine.process(incarnation)) as life.node:
                await self.verify(life, "recovered at the end")

        try:
            outcome = self._run("end", machine.drive, self.bucket, StoreFaults(rng=random.Random(2)), main)
        except Diverged:
            if not (machine.stale and machine.unsent):
                raise
            self.machine.lose_disk()
            history.floors = history.floors_of(remote=True)
            outcome = self._run("end", machine.drive, self.bucket, StoreFaults(rng=random.Random(2)), main)
        self.now_s = outcome.ended_s + 1.0
        self.check_bucket()
        self.check_remote(len(self.bucket.history))

    def check_bucket(self) -> None:
        if self.bucket.violations:
            raise Finding(self.bucket.violations[0])


class Anywhere:
    """`client.Site` of somebody who is not judged."""

    def __init__(self) -> None:
        self.events = Events()
        self.clock_turned_back = False

    def counts(self) -> list[int]:
        return [0]

    def acknowledge(self, remote: bool, floors: list[int], what: str) -> None:
        pass

    def alive(self) -> None:
        pass

    def judge_time(self, operation: str, what: str, began_s: float) -> None:
        pass

    def die(self) -> None:
        pass                                       # not here

    def excuses(self, error: Exception, since_s: float) -> bool:
        return False

    def calm(self) -> Any:
        raise NotImplementedError


def _lone_client(node: Any, root: int, tree: Nodes) -> Client:
    log = ClientLog(root, [Moment(below(tree, root), "the beginning", 0, 0, 0.0)])
    return Client(node, log, Model(root, tree), random.Random(0), Anywhere())
