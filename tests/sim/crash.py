"""One life of one process, and its end.

Everything a node touches (disk, store, threads, clock) asks its `Incarnation` first. At a *point* the incarnation may die:
`Crash` is raised there, the run is cancelled, and from then on every door raises `Crash` again, whatever handlers and
`finally` blocks do while they unwind: nothing that is done after the death reaches the disk or the store.
"""
from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

#: kinds of points, and how many of them a plan looks ahead at most (a run of the driver passes about that many)
KINDS = {"sync": 60, "write": 600, "store": 80, "hop": 120, "await": 1500}


class Crash(BaseException):
    """The process is dead. Not an Exception: nothing but the runtime may handle it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Die at the `after`-th point of `kind` ("any": of all points but awaits), or never (kind "").

    `working`: points are counted from the moment the node is mounted; else from the start, so that recovery is hit, too.
    """

    kind: str = ""
    after: int = 0
    working: bool = False

    @classmethod
    def draw(cls, rng: random.Random, scale: float = 1.0) -> Plan:
        """Near and far points are drawn alike: the logarithm is uniform."""
        kind = rng.choices(list(KINDS), weights=[4, 2, 4, 2, 2])[0]
        return cls(kind, int(math.exp(rng.uniform(0.0, math.log(max(2.0, KINDS[kind] * scale))))), rng.random() < 0.7)

    def __str__(self) -> str:
        return f"{self.kind}:{self.after}{':working' if self.working else ''}" if self.kind else "never"

    @classmethod
    def parse(cls, text: str) -> Plan:
        kind, *rest = text.split(":")
        return cls() if kind == "never" else cls(kind, int(rest[0]), len(rest) > 1)


class Incarnation:
    """A life: counts points, dies according to its plan, and keeps the last of what it did for the report."""

    def __init__(self, name: str, plan: Plan | None = None, *, trace_length: int = 400) -> None:
        self.name = name
        self.plan = plan or Plan()
        self.dead = False
        self.died_at = ""
        self.counts: Counter[str] = Counter()
        self.trace: deque[tuple[int, str, str]] = deque(maxlen=trace_length)
        self.scope: trio.CancelScope | None = None
        self.endless = False                  # it ran in circles
        self.untroubled = False               # its store answers at once: no thread has to wait, all functions happen in one moment
        self.frozen_until = -math.inf         # virtual time: until then its threads and sleeps do not go on (`thawed`)
        self.pause: Callable[[str], None] = lambda kind: None      # how a thread gives way; see `threads`
        self._points = 0
        self._base: Counter[str] = Counter()

    def working(self) -> None:
        """The node is mounted: a plan that counts from here begins to."""
        if self.plan.working:
            self._base = Counter(self.counts)
            self._base["any"] = self._points
            self.plan = replace(self.plan, working=False)

    async def thawed(self) -> None:
        """Wait as long as this process is stopped (SIGSTOP, a suspended machine) while others go on."""
        while not self.dead and (seconds := self.frozen_until - trio.current_time()) > 0:  # noqa: ASYNC110
            await trio.sleep(seconds)

    def alive(self) -> None:
        if self.dead:
            raise Crash(self.died_at)

    def point(self, kind: str, what: str = "") -> None:
        """A moment at which the machine may stop."""
        self.pause(kind)
        if self.dead:
            raise Crash(self.died_at)
        self._points += 1
        self.counts[kind] += 1
        self.trace.append((self._points, kind, what))
        if self._due(kind):
            self.kill(f"{kind}:{self.counts[kind]} {what}")
            raise Crash(self.died_at)

    def note(self, kind: str, what: str) -> None:
        """Something for the report; nobody dies of it."""
        self.trace.append((self._points, kind, what))

    def step(self) -> None:
        """Between two steps of the event loop; called by the runtime, must not raise."""
        if self.dead:
            return
        self.counts["await"] += 1
        if self._due("await"):
            self.kill(f"await:{self.counts['await']}")

    def _due(self, kind: str) -> bool:
        plan = self.plan
        if plan.working:
            return False
        if plan.kind == kind:
            return self.counts[kind] - self._base[kind] == plan.after
        return plan.kind == "any" and kind != "await" and self._points - self._base["any"] == plan.after

    def kill(self, where: str = "killed") -> None:
        """The end, from outside or from within."""
        if self.dead:
            return
        self.dead = True
        self.died_at = where
        self.trace.append((self._points, "death", where))
        if self.scope is not None:
            self.scope.cancel()
