"""One seed, one story: a filesystem is made, lives, dies anywhere, is recovered and judged, and lives on.

A story has a few lives. In each, clients work until the plan kills the process (or it unmounts, or is killed at the end). Then it
is decided what else is lost: nothing more (the process died), what was not synced (the machine died), or the whole disk (the
machine is gone). The next life recovers from what is left, and must be in a state that is allowed. Beside that, copies of the
store as it was at two moments of the life are mounted on empty machines: each must be a complete state, too (I4).
"""
from __future__ import annotations

import contextlib
import gc
import logging
import math
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import trio

from s3cfs.errors import AlreadyMounted, StoreError

from .assembly import Assembly
from .check import ClientLog, Finding, Moment, Verdict, below, judge
from .client import Ack, Client, Events
from .crash import Crash, Incarnation, Plan
from .disk import SimDrive
from .doors import detach, make_doors
from .model import Model, Nodes
from .runtime import Outcome, Stuck, live
from .scan import scan
from .store import Bucket, SimStore, StoreFaults

T = TypeVar("T")

LAG_LOCAL_S = 20.0            # what ended longer ago than this survives the death of process or machine (I5; 1 s plus slow disks)
LAG_REMOTE_S = 200.0          # ... and the loss of the machine, if the store answered all the time
LIVES_MAX = 3
REAL_MAX_S = 30


@dataclass
class Story:
    """Everything about one seed; `text` is what a person reads after a failure."""

    seed: int
    assembly: Assembly
    plans: list[Plan] | None = None                # instead of those drawn
    lines: list[str] = field(default_factory=list)
    lives: int = 0
    crashes: int = 0
    checks: int = 0
    operations: int = 0
    finding: BaseException | None = None
    last_trace: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    @property
    def text(self) -> str:
        tail = [*self.last_trace[-25:], *self.lines]
        return "\n".join([f"seed {self.seed}: {type(self.finding).__name__ if self.finding else 'well'}", *tail, str(self.finding or "")])


class Teller:
    """Plays one story."""

    def __init__(self, story: Story) -> None:
        self.story, self.assembly = story, story.assembly
        self.rng = random.Random(story.seed)
        self.drive = SimDrive()
        self.bucket = Bucket(create_only=self.rng.random() < 0.7)
        self.now_s = 1.0
        self.events = Events()
        self.logs: list[ClientLog] = []
        self.acks: list[Ack] = []
        self.spent: set[int] = set()
        self.unverified = False                    # the state recovered has not been judged yet
        self.floors: list[int] = []                # what it must hold
        self.settings: Any = None
        self.moments: list[int] = []               # changes of the bucket at the start of each life
        self.drawn = 0
        self.mounted_s = math.inf                  # virtual time at which the newest life had mounted

    def tell(self) -> None:
        self.settings = self.assembly.settings(self.rng)
        self._make()
        for number in range(self.rng.randint(1, LIVES_MAX)):
            self._life(number)
        self._last_judgement()

    # ------------------------------------------------------------ lives

    def _run(self, name: str, plan: Plan, drive: SimDrive, bucket: Bucket, faults: StoreFaults,
             main: Callable[[Incarnation, Any, SimStore], Awaitable[T]],
             excused: Callable[[BaseException], bool] = lambda error: False) -> Outcome[T]:
        incarnation = Incarnation(name, plan)
        doors = make_doors(incarnation, drive, self.rng.getrandbits(64))
        store = SimStore(incarnation, bucket, faults)
        try:
            outcome = live(incarnation, lambda: main(incarnation, doors, store), seed=self.rng.getrandbits(64), start_s=self.now_s)
        finally:
            detach(doors.disk)  # type: ignore[arg-type]
        self.story.last_trace = [f"    {number} {kind} {what}" for number, kind, what in incarnation.trace]
        if outcome.error is not None and not excused(outcome.error):
            raise outcome.error
        return outcome

    def _make(self) -> None:
        async def main(incarnation: Incarnation, doors: Any, store: SimStore) -> None:
            await self.assembly.mkfs(doors, store)
            async with self.assembly.mount(doors, store, self.settings) as node:
                top = await scan(node.vfs, self.assembly.root)
                roots = [self.assembly.root]
                if self.rng.random() < 0.4:
                    helper = _lone_client(node, self.assembly.root, top)
                    for index in range(self.rng.randint(2, 3)):
                        await helper.do("mkdir", self.assembly.root, b"client%d" % index, 0o755)
                    roots = sorted(helper.model.nodes[self.assembly.root].entries.values())
                self._begin(await scan(node.vfs, self.assembly.root), roots)

        outcome = self._run("make", Plan(), self.drive, self.bucket, StoreFaults(rng=random.Random(1)), main)
        self.now_s = outcome.ended_s + 1.0
        self._check_bucket()

    def _begin(self, tree: Nodes, roots: list[int]) -> None:
        self.logs = [ClientLog(root, [Moment(below(tree, root), "the beginning", 0, 0, 0.0)]) for root in roots]
        self.floors = [0] * len(roots)
        self.spent = set(tree)

    def _go_on(self, tree: Nodes, verdict: Verdict) -> None:
        """What came after the state that was recovered never happened. What came before may still come back: the recovered
        state itself need not be synced, nor in the store."""
        for log, k in zip(self.logs, verdict.cut, strict=True):
            event = self.events.next()
            log.moments[k + 1:] = [Moment(below(tree, log.root), "recovered", event, event, self.now_s)]
            log.running = log.model = None
        self.acks = [replace(ack, floors=tuple(map(min, ack.floors, verdict.cut))) for ack in self.acks]
        self.spent = verdict.spent
        self.unverified = False

    def _plan(self) -> Plan:
        plans = self.story.plans
        plan = Plan.draw(self.rng) if self.rng.random() < 0.85 else Plan()
        if plans is not None:
            plan = plans[self.drawn] if self.drawn < len(plans) else Plan()
        self.drawn += 1
        return plan

    def _life(self, number: int) -> None:
        plan, faults = self._plan(), StoreFaults.draw(self.rng)
        count, kill = self.rng.randint(5, 80), self.rng.random() < 0.5
        story = self.story
        story.lives += 1
        self.moments.append(len(self.bucket.history))
        healthy = not any((faults.temporary, faults.lost_reply, faults.late, faults.corrupt))
        story.say(f"life {number}: dies at {plan}, {count} steps for {len(self.logs)} clients, tier {1 if self.bucket.create_only else 2}, "
                  f"{'good' if healthy else 'bad'} line")

        mounted = False
        self.mounted_s = math.inf

        async def main(incarnation: Incarnation, doors: Any, store: SimStore) -> None:
            nonlocal mounted
            async with self.assembly.mount(doors, store, self.settings) as node:
                mounted = True
                self.mounted_s = trio.current_time()
                incarnation.working()
                if self.unverified:
                    await self._verify(node, f"recovered in life {number}")
                await self._work(node, incarnation, count)
                if kill:
                    incarnation.kill("killed at the end")
                    raise Crash
                store.faults = StoreFaults(rng=faults.rng)

        start_s, flights = self.now_s, len(self.bucket.flights)

        def landed() -> bool:
            """A dead writer's last put arrived while the next one listened for signs of life: it is right not to mount."""
            return len(self.bucket.flights) < flights

        outcome = self._run(f"life {number}", plan, self.drive, self.bucket, faults, main, lambda error: not mounted and not healthy
                            and isinstance(error, StoreError)
                            or not mounted and isinstance(error, AlreadyMounted) and landed())
        self.now_s = outcome.ended_s + self.rng.choice([0.1, 5.0, 100.0])
        self._check_bucket()
        for log in self.logs:
            story.say(f"  folder {log.root}: {len(log.moments) - 1} operations, running {log.running and log.running[0]}")
        if outcome.error is not None:
            story.say(f"  could not be mounted: {outcome.error}")
        elif not outcome.crashed:
            story.say("  unmounted")
            for log in self.logs:                # a moment of its own: until it ended, open files were free
                model = Model(log.root, log.moments[-1].nodes)
                model.flush_all()
                began, ended = self.events.next(), self.events.next()
                log.moments.append(Moment(model.nodes, "unmount", began, ended, log.moments[-1].at_s))
            self._acknowledge(True, [len(log.moments) - 1 for log in self.logs], "unmount")
        else:
            story.crashes += 1
            story.say(f"  died at {outcome.where} (virtual {outcome.ended_s - start_s:.1f} s)")
        self._aftermath(outcome, healthy and outcome.crashed)

    async def _work(self, node: Any, incarnation: Incarnation, count: int) -> None:
        clients = []
        for index, log in enumerate(self.logs):
            model = Model(log.root, log.moments[-1].nodes, self.spent)
            clients.append(Client(node, log, model, random.Random(self.rng.getrandbits(64)), self.events, index=index,
                                  floors=lambda: [len(log.moments) - 1 for log in self.logs],
                                  acknowledge=self._acknowledge, alive=incarnation.alive))
        before = self.events.count
        try:
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.run, count // len(clients))
        finally:
            self.story.operations += (self.events.count - before) // 2

    def _acknowledge(self, remote: bool, floors: list[int], what: str) -> None:
        self.acks.append(Ack(remote, tuple(floors), len(self.bucket.history), what))

    def _floors_of(self, remote: bool, moment: int | None = None) -> list[int]:
        """The most that was acknowledged (until the bucket had seen `moment` changes)."""
        chosen = [ack.floors for ack in self.acks if (ack.remote or not remote) and (moment is None or ack.moment <= moment)]
        return [max(numbers) for numbers in zip(*chosen, strict=True)] if chosen else [0] * len(self.logs)

    # ------------------------------------------------------------ after a life

    def _aftermath(self, outcome: Outcome[Any], healthy: bool) -> None:
        rng, died_s, before = self.rng, outcome.ended_s, self.floors if self.unverified else None
        event = rng.choices(["process", "machine", "gone"], weights=[3, 6, 2])[0]
        if rng.random() < 0.7:
            first = self.moments[-1]
            self._check_remote(rng.randint(first, len(self.bucket.history)))
            if event != "gone":
                self._check_remote(len(self.bucket.history))
        if event == "gone":
            self.drive = SimDrive()
            self.floors = self._floors_of(remote=True)
            if healthy and before is None:
                self._raise_by_lag(self.floors, died_s - LAG_REMOTE_S)
            self.story.say("  the machine is gone")
        else:
            self.floors = self._floors_of(remote=False)
            if outcome.crashed and before is None:
                self._raise_by_lag(self.floors, died_s - LAG_LOCAL_S)
            style = self.drive.power_cut(rng) if event == "machine" else ""
            self.story.say(f"  the machine dies, of what was not synced survives: {style}" if style else "  the process dies")
        if before is not None:                     # this life did not get as far as to recover
            self.floors = list(map(min, before, self.floors))
        self.unverified = True

    def _raise_by_lag(self, floors: list[int], seconds: float) -> None:
        """I5. What an earlier life left has only been on its way since this one mounted."""
        if self.mounted_s > seconds:
            return
        for index, log in enumerate(self.logs):
            floors[index] = max(floors[index], log.count_until(seconds))

    async def _verify(self, node: Any, where: str) -> None:
        """I1, I3: the state is one that may be. From here on it is the beginning of the history."""
        tree = await scan(node.vfs, self.assembly.root)
        verdict = judge(tree, self.logs, self.floors, where=where)
        problems = await node.audit()
        if problems:
            raise Finding(f"I10, {where}: " + "; ".join(problems[:5]))
        self.story.checks += 1
        self.story.say(f"  {where}: at {verdict.cut} (of {[len(log.moments) - 1 for log in self.logs]}, at least {self.floors})")
        self._go_on(tree, verdict)

    def _check_remote(self, moment: int) -> None:
        """I4: the store as it was then is a complete state, holding what was acknowledged as remote until then."""
        where = f"from the store alone, after {moment} of its {len(self.bucket.history)} changes"
        floors = self._floors_of(remote=True, moment=moment)

        async def main(incarnation: Incarnation, doors: Any, store: SimStore) -> None:
            async with self.assembly.mount(doors, store, self.settings) as node:
                tree = await scan(node.vfs, self.assembly.root)
                verdict = judge(tree, self.logs, floors, where=where)
                problems = await node.audit()
                if problems:
                    raise Finding(f"I10, {where}: " + "; ".join(problems[:5]))
                self.story.say(f"  {where}: at {verdict.cut} (at least {floors})")
                incarnation.kill("seen enough")
                raise Crash

        self._run("reader", Plan(), SimDrive(), self.bucket.at(moment), StoreFaults(rng=random.Random(self.rng.getrandbits(64))), main)
        self.story.checks += 1

    def _last_judgement(self) -> None:
        """Recover once more without any trouble, judge, and unmount; then the store alone must hold exactly that."""
        async def main(incarnation: Incarnation, doors: Any, store: SimStore) -> None:
            async with self.assembly.mount(doors, store, self.settings) as node:
                await self._verify(node, "recovered at the end")

        while self.bucket.flights:
            self.bucket.land(0)
        outcome = self._run("end", Plan(), self.drive, self.bucket, StoreFaults(rng=random.Random(2)), main)
        self.now_s = outcome.ended_s + 1.0
        self._check_bucket()
        self._check_remote(len(self.bucket.history))

    def _check_bucket(self) -> None:
        if self.bucket.violations:
            raise Finding(self.bucket.violations[0])


def _times(moment: Moment) -> tuple[int, int, float]:
    return moment.began, moment.ended, moment.at_s


def _lone_client(node: Any, root: int, tree: Nodes) -> Client:
    log = ClientLog(root, [Moment(tree, "the beginning", 0, 0, 0.0)])
    return Client(node, log, Model(root, tree), random.Random(0), Events(), floors=lambda: [0],
                  acknowledge=lambda remote, floors, what: None, alive=lambda: None)


@contextlib.contextmanager
def _watchdog() -> Iterator[None]:
    """A loop that never gives way is beyond the counting of steps: the only thing here that looks at the real clock."""
    def bark(number: int, frame: Any) -> None:
        raise Stuck(f"no end after {REAL_MAX_S} real seconds")

    kept = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, REAL_MAX_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


def tell(seed: int, assembly: Assembly, plans: list[Plan] | None = None) -> Story:
    """Run one seed. The story has a `finding` when something was wrong; it never raises for that."""
    story = Story(seed, assembly, plans)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with _watchdog():
            Teller(story).tell()
    except Exception as error:
        story.finding = error
    except BaseExceptionGroup as error:
        if error.split(KeyboardInterrupt)[0] is not None:
            raise
        story.finding = error
    finally:
        logging.disable(level)
    if seed % 16 == 0:
        gc.collect()
    return story
